"""Smooth random fields in millimeters and soft painting: what every generated anatomy is made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

SPLINE_POWER = 151 / 315  # integral of the squared cubic B-spline: variance of a field of unit weights, per axis


@dataclass(frozen=True)
class Grid:
    """Pixel centers of a slice in mm from the image center, row coordinates ``y`` and column coordinates ``x``."""

    y: np.ndarray  # (h,) mm
    x: np.ndarray  # (w,) mm
    center: tuple[float, float] = (0.0, 0.0)  # (y, x) of random fields, mm
    reach: float = 200.0  # of random fields from their center, mm

    @cached_property
    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column coordinates, broadcastable to ``(h, w)``."""
        return self.y[:, None].astype(np.float32), self.x[None, :].astype(np.float32)

    def crop(self, center: tuple[float, float], reach: float) -> tuple[slice, slice]:
        """The rows and columns within ``reach`` mm of a point ``(y, x)``."""
        rows, cols = (np.flatnonzero(abs(axis - c) <= reach) for axis, c in zip((self.y, self.x), center, strict=True))
        return slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)

    def field(self, rng: np.random.Generator, slices: int, scale: float, keep: float = 0.7) -> np.ndarray:
        """Draws a smooth random field with mean about 0 and standard deviation about 1.

        What is drawn does not depend on the pixels: a finer grid shows the same field more finely.

        Args:
            rng: Source of randomness.
            slices: Number of slices.
            scale: Distance of the spline knots, mm.
            keep: Correlation of a slice with the next, in [0, 1].

        Returns:
            float32 array ``(slices, h, w)``.
        """
        knots = np.arange(-self.reach - 2 * scale, self.reach + 2 * scale, scale)
        weights = rng.standard_normal((slices, len(knots), len(knots)), np.float32)
        for k in range(1, slices):
            weights[k] = keep * weights[k - 1] + (1 - keep**2) ** 0.5 * weights[k]
        rows, cols = (
            _cubic((axis[:, None] - c - knots) / scale).astype(np.float32)
            for axis, c in zip((self.y, self.x), self.center, strict=True)
        )
        return rows @ weights @ (cols.T / np.float32(SPLINE_POWER))


def _cubic(u: np.ndarray) -> np.ndarray:
    """The cubic B-spline of support (-2, 2), integral 1."""
    u = abs(u)
    return np.where(u < 1, 2 / 3 - u**2 * (1 - u / 2), np.where(u < 2, (2 - u) ** 3 / 6, 0.0))


def cover(distance: np.ndarray, width: float) -> np.ndarray:
    """Share of a pixel inside a shape whose outline is ``distance`` mm away (negative inside), as a linear ramp."""
    return np.clip(np.float32(0.5) - distance / np.float32(width), 0, 1)


def paint(canvas: np.ndarray, value: np.ndarray | float, share: np.ndarray) -> None:
    """Mixes ``value`` into the canvas in place, by its share of each pixel."""
    canvas += share * (value - canvas)
