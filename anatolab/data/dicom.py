"""Reads a series of DICOM files, one per slice, as one volume with its geometry; no other header fields are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anatolab.data.files import check_budget, entries, hidden, reason
from anatolab.data.geometry import Spacing
from anatolab.data.itk import _ras
from anatolab.types import InputError

UNEVEN = 0.02  # largest deviation of the slice distance, as a share of it
SHEAR = 0.05  # largest shift of a slice within its plane against the one before, as a share of their distance
INDEX = "DICOMDIR"  # the index of a disc, which is no slice


def holds_dicom(folder: Path) -> bool:
    """Returns whether one of the first files of a folder is a DICOM file."""
    files = sorted(_files_in(folder), key=lambda path: path.suffix.lower() != ".dcm")
    return any(_has_mark(path) for path in files[:3])


def dicom_folders(folder: Path) -> list[Path]:
    """Returns the folder itself if it holds a series, else its subfolders that do."""
    if holds_dicom(folder):
        return [folder]
    return [path for path in entries(folder) if path.is_dir() and not hidden(path) and holds_dicom(path)]


def read_dicom(folder: Path) -> tuple[np.ndarray, np.ndarray, Spacing]:
    """Reads the series of a folder, as :func:`anatolab.data.itk.read_itk` reads a file; CT comes in Hounsfield units.

    Args:
        folder: Holds the files of one series, and may hold others.

    Raises:
        InputError: The folder holds no series or several, a slice is missing or damaged, or slices are unevenly spaced,
            shifted against each other or in several orientations.
    """
    import SimpleITK as sitk

    files = _files_of(folder)
    try:
        headers = [_header(file) for file in files]
        columns, rows = headers[0].GetSize()[:2]
        check_budget(folder, (len(files), rows, columns), 4)
        _check_even(folder, headers)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(files)
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{folder}: cannot be read as DICOM ({reason(error)}); copy the series again.") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{folder}: is no series of gray slices; export the series as a volume.")
    x, y, z = (float(s) for s in image.GetSpacing())
    return sitk.GetArrayFromImage(image), _ras(image), (z, y, x)


def dicom_affine(folder: Path) -> np.ndarray | None:
    """Returns the affine (4, 4) of the series of a folder; None if it cannot be read."""
    try:
        return read_dicom(folder)[1]
    except InputError:
        return None


def _files_of(folder: Path) -> list[str]:
    """Returns the files of the only series of a folder, in the order of their positions."""
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader
    series = reader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise InputError(f"{folder}: holds no DICOM series with images; name the folder of its slices.")
    if len(series) > 1:
        raise InputError(f"{folder}: holds {len(series)} DICOM series; copy the one you mean to a folder of its own.")
    files = list(reader.GetGDCMSeriesFileNames(str(folder), series[0]))
    listed = {Path(file).name for file in files}
    for path in _files_in(folder):  # GDCM leaves out what it cannot read
        if path.name not in {*listed, INDEX} and is_dicom(path):
            raise InputError(
                f"{path}: is not a readable slice of the series beside it; copy it again, or take it out of the folder."
            )
    return files


def _files_in(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.is_file() and not hidden(path)]


def _header(file: str) -> Any:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    return reader


def _check_even(folder: Path, headers: list[Any]) -> None:
    """Refuses slices that make no box of evenly spaced ones, which SimpleITK would treat as such a box."""
    turns = np.array([header.GetDirection() for header in headers])
    if not np.allclose(turns, turns[0], atol=1e-3):
        raise InputError(
            f"{folder}: its slices lie in several orientations; copy those of one volume to a folder of their own."
        )
    if len(headers) < 3:
        return
    normal = turns[0].reshape(3, 3)[:, 2]
    moves = np.diff([header.GetOrigin() for header in headers], axis=0)
    steps = np.abs(moves @ normal)
    if steps.min() <= 0 or (np.abs(steps - np.median(steps)) > UNEVEN * np.median(steps)).any():
        raise InputError(
            f"{folder}: its slices lie {steps.min():.4g} to {steps.max():.4g} mm apart; a slice is missing or exists "
            "twice: copy the series again."
        )
    aside = np.linalg.norm(moves - np.outer(moves @ normal, normal), axis=1)
    if (aside > SHEAR * steps).any():
        raise InputError(
            f"{folder}: its slices are shifted against each other by up to {aside.max():.4g} mm, as under a tilted "
            "gantry; resample the series to a straight grid first."
        )


def is_dicom(path: Path) -> bool:
    """Returns whether a file is one of a DICOM series, by its name or its content."""
    return path.suffix.lower() == ".dcm" or _has_mark(path)


def _has_mark(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
