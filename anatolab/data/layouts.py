"""Which data set lies in a folder: recognized from what is there, without a flag."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from anatolab.data import acdc
from anatolab.types import Cohort, InputError


class Layout(NamedTuple):
    """One way in which a data set lies on disk."""

    name: str
    looks_like: str  # what a message says was looked for
    recognizes: Callable[[Path], bool]
    read: Callable[[Path], Cohort]


LAYOUTS = (
    Layout("official ACDC", "patient001/Info.cfg", acdc.is_official, acdc.read_official),
    Layout(
        "SSL4MIS ACDC",
        "data/slices/patient001_frame01_slice_1.h5 or data/patient001_frame01.h5",
        acdc.is_ssl4mis,
        acdc.read_ssl4mis,
    ),
)


def open_cohort(path: str | Path) -> Cohort:
    """Open a folder of patients in any layout known; no image is read yet.

    Args:
        path: The folder.

    Returns:
        The cohort, its cases still to be read.

    Raises:
        InputError: There is no such folder, it is empty, has no known layout, or something in it is wrong.

    Example:
        >>> open_cohort("no/such/folder")
        Traceback (most recent call last):
        anatolab.types.InputError: no/such/folder: there is no such folder; check the path.
    """
    root = Path(path).expanduser()
    try:
        if not root.exists():
            raise InputError(f"{root}: there is no such folder; check the path.")
        if not root.is_dir():
            raise InputError(f"{root}: is a file where a folder of patients is due; unpack it, or name its folder.")
        if not any(root.iterdir()):
            raise InputError(f"{root}: this folder is empty; download or copy the data into it.")
        for layout in LAYOUTS:
            if layout.recognizes(root):
                return layout.read(root)
    except OSError as error:
        raise InputError(
            f"{error.filename or root}: cannot be read ({error.strerror or error}); check links and permissions."
        ) from error
    sought = "; ".join(f"{layout.looks_like} ({layout.name})" for layout in LAYOUTS)
    raise InputError(f"{root}: no known layout in this folder, looked for: {sought}; name the folder that holds these.")
