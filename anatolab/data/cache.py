"""Cases cut into slices of one size; :mod:`anatolab.data.store` caches them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anatolab.data.field_of_view import FieldOfView
from anatolab.data.store import Cut, cache_root, cached, sha256_of
from anatolab.types import IGNORE, UNKNOWN, Case, InputError

__all__ = [
    "Cut",
    "Rows",
    "cache_root",
    "cached",
    "find_rows",
    "percentile_scaled",
    "scaled",
    "sha256_of",
    "slices_of",
]

PERCENTILES = (0.5, 99.5)
RECIPE = {  # part of every cache's key: raise the version when a reader or anything below changes what is written
    "version": 1,
    "image": "min-max per volume and channel, bilinear with antialias",
    "label": "nearest-exact",
}


@dataclass(frozen=True, eq=False)
class Rows:
    """Slices of one size, one per row, with the case and patient that each comes from."""

    images: np.ndarray  # (n, c, h, w) float32 in [0, 1], memory-mapped and read-only where it comes from the cache
    labels: np.ndarray  # (n, h, w) uint8 class numbers, 255 = unknown
    names: list[str]  # "patient001_ED#05": case and slice, counted from 0 along axis 0 of the volume
    patients: list[str]  # one per row
    sha256: str  # of all of the above and the view
    view: tuple[int, int]  # height and width that a network sees: the middle of a row, or all of it

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray,
        labels: np.ndarray,
        patients: Sequence[str],
        names: Sequence[str] | None = None,
        *,
        view: tuple[int, int] | None = None,
    ) -> Rows:
        """Returns rows that live in memory.

        Args:
            images: (n, c, h, w) float32 in [0, 1].
            labels: (n, h, w) uint8 class numbers, 255 = unknown.
            patients: One per row.
            names: One per row; patient and row number where not given.
            view: Height and width of the middle of a row that a network sees; the whole row where not given.

        Raises:
            InputError: The lengths, shapes or number types do not fit.

        Example:
            >>> images, labels = np.zeros((3, 1, 4, 4), np.float32), np.zeros((3, 4, 4), np.uint8)
            >>> rows = Rows.from_arrays(images, labels, ["a", "b", "a"])
            >>> rows.index_of(["a"]), rows.names[2]
            (tensor([0, 2]), 'a#02')
        """
        names = list(names) if names is not None else [f"{p}#{i:02d}" for i, p in enumerate(patients)]
        fits = (
            images.ndim == 4
            and labels.shape == (len(images), *images.shape[2:])
            and len(patients) == len(names) == len(images)
            and images.dtype == np.float32
            and labels.dtype == np.uint8
        )
        if not fits:
            raise InputError(
                f"rows: images {images.shape} {images.dtype}, labels {labels.shape} {labels.dtype}, {len(patients)} "
                f"patients and {len(names)} names do not fit; give (n, c, h, w) float32, (n, h, w) uint8, n and n."
            )
        columns = {"names": names, "patients": list(patients)}
        return cls.from_cache(images, labels, columns, sha256_of(images, labels, columns), view)

    @classmethod
    def from_cache(
        cls, images: np.ndarray, labels: np.ndarray, columns: dict[str, list], sha256: str, view: Sequence[int] | None
    ) -> Rows:
        """Returns rows from the result of :func:`anatolab.data.store.cached`; a view is part of their hash."""
        height, width = images.shape[2:]
        rims = (height - view[0], width - view[1]) if view is not None else (0, 0)
        if min(rims) < 0 or any(rim % 2 for rim in rims):
            raise InputError(
                f"rows: a view of {view} pixels is not the middle of rows of {(height, width)}; give a view that is "
                "smaller by an even number of pixels."
            )
        if any(rims):
            sha256 = hashlib.sha256(f"{sha256} {rims}".encode()).hexdigest()
        return cls(images, labels, **columns, sha256=sha256, view=(height - rims[0], width - rims[1]))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def channels(self) -> int:
        """Image channels."""
        return self.images.shape[1]

    def index_of(self, patients: Sequence[str]) -> Tensor:
        """Returns the rows of these patients.

        Args:
            patients: Patient ids.

        Returns:
            Row numbers (k,) int64, ascending.

        Raises:
            InputError: No patient is given, or one of them has no row here.
        """
        return find_rows(self.patients, patients)

    def take(self, index: Tensor, num_labeled: int = 0) -> tuple[Tensor, Tensor]:
        """Copies some rows to memory, ready for augmentation.

        Args:
            index: Row numbers (b,) int64.
            num_labeled: Ignored; only patches of volumes need it, see :meth:`anatolab.data.volumes.Volumes.take`.

        Returns:
            Images (b, c, h, w) float32 in [0, 1] and labels (b, h, w) int64 with ``IGNORE`` where unknown.
        """
        rows = index.cpu().numpy()
        label = torch.from_numpy(np.asarray(self.labels[rows])).long()
        return torch.from_numpy(np.asarray(self.images[rows])), label.masked_fill_(label == UNKNOWN, IGNORE)


def find_rows(column: Sequence[str], patients: Sequence[str]) -> Tensor:
    """Returns the ascending row numbers (k,) int64 where a column of patient ids names one of ``patients``."""
    if not patients:
        raise InputError("rows: no patient is given, so there is no row to find; give at least one patient.")
    if unknown := sorted(set(patients) - set(column)):
        raise InputError(
            f"rows: patient {unknown[0]!r} ({len(unknown)} in all) has no row among these {len(column)}; "
            "prepare the rows with this patient too."
        )
    return torch.from_numpy(np.flatnonzero(np.isin(np.asarray(column), list(patients))))


def scaled(case: Case) -> Tensor:
    """Returns the intensities of a case scaled to [0, 1], from its window or from the range of each channel.

    Args:
        case: The volume.

    Returns:
        Image (c, z, y, x) float32 in [0, 1]. A window maps to [0, 1] in every case, so that an intensity in Hounsfield
        units means the same everywhere; without one each volume and channel has its own scale.

    Raises:
        InputError: A channel is constant, or no voxel of it lies inside the window.

    Example:
        >>> image = np.array([-1000.0, -200.0, 25.0, 900.0], np.float32).reshape(1, 1, 2, 2)
        >>> scaled(Case("a", "", image, None, None, None, Path("a.nii.gz"), window=(-200, 250))).flatten().tolist()
        [0.0, 0.0, 0.5, 1.0]
    """
    volume = torch.from_numpy(case.image)
    if case.window is not None:
        volume = volume.clamp(*case.window)
    low, high = volume.amin((1, 2, 3), keepdim=True), volume.amax((1, 2, 3), keepdim=True)
    if bool((low == high).any()):
        inside = f" inside the window {case.window[0]:g} to {case.window[1]:g}" if case.window else ""
        remedy = "check that it is in the unit of the window" if case.window else "remove the channel"
        raise InputError(f"{case.source}: a channel is constant{inside}; {remedy}, or take the case out.")
    if case.window is not None:
        return (volume - case.window[0]) / (case.window[1] - case.window[0])
    return (volume - low) / (high - low)


def percentile_scaled(image: np.ndarray, reference: np.ndarray, source: Path) -> np.ndarray:
    """Scales each channel from the .5th to the 99.5th percentile of a reference to [0, 1], and clips it.

    Args:
        image: (c, *s), any intensities.
        reference: ``(c, *r)``, the part of the image from which percentiles are computed.
        source: The file that a message names.

    Returns:
        (c, *s) float32 in [0, 1].

    Raises:
        InputError: A channel of the reference is constant, but for less than a hundredth of its values.
    """
    axes = tuple(range(1, reference.ndim))
    low, high = np.percentile(reference, PERCENTILES, axis=axes).astype(np.float32)
    if (low == high).any():
        raise InputError(
            f"{source}: a channel is constant except for a few voxels; remove the channel, or take the case out."
        )
    low, high = (value.reshape(-1, *(1,) * (image.ndim - 1)) for value in (low, high))
    return np.clip((image - low) / (high - low), 0, 1)


def slices_of(
    case: Case, size: tuple[int, int], field_of_view: FieldOfView | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a case into slices, for :func:`anatolab.data.prepare` and for prediction.

    Images are resized bilinearly with antialias (half-pixel centers), labels to the nearest pixel (``nearest-exact``).
    With a field of view only its box is resized, together with the margin around it; intensities are then scaled
    between percentiles of the box without margin, unless the case has a window. Beyond the plane lies 0, background.

    Args:
        case: The volume.
        size: Height and width that a network sees, in pixels.
        field_of_view: A 2-D field of view; the whole plane where None.

    Returns:
        Images (z, c, h, w) float32 in [0, 1], see :func:`scaled`, and labels (z, h, w) uint8, all 255 where the case
        has no annotation; (h, w) is ``field_of_view.stored(size)``, or ``size`` without a field of view.

    Raises:
        InputError: A channel is constant, or the field of view is in mm and the case has no spacing.

    Example:
        >>> image = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
        >>> images, labels = slices_of(Case("a", "", image, None, None, None, Path("a.nii.gz")), (4, 4))
        >>> images.shape, float(images.min()), float(images.max()), int(labels.min())
        ((2, 1, 4, 4), 0.0, 1.0, 255)
    """
    stored: tuple[int, ...] = size
    annotation = case.label
    if field_of_view is None:
        volume = scaled(case)
    else:
        stored, (outer, inner) = field_of_view.stored(size), field_of_view.boxes(case)
        if case.window is not None:
            intensities = scaled(case).numpy()
        else:
            intensities = percentile_scaled(case.image, inner.inside(case.image), case.source)
        volume = torch.from_numpy(outer.cut(intensities))
        annotation = outer.cut(annotation) if annotation is not None else None
    image = F.interpolate(volume.transpose(0, 1), stored, mode="bilinear", antialias=True, align_corners=False)
    image = image.clamp_(0, 1)
    if annotation is None:
        return image.numpy(), np.full((len(image), *stored), UNKNOWN, np.uint8)
    label = F.interpolate(torch.from_numpy(annotation)[:, None], stored, mode="nearest-exact")
    return image.numpy(), label[:, 0].numpy()
