"""Recognizes the data set in a folder by its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from anatolab.data import acdc, decathlon, la, lits, mmwhs, synapse
from anatolab.data.formats import cohort_orientation
from anatolab.data.geometry import oriented
from anatolab.types import Cohort, InputError


class Layout(NamedTuple):
    """One layout of a data set on disk."""

    name: str
    looks_like: str  # description for the message of an unknown layout
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
    Layout("UA-MT LA", "2018LA_Seg_Training Set/<id>/mri_norm2.h5", la.is_uamt, la.read_uamt),
    Layout("LA challenge", "<id>/lgemri.nrrd", la.is_challenge, la.read_challenge),
    Layout("LiTS", "volume-0.nii", lits.is_lits, lits.read_lits),
    Layout("MM-WHS", "ct_train_1001_image.nii.gz", mmwhs.is_mmwhs, mmwhs.read_mmwhs),
    Layout("BTCV", "img/img0001.nii.gz", synapse.is_official, synapse.read_official),
    Layout("TransUNet Synapse", "train_npz/case0005_slice000.npz", synapse.is_transunet, synapse.read_transunet),
    Layout("Decathlon or nnU-Net", "dataset.json with imagesTr", decathlon.is_decathlon, decathlon.read_decathlon),
)


def open_cohort(path: str | Path, *, as_stored: bool = False) -> Cohort:
    """Opens a folder of patients in any known layout; reads no image yet.

    Args:
        path: The folder.
        as_stored: Whether to keep each case in the orientation of its file.

    Returns:
        The cohort; its cases are read lazily. Unless ``as_stored``, all have one orientation, see
        :func:`anatolab.data.formats.cohort_orientation`, because a network learns left and right from the array.

    Raises:
        InputError: There is no such folder, it is empty, has no known layout, or has problems; the message names the
            first problem, and ``anatolab check`` lists all.

    Example:
        >>> open_cohort("no/such/folder")
        Traceback (most recent call last):
        anatolab.errors.InputError: no/such/folder: there is no such folder; check the path.
    """
    cohort = survey(path)
    if cohort.problems:
        raise InputError(cohort.problems[0])
    return cohort if as_stored else oriented(cohort, cohort_orientation(cohort))


def survey(path: str | Path) -> Cohort:
    """Returns the cohort of a folder as stored, with all its problems in ``problems``."""
    root = Path(path).expanduser()
    try:
        if not root.exists():
            raise InputError(f"{root}: there is no such folder; check the path.")
        if not root.is_dir():
            raise InputError(
                f"{root}: is a file where a folder of patients is expected; unpack it, or name its folder."
            )
        if not any(root.iterdir()):
            raise InputError(f"{root}: this folder is empty; download or copy the data into it.")
        for layout in LAYOUTS:
            if layout.recognizes(root):
                return _named_apart(layout.read(root))
    except OSError as error:
        raise InputError(
            f"{error.filename or root}: cannot be read ({error.strerror or error}); check links and permissions."
        ) from error
    sought = ", ".join(f"{layout.looks_like} ({layout.name})" for layout in LAYOUTS)
    raise InputError(f"{root}: no known layout in this folder, looked for: {sought}; name the folder that holds these.")


def _named_apart(cohort: Cohort) -> Cohort:
    """Adds a problem to the cohort for each case name that is no text or a duplicate: results are stored by name."""
    first: dict[str, Path] = {}
    twice = tuple(
        f"{ref.source}: its case is named {ref.name}, as is that of {other}; rename one of the two."
        for ref in cohort.refs
        if (other := first.setdefault(ref.name, ref.source)) != ref.source
    )
    foreign = tuple(
        f"{ref.source}: its name is not in UTF-8, as names from old archives are; rename it."
        for ref in cohort.refs
        if any("\ud800" <= letter <= "\udfff" for letter in ref.name)  # how Python holds other bytes
    )
    return replace(cohort, problems=(*(cohort.problems or twice), *foreign))
