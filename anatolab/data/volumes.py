"""Whole volumes, cached once, from which training samples random patches.

With a field of view only its box is kept, and voxels outside are predicted as background.

Intensities are scaled per volume and channel from the 0.5th to the 99.5th percentile to [0, 1] and clipped, because
late-gadolinium MR has few very bright voxels, which would compress a min-max scaling, and because the augmentation
expects [0, 1] also for z-scored files. A case with a window is scaled by that.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from anatolab.data.cache import find_rows, percentile_scaled, scaled, sha256_of
from anatolab.data.field_of_view import FieldOfView
from anatolab.types import IGNORE, UNKNOWN, Case

RECIPE = {  # part of every cache's key: raise the version when anything below changes what is written
    "version": 1,
    "image": "percentiles 0.5 to 99.5 per volume and channel, clipped; native grid",
    "label": "as the file",
}
Sides = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Volumes:
    """Volumes of any sizes, one per row, from which :meth:`take` cuts patches of one size at random positions."""

    images: np.ndarray  # (voxels of all volumes, c) float32 in [0, 1], memory-mapped and read-only
    labels: np.ndarray  # (voxels of all volumes,) uint8 class numbers, 255 = unknown
    shapes: list[Sides]  # (z, y, x), one per row
    names: list[str]  # case ids, one per row
    patients: list[str]  # one per row
    sha256: str  # of all of the above and the two below
    view: Sides  # (z, y, x) voxels of a patch
    foreground: float  # share of the labeled patches that are made to hold a foreground voxel
    _inside: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)  # foreground voxels, by row

    @classmethod
    def from_arrays(
        cls,
        images: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        patients: Sequence[str],
        *,
        size: Sides,
        foreground: float = 1 / 3,
    ) -> Volumes:
        """Returns volumes in memory, named by their patients.

        Args:
            images: (c, z, y, x) float32 in [0, 1], one per volume.
            labels: (z, y, x) uint8 class numbers, 255 = unknown.
            patients: One per volume.
            size: Sides (z, y, x) of a patch, in voxels.
            foreground: As in :func:`anatolab.data.prepare`.

        Example:
            >>> volume, truth = np.zeros((1, 4, 5, 6), np.float32), np.zeros((4, 5, 6), np.uint8)
            >>> image, label = Volumes.from_arrays([volume], [truth], ["a"], size=(2, 2, 8)).take(torch.tensor([0]))
            >>> image.shape, label[0, 0, 0].tolist()
            (torch.Size([1, 1, 2, 2, 8]), [-1, 0, 0, 0, 0, 0, 0, -1])
        """
        flat = np.concatenate([np.moveaxis(image, 0, -1).reshape(-1, len(image)) for image in images])
        truth = np.concatenate([label.ravel() for label in labels])
        columns: dict[str, list] = {
            "names": list(patients),
            "patients": list(patients),
            "shapes": [list(t.shape) for t in labels],
        }
        return cls.from_cache(flat, truth, columns, sha256_of(flat, truth, columns), size, foreground)

    @classmethod
    def from_cache(
        cls,
        images: np.ndarray,
        labels: np.ndarray,
        columns: dict[str, list],
        sha256: str,
        size: Sides,
        foreground: float,
    ) -> Volumes:
        """Returns volumes from the result of :func:`anatolab.data.store.cached`; size and foreground are hashed."""
        sha256 = hashlib.sha256(f"{sha256} {list(size)} {foreground}".encode()).hexdigest()
        shapes = [(z, y, x) for z, y, x in columns["shapes"]]
        names = {name: columns[name] for name in ("names", "patients")}
        return cls(images, labels, shapes, **names, sha256=sha256, view=size, foreground=foreground)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def channels(self) -> int:
        """Image channels."""
        return self.images.shape[1]

    def index_of(self, patients: Sequence[str]) -> Tensor:
        """Returns the rows (k,) int64 of these patients, ascending; an ``InputError`` names one that is not here."""
        return find_rows(self.patients, patients)

    def take(self, index: Tensor, num_labeled: int = 0) -> tuple[Tensor, Tensor]:
        """Cuts one patch of each of some rows, each at a random position.

        Positions come from torch's global CPU generator, which the checkpoint saves; the number of samples does not
        depend on the labels. Labels affect positions only in the first ``num_labeled`` rows. Volumes smaller than the
        patch are padded symmetrically, with 0 in the image and ``IGNORE`` in the label.

        Args:
            index: Row numbers (b,) int64.
            num_labeled: Number of rows, from the first, whose position may depend on their label.

        Returns:
            Images ``(b, c, *view)`` float32 in [0, 1] and labels ``(b, *view)`` int64 with ``IGNORE`` where unknown.
        """
        image = np.zeros((len(index), self.channels, *self.view), np.float32)
        label = np.full((len(index), *self.view), UNKNOWN, np.uint8)
        chance = torch.rand(len(index), 5, dtype=torch.float64).numpy()
        for i, row in enumerate(index.tolist()):
            forced, which, *where = chance[i]
            foreground = self._foreground(row) if i < num_labeled and forced < self.foreground else ()
            voxel = (
                np.unravel_index(foreground[int(which * len(foreground))], self.shapes[row])
                if len(foreground)
                else None
            )
            source, target = place(self.shapes[row], self.view, where, voxel)
            volume, truth = self._row(row)
            image[i][(slice(None), *target)] = np.moveaxis(volume[source], -1, 0)
            label[i][target] = truth[source]
        known = torch.from_numpy(label).long()
        return torch.from_numpy(image), known.masked_fill_(known == UNKNOWN, IGNORE)

    @cached_property
    def _ends(self) -> list[int]:
        """The end of each row in the arrays, after a 0; computed once, so that reading a row takes constant time."""
        return [0, *accumulate(math.prod(shape) for shape in self.shapes)]

    def _row(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns views of image (z, y, x, c) and label (z, y, x)."""
        start, stop, shape = self._ends[row], self._ends[row + 1], self.shapes[row]
        return self.images[start:stop].reshape(*shape, -1), self.labels[start:stop].reshape(shape)

    def _foreground(self, row: int) -> np.ndarray:
        """Returns flat positions of the known foreground voxels of a row."""
        if row not in self._inside:
            label = self._row(row)[1].ravel()
            self._inside[row] = np.flatnonzero((label > 0) & (label != UNKNOWN)).astype(np.int32)
        return self._inside[row]


