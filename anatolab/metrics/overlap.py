"""Overlap of label volumes: Dice and Jaccard per class, from one joint count of the voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anatolab.types import IGNORE, UNKNOWN, InputError


@dataclass(frozen=True)
class OverlapCounts:
    """Voxels of each class in the prediction, in the reference and in both; every array is ``(classes,)`` int64."""

    both: np.ndarray
    pred: np.ndarray
    ref: np.ndarray


def clean_labels(
    pred: np.ndarray, ref: np.ndarray, num_classes: int, *, case: str = "volume"
) -> tuple[np.ndarray, np.ndarray]:
    """Checks two label arrays, and sets voxels with unknown reference to background in both.

    Voxels whose reference is 255 (``UNKNOWN``) or -1 (``IGNORE``) are thus counted for no class, neither in overlap nor
    in distances. A mask cut by an unknown region gets the same cut surface in prediction and reference; MONAI's
    ``ignore_index`` does the same.

    Args:
        pred: Class numbers, any shape, integer or bool; every voxel must be in ``[0, num_classes)``.
        ref: Class numbers of the same shape; 255 and -1 mean unknown.
        num_classes: Number of classes with background.
        case: Name of the volume in messages.

    Raises:
        InputError: Not integers, shapes that differ, an empty array, or a label outside the class table.
    """
    pred, ref = np.asarray(pred), np.asarray(ref)
    if pred.shape != ref.shape:
        raise InputError(
            f"{case}: the prediction has shape {pred.shape} and the reference {ref.shape}; "
            "bring the prediction back to the grid of the reference before measuring."
        )
    if not pred.size:
        raise InputError(f"{case}: the label arrays are empty (shape {pred.shape}); check how the volume was read.")
    for name, labels in (("prediction", pred), ("reference", ref)):
        if labels.dtype.kind not in "iub":
            raise InputError(
                f"{case}: the {name} holds {labels.dtype}, not class numbers; take the argmax, or convert to an "
                "integer type."
            )
    unknown = (ref == UNKNOWN) | (ref == IGNORE)
    if unknown.any():
        pred, ref = np.where(unknown, pred.dtype.type(0), pred), np.where(unknown, ref.dtype.type(0), ref)
    for name, labels in (("prediction", pred), ("reference", ref)):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            raise InputError(
                f"{case}: the {name} holds label {low if low < 0 else high}, outside the class table "
                f"0..{num_classes - 1}; check the class names of the data set, or remap the labels."
            )
    return pred, ref


def overlap_counts(pred: np.ndarray, ref: np.ndarray, num_classes: int) -> OverlapCounts:
    """Counts the voxels of each class in prediction, reference and both; unknown reference voxels do not count.

    Args:
        pred: Class numbers, any shape.
        ref: Class numbers of the same shape; 255 and -1 mean unknown.
        num_classes: Number of classes with background.

    Raises:
        InputError: See :func:`clean_labels`.

    Example:
        >>> counts = overlap_counts(np.array([[0, 1, 1, 2]]), np.array([[0, 1, 2, 2]]), 3)
        >>> dice(counts).round(3).tolist()
        [1.0, 0.667, 0.667]
        >>> jaccard(counts).tolist()
        [1.0, 0.5, 0.5]
    """
    unknown = np.count_nonzero((np.asarray(ref) == UNKNOWN) | (np.asarray(ref) == IGNORE))
    pred, ref = clean_labels(pred, ref, num_classes)
    joint = ref.astype(np.intp) * num_classes + pred
    table = np.bincount(joint.ravel(), minlength=num_classes**2).reshape(num_classes, num_classes)
    table[0, 0] -= unknown  # clean_labels made them background on both sides
    return OverlapCounts(both=table.diagonal().copy(), pred=table.sum(0), ref=table.sum(1))


def dice(counts: OverlapCounts) -> np.ndarray:
    """Returns the Dice coefficient of each class, ``(classes,)`` in [0, 1]; NaN where neither side has the class.

    A class that only one side has gets 0.

    Reference:
        Dice, Ecology 1945: :math:`2|P \\cap R| / (|P| + |R|)`.
    """
    total = counts.pred + counts.ref
    return np.where(total > 0, 2 * counts.both / np.maximum(total, 1), np.nan)


def jaccard(counts: OverlapCounts) -> np.ndarray:
    """Returns the Jaccard index of each class, ``(classes,)`` in [0, 1]; NaN where neither side has the class.

    Reference:
        Jaccard, New Phytologist 1912: :math:`|P \\cap R| / |P \\cup R|`.
    """
    union = counts.pred + counts.ref - counts.both
    return np.where(union > 0, counts.both / np.maximum(union, 1), np.nan)
