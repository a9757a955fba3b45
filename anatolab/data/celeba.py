"""CelebA, faces of celebrities: the class is blond hair, the spurious attribute the label "male".

::

    img_align_celeba/000001.jpg
    list_attr_celeba.csv           image_id, then 40 columns in {-1, 1}
    list_eval_partition.csv        image_id,partition     0, 1, 2 is train, val, test

or, in place of the two tables, ``metadata.csv`` with ``img_filename,y,place,split`` (``place`` 1 is male), as the
released code of DFR writes it.

Reference:
    Liu et al., Deep learning face attributes in the wild, ICCV 2015; groups of Sagawa et al., ICLR 2020.
"""

from __future__ import annotations

from pathlib import Path

from anatolab.data.files import inside
from anatolab.data.labeled import LabeledImages, labeled_images, numbers, read_csv
from anatolab.types import InputError

CLASSES, ATTRIBUTES = ("not blond", "blond"), ("female", "male")
PROVENANCE = {"source": "CelebA, Liu et al., ICCV 2015", "license": "non-commercial research only"}
IMAGES = "img_align_celeba"


def read_celeba(root: str | Path) -> LabeledImages:
    """Reads CelebA with blond hair as class and male as attribute.

    Args:
        root: The folder with the tables and ``img_align_celeba``.

    Raises:
        InputError: A table, a column or an image is missing, an attribute is not -1 or 1, or the two tables list
            different images.
    """
    root = Path(root)
    path = root / "metadata.csv"
    if path.is_file():
        rows = read_csv(path, "img_filename", "y", "place", "split")
        files = [inside(root / IMAGES, row["img_filename"], path) for row in rows]
        values = [numbers(path, row, "y", "place", "split") for row in rows]
        return labeled_images(path, "CelebA", CLASSES, ATTRIBUTES, files, values, PROVENANCE)
    path, other = root / "list_attr_celeba.csv", root / "list_eval_partition.csv"
    split = {row["image_id"]: numbers(other, row, "partition") for row in read_csv(other, "image_id", "partition")}
    files, values = [], []
    for row in read_csv(path, "image_id", "Blond_Hair", "Male"):
        name = row["image_id"]
        signs = numbers(path, row, "Blond_Hair", "Male")
        if not set(signs) <= {-1, 1}:
            raise InputError(f"{path}: the row of {name} has an attribute other than -1 and 1; restore the table.")
        if name not in split:
            raise InputError(f"{other}: has no row for {name}, which {path.name} lists; restore both tables.")
        files.append(inside(root / IMAGES, name, path))
        values.append(((signs[0] + 1) // 2, (signs[1] + 1) // 2, *split.pop(name)))
    if split:
        raise InputError(f"{path}: has no row for {next(iter(split))}, which {other.name} lists; restore both tables.")
    return labeled_images(path, "CelebA", CLASSES, ATTRIBUTES, files, values, PROVENANCE)
