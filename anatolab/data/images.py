"""Recognizes the layout of labeled images in a folder by its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from anatolab.data import celeba, chexpert, metashift, table, waterbirds
from anatolab.data.files import read_text
from anatolab.data.labeled import LabeledImages
from anatolab.types import InputError


class ImageLayout(NamedTuple):
    """One layout of labeled images on disk."""

    name: str
    looks_like: str  # description for the message of an unknown layout
    recognizes: Callable[[Path], bool]
    read: Callable[[Path], LabeledImages]


def _has_place(root: Path) -> bool:
    path = root / "metadata.csv"
    return path.is_file() and "place" in read_text(path).partition("\n")[0].split(",")


def _is_metashift(root: Path) -> bool:
    return any(any(root.glob(f"{above}train/*/*(*)")) for above in ("", f"{metashift.FOLDER}/", "metashift/*/"))


IMAGE_LAYOUTS = (
    ImageLayout("table", "table.csv with filename, split, y", lambda r: (r / "table.csv").is_file(), table.read_table),
    ImageLayout("CelebA", celeba.IMAGES, lambda r: (r / celeba.IMAGES).is_dir(), celeba.read_celeba),
    ImageLayout("CheXpert", chexpert.DEMO, lambda r: (r / chexpert.DEMO).is_file(), chexpert.read_chexpert),
    ImageLayout(
        "Waterbirds",
        "metadata.csv with place",
        lambda r: _has_place(r) or (r / waterbirds.FOLDER).is_dir(),
        waterbirds.read_waterbirds,
    ),
    ImageLayout("MetaShift", "train/cat/cat(indoor)", _is_metashift, metashift.read_metashift),
    ImageLayout("table", "metadata.csv", lambda r: (r / "metadata.csv").is_file(), table.read_table),
    ImageLayout("folders", "train/CLASS/*.jpg", table.is_folders, table.read_folders),
)


def open_images(path: str | Path) -> LabeledImages:
    """Opens a folder of labeled images in any layout known; no image is read yet.

    Args:
        path: The folder.

    Raises:
        InputError: There is no such folder, it has no known layout, or something in it is wrong.

    Example:
        >>> open_images("no/such/folder")
        Traceback (most recent call last):
        anatolab.errors.InputError: no/such/folder: there is no such folder; check the path.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise InputError(f"{root}: there is no such folder; check the path.")
    if not root.is_dir():
        raise InputError(f"{root}: is a file where a folder of images is expected; name the folder that holds it.")
    for layout in IMAGE_LAYOUTS:
        if layout.recognizes(root):
            return layout.read(root)
    sought = ", ".join(f"{layout.looks_like} ({layout.name})" for layout in IMAGE_LAYOUTS)
    raise InputError(f"{root}: has no known layout of labeled images, looked for: {sought}; write a table.csv.")
