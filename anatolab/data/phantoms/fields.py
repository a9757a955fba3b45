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


def volume_field(rng: np.random.Generator, axes: tuple[np.ndarray, ...], scale: float, reach: float) -> np.ndarray:
    """Draws a smooth random field in 3-D with mean about 0 and standard deviation about 1, as :meth:`Grid.field` does.

    Args:
        rng: Source of randomness.
        axes: Voxel centers along z, y and x, mm from the center.
        scale: Distance of the spline knots in every direction, mm.
        reach: How far from the center the field is drawn, mm; voxels beyond are 0.

    Returns:
        float32 array ``(z, y, x)``, the same field more finely on a finer grid.
    """
    knots = np.arange(-reach - 2 * scale, reach + 2 * scale, scale)
    field = rng.standard_normal((len(knots),) * 3, np.float32)
    for axis in axes:  # contracts the first axis and appends the result: after three turns the order is z, y, x
        spline = _cubic((axis[:, None] - knots) / scale) / SPLINE_POWER**0.5
        field = np.tensordot(field, spline.astype(np.float32), (0, 1))
    return field


def tube(points: np.ndarray, radii: tuple[float, float], at: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Distance to the surface of a bent tube (negative inside), mm, as that of balls strung along its axis.

    Args:
        points: Three control points ``(3, 3)`` of a quadratic Bezier curve, (z, y, x) mm.
        radii: At the start and at the end of the curve, mm.
        at: Coordinates (z, y, x) of the voxels, mm, of one shape.

    Returns:
        float32 array of that shape.
    """
    length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
    t = np.linspace(0, 1, max(2, int(np.ceil(length / (0.6 * np.min(radii)))) + 1))[:, None]
    curve = ((1 - t) ** 2 * points[0] + 2 * t * (1 - t) * points[1] + t**2 * points[2]).astype(np.float32)
    nearest = np.full(at[0].shape, np.inf, np.float32)
    for center, radius in zip(
        curve, np.float32(radii[0]) + t.astype(np.float32) * np.float32(radii[1] - radii[0]), strict=True
    ):
        z, y, x = (c - o for c, o in zip(at, center, strict=True))
        np.minimum(nearest, np.sqrt(z * z + y * y + x * x) - radius, out=nearest)
    return nearest


def smooth_min(one: np.ndarray, two: np.ndarray, width: float) -> np.ndarray:
    """The union of two distances, its crease rounded over about ``width`` mm."""
    near = np.clip(1 - abs(one - two) / np.float32(width), 0, None)
    return np.minimum(one, two) - near * near * np.float32(width / 4)
