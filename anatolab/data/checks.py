"""Reading of image and label files with every fault said in one sentence: which file, what is wrong, the remedy."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anatolab.types import UNKNOWN, InputError

Spacing = tuple[float, float, float]


def check_file(path: Path) -> None:
    """A file that is missing or has zero bytes is named before anything tries to read it.

    Args:
        path: The file.

    Raises:
        InputError: The file is absent, is a folder, or is empty.
    """
    if not path.is_file():
        raise InputError(f"{path}: this file is missing; copy it there, or take its case out of the folder and lists.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: this file has zero bytes; download or copy it again.")


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, Spacing]:
    """Read a 3-D NIfTI file in array order, with its geometry and no change of orientation.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file whose array is stored as (x, y, z).

    Returns:
        The values as (z, y, x), scaled as the header says; the affine (4, 4) from voxel (x, y, z) to world mm;
        the spacing (z, y, x) in mm.

    Raises:
        InputError: The file is missing, empty, truncated or no NIfTI, is not 3-D, or has no spacing in mm.
    """
    import nibabel as nib

    check_file(path)
    try:
        image = nib.nifti1.load(path)
        array = np.asanyarray(image.dataobj)
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        zlib.error,
        nib.filebasedimages.ImageFileError,
        nib.spatialimages.HeaderDataError,
    ) as error:
        raise InputError(f"{path}: cannot be read as NIfTI ({_reason(error)}); download or copy it again.") from error
    if array.ndim != 3 or array.dtype.fields is not None:
        raise InputError(
            f"{path}: holds {_shape(array)} values where one 3-D volume of numbers is due; "
            "save each frame or channel as a 3-D file of its own."
        )
    spacing = tuple(float(s) for s in image.header.get_zooms()[::-1])
    affine = np.asarray(image.affine, dtype=np.float64)
    unit = image.header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise InputError(f"{path}: its header gives the spacing in {unit}; save it with spatial units in mm.")
    if not (
        np.isfinite(affine).all() and np.linalg.det(affine[:3, :3]) and np.isfinite(spacing).all() and all(spacing)
    ):
        raise InputError(
            f"{path}: its affine or spacing {spacing} gives voxels no volume; repair the header, "
            "for example by copying that of the original image."
        )
    return np.ascontiguousarray(array.T), affine, (spacing[0], spacing[1], spacing[2])


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
                raise InputError(
                    f"{path}: holds no array named {absent[0]!r} (it has: {', '.join(file) or 'nothing'}); "
                    "write the file again with this array."
                )
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


def check_affine(image_affine: np.ndarray, label_affine: np.ndarray, shape: Sequence[int], label_path: Path) -> None:
    """Image and label lie at the same place: no corner of the volume is half a voxel off.

    Args:
        image_affine: (4, 4) voxel (x, y, z) to world mm of the image.
        label_affine: The same of the label map.
        shape: Shape (z, y, x) of both.
        label_path: The label file, for the message.

    Raises:
        InputError: A corner of the volume moves by half of the smallest voxel edge or more.
    """
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape[::-1]], [1], indexing="ij")).reshape(4, -1)
    apart = float(np.linalg.norm(((image_affine - label_affine) @ corners)[:3], axis=0).max())
    edge = float(np.linalg.norm(image_affine[:3, :3], axis=0).min())
    if not apart < edge / 2:
        raise InputError(
            f"{label_path}: its affine puts the label map up to {apart:.3g} mm away from the image; "
            "find the label map of this image, or copy the image's header to it if the voxels do correspond."
        )


def _shape(array: np.ndarray) -> str:
    return f"{'x'.join(map(str, array.shape)) or 'scalar'} {array.dtype}"


def _reason(error: BaseException) -> str:
    """The first line of an exception, or its type where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
