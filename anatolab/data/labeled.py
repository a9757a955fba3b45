"""Images with a class and a possibly spurious attribute, for group robustness."""

from __future__ import annotations

import csv
import io
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anatolab.data.files import check_budget, check_file, read_text, unreadable, whole
from anatolab.types import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

SPLITS = ("train", "val", "test")  # numbered 0, 1, 2 as the public tables do
UNGROUPED = ("",)  # the attributes if none is known: every row has the same


@dataclass(frozen=True, eq=False)
class LabeledImages:
    """The images of one data set with class ``y``, attribute ``a`` and split; images are read lazily."""

    name: str  # "Waterbirds"
    classes: tuple[str, ...]  # names of the values of y
    attributes: tuple[str, ...]  # names of the values of a; one that is empty where no attribute is known
    y: np.ndarray  # (n,) int64
    a: np.ndarray  # (n,) int64
    split: np.ndarray  # (n,) int64, an index of SPLITS
    files: tuple[Path, ...] = ()  # one per row; empty where the pixels are in memory
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
    def grouped(self) -> bool:
        """Whether rows of a class differ in an attribute, so that groups are more than classes."""
        return len(self.attributes) > 1

    @property
    def group_names(self) -> tuple[str, ...]:
        """Class and attribute of each group, in the order of their numbers; the classes where no attribute is known."""
        if not self.grouped:
            return self.classes
        return tuple(f"{c}, {a}" for c in self.classes for a in self.attributes)

    @property
    def counts(self) -> np.ndarray:
        """Rows of each group, ``(groups,)`` int64."""
        return np.bincount(self.group, minlength=len(self.classes) * len(self.attributes))

    def of(self, split: str) -> LabeledImages:
        """Returns the rows of one split, in their order.

        Raises:
            InputError: There is no such split, or it has no rows.
        """
        if split not in SPLITS or not (rows := np.flatnonzero(self.split == SPLITS.index(split))).size:
            there = ", ".join(SPLITS[k] for k in np.unique(self.split))
            raise InputError(f"{self.name}: has no rows of the split {split!r}; it has {there}.")
        return self.take(rows)

    def take(self, rows: np.ndarray) -> LabeledImages:
        """Returns some rows, in the order given."""
        cut: dict[str, Any] = {k: getattr(self, k)[rows] for k in ("y", "a", "split")}
        for k in ("pixels", "masks"):
            cut[k] = None if (values := getattr(self, k)) is None else values[rows]
        return replace(self, **cut, files=tuple(self.files[i] for i in rows) if self.files else ())

    def image(self, row: int) -> Image:
        """Reads one image as RGB.

        Raises:
            InputError: Its file is missing or cannot be read.
        """
        from PIL import Image

        if self.pixels is not None:
            return Image.fromarray(self.pixels[row])
        return read_picture(self.files[row])


def read_picture(path: Path) -> Image:
    """Reads a picture as 8-bit RGB.

    Gray values of more than 8 bits are scaled from the minimum to the maximum of the picture, like volumes; otherwise
    12 bits in a 16-bit file would be black. PNG files are verified by their checksums.

    Raises:
        InputError: The file is missing, damaged, not a picture, larger than memory allows, or has non-finite values.
    """
    from PIL import Image

    check_file(path)
    try:
        with Image.open(path) as file:
            check_budget(path, file.size, 4)
            if file.format == "PNG":
                _check_png(path)
        with Image.open(path) as file:
            if not file.mode.startswith(("I", "F")):
                return file.convert("RGB")
            values = np.asarray(file, dtype=np.float64)
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, zlib.error, Image.DecompressionBombError) as error:
        raise unreadable(path, error, "an image") from error
    if not np.isfinite(values).all():
        raise InputError(f"{path}: holds values that are not finite; write the image again.")
    low, high = values.min(), values.max()
    gray = np.rint((values - low) / ((high - low) or 1) * 255).astype(np.uint8)
    return Image.fromarray(gray).convert("RGB")


def _check_png(path: Path) -> None:
    """Verifies the checksums of all chunks of a PNG file; Pillow verifies only those of headers."""
    with path.open("rb") as file:
        file.seek(8)
        name = b""
        while name != b"IEND":
            length, name = int.from_bytes(file.read(4), "big"), file.read(4)
            content = file.read(min(length, path.stat().st_size))
            if zlib.crc32(name + content).to_bytes(4, "big") != file.read(4):
                raise ValueError(f"its chunk {name.decode('latin-1')!r} is damaged or cut short")


def labeled_images(
    table: Path,
    name: str,
    classes: Sequence[str],
    attributes: Sequence[str],
    files: Sequence[Path],
    values: Sequence[tuple[int, ...]],
    provenance: Mapping[str, Any],
) -> LabeledImages:
    """Makes a checked data set from files and their y, a and split.

    Args:
        table: The file that a message names.
        name: Name of the data set.
        classes: Names of the values of y.
        attributes: Names of the values of a.
        files: One per image.
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
            row = int(wrong[0])
            raise InputError(
                f"{table}: {files[row].name} has {what} = {column[row]}, which is not one of 0 to {count - 1}; "
                "correct the row, or restore the published table."
            )
    for what, column_names in (("class", classes), ("attribute", attributes)):
        if len({name.strip().casefold() for name in column_names}) < len(column_names):
            raise InputError(
                f"{table}: two values of the {what} have one name ({', '.join(column_names)}); rename one."
            )
    if not (split == 0).any():
        raise InputError(f"{table}: has no row of the training split (0); restore the published table.")
    if len(set(files)) < len(files):
        twice = next(file for file, count in Counter(files).items() if count > 1)
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
    """Reads the rows of a CSV file with a header line, as text.

    Args:
        path: The file.
        columns: Columns that must be there.

    Raises:
        InputError: The file is missing, empty, no text, lacks a column or names one twice, or has a row that is shorter
            or longer than its header.
    """
    text = read_text(path)
    try:
        if "\ufffd" in text:
            raise csv.Error("not UTF-8")
        reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
        rows = list(reader)
        held = list(reader.fieldnames or ())
    except csv.Error as error:
        raise InputError(f"{path}: is not a CSV table in UTF-8; download or copy it again.") from error
    if absent := [column for column in columns if column not in held]:
        raise InputError(
            f"{path}: has no column {absent[0]!r} (it has: {', '.join(held[:8])}); restore the published table."
        )
    if twice := [column for column in columns if held.count(column) > 1]:
        raise InputError(f"{path}: names the column {twice[0]!r} twice; remove one of the two.")
    for number, row in enumerate(rows, 2):
        if any(row[column] is None for column in columns):
            raise InputError(f"{path}: line {number} is cut short; download or copy the table again.")
        if None in row:  # what csv keeps of fields without a column
            raise InputError(f"{path}: line {number} has more fields than columns; put texts with commas into quotes.")
    return rows


def numbers(path: Path, row: Mapping[str, str], *columns: str) -> tuple[int, ...]:
    """Parses whole numbers of a row of a table, in the order of ``columns``.

    Raises:
        InputError: A value is not a whole number.
    """
    values = []
    for column in columns:
        if (value := whole(row[column])) is None:
            first = next(iter(row.values()))
            raise InputError(
                f"{path}: the row of {first} has {row[column]!r} in column {column!r} where a whole number is "
                "expected; correct it, or restore the published table."
            )
        values.append(value)
    return tuple(values)
