"""Access to the labels of prepared rows."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from anatolab.data import Rows, Volumes
from anatolab.types import UNKNOWN, InputError


def label_of(rows: Rows | Volumes, row: int) -> np.ndarray:
    """Returns the class numbers of a row as stored, uint8 ``(*s)`` with 255 where unknown."""
    return rows.labels[row] if isinstance(rows, Rows) else rows._row(row)[1]


def check_annotated(rows: Rows | Volumes, labeled: Tensor) -> None:
    """Refuses labeled rows without any pixel of known class."""
    if any((label_of(rows, row) != UNKNOWN).any() for row in labeled.tolist()):
        return
    names = ", ".join(dict.fromkeys(rows.names[row] for row in labeled.tolist()))
    raise InputError(f"labels: every pixel of the labeled rows ({names}) is unknown; choose annotated patients.")
