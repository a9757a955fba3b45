"""One file a method, all on the same protocol (:class:`anatolab.types.Method`)."""

from typing import Any

from anatolab.methods.mean_teacher import MeanTeacher
from anatolab.methods.supervised import Supervised
from anatolab.methods.ua_mt import UAMT

METHODS: dict[str, Any] = {"supervised": Supervised, "mean_teacher": MeanTeacher, "ua_mt": UAMT}

__all__ = ["METHODS", "UAMT", "MeanTeacher", "Supervised"]
