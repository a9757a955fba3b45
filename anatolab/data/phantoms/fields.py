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
        """Returns the rows and columns within ``reach`` mm of a point ``(y, x)``."""
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
    """Returns the cubic B-spline of support (-2, 2), integral 1."""
    u = abs(u)
    return np.where(u < 1, 2 / 3 - u**2 * (1 - u / 2), np.where(u < 2, (2 - u) ** 3 / 6, 0.0))


Volume = tuple[np.ndarray, np.ndarray, np.ndarray]  # coordinates (z, y, x) in mm, broadcastable to one shape
Point = tuple[float, float, float]  # (z, y, x) mm


def ellipsoid(coordinates: Volume, center: Point, radii: Point, turn: np.ndarray | None = None) -> np.ndarray:
    """Returns the distance to an ellipsoid in mm, to first order: exact on the surface, negative inside.

    Args:
        coordinates: Where the distance is computed, (z, y, x) mm.
        center: Center of the ellipsoid.
        radii: Half axes.
        turn: (3, 3) rotation from the volume's axes to those of the ellipsoid.

    Example:
        >>> ellipsoid((np.zeros(3), np.zeros(3), np.array([0.5, 4.0, 6.0])), (0, 0, 0), (2, 3, 4)).round(3)
        array([-3.5,  0. ,  2. ])
    """
    offset: list[np.ndarray] = [np.asarray(a - np.float32(c)) for a, c in zip(coordinates, center, strict=True)]
    if turn is not None:
        offset = [sum(np.float32(r) * o for r, o in zip(row, offset, strict=True)) for row in turn]  # type: ignore[misc]
    scaled = [o / np.float32(r) for o, r in zip(offset, radii, strict=True)]
    rho = np.sqrt(scaled[0] ** 2 + scaled[1] ** 2 + scaled[2] ** 2) + np.float32(1e-6)
    slope = np.sqrt(sum((s / np.float32(r)) ** 2 for s, r in zip(scaled, radii, strict=True))) + np.float32(1e-6)
    return rho * (rho - 1) / slope


def chain(coordinates: Volume, points: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Returns the distance in mm to a tube of straight pieces with linearly varying radius; negative inside.

    Args:
        coordinates: Where the distance is computed, (z, y, x) mm.
        points: (k, 3) as (z, y, x), at least two.
        radii: (k,) mm.

    Example:
        >>> at = (np.zeros(3), np.array([0.0, 2.0, 5.0]), np.full(3, 4.0))
        >>> chain(at, np.array([[0, 0, 0], [0, 0, 8]]), np.array([1, 3])).round(6)
        array([-2.,  0.,  3.])
    """
    best: np.ndarray | None = None
    segments = zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True)
    for start, end, first, last in segments:
        way = (end - start).astype(np.float32)
        offset = [a - np.float32(s) for a, s in zip(coordinates, start, strict=True)]
        done = np.clip(sum(o * w for o, w in zip(offset, way, strict=True)) / np.float32((way**2).sum()), 0, 1)
        apart = np.sqrt(sum((o - done * w) ** 2 for o, w in zip(offset, way, strict=True)))
        distance = apart - (np.float32(first) + done * np.float32(last - first))
        best = distance if best is None else np.minimum(best, distance)
    assert best is not None
    return best


def rotation(rng: np.random.Generator, spread: float, lean: Point = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Returns a rotation (3, 3) by angles about z, y and x, in radians: ``lean`` and a normal spread about it.

    Example:
        >>> rotation(np.random.default_rng(0), 0.0).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    turn = np.eye(3)
    for axis, angle in enumerate(lean + spread * rng.standard_normal(3)):
        i, j = (k for k in range(3) if k != axis)
        one = np.eye(3)
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        turn = one @ turn
    return turn


def cover(distance: np.ndarray, width: float) -> np.ndarray:
    """Returns the share of a pixel inside a shape with the outline ``distance`` mm away (negative inside), linearly."""
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


def tube(points: np.ndarray, radii: tuple[float, float], coordinates: Volume, pieces: int = 4) -> np.ndarray:
    """Returns the distance in mm to a bent tube, negative inside: a :func:`chain` along a quadratic Bezier curve.

    Args:
        points: Three control points (3, 3) of the curve, (z, y, x) mm.
        radii: At its start and at its end, mm.
        coordinates: Where the distance is computed, (z, y, x) mm.
        pieces: Straight pieces that stand for the curve.
    """
    t = np.linspace(0, 1, pieces + 1)[:, None]
    curve = (1 - t) ** 2 * points[0] + 2 * t * (1 - t) * points[1] + t**2 * points[2]
    return chain(coordinates, curve, np.linspace(*radii, pieces + 1))


def smooth_min(one: np.ndarray, two: np.ndarray, width: float) -> np.ndarray:
    """Returns the union of two distances, its crease rounded over about ``width`` mm."""
    near = np.clip(1 - abs(one - two) / np.float32(width), 0, None)
    return np.minimum(one, two) - near * near * np.float32(width / 4)
