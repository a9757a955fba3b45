"""Distances between the surfaces of two masks, computed once for all surface metrics.

:func:`surface_distances` does the work; :func:`hd95`, :func:`hd`, :func:`assd`, :func:`asd` and :func:`nsd` are cheap
functions of its result.
A surface voxel is a mask voxel of which at least one face neighbor (6 in 3-D, 4 in 2-D) is background, and everything
beyond the volume is background: where an organ is cut by the edge of the volume, the cut is surface too. In a volume of
one slice every mask voxel is therefore surface; give the 2-D slice instead. This is medpy's rule, ``mask xor
erosion(mask, connectivity 1)``, and MONAI's.

It is fast for four reasons. It works in the smallest box around both masks, outside of which all is background. Erosion
is a few shifted ANDs. Surface voxels that the two masks share have distance 0 without a search. The others are looked
up in a k-d tree if they are few, and in one exact Euclidean feature transform of the other surface if they are many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from anatolab.types import InputError

Spacing = Sequence[float] | None  # one number per axis, in mm; None counts in voxels
HausdorffDefinition = Literal["pooled", "max"]
_VOXELS_A_QUERY = (
    16  # a tree query costs about as much as 16 voxels of a feature transform (benchmarks/bench_surface.py)
)


@dataclass(frozen=True)
class SurfaceDistances:
    """From each surface voxel to the nearest surface voxel of the other mask, in mm (voxels if no spacing was given).

    An empty mask has an array of length 0, and the distances of the other mask are infinite.
    """

    pred_to_ref: np.ndarray  # (n,) float64, one number a surface voxel of the prediction
    ref_to_pred: np.ndarray  # (m,) float64, one number a surface voxel of the reference

    @property
    def defined(self) -> bool:
        """Whether both masks have a surface, so that distances exist."""
        return self.pred_to_ref.size > 0 and self.ref_to_pred.size > 0


def surface(mask: np.ndarray) -> np.ndarray:
    """Returns the surface voxels of a mask: those with a face neighbor in the background or beyond the volume.

    Args:
        mask: Bool, any number of axes.

    Returns:
        Bool array of the same shape.

    Example:
        >>> surface(np.ones((3, 3), bool)).astype(int).tolist()
        [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
    """
    inner = mask.copy()
    for axis in range(mask.ndim):
        _erode(inner, mask, axis)
    return mask ^ inner


def surface_distances(pred: np.ndarray, ref: np.ndarray, spacing: Spacing = None) -> SurfaceDistances:
    """Computes the distance of every surface voxel to the other surface, both ways, on the box around both masks.

    Args:
        pred: Mask of the prediction, bool or integer (nonzero is inside), 2-D or 3-D.
        ref: Mask of the reference, same shape.
        spacing: Voxel size along each axis in mm, in array order; None measures in voxels.

    Raises:
        InputError: Shapes differ or are empty, or spacing is not one positive number per axis.

    Example:
        >>> ref = np.zeros((8, 8), bool)
        >>> ref[2:5, 2:5] = True
        >>> distances = surface_distances(np.roll(ref, 1, axis=0), ref, spacing=(2.0, 1.0))
        >>> hd(distances), round(assd(distances), 4)
        (2.0, 0.875)
    """
    pred, ref = np.asarray(pred).astype(bool, copy=False), np.asarray(ref).astype(bool, copy=False)
    if pred.shape != ref.shape or not pred.size:
        raise InputError(
            f"pred has shape {pred.shape} and ref {ref.shape}; give two masks of one shape, of at least one voxel."
        )
    size = _voxel_size(spacing, pred.ndim)
    box = _bounding_box(pred | ref)
    pred_surface, ref_surface = surface(pred[box]), surface(ref[box])
    return SurfaceDistances(
        pred_to_ref=_to_nearest(pred_surface, ref_surface, size),
        ref_to_pred=_to_nearest(ref_surface, pred_surface, size),
    )


def hd95(distances: SurfaceDistances, definition: HausdorffDefinition = "pooled") -> float:
    """Returns the 95 % Hausdorff distance under a named definition; NaN if a mask is empty.

    Args:
        distances: From :func:`surface_distances`.
        definition: ``"pooled"`` is the 95th percentile of both directed sets together (medpy's ``hd95``), in which the
            larger surface weighs more. ``"max"`` is the larger of the two directed 95th percentiles (MONAI's
            ``compute_hausdorff_distance(percentile=95)``), which is more sensitive to stray voxels of a small surface.

    Raises:
        InputError: Another definition.

    Reference:
        Huttenlocher et al., Comparing images using the Hausdorff distance, PAMI 1993 (directed, with quantiles).
    """
    if definition not in ("pooled", "max"):
        raise InputError(f"hd95={definition!r} is unknown; use 'pooled' (medpy) or 'max' (MONAI).")
    if not distances.defined:
        return float("nan")
    if definition == "pooled":
        return float(np.percentile(_pooled(distances), 95))
    return float(max(np.percentile(distances.pred_to_ref, 95), np.percentile(distances.ref_to_pred, 95)))


def hd(distances: SurfaceDistances) -> float:
    """Returns the Hausdorff distance, the largest surface distance in either direction; NaN if a mask is empty."""
    return float(_pooled(distances).max()) if distances.defined else float("nan")


def assd(distances: SurfaceDistances) -> float:
    """Returns the average symmetric surface distance, over the surface voxels of both masks; NaN if a mask is empty.

    Both surfaces are pooled, as in medpy (``assd`` since 0.4) and MONAI (``symmetric=True``); it is not the mean of the
    two directed means unless both surfaces have equally many voxels.
    """
    return float(_pooled(distances).mean()) if distances.defined else float("nan")


def asd(distances: SurfaceDistances, direction: Literal["pred_to_ref", "ref_to_pred"] = "pred_to_ref") -> float:
    """Returns the average directed surface distance; NaN where a mask is empty.

    ``"pred_to_ref"`` is the ASD of the released scripts of ACTION and ARCO (medpy's ``asd(pred, ref)``). It ignores
    parts of the organ that the prediction misses.

    Raises:
        InputError: Another direction.
    """
    if direction not in ("pred_to_ref", "ref_to_pred"):
        raise InputError(f"direction must be 'pred_to_ref' or 'ref_to_pred', not {direction!r}.")
    return float(getattr(distances, direction).mean()) if distances.defined else float("nan")


def nsd(distances: SurfaceDistances, tolerance: float) -> float:
    """Returns the normalized surface Dice, the share of both surfaces within ``tolerance`` of the other; in [0, 1].

    Every surface voxel weighs the same, whatever its area in mm, as in MONAI's
    ``compute_surface_dice(use_subvoxels=False)``; the surface elements of DeepMind's code (and of
    ``use_subvoxels=True``) differ where spacing is anisotropic. One empty mask gives 0, two give NaN.

    Args:
        distances: From :func:`surface_distances`.
        tolerance: Largest distance that still counts as right, in the unit of the distances; at least 0.

    Raises:
        InputError: A tolerance that is negative or NaN.

    Reference:
        Nikolov et al., Clinically applicable segmentation of head and neck anatomy, JMIR 2021.
    """
    if not tolerance >= 0:
        raise InputError(f"tolerance must be at least 0, in the unit of the spacing, not {tolerance}.")
    pooled = _pooled(distances)
    within = np.count_nonzero(pooled <= tolerance * (1 + 1e-9))  # 3 voxels of 0.4 mm are within 1.2 mm
    return float(within / pooled.size) if pooled.size else float("nan")


def boundary_iou(pred: np.ndarray, ref: np.ndarray, width: int | Sequence[int] = 2) -> float:
    """Returns the intersection over union of the inner rims of two masks; NaN where both are empty.

    The rim is the mask without its erosion by ``width`` voxels with a full 3 x 3 (x 3) element; beyond the volume lies
    background.

    Args:
        pred: Mask, bool, any number of axes.
        ref: Mask of the same shape.
        width: Rim width in voxels, at least 1, or a number per axis: ``(0, 2, 2)`` gives each slice a rim of its own.

    Raises:
        InputError: Shapes differ, or no width of at least 1.

    Reference:
        Cheng et al., Boundary IoU, CVPR 2021, eq. 2.
    """
    widths = (width,) * pred.ndim if isinstance(width, int) else tuple(width)
    if pred.shape != ref.shape or len(widths) != pred.ndim or min(widths) < 0 or max(widths) < 1:
        raise InputError(
            f"boundary_iou needs two masks of one shape and width >= 1, not {pred.shape}, {ref.shape}, {width}."
        )
    box, rims = _bounding_box(pred | ref), []
    for mask in (np.asarray(pred, bool)[box], np.asarray(ref, bool)[box]):
        inner = mask.copy()
        for axis, steps in enumerate(widths):  # a full cube erodes axis by axis
            for _ in range(steps):
                _erode(inner, inner.copy(), axis)
        rims.append(mask ^ inner)
    union = np.count_nonzero(rims[0] | rims[1])
    return float(np.count_nonzero(rims[0] & rims[1]) / union) if union else float("nan")


def _erode(inner: np.ndarray, mask: np.ndarray, axis: int) -> None:
    """Removes from ``inner``, in place, voxels with a neighbor along the axis outside ``mask`` or the array."""
    to, from_ = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)  # views
    to[1:] &= from_[:-1]
    to[:-1] &= from_[1:]
    to[0] = to[-1] = False


def _pooled(distances: SurfaceDistances) -> np.ndarray:
    return np.concatenate([distances.pred_to_ref, distances.ref_to_pred])


def _voxel_size(spacing: Spacing, axes: int) -> np.ndarray:
    if spacing is None:
        return np.ones(axes)
    size = np.asarray(spacing, dtype=np.float64)
    if size.shape != (axes,) or not (np.isfinite(size) & (size > 0)).all():
        raise InputError(
            f"spacing={spacing} does not fit an array of {axes} axes; give one positive number per axis in mm, or None "
            "to measure in voxels."
        )
    return size


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Returns the smallest box that holds the mask; the first voxel where the mask is empty."""
    box = []
    rest = mask
    for _ in range(mask.ndim):
        inside = np.flatnonzero(rest.reshape(len(rest), -1).any(1))
        box.append(slice(inside[0], inside[-1] + 1) if inside.size else slice(0, 1))
        rest = np.logical_or.reduce(rest, axis=0)
    return tuple(box)


def _to_nearest(from_: np.ndarray, to: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Returns the distance from each voxel of one surface (in array order) to the nearest voxel of the other."""
    voxels = np.flatnonzero(from_)
    distances = np.zeros(voxels.size)
    targets = np.flatnonzero(to)
    if not targets.size:
        return np.full(voxels.size, np.inf)
    apart = ~to.ravel()[voxels]
    queries = voxels[apart]
    if not queries.size:
        return distances
    here = np.unravel_index(queries, to.shape)
    if queries.size * _VOXELS_A_QUERY < to.size:
        points = np.stack(np.unravel_index(targets, to.shape), axis=1) * size
        tree = cKDTree(points, leafsize=32, compact_nodes=False, balanced_tree=False)
        distances[apart] = tree.query(np.stack(here, axis=1) * size)[0]
    else:
        nearest = distance_transform_edt(~to, sampling=size, return_distances=False, return_indices=True)
        squared = np.zeros(queries.size)
        for axis, step in enumerate(size):
            squared += ((nearest[axis].ravel()[queries] - here[axis]) * step) ** 2
        distances[apart] = np.sqrt(squared)
    return distances
