"""Checks of images, labels and geometry; every error is one sentence with the file and the remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anatolab.data.files import read_json
from anatolab.data.nifti import read_nifti
from anatolab.types import UNKNOWN, Cohort, InputError

__all__ = [
    "check_affine",
    "check_features",
    "check_image",
    "check_label",
    "check_pair",
    "generated",
    "map_label",
    "read_nifti",
    "side_pairs",
]

NOTE = "generated.json"  # marks a folder of generated patients, and holds their provenance
ROUNDING = 1e-4  # largest distance of a label from a whole number; header slopes and float32 cause up to 3e-5
LISTED = 8  # wrong values that a message names


def generated(cohort: Cohort) -> Cohort:
    """Returns the cohort with the name and provenance from the ``generated.json`` in its folder, if there is one.

    Raises:
        InputError: The note is no JSON object.
    """
    note = cohort.root / NOTE
    if not note.is_file():
        return cohort
    values = read_json(note)
    kept: dict[str, Any] = {k: v for k, v in cohort.provenance.items() if k in ("ignored", "absent", "notes")}
    return replace(cohort, name=str(values.get("name", "generated")), published={}, provenance={**values, **kept})


def check_image(values: np.ndarray, path: Path) -> np.ndarray:
    """Checks that an image is finite and not constant, and returns it as float32.

    Args:
        values: Intensities, any shape and number type.
        path: The file to name.

    Returns:
        The same values as float32.

    Raises:
        InputError: A value is NaN or infinite, all values are equal, or there are none.
    """
    if values.size == 0 or values.dtype.kind not in "biuf":
        raise InputError(f"{path}: holds {_shape(values)} values where an image is expected; write the file again.")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, which is said below
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
            f"{path}: every intensity is {low:g}, so the image is constant; "
            "download the image again, or take its case out of the folder and lists."
        )
    return image


def check_label(values: np.ndarray, path: Path, classes: Sequence[str]) -> np.ndarray:
    """Checks that a label map holds class numbers of the table only, and returns it as uint8.

    Args:
        values: Class numbers, any shape, in any number type; those off by a rounding are the whole number.
        path: The file to name.
        classes: The class names; index 0 is the background.

    Returns:
        The class numbers as uint8.

    Raises:
        InputError: A value is not whole, or not an index of ``classes``; each such value is listed with its count. 255
            is no exception: it is unknown only where a data set declares it, see :func:`map_label`.
    """
    values = _rounded(values, path)
    if values.dtype.kind == "f" and (odd := values[values != np.rint(values)]).size:
        first, *others = _counted(odd)
        more = f", nor is {', '.join(others)}" if others else ""
        raise InputError(
            f"{path}: label {first.replace(' (', ' is not a whole number (')}{more}; "
            "save the label map as integers, and resample it with nearest neighbor only."
        )
    outside = values[(values < 0) | (values >= len(classes))]
    if outside.size:
        unknown = f', or declare {UNKNOWN} as "ignore" where the layout has it' if (outside == UNKNOWN).any() else ""
        raise InputError(
            f"{path}: label {', '.join(_counted(outside))} is not one of the {len(classes)} classes "
            f"({', '.join(f'{i} {name}' for i, name in enumerate(classes))}); map it to one of them{unknown}."
        )
    return np.ascontiguousarray(values, dtype=np.uint8)


def map_label(values: np.ndarray, path: Path, codes: Mapping[int, int], classes: Sequence[str]) -> np.ndarray:
    """Maps the label codes of a file to class numbers.

    Args:
        values: Codes, any shape, in any number type; those off by a rounding are the whole number.
        path: The file to name.
        codes: Class number (or 255, unknown) of each code; background included.
        classes: The class names.

    Returns:
        Class numbers as uint8.

    Raises:
        InputError: A value is not one of the codes; each such value is listed with its count.

    Example:
        >>> map_label(np.array([0, 820, 500]), Path("a.nii"), {0: 0, 500: 1, 820: 2}, ("background", "LV", "aorta"))
        array([0, 2, 1], dtype=uint8)
    """
    values = _rounded(values, path)
    known = np.array(sorted(codes))
    place = np.searchsorted(known, values).clip(max=len(known) - 1)
    if (outside := values[known[place] != values]).size:
        table = ", ".join(f"{code} {classes[k] if k < len(classes) else 'unknown'}" for code, k in codes.items())
        raise InputError(
            f"{path}: label {', '.join(_counted(outside))} is not one of the codes ({table}); "
            "map it to one of them, or download the file again."
        )
    return np.array([codes[int(code)] for code in known], np.uint8)[place]


def _rounded(values: np.ndarray, path: Path) -> np.ndarray:
    """Rounds labels that are whole numbers up to rounding errors."""
    if values.dtype.kind not in "biuf":
        raise InputError(
            f"{path}: holds {_shape(values)} values where class numbers are expected; write the file again."
        )
    if values.dtype.kind != "f":
        return values
    nearest = np.rint(values)
    with np.errstate(invalid="ignore"):
        near = np.abs(values - nearest) <= ROUNDING * np.maximum(1, np.abs(nearest))
    return np.where(near, nearest, values)


def _counted(wrong: np.ndarray) -> list[str]:
    """Counts the voxels of each value, the most frequent first."""
    values, counts = np.unique(wrong, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    listed = [f"{values[k]:g} ({counts[k]} voxels)" for k in order[:LISTED]]
    return [*listed, *([f"{len(order) - LISTED} other values"] if len(order) > LISTED else [])]


_SIDE = re.compile(r"(?<![a-z])(left|right|l|r|lt|rt|sin|dex|sinistra|dextra)(?![a-z])", re.IGNORECASE)
_OTHER = {"left": "right", "l": "r", "lt": "rt", "sin": "dex", "sinistra": "dextra"}


def side_pairs(classes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Returns pairs of classes that differ only by side, which a flip would exchange.

    Example:
        >>> side_pairs(("background", "left kidney", "Kidney (right)", "right kidney", "lung_L", "lung_R", "liver"))
        (('left kidney', 'right kidney'), ('lung_L', 'lung_R'))
    """
    plain = {name.casefold(): name for name in classes}

    def swapped(match: re.Match[str]) -> str:
        return _OTHER.get(match[0].casefold(), match[0])

    pairs = ((name, plain.get(_SIDE.sub(swapped, name).casefold())) for name in classes)
    return tuple((one, two) for one, two in pairs if two is not None and two != one)


