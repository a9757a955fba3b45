"""Images with a class and a second attribute that may give the class away: what group robustness is measured on."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anatolab.data import checks
from anatolab.types import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

SPLITS = ("train", "val", "test")  # numbered 0, 1, 2 as the public tables do


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """The images of one data set with class ``y``, attribute ``a`` and split; an image is read when it is asked for."""

    name: str  # "Waterbirds"
    classes: tuple[str, ...]  # names of the values of y
    attributes: tuple[str, ...]  # names of the values of a
    y: np.ndarray  # (n,) int64
    a: np.ndarray  # (n,) int64
    split: np.ndarray  # (n,) int64, an index of SPLITS
    files: tuple[Path, ...] = ()  # one a row; empty where the pixels are in memory
    pixels: np.ndarray | None = None  # (n, h, w, 3) uint8, of generated images
    masks: np.ndarray | None = None  # (n, h, w) bool, the foreground of generated images
    provenance: dict[str, Any] = field(default_factory=dict)  # license and source, or generator, version and seed

    def __len__(self) -> int:
        return len(self.y)

    @property
    def group(self) -> np.ndarray:
        """Number of each row's group, ``y * len(attributes) + a``, ``(n,)`` int64."""
        return self.y * len(self.attributes) + self.a

    @property
    def group_names(self) -> tuple[str, ...]:
        """Class and attribute of each group, in the order of their numbers."""
        return tuple(f"{c}, {a}" for c in self.classes for a in self.attributes)

    @property
    def counts(self) -> np.ndarray:
        """Rows of each group, ``(groups,)`` int64."""
        return np.bincount(self.group, minlength=len(self.classes) * len(self.attributes))

    def of(self, split: str) -> LabeledImages:
        """The rows of one split, in their order.

        Raises:
            InputError: There is no such split, or it has no rows.
        """
        if split not in SPLITS or not (rows := np.flatnonzero(self.split == SPLITS.index(split))).size:
            there = ", ".join(SPLITS[k] for k in np.unique(self.split))
            raise InputError(f"{self.name}: has no rows of the split {split!r}; it has {there}.")
        return self.take(rows)

    def take(self, rows: np.ndarray) -> LabeledImages:
        """Some rows, in the order given."""
        cut: dict[str, Any] = {k: getattr(self, k)[rows] for k in ("y", "a", "split")}
        for k in ("pixels", "masks"):
            cut[k] = None if (values := getattr(self, k)) is None else values[rows]
        return replace(self, **cut, files=tuple(self.files[i] for i in rows) if self.files else ())

    def image(self, row: int) -> Image:
        """One image, in RGB.

        Raises:
            InputError: Its file is missing or cannot be read.
        """
        from PIL import Image

        if self.pixels is not None:
            return Image.fromarray(self.pixels[row])
        path = self.files[row]
        checks.check_file(path)
        try:
            with Image.open(path) as file:
                return file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = str(error).replace(str(path), "the file") or type(error).__name__
            raise InputError(f"{path}: cannot be read as an image ({reason}); download or copy it again.") from error


def labeled_images(
    table: Path,
    name: str,
    classes: Sequence[str],
    attributes: Sequence[str],
    files: Sequence[Path],
    values: Sequence[tuple[int, ...]],
    provenance: Mapping[str, Any],
) -> LabeledImages:
    """Files and their y, a and split as one data set, checked.

    Args:
        table: The file that a message names.
        name: Of the data set.
        classes: Names of the values of y.
        attributes: Names of the values of a.
        files: One an image.
        values: y, a and split of each.
        provenance: License and source.

    Raises:
        InputError: There are no rows, none of them is for training, a number is out of range, or a file is missing or
            named twice.
    """
    if not files:
        raise InputError(f"{table}: lists no image; restore the published table.")
    y, a, split = np.array(values, dtype=np.int64).reshape(-1, 3).T
    for what, column, count in (("y", y, len(classes)), ("a", a, len(attributes)), ("split", split, len(SPLITS))):
        if (wrong := np.flatnonzero((column < 0) | (column >= count))).size:
            at = int(wrong[0])
            raise InputError(
                f"{table}: {files[at].name} has {what} = {column[at]}, which is not one of 0 to {count - 1}; "
                "correct the row, or restore the published table."
            )
    if not (split == 0).any():
        raise InputError(f"{table}: has no row of the training split (0); restore the published table.")
    if len(set(files)) < len(files):
        twice = next(file for i, file in enumerate(files) if file in files[:i])
        raise InputError(f"{table}: lists {twice.name} twice; remove one of the two rows.")
    if missing := [file for file in files if not file.is_file()]:
        raise InputError(
            f"{missing[0]}: is missing ({len(missing)} of {len(files)} images listed in {table.name}); "
            "copy the images there, or take their rows out of the table."
        )
    return LabeledImages(
        name, tuple(classes), tuple(attributes), y, a, split, tuple(files), provenance=dict(provenance)
    )


def read_csv(path: Path, *columns: str) -> list[dict[str, str]]:
    """The rows of a CSV file with a header line, as text.

    Args:
        path: The file.
        columns: Columns that must be there.

    Raises:
        InputError: The file is missing, empty, no text, lacks a column, or has a row that is shorter than its header.
    """
    checks.check_file(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            rows = list(reader)
            held = list(reader.fieldnames or ())
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a CSV table in UTF-8; download or copy it again.") from error
    if absent := [column for column in columns if column not in held]:
        raise InputError(
            f"{path}: has no column {absent[0]!r} (it has: {', '.join(held[:8])}); restore the published table."
        )
    for number, row in enumerate(rows, 2):
        if any(row[column] is None for column in columns):
            raise InputError(f"{path}: line {number} is cut short; download or copy the table again.")
    return rows


def numbers(path: Path, row: Mapping[str, str], *columns: str) -> tuple[int, ...]:
    """Whole numbers of a row of a table, in the order of the columns asked for.

    Raises:
        InputError: One is none.
    """
    found = []
    for column in columns:
        try:
            value = float(row[column])
            if value != int(value):
                raise ValueError
        except (ValueError, OverflowError):
            first = next(iter(row.values()))
            raise InputError(
                f"{path}: the row of {first} has {row[column]!r} in column {column!r} where a whole number is due; "
                "correct it, or restore the published table."
            ) from None
        found.append(int(value))
    return tuple(found)
