"""The heart of the generated cardiac cohort: its shape at end-diastole and end-systole, and how it is painted.

The left ventricle is a bent, rippled half-ellipsoid whose wall keeps its volume from ED to ES, the right ventricle a
crescent around it. Their valve planes are tilted; above them lie the atria and the great vessels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anatolab.data.phantoms.fields import Grid, cover, paint

THIN = 3  # positions averaged over the thickness of a slice
BOX = 88.0  # mm from the heart's center that the heart is painted in


@dataclass(frozen=True)
class Disease:
    """How a pathology shapes the heart, as means over its patients."""

    cavity: float  # radius of the LV cavity at ED, mm
    wall: float  # thickness of the LV wall at ED, mm
    squeeze: float  # radius of the LV cavity at ES over that at ED
    rv: float = 1.0  # width of the RV over the normal one
    scar: float = 0.0  # share of the wall's thickness and motion lost in one segment
    septum: float = 0.0  # thickening of the septum over the free wall


PATHOLOGIES = {
    "NOR": Disease(cavity=23.5, wall=8.0, squeeze=0.64),
    "DCM": Disease(cavity=32.0, wall=7.5, squeeze=0.87),
    "HCM": Disease(cavity=21.5, wall=12.5, squeeze=0.50, septum=0.25),
    "MINF": Disease(cavity=27.5, wall=8.0, squeeze=0.76, scar=0.55),
    "RV": Disease(cavity=21.5, wall=8.0, squeeze=0.66, rv=1.6),
}


@dataclass(frozen=True)
class Heart:
    """The shape of one patient's heart, in mm and radians, fixed over the beat."""

    center: tuple[float, float]  # of the LV in the image, (y, x)
    slope: tuple[float, float]  # in-plane drift of the LV's axis per mm of height, (y, x)
    septum: float  # direction from the LV to the RV; 0 is along columns
    cavity: float  # radius of the LV cavity at ED
    wall: float
    length: float  # from the outer apex to the valve plane, ED
    squeeze: float
    rv: float
    rv_apex: float  # height at which the RV starts, over the length
    rv_gap: float  # how far the RV's valve plane lies below that of the LV
    tilt: tuple[float, float]  # of the valve plane: amplitude in mm, direction
    ripple: np.ndarray  # (4, 2) cosine and sine amplitudes of the outline, wavenumbers 1 to 4
    rv_ripple: np.ndarray  # (3, 2)
    rv_shape: tuple[float, float, float]  # reach along the septum, offset, asymmetry
    scar: tuple[float, float, float, float]  # strength, direction, width (von Mises), height over the length
    septal: float  # thickening of the septum
    papillary: np.ndarray  # (n, 4) direction, radial position, radius over the cavity's, height over the length


def draw_heart(rng: np.random.Generator, disease: Disease, grid: Grid, wide: bool) -> Heart:
    h, w = np.ptp(grid.y), np.ptp(grid.x)
    build = rng.normal(1, 0.07)  # large and small people
    septum = np.radians(rng.normal(-140, 16) if wide else rng.normal(165, 20))
    middle = np.array([rng.normal(-0.01, 0.055) * h, rng.normal(-0.065, 0.045) * w])
    center = middle - 14 * np.array([np.sin(septum), np.cos(septum)])
    count = rng.integers(2, 5)
    papillary = np.stack(
        [
            septum + np.pi + rng.choice([-1, 1]) * rng.uniform(0.5, 1.6) + np.arange(count) * 2.1,
            rng.uniform(0.5, 0.82, count),
            rng.uniform(0.12, 0.24, count),
            rng.uniform(0.35, 0.6, count),
        ],
        axis=1,
    )
    return Heart(
        center=(center[0], center[1]),
        slope=(rng.normal(0, 0.09), rng.normal(0, 0.09)),
        septum=septum,
        cavity=build * disease.cavity * rng.normal(1, 0.07),
        wall=build * disease.wall * rng.normal(1, 0.10),
        length=build * rng.normal(88, 6) * (disease.cavity / 24) ** 0.3,
        squeeze=min(disease.squeeze * rng.normal(1, 0.07), 0.95),
        rv=build * disease.rv * rng.normal(1, 0.12),
        rv_apex=rng.uniform(0.03, 0.22),
        rv_gap=rng.uniform(0, 11),
        tilt=(rng.uniform(1, 7), rng.uniform(0, 2 * np.pi)),
        ripple=rng.normal(0, 1, (4, 2)) * np.array([[0.0], [0.055], [0.025], [0.012]]),
        rv_ripple=rng.normal(0, 1, (3, 2)) * np.array([[0.03], [0.04], [0.025]]),
        rv_shape=(rng.normal(1.22, 0.08), rng.normal(0.55, 0.06), rng.normal(0, 0.15)),
        scar=(
            disease.scar * rng.uniform(0.7, 1.3),
            rng.uniform(0, 2 * np.pi),
            rng.uniform(1, 3),
            rng.uniform(0.2, 0.7),
        ),
        septal=disease.septum * rng.uniform(0.3, 1.7),
        papillary=papillary,
    )


