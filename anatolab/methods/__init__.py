"""One file per method, all on the same protocol (:class:`anatolab.types.Method`)."""

from typing import Any

from anatolab.methods.action import Action
from anatolab.methods.actionpp import ActionPP
from anatolab.methods.arco import Arco
from anatolab.methods.base import Base
from anatolab.methods.bcp import Bcp
from anatolab.methods.cps import Cps
from anatolab.methods.fixmatch import FixMatch
from anatolab.methods.mean_teacher import MeanTeacher
from anatolab.methods.mona import Mona
from anatolab.methods.morse import Morse
from anatolab.methods.supervised import Supervised
from anatolab.methods.ua_mt import UAMT
from anatolab.methods.unimatch import UniMatch

# Classes with the protocol Method. Sub-commands of the command line, rows of tables, titles and colors derive from it.
METHODS: dict[str, Any] = {
    "supervised": Supervised,
    "base": Base,
    "mean_teacher": MeanTeacher,
    "ua_mt": UAMT,
    "fixmatch": FixMatch,
    "unimatch": UniMatch,
    "bcp": Bcp,
    "cps": Cps,
    "action": Action,
    "actionpp": ActionPP,
    "mona": Mona,
    "arco": Arco,
    "morse": Morse,
}

__all__ = [
    "METHODS",
    "UAMT",
    "Action",
    "ActionPP",
    "Arco",
    "Base",
    "Bcp",
    "Cps",
    "FixMatch",
    "MeanTeacher",
    "Mona",
    "Morse",
    "Supervised",
    "UniMatch",
]