def place(
    shape: Sequence[int], patch: Sequence[int], chance: Sequence[float], voxel: Sequence[int] | None = None
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Samples the position of a patch in a volume, uniformly over all positions that contain ``voxel``.

    Args:
        shape: Shape of the volume.
        patch: Its sides.
        chance: Uniform in [0, 1), one per axis.
        voxel: A voxel that the patch must hold, if any.

    Returns:
        Slices of the volume and of the patch, of the same lengths.

    Example:
        >>> place((10, 3), (4, 5), (0.99, 0.5))
        ((slice(6, 10, None), slice(0, 3, None)), (slice(0, 4, None), slice(1, 4, None)))
    """
    source, target = [], []
    for axis, (size, side) in enumerate(zip(shape, patch, strict=True)):
        low, high = 0, max(size - side, 0)
        if voxel is not None:
            low, high = max(low, int(voxel[axis]) - side + 1), min(high, int(voxel[axis]))
        start, pad = low + int(chance[axis] * (high - low + 1)), max(side - size, 0) // 2
        source.append(slice(start, min(start + side, size)))
        target.append(slice(pad, pad + min(side, size)))
    return tuple(source), tuple(target)


def volume_of(case: Case, field_of_view: FieldOfView | None = None) -> np.ndarray:
    """Scales a case for a 3-D network, for the cache and for prediction.

    Args:
        case: The volume.
        field_of_view: A 3-D field of view; the whole volume where None.

    Returns:
        (c, z, y, x) float32 in [0, 1], of the box of the field of view, on the grid of the case.

    Raises:
        InputError: A channel is constant, but for less than a hundredth of its voxels.
    """
    values = scaled(case).numpy() if case.window is not None else case.image
    part = values if field_of_view is None else field_of_view.boxes(case)[0].cut(values)
    return part if case.window is not None else percentile_scaled(part, part, case.source)
