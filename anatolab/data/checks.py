"""Reading of image and label files with every fault said in one sentence: which file, what is wrong, the remedy."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from anatolab.types import UNKNOWN, Cohort, InputError

Spacing = tuple[float, float, float]
NOTE = "generated.json"  # beside the patients: these are not the data set's, but generated as this file says
A = TypeVar("A")
B = TypeVar("B")
_UNREADABLE = (OSError, EOFError, ValueError, TypeError, zlib.error)  # what parsers raise on a damaged file


def collect(function: Callable[[A], B], items: Iterable[A], problems: list[str]) -> list[B]:
    """What a function gives for each item; an item that it refuses is left out and its message goes to ``problems``.

    Example:
        >>> problems = []
        >>> collect(lambda path: check_file(Path(path)), ["no/such/file"], problems), len(problems)
        ([], 1)
    """
    found = []
    for item in items:
        try:
            found.append(function(item))
        except InputError as error:
            problems.append(str(error))
    return found


def generated(cohort: Cohort) -> Cohort:
    """The same cohort; under the name and provenance that ``generated.json`` in its folder gives, where there is one.

    Raises:
        InputError: The note is no JSON object.
    """
    note = cohort.root / NOTE
    if not note.is_file():
        return cohort
    said = read_json(note)
    kept: dict[str, Any] = {k: v for k, v in cohort.provenance.items() if k in ("ignored", "absent", "notes")}
    return replace(cohort, name=str(said.get("name", "generated")), published={}, provenance={**said, **kept})


def check_file(path: Path) -> None:
    """A file that is missing or has zero bytes is named before anything tries to read it.

    Args:
        path: The file.

    Raises:
        InputError: The file is absent, is a folder, or is empty.
    """
    try:
        there, size = path.is_file(), path.stat().st_size
    except FileNotFoundError:
        there, size = False, 0
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check links and permissions.") from error
    if path.is_dir():
        raise InputError(f"{path}: is a folder where a file is due; copy the file there, or rename the folder.")
    if not there:
        raise InputError(f"{path}: this file is missing; copy it there, or take its case out of the folder and lists.")
    if size == 0:
        raise InputError(f"{path}: this file has zero bytes; download or copy it again.")


def read_nifti(path: Path, ndim: int = 3) -> tuple[np.ndarray, np.ndarray, Spacing]:
    """Read a NIfTI file in array order, with its geometry and no change of orientation.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file whose array is stored as (x, y, z), or (x, y, z, channel).
        ndim: 3, or 4 for all channels in one file.

    Returns:
        The values as (z, y, x), or (c, z, y, x), scaled as the header says; the affine (4, 4) from voxel (x, y, z) to
        world mm; the spacing (z, y, x) in mm.

    Raises:
        InputError: The file is missing, empty, truncated or no NIfTI, has other axes, or has no spacing in mm.
    """
    import nibabel as nib

    check_file(path)
    try:
        with nib.imageglobals.LoggingOutputSuppressor():  # what is wrong is said below, in one sentence
            image = nib.nifti1.load(path)
            array = np.asanyarray(image.dataobj)
        with nib.openers.ImageOpener(str(path)) as file:  # nibabel turns a spacing of 0 into 1
            stored = nib.nifti1.Nifti1Header.from_fileobj(file, check=False).get_zooms()[2::-1]
    except (*_UNREADABLE, nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
        raise InputError(f"{path}: cannot be read as NIfTI ({_reason(error)}); download or copy it again.") from error
    if array.ndim != ndim or array.dtype.fields is not None:
        due = "one 3-D volume of numbers" if ndim == 3 else "one 4-D volume, channels last,"
        raise InputError(
            f"{path}: holds {_shape(array)} values where {due} is due; "
            "save each frame or channel as a 3-D file of its own."
        )
    spacing = tuple(float(s) for s in image.header.get_zooms()[2::-1])
    affine = np.asarray(image.affine, dtype=np.float64)
    unit = image.header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise InputError(f"{path}: its header gives the spacing in {unit}; save it with spatial units in mm.")
    if not (np.isfinite(affine).all() and np.linalg.det(affine[:3, :3]) and np.isfinite(spacing).all() and all(stored)):
        raise InputError(
            f"{path}: its affine or spacing {tuple(map(float, stored))} gives voxels no volume; repair the header, "
            "for example by copying that of the original image."
        )
    return np.ascontiguousarray(array.T), affine, (spacing[0], spacing[1], spacing[2])


def read_itk(path: Path) -> tuple[np.ndarray, np.ndarray, Spacing]:
    """Read a 3-D file of SimpleITK's formats, such as NRRD, as :func:`read_nifti` reads NIfTI.

    ITK's world runs to the patient's left and back (LPS), NIfTI's to the right and front (RAS): the affine returned is
    the latter, so its first two rows have the other sign.

    Args:
        path: An ``.nrrd``, ``.mha`` or ``.mhd`` file.

    Returns:
        The values as (z, y, x); the affine (4, 4) from voxel (x, y, z) to world mm in RAS; the spacing (z, y, x) in mm.

    Raises:
        InputError: The file is missing, empty, truncated or of no such format, or is not one 3-D volume of numbers.
    """
    import SimpleITK as sitk

    check_file(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("sitk::ERROR: ").strip()
        reason = reason.replace(str(path), "the file").rstrip(".").replace(". ", ", ")
        raise InputError(f"{path}: cannot be read as {path.suffix} ({reason}); download or copy it again.") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(
            f"{path}: holds {'x'.join(map(str, image.GetSize()))} pixels of {image.GetNumberOfComponentsPerPixel()} "
            "values where one 3-D volume of numbers is due; save each frame or channel as a 3-D file of its own."
        )
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1
    x, y, z = (float(s) for s in image.GetSpacing())
    return sitk.GetArrayFromImage(image), affine, (z, y, x)


def read_npz(path: Path, *keys: str) -> tuple[np.ndarray, ...]:
    """Read the named arrays of a NumPy archive; arguments and errors as :func:`read_h5`."""
    check_file(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            held = list(file.files)
            if all(key in held for key in keys):
                return tuple(file[key] for key in keys)
    except (*_UNREADABLE, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: cannot be read as .npz (truncated, no archive, or not of numbers); download or copy it again."
        ) from error
    raise _no_array(path, next(key for key in keys if key not in held), held)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        InputError: The file is missing, empty, no JSON in UTF-8, or holds something else.
    """
    check_file(path)
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: is not valid JSON ({_reason(error)}); write it again, or remove the file."
        ) from error
    if not isinstance(said, dict):
        raise InputError(f"{path}: does not hold a JSON object; write it again, or remove the file.")
    return said


