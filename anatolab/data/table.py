"""Anyone's own images with a class and an attribute: one table, ``table.csv`` or ``metadata.csv``, and their files.

::

    table.csv      filename,split,y,a        filename relative to the folder; split train, val, test (or 0, 1, 2)
    table.json     {"name": ..., "classes": [...], "attributes": [...]}; optional, else numbers are the names
    images/...
"""

from __future__ import annotations

from pathlib import Path

from anatolab.data.files import inside, read_json
from anatolab.data.labeled import SPLITS, LabeledImages, labeled_images, numbers, read_csv
from anatolab.types import InputError

COLUMNS = ("filename", "split", "y", "a")
_SPLIT = {**{name: i for i, name in enumerate(SPLITS)}, **{str(i): i for i in range(3)}, "validation": 1, "valid": 1}


def read_table(root: str | Path) -> LabeledImages:
    """Returns the images that ``table.csv`` (or ``metadata.csv``) in a folder lists.

    Args:
        root: The folder.

    Raises:
        InputError: The table, a column or an image is missing, or a value is not allowed.
    """
    root = Path(root)
    path = next((root / name for name in ("table.csv", "metadata.csv") if (root / name).is_file()), root / "table.csv")
    table = read_csv(path, *COLUMNS)
    files, values = [], []
    for row in table:
        if (split := _SPLIT.get(row["split"].strip().lower())) is None:
            raise InputError(
                f"{path}: the row of {row['filename']} has split {row['split']!r}; write train, val or test (0, 1, 2)."
            )
        files.append(inside(root, row["filename"], path))
        values.append((*numbers(path, row, "y", "a"), split))
    about = read_json(root / "table.json") if (root / "table.json").is_file() else {}
    names = {}
    for key, column in (("classes", 0), ("attributes", 1)):
        given = about.get(key, [str(k) for k in range(max((row[column] for row in values), default=0) + 1)])
        if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
            raise InputError(f"{root / 'table.json'}: {key!r} is not a list of names; write one, or remove the file.")
        names[key] = given
    rest = {k: v for k, v in about.items() if k not in ("name", "classes", "attributes")}
    return labeled_images(
        path, str(about.get("name", root.name)), names["classes"], names["attributes"], files, values, rest
    )
