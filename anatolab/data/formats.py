"""Reads volumes with geometry, in any supported format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anatolab.data.dicom import dicom_affine, holds_dicom, read_dicom
from anatolab.data.files import ENDINGS, ITK, NIFTI, ending, is_image
from anatolab.data.geometry import Spacing, axes_note, slices_last
from anatolab.data.itk import itk_affine, read_itk
from anatolab.data.nifti import nifti_geometry, read_with_notes
from anatolab.types import Cohort, InputError


def read_volume(path: Path, ndim: int = 3) -> tuple[np.ndarray, np.ndarray, Spacing, tuple[str, ...]]:
    """Reads a volume with its geometry; values, affine, spacing and errors as :func:`anatolab.data.nifti.read_nifti`.

    Args:
        path: A file with one of the endings of :data:`anatolab.data.files.ENDINGS`, or a folder with a DICOM series.
        ndim: 3, or 4 for all channels in one NIfTI file.

    Returns:
        Values, affine and spacing; and notes on ambiguities of the header, a sentence each.
    """
    notes: tuple[str, ...] = ()
    if path.is_dir() and not is_image(path):  # one named as a file is refused as a file
        values, affine, spacing = read_dicom(path)
    elif ending(path) in NIFTI:
        values, affine, spacing, notes = read_with_notes(path, ndim)
    else:
        values, affine, spacing = read_itk(path)
    return values, affine, spacing, (*notes, *axes_note(affine))


def read_header(path: Path) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Returns the affine (4, 4) and the notes of :func:`read_volume` without reading voxels.

    The affine is None if the header cannot be read.
    """
    notes: tuple[str, ...] = ()
    affine = None
    if path.is_dir() and not is_image(path):
        affine = dicom_affine(path)
    elif ending(path) in NIFTI:
        affine, notes = nifti_geometry(path)
    elif ending(path) in ITK:
        affine = itk_affine(path)
    return affine, (*notes, *(axes_note(affine) if affine is not None else ()))


def cohort_orientation(cohort: Cohort) -> str | None:
    """Returns the orientation that all cases of a cohort are converted to: that of the first readable header.

    If the slices of that case are not cut along its thickest axis, that axis becomes the last.

    Args:
        cohort: The cases; only headers are read.

    Returns:
        Codes such as ``RAS``; None where the layout has no affine.

    Raises:
        InputError: The system cannot open a file at the moment.
    """
    for ref in cohort.refs:
        if ending(ref.source) not in ENDINGS and not holds_dicom(ref.source):
            return None  # formats do not differ within a layout
        try:
            affine, _ = read_header(ref.source)
        except InputError as error:  # a file that is missing or empty, which loading its case refuses
            if error.__cause__ is not None:
                raise
            continue
        if affine is not None:
            return slices_last(affine)
    return None