def read_list(path: Path, pattern: str, example: str) -> list[str]:
    """Read a list of names, one a line, with or without ``.h5``.

    Args:
        path: The text file.
        pattern: Regular expression that each name matches.
        example: A name for the message.

    Raises:
        InputError: The file is missing or names nothing, or a line does not match or is there twice.
    """
    check_file(path)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.strip().removesuffix(".h5") for line in lines if line.strip()]
    if not names:
        raise InputError(f"{path}: names no case; restore the published list, or remove the file.")
    if wrong := [name for name in names if not re.fullmatch(pattern, name)]:
        raise InputError(f"{path}: the line {wrong[0]!r} names no case such as {example}; restore the published list.")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise InputError(f"{path}: names {twice} twice; remove one of the two lines.")
    return names


def read_h5(path: Path, *keys: str) -> tuple[np.ndarray, ...]:
    """Read the named arrays of an HDF5 file.

    Args:
        path: The file.
        keys: Names of the arrays, such as ``image`` and ``label``.

    Returns:
        One array a key, in the order of the keys.

    Raises:
        InputError: The file is missing, empty, truncated or no HDF5, or lacks one of the arrays.
    """
    import h5py

    check_file(path)
    try:
        with h5py.File(path, "r") as file:
            if absent := [key for key in keys if not isinstance(file.get(key), h5py.Dataset)]:
                raise _no_array(path, absent[0], file)
            return tuple(np.asarray(file[key]) for key in keys)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as HDF5 ({_reason(error)}); download or copy it again.") from error


def check_image(values: np.ndarray, path: Path) -> np.ndarray:
    """An image is finite and not constant; returned as float32.

    Args:
        values: Intensities, any shape and number type.
        path: The file to name.

    Returns:
        The same values as float32.

    Raises:
        InputError: A value is NaN or infinite, all values are equal, or there are none.
    """
    if values.size == 0 or values.dtype.kind not in "biuf":
        raise InputError(f"{path}: holds {_shape(values)} values where an image is due; write the file again.")
    image = np.ascontiguousarray(values, dtype=np.float32)
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int((~np.isfinite(image)).sum())
        raise InputError(
            f"{path}: {bad} of {image.size} intensities are NaN or infinite; "
            "repair the image, or take its case out of the folder and lists."
        )
    if low == high:
        raise InputError(
            f"{path}: every intensity is {low:g}, so there is nothing to see; "
            "download the image again, or take its case out of the folder and lists."
        )
    return image


