"""Your own images with a class and, where known, a group: a table and the files that it lists, or folders.

::

    table.csv      filename,split,y,group    filename relative to the folder; split train, val, test (or 0, 1, 2)
    table.json     {"name": ..., "classes": [...], "attributes": [...]}; optional
    images/...

``y`` and ``group`` (also called ``a``) are numbers from 0, whose names ``table.json`` may give, or names, which are
numbered in alphabetical order. ``group`` is the spurious attribute, such as the background; it may be left out.
``metadata.csv`` is read as well. Or, with no table and no groups::

    train/cat/1.jpg    train/dog/2.jpg    val/cat/...    test/dog/...
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anatolab.data.files import inside, read_json, whole
from anatolab.data.labeled import SPLITS, UNGROUPED, LabeledImages, labeled_images, read_csv
from anatolab.types import InputError

COLUMNS = ("filename", "split", "y")
PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
_SPLIT = {**{name: i for i, name in enumerate(SPLITS)}, **{str(i): i for i in range(3)}, "validation": 1, "valid": 1}


def read_table(root: str | Path) -> LabeledImages:
    """Reads the images that ``table.csv`` (or ``metadata.csv``) in a folder lists.

    Args:
        root: The folder.

    Raises:
        InputError: The table, a column or an image is missing, or a value is not allowed.
    """
    root = Path(root)
    path = next((root / name for name in ("table.csv", "metadata.csv") if (root / name).is_file()), root / "table.csv")
    table = read_csv(path, *COLUMNS)
    files, splits = [], []
    for row in table:
        if (split := _SPLIT.get(row["split"].strip().lower())) is None:
            raise InputError(
                f"{path}: the row of {row['filename']} has split {row['split']!r}; write train, val or test (0, 1, 2)."
            )
        files.append(inside(root, row["filename"], path))
        splits.append(split)
    about = read_json(root / "table.json") if (root / "table.json").is_file() else {}
    y, classes = _numbered(path, table, "y", about.get("classes"), "classes")
    grouped = next((name for name in ("a", "group") if table and name in table[0]), None)
    a = [0] * len(table)
    attributes: tuple[str, ...] = UNGROUPED
    if grouped is not None:
        a, attributes = _numbered(path, table, grouped, about.get("attributes"), "attributes")
    rest = {k: v for k, v in about.items() if k not in ("name", "classes", "attributes")}
    values = list(zip(y, a, splits, strict=True))
    return labeled_images(path, str(about.get("name", root.name)), classes, attributes, files, values, rest)


def _numbered(
    path: Path, table: list[dict[str, str]], column: str, names: Any, key: str
) -> tuple[list[int], tuple[str, ...]]:
    """Returns the numbers of a column's values, and the names of these numbers."""
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise InputError(
            f"{path.with_name('table.json')}: {key!r} is not a list of names; write one, or remove the file."
        )
    for row in table:
        if row[column] is None or not row[column].strip():
            raise InputError(f"{path}: the row of {row['filename']} has no {column!r}; write its number or its name.")
    values = [row[column].strip() for row in table]
    numbers = [whole(value) for value in values]
    if all(number is not None for number in numbers):
        count = max([number for number in numbers if number is not None], default=0) + 1
        if names is None and count > len(table):
            raise InputError(
                f"{path}: numbers the {column!r} up to {count - 1} in {len(table)} rows; number the values from 0 "
                "without a gap, or write their names."
            )
        return [int(number or 0) for number in numbers], tuple(names or map(str, range(count)))
    names = names or sorted(set(values))
    if strange := next((value for value in values if value not in names), None):
        row = table[values.index(strange)]
        raise InputError(
            f"{path}: the row of {row['filename']} has {column} {strange!r}, which is not one of "
            f"{', '.join(names)}; write one of these, or numbers in every row."
        )
    return [names.index(value) for value in values], tuple(names)


def is_folders(root: Path) -> bool:
    """Returns whether a folder holds ``train`` with a folder per class."""
    return (root / "train").is_dir() and any(path.is_dir() for path in (root / "train").iterdir())


def read_folders(root: str | Path) -> LabeledImages:
    """Reads images from ``train``, ``val`` and ``test``, each with a folder per class; groups are not known.

    Args:
        root: The folder that holds ``train``.

    Raises:
        InputError: There is no folder of a class, a class has no picture in training, or a split has a class that
            training has not.
    """
    root = Path(root)
    parts = {0: ("train",), 1: ("val", "valid", "validation"), 2: ("test",)}
    pictures = [
        (path, split)
        for split, names in parts.items()
        for name in names
        for path in sorted((root / name).glob("*/**/*"))
        if path.suffix.lower() in PICTURES
    ]
    class_of = [path.relative_to(root).parts[1] for path, _ in pictures]
    classes = sorted({name for name, (_, split) in zip(class_of, pictures, strict=True) if split == 0})
    if not classes:
        raise InputError(f"{root}: train has no folder with pictures; make a folder per class in train, val and test.")
    for name, (path, _) in zip(class_of, pictures, strict=True):
        if name not in classes:
            raise InputError(f"{path}: is of class {name!r}, of which train has no picture; add some, or take it away.")
    values = [(classes.index(name), 0, split) for name, (_, split) in zip(class_of, pictures, strict=True)]
    files = [path for path, _ in pictures]
    return labeled_images(root, root.resolve().name, classes, UNGROUPED, files, values, {})