def check_pair(image: np.ndarray, label: np.ndarray, image_path: Path, label_path: Path) -> None:
    """Checks that image and label have the same shape.

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
    """Checks that image and label lie at the same place: no corner of the volume is half a voxel off.

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


def check_features(features: Tensor | np.ndarray, y: Tensor | np.ndarray | None = None, what: str = "features") -> None:
    """Refuses features from which nothing can be learned.

    Args:
        features: ``(n, ...)``, on any device, mapped or in memory; read in pieces.
        y: ``(n,)`` class numbers of the rows, where there are any.
        what: Name of the features, for the message.

    Raises:
        InputError: There are no rows, a row holds NaN or infinity, all rows are the same, or ``y`` has another length
            or one class only.

    Example:
        >>> check_features(torch.eye(3), torch.tensor([0, 1, 1]))
    """
    if not isinstance(features, Tensor | np.ndarray):
        return  # rows that are computed lazily
    h = torch.as_tensor(features)
    if h.ndim == 0 or not h.numel():
        raise InputError(f"{what}: the array is empty ({tuple(h.shape)}); give one row per image.")
    wrong: list[int] = []
    constant = len(h) > 1
    for start in range(0, len(h), 4096):
        rows = h[start : start + 4096].flatten(1) if h.ndim > 1 else h[start : start + 4096, None]
        if rows.is_floating_point():
            wrong += (start + torch.nonzero(~torch.isfinite(rows).all(1)).flatten()).tolist()
        constant = constant and bool((rows == h[:1].reshape(1, -1)).all())
    if wrong:
        shown = ", ".join(map(str, wrong[:LISTED])) + ", ..." * (len(wrong) > LISTED)
        raise InputError(
            f"{what}: {len(wrong)} of {len(h)} rows are not finite (row {shown}); compute them again in float32, or "
            "leave these rows out."
        )
    if constant:
        raise InputError(f"{what}: all {len(h)} rows are the same; check the network and the images they come from.")
    if y is not None:
        labels = torch.as_tensor(y)
        if labels.shape != (len(h),):
            raise InputError(f"{what}: {len(h)} rows have labels of shape {tuple(labels.shape)}; give one per row.")
        if len(labels.unique()) < 2:
            raise InputError(
                f"{what}: all {len(h)} rows are of class {labels[0].item()}; give rows of several classes."
            )


def _shape(array: np.ndarray) -> str:
    return f"{'x'.join(map(str, array.shape)) or 'scalar'} {array.dtype}"