def check_label(values: np.ndarray, path: Path, classes: Sequence[str]) -> np.ndarray:
    """A label map holds whole class numbers of the table (or 255, unknown); returned as uint8.

    Args:
        values: Class numbers, any shape, whole numbers in any number type.
        path: The file to name.
        classes: The class names; index 0 is the background.

    Returns:
        The same values as uint8.

    Raises:
        InputError: A value is not whole, or is no index of ``classes`` and not 255.
    """
    if values.dtype.kind not in "biuf":
        raise InputError(f"{path}: holds {_shape(values)} values where class numbers are due; write the file again.")
    if values.dtype.kind == "f" and (odd := values[values != np.rint(values)]).size:
        raise InputError(
            f"{path}: label {odd.flat[0]:g} is not a whole number ({odd.size} such voxels); "
            "save the label map as integers, and resample it with nearest neighbor only."
        )
    outside = values[((values < 0) | (values >= len(classes))) & (values != UNKNOWN)]
    if outside.size:
        raise InputError(
            f"{path}: label {outside.flat[0]:g} ({outside.size} voxels) is not one of the {len(classes)} classes "
            f"({', '.join(f'{i} {name}' for i, name in enumerate(classes))}); "
            "map it to one of them, or to 255 (unknown)."
        )
    return np.ascontiguousarray(values, dtype=np.uint8)


def map_label(values: np.ndarray, path: Path, codes: Mapping[int, int], classes: Sequence[str]) -> np.ndarray:
    """A label map whose files use codes of their own, as class numbers.

    Args:
        values: Codes, any shape, whole numbers in any number type.
        path: The file to name.
        codes: Class number (or 255, unknown) of each code; background included.
        classes: The class names.

    Returns:
        Class numbers as uint8.

    Raises:
        InputError: A value is no code.

    Example:
        >>> map_label(np.array([0, 820, 500]), Path("a.nii"), {0: 0, 500: 1, 820: 2}, ("background", "LV", "aorta"))
        array([0, 2, 1], dtype=uint8)
    """
    if values.dtype.kind not in "biuf":
        raise InputError(f"{path}: holds {_shape(values)} values where class numbers are due; write the file again.")
    known = np.array(sorted(codes))
    at = np.searchsorted(known, values).clip(max=len(known) - 1)
    if (outside := values[known[at] != values]).size:
        table = ", ".join(f"{code} {classes[k] if k < len(classes) else 'unknown'}" for code, k in codes.items())
        raise InputError(
            f"{path}: label {outside.flat[0]:g} ({outside.size} voxels) is not one of the codes ({table}); "
            "map it to one of them, or download the file again."
        )
    return np.array([codes[int(code)] for code in known], np.uint8)[at]


def check_pair(image: np.ndarray, label: np.ndarray, image_path: Path, label_path: Path) -> None:
    """Image and label have the same shape.

    Args:
        image: The image, without a channel axis.
        label: The label map.
        image_path: The image file, for the message.
        label_path: The label file, for the message.

    Raises:
        InputError: The shapes differ.
    """
    if image.shape != label.shape:
        where = "its label" if image_path == label_path else str(label_path)
        raise InputError(
            f"{image_path}: the image has shape {image.shape}, but {where} has {label.shape}; "
            "find the label map that was drawn on this image."
        )


def check_affine(
    image_affine: np.ndarray,
    label_affine: np.ndarray,
    shape: Sequence[int],
    label_path: Path,
    what: str = "label map",
) -> None:
    """Image and label lie at the same place: no corner of the volume is half a voxel off.

    Args:
        image_affine: (4, 4) voxel (x, y, z) to world mm of the image.
        label_affine: The same of the label map.
        shape: Shape (z, y, x) of both.
        label_path: The label file, for the message.
        what: What the file holds, for the message.

    Raises:
        InputError: A corner of the volume moves by half of the smallest voxel edge or more.
    """
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[::-1]], [1], indexing="ij")).reshape(4, -1)
    apart = float(np.linalg.norm(((image_affine - label_affine) @ corners)[:3], axis=0).max())
    edge = float(np.linalg.norm(image_affine[:3, :3], axis=0).min())
    if not apart < edge / 2:
        raise InputError(
            f"{label_path}: its affine puts the {what} up to {apart:.3g} mm away from the image; "
            f"find the {what} of this image, or copy the image's header to it if the voxels do correspond."
        )


def _no_array(path: Path, absent: str, held: Iterable[str]) -> InputError:
    return InputError(
        f"{path}: holds no array named {absent!r} (it has: {', '.join(held) or 'nothing'}); "
        "write the file again with this array."
    )


def _shape(array: np.ndarray) -> str:
    return f"{'x'.join(map(str, array.shape)) or 'scalar'} {array.dtype}"


def _reason(error: BaseException) -> str:
    """The first line of an exception, or its type where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