def paint_heart(
    rng: np.random.Generator,
    body: np.ndarray,
    grid: Grid,
    heart: Heart,
    tissue: dict[str, float],
    heights: np.ndarray,
    shift: np.ndarray,
    thickness: float,
    pixel: float,
    phase: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the body with the heart of one phase in it, and the label: the class that fills most of each voxel."""
    rows, cols = grid.crop(heart.center, BOX)
    near = Grid(grid.y[rows], grid.x[cols], heart.center, BOX)
    n, soft = len(heights), max(1.2 * pixel, 1.5)
    z = (heights[:, None] + thickness * np.linspace(-0.33, 0.33, THIN)).astype(np.float32)[..., None, None]

    def texture(scale: float, keep: float = 0.6) -> np.ndarray:
        return near.field(rng, n, scale, keep)[:, None]

    y, x = near.mesh
    off_y, off_x = (
        c + s * (z - 0.5 * heart.length) + d.astype(np.float32)[:, None, None, None]
        for c, s, d in zip(heart.center, heart.slope, shift.T, strict=True)
    )
    dy, dx = y - off_y + 1.3 * texture(28), x - off_x + 1.3 * texture(28)
    coarse, medium, fine = texture(14), texture(9), texture(5, 0.3)

    # the left ventricle: outer and inner radius around its axis
    ed = phase == "ED"
    radius = np.maximum(np.hypot(dy, dx), 1e-3)
    wave = (dx + 1j * dy) / radius  # e^{i theta}
    systole = 0.0 if ed else 1.0
    length = heart.length * (1 - 0.12 * systole * (1 - heart.squeeze) / 0.36)
    cavity = heart.cavity * (1 if ed else heart.squeeze)
    area = ((heart.cavity + heart.wall) ** 2 - heart.cavity**2) * heart.length / length  # the wall keeps its volume
    wall = np.sqrt(cavity**2 + area) - cavity
    t = z / length
    toward_septum = (wave * np.exp(-1j * heart.septum)).real
    strength, direction, kappa, level = heart.scar
    scar = strength * np.exp(kappa * ((wave * np.exp(-1j * direction)).real - 1) - ((t - level) / 0.3) ** 2)
    outline = 1 + _waves(wave, heart.ripple)
    thick = wall * (1 + heart.septal * toward_septum) * (1 - scar * (0.6 + 0.3 * systole))
    hollow = cavity * outline * (1 + 0.25 * systole * scar)
    apex = 0.25 * heart.wall / length  # the wall closes the cavity
    outer = radius - (hollow + thick) * _dome(t) + np.maximum(-z, 0)
    inner = radius - hollow * _dome((t - apex) / (1 - apex))
    valve = length + heart.tilt[0] * (wave * np.exp(-1j * heart.tilt[1])).real
    below = cover(z - length, 3)
    epi, endo = cover(outer, soft) * below * cover(z - valve - 2, 3), cover(inner, soft) * below

    # the right ventricle: an ellipse behind the septum, cut by the left ventricle
    reach, offset, skew = heart.rv_shape
    big = cavity + wall
    along, across = rotated(dy, dx, heart.septum)
    u = np.clip((t - heart.rv_apex) / (1 - heart.rv_apex), 1e-3, None)
    grow = np.minimum(u, 1.1) ** 0.45
    width = big * (1 - offset) + 36 * heart.rv * (1 - 0.28 * systole) * grow
    tall = big * reach * grow * (0.8 + 0.2 * heart.rv)
    p, q = along - big * offset, across - skew * big * (u - 0.4)
    ellipse = np.sqrt((p / width) ** 2 + (q / tall) ** 2) + 1e-6
    rv_wave = (p / width + 1j * q / tall) / ellipse
    free = (ellipse / (1 + _waves(rv_wave, heart.rv_ripple)) - 1) * np.minimum(width, tall)
    free = np.maximum(free, 0.1 * big - along)  # it ends where it meets the LV
    free = free + 4 * np.maximum(heart.rv_apex * length - z, 0)
    chamber = np.maximum(free, 0.8 - outer)
    rv_top = length - heart.rv_gap
    rv = cover(chamber, soft) * cover(z - rv_top, 3)

    # paint from the outside in
    canvas = np.repeat(body[:, None, rows, cols], THIN, axis=1)
    sac = np.minimum(outer, free)
    paint(canvas, tissue["fat"] * (0.55 + 0.25 * coarse + 0.15 * fine), cover(sac - 5 - 3 * coarse - 2 * medium, 4))
    paint(
        canvas, tissue["myo"] * (0.8 + 0.1 * fine), cover(free - 2.5 - 0.6 * medium, soft) * cover(z - rv_top - 12, 4)
    )
    blood = tissue["blood"] * (1 + 0.17 * coarse + 0.08 * fine)
    rv_blood = tissue["rv"] * (1 + 0.10 * coarse + 0.05 * medium + 0.06 * fine)
    _paint_base(canvas, rng, heart, tissue, blood, dy, dx, z, length, rv_top, cavity, big)
    paint(canvas, rv_blood, rv)
    strands = cover(0.9 + 1.3 * u - 0.5 * medium - fine, 0.8) * rv  # trabeculae, denser toward the apex
    paint(canvas, tissue["myo"], 0.3 * strands)
    paint(canvas, tissue["myo"] * (1 + 0.06 * coarse + 0.05 * fine), epi)
    paint(canvas, blood, endo)
    rim = cover(1.0 - 0.14 * (inner + 5) - 0.5 * medium - fine, 0.8)  # trabeculae along the wall
    paint(canvas, tissue["myo"], 0.7 * rim * endo * cover(t - 0.75, 0.2))
    for angle, place, share, height in heart.papillary:
        depth = hollow * place
        spot = np.hypot(dy - depth * np.sin(angle), dx - depth * np.cos(angle)) - heart.cavity * share * (
            1 + 0.5 * medium
        )
        paint(canvas, tissue["myo"] * 1.1, 0.9 * endo * cover(spot, soft) * cover(abs(t - height) - 0.18, 0.1))

    image = body.copy()
    image[:, rows, cols] = canvas.mean(1)
    shares = np.stack([(rv * (1 - epi) * (1 - endo)).mean(1), (epi * (1 - endo)).mean(1), endo.mean(1)])
    label = np.zeros(body.shape, np.uint8)
    label[:, rows, cols] = np.where(shares.sum(0) > 0.5, shares.argmax(0) + 1, 0)
    return image, label


def _paint_base(
    canvas: np.ndarray,
    rng: np.random.Generator,
    heart: Heart,
    tissue: dict[str, float],
    blood: np.ndarray,
    dy: np.ndarray,
    dx: np.ndarray,
    z: np.ndarray,
    length: float,
    rv_top: float,
    cavity: float,
    big: float,
) -> None:
    """Paints atria and great vessels above the valve planes: blood in a thin wall, where the ventricles have ended."""
    along, across = rotated(dy, dx, heart.septum)
    flip = 1 if np.cos(heart.septum) < 0 else -1  # toward the front of the chest
    for radius, p, q, start in (
        (cavity * rng.uniform(0.9, 1.2), rng.uniform(-8, 4), -flip * rng.uniform(-4, 10), length - heart.tilt[0]),
        (rng.uniform(18, 26), big + rng.uniform(2, 14), -flip * rng.uniform(8, 24), rv_top - 3),
        (rng.uniform(11, 15), big * rng.uniform(0.3, 0.8), flip * rng.uniform(4, 16), length),
        (rng.uniform(10, 14), big * rng.uniform(0.5, 1.0), flip * rng.uniform(26, 40), rv_top),
    ):
        squash = rng.uniform(0.75, 1.25)
        ring = np.hypot((along - p) * squash, (across - q) / squash) - radius
        there = cover(start - z, 4)
        paint(canvas, tissue["myo"] * 0.8, there * cover(ring - 2, 3))
        paint(canvas, blood * rng.uniform(0.8, 1.1), there * cover(ring, 2))


def rotated(dy: np.ndarray, dx: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns coordinates along a direction and across it."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return dx * c + dy * s, dy * c - dx * s


def _dome(t: np.ndarray) -> np.ndarray:
    """Returns the relative radius of the ventricle at relative height ``t``: 0 below the apex, 1 at 0.7."""
    return np.sqrt(np.clip(1 - ((0.7 - np.clip(t, None, 0.7)) / 0.7) ** 2, 0, None)) * (
        1 - 0.5 * np.clip(t - 0.7, 0, 0.5)
    )


def _waves(wave: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """Evaluates a short Fourier series around an outline."""
    total, power = np.zeros(wave.shape, np.float32), np.ones_like(wave)
    for c, s in amplitudes.astype(np.float32):
        power = power * wave
        total += c * power.real + s * power.imag
    return total
