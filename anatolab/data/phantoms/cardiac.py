"""A generated cardiac short-axis cine cohort in the layout of ACDC: RV, Myo and LV at ED and ES, five pathologies.

Every patient is drawn from a random generator of its own, ``(VERSION, seed, index)``: patient 7 is the same in a
cohort of 10 and of 100. The left ventricle is a bent, rippled half-ellipsoid whose wall keeps its volume from ED to
ES, the right ventricle a crescent around it; valve planes are tilted, slices are thick and slip from breath-hold to
breath-hold, and around the heart lie atria, vessels, fat, chest wall, lungs and abdominal organs that may be as
bright as blood or as dark as muscle. No real data is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anatolab.data.phantoms.fields import Grid, cover, paint
from anatolab.data.phantoms.files import write_nifti

VERSION = 4  # part of every seed: raise it with any change of what is drawn
SIZE = 216  # pixels along the longer side of a slice
CLASSES = ("background", "RV", "Myo", "LV")
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
class Drawing:
    """One generated patient, without files."""

    patient: str  # "patient001"
    pathology: str  # a key of PATHOLOGIES
    spacing: tuple[float, float, float]  # (z, y, x) mm
    frames: dict[str, tuple[np.ndarray, np.ndarray]]  # phase -> image (z, y, x) int16 and label (z, y, x) uint8
    info: dict[str, str]  # the lines of Info.cfg


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


def draw_patient(seed: int, index: int, *, size: int = SIZE) -> Drawing:
    """Draws one patient at ED and ES, a pure function of its arguments.

    Args:
        seed: Seed of the cohort.
        index: Number of the patient in the cohort, from 0; pathologies take turns.
        size: Pixels along the longer side of a slice; the anatomy does not depend on it.

    Returns:
        Images ``(z, y, x)`` int16 in arbitrary units and labels uint8 in 0..3, base first, with spacing in mm.

    >>> one = draw_patient(0, 3, size=64)
    >>> one.pathology, sorted(one.frames), max(one.frames["ED"][0].shape[1:])
    ('MINF', ['ED', 'ES'], 64)
    """
    anatomy, scan = np.random.default_rng([VERSION, seed, index]).spawn(2)
    pathology = list(PATHOLOGIES)[index % len(PATHOLOGIES)]
    wide = anatomy.random() < 0.22  # an almost axial view in landscape format, as some of ACDC
    grid, pixel = _draw_grid(anatomy, size, wide)
    heart = _draw_heart(anatomy, PATHOLOGIES[pathology], grid, wide)
    thickness = float(anatomy.choice([10.0] * 7 + [8.0, 7.0, 5.0]))
    top, bottom = heart.length + anatomy.uniform(-24, -3), anatomy.uniform(-9, 9)
    heights = np.arange(top, bottom, -thickness)  # mm above the apex, base first
    tissue = _draw_tissue(anatomy)
    shift = anatomy.normal(0, 1.3, (len(heights), 2))
    body = _paint_body(anatomy, grid, heart, tissue, heights, wide)
    frames = {}
    fields = anatomy.integers(2**31)
    for phase in ("ED", "ES"):  # the same tissue fields in both phases
        image, label = _paint_heart(
            np.random.default_rng(fields), body, grid, heart, tissue, heights, shift, thickness, pixel, phase
        )
        frames[phase] = _scan(scan, image, grid, tissue, pixel), label
    height, weight = anatomy.normal(171, 9), anatomy.normal(76, 14)
    info = {
        "ED": "1",
        "ES": str(anatomy.integers(8, 14)),
        "Group": pathology,
        "Height": f"{height:.1f}",
        "NbFrame": str(anatomy.integers(20, 31)),
        "Weight": f"{max(weight, 42):.1f}",
    }
    return Drawing(f"patient{index + 1:03d}", pathology, (thickness, pixel, pixel), frames, info)


def _draw_grid(rng: np.random.Generator, size: int, wide: bool) -> tuple[Grid, float]:
    """The field of view: longer side 310 to 375 mm."""
    long, ratio = rng.uniform(310, 375), rng.uniform(0.72, 0.98)
    pixel, short = long / size, round(size * ratio)
    h, w = (short, size) if wide else (size, short)
    return Grid((np.arange(h) - (h - 1) / 2) * pixel, (np.arange(w) - (w - 1) / 2) * pixel), round(pixel, 6)


def _draw_heart(rng: np.random.Generator, disease: Disease, grid: Grid, wide: bool) -> Heart:
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


def _draw_tissue(rng: np.random.Generator) -> dict[str, float]:
    """Mean signals of one scan, blood about 1, before the coil's shading."""
    muscle = rng.uniform(0.20, 0.43)
    return {
        "blood": 1.0,
        "rv": rng.normal(0.84, 0.06),
        "myo": muscle,
        "muscle": muscle * rng.uniform(0.6, 1.3),
        "fat": rng.uniform(0.6, 1.9),
        "lung": rng.uniform(0.10, 0.30),
        "liver": muscle * rng.uniform(0.6, 2.2),
        "noise": rng.uniform(0.015, 0.055),
        "shade": rng.uniform(0.2, 0.7),
        "gain": np.exp(rng.normal(5.6, 0.5)),
    }


def _rotated(dy: np.ndarray, dx: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along a direction and across it."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return dx * c + dy * s, dy * c - dx * s


def _paint_body(
    rng: np.random.Generator,
    grid: Grid,
    heart: Heart,
    tissue: dict[str, float],
    heights: np.ndarray,
    wide: bool,
) -> np.ndarray:
    """Everything but the heart, ``(z, h, w)``: air, fat, chest wall, lungs, abdomen, spine, vessels."""
    n = len(heights)
    y, x = grid.mesh
    up = (heights / heart.length).astype(np.float32)[:, None, None]  # 0 at the apex, 1 at the base
    wy, wx = (8 * grid.field(rng, n, 60, 0.95) + 2.5 * grid.field(rng, n, 22, 0.8) for _ in range(2))
    dy, dx = y - np.float32(heart.center[0]) + wy, x - np.float32(heart.center[1]) + wx
    coarse, fine = grid.field(rng, n, 26, 0.8), grid.field(rng, n, 7, 0.5)

    # the chest: an ellipse whose front left holds the heart
    turn = rng.normal(0, 0.10) if wide else rng.normal(0.1, 0.3)
    half_x, half_y = rng.normal(172, 16), rng.normal(128, 12)
    along, across = _rotated(dy - rng.normal(52, 12) - 8 * up, dx + rng.normal(8, 16), turn)
    skin = (np.sqrt((along / half_x) ** 2 + (across / half_y) ** 2) - 1) * half_y
    fat = rng.uniform(4, 22) + 3 * coarse
    muscle = rng.uniform(6, 12) + 2 * coarse
    canvas = np.full_like(skin, 0.01)
    paint(canvas, tissue["fat"] * (1 + 0.12 * fine), cover(skin, 4))
    paint(canvas, tissue["muscle"] * (1 + 0.15 * fine), cover(skin + fat, 4))
    ribs = cover(6 - abs(skin + fat + 0.5 * muscle) - 5 * coarse, 4)
    paint(canvas, tissue["fat"] * rng.uniform(0.4, 1), ribs * cover(skin + fat, 4))
    inside = cover(skin + fat + muscle, 4)
    paint(canvas, tissue["lung"] + 0.5 * cover(1.9 - fine - 0.3 * coarse, 0.8), inside)

    # mediastinum: fatty tissue around the heart and back to the spine
    spine_y, spine_x = rng.normal(85, 8), rng.normal(12, 16)
    share = np.clip((dy * spine_y + dx * spine_x) / (spine_y**2 + spine_x**2), 0, 1)
    column = np.hypot(dy - share * spine_y, dx - share * spine_x) - rng.uniform(16, 34) - 5 * coarse
    paint(canvas, tissue["fat"] * (0.35 + 0.2 * coarse + 0.1 * fine), inside * cover(column, 5))

    # abdomen: below a dome that rises toward the apex, organs as the cells of a few scattered centers
    dome = rng.uniform(14, 34) + rng.uniform(10, 45) * up + rng.uniform(0, 0.5) * abs(dx + rng.normal(0, 25))
    abdomen = inside * cover(dome - dy, 5)
    centers = np.stack([rng.uniform(20, 120, 8), rng.uniform(-150, 150, 8)], axis=1)
    distance = np.stack([np.hypot(dy - cy, dx - cx) for cy, cx in centers.astype(np.float32)])
    nearest, second = np.partition(distance, 1, axis=0)[:2]
    values = np.where(rng.random(8) < 0.45, tissue["liver"], rng.uniform(0.05, 0.9, 8) ** 1.5)
    organ = values.astype(np.float32)[distance.argmin(0)] * (1 + 0.12 * coarse + 0.12 * fine)
    paint(organ, tissue["fat"] * 0.6, cover(second - nearest - 3 - 2 * coarse, 4))
    paint(organ, tissue["blood"] * rng.uniform(0.3, 1.1), cover(2.0 - fine + 0.3 * coarse, 0.8))
    paint(canvas, organ, abdomen)

    # round things: vertebra, descending aorta, caval vein, a stomach, loose vessels
    for value, radius, py, px in (
        (tissue["muscle"] * 1.5, 17.0, spine_y + 12, spine_x),
        (tissue["blood"], 10.5, spine_y - 12, spine_x + 14),
        (tissue["blood"] * 0.9, 11.0, spine_y - 30, spine_x - 42),
        (rng.uniform(0.05, 1.5), rng.uniform(10, 24), rng.uniform(45, 80), rng.uniform(15, 70)),
        *((rng.uniform(0.4, 1.4), rng.uniform(4, 11), rng.uniform(-20, 100), rng.uniform(-110, 110)) for _ in range(5)),
    ):
        lean_y, lean_x = rng.normal(0, 12, 2)
        ring = np.hypot(dy - py - lean_y * (up - 0.5), dx - px - lean_x * (up - 0.5)) - radius * rng.normal(1, 0.12)
        paint(canvas, tissue["muscle"] * 0.6, inside * cover(ring - 2, 3))
        paint(canvas, value * (1 + 0.1 * fine), inside * cover(ring, 3))
    return canvas


def _paint_heart(
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
    """The body with the heart of one phase in it, and the label: the class that fills most of each voxel."""
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
    along, across = _rotated(dy, dx, heart.septum)
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
        at = hollow * place
        spot = np.hypot(dy - at * np.sin(angle), dx - at * np.cos(angle)) - heart.cavity * share * (1 + 0.5 * medium)
        paint(canvas, tissue["myo"] * 1.1, 0.9 * endo * cover(spot, soft) * cover(abs(t - height) - 0.18, 0.1))

    image = body.copy()
    image[:, rows, cols] = canvas.mean(1)
    shares = np.stack([(rv * (1 - epi) * (1 - endo)).mean(1), (epi * (1 - endo)).mean(1), endo.mean(1)])
    label = np.zeros(body.shape, np.uint8)
    label[:, rows, cols] = np.where(shares.sum(0) > 0.5, shares.argmax(0) + 1, 0)
    return image, label


def _dome(t: np.ndarray) -> np.ndarray:
    """Radius of the ventricle over its largest, at height ``t`` over the length: 0 below the apex, widest at 0.7."""
    return np.sqrt(np.clip(1 - ((0.7 - np.clip(t, None, 0.7)) / 0.7) ** 2, 0, None)) * (
        1 - 0.5 * np.clip(t - 0.7, 0, 0.5)
    )


def _waves(wave: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """A short Fourier series around an outline."""
    total, power = np.zeros(wave.shape, np.float32), np.ones_like(wave)
    for c, s in amplitudes.astype(np.float32):
        power = power * wave
        total += c * power.real + s * power.imag
    return total


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
    """Atria and great vessels above the valve planes: blood in a thin wall, where the ventricles have ended."""
    along, across = _rotated(dy, dx, heart.septum)
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


def _scan(
    rng: np.random.Generator, image: np.ndarray, grid: Grid, tissue: dict[str, float], pixel: float
) -> np.ndarray:
    """Coil shading, blur of the acquisition, Rician noise, and the scanner's gain, as int16."""
    from scipy.ndimage import gaussian_filter

    n = len(image)
    y, x = grid.mesh
    angle = rng.normal(-np.pi / 2 - 0.3, 0.5)  # the coil lies on the front of the chest
    ramp = (y * np.sin(angle) + x * np.cos(angle)) / 120
    glow = 0.18 * grid.field(rng, 1, 90) + rng.normal(0, 0.02, (n, 1, 1))
    shade = np.exp(tissue["shade"] * ramp + glow)
    blurred = gaussian_filter(image, (0, *[0.8 / pixel] * 2)) * shade.astype(np.float32)
    noise = rng.standard_normal((2, *image.shape), np.float32) * np.float32(tissue["noise"])
    noisy = np.hypot(blurred + noise[0], noise[1])
    return np.clip(noisy * np.float32(tissue["gain"]), 0, 32767).round().astype(np.int16)


def draw_cohort(patients: int = 100, *, seed: int = 0, size: int = SIZE) -> Iterator[Drawing]:
    """Draws the patients of a cohort one after another."""
    return (draw_patient(seed, index, size=size) for index in range(patients))


def write_cardiac(root: str | Path, *, patients: int = 100, seed: int = 0, size: int = SIZE) -> Path:
    """Writes a generated cohort in the official layout of ACDC, the ED and ES frames of each patient.

    Args:
        root: Folder to write into; made where it is missing.
        patients: Number of patients; pathologies take turns.
        seed: Seed of the cohort.
        size: Pixels along the longer side of a slice.

    Returns:
        The folder, which holds ``patientXXX/Info.cfg``, ``patientXXX_frameYY.nii.gz`` and ``..._gt.nii.gz``, and
        ``generated.json`` with generator, version and seed.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    for one in draw_cohort(patients, seed=seed, size=size):
        folder = root / one.patient
        folder.mkdir(exist_ok=True)
        (folder / "Info.cfg").write_text("".join(f"{k}: {v}\n" for k, v in one.info.items()), encoding="utf-8")
        for phase, (image, label) in one.frames.items():
            stem = f"{one.patient}_frame{int(one.info[phase]):02d}"
            write_nifti(folder / f"{stem}.nii.gz", image, one.spacing)
            write_nifti(folder / f"{stem}_gt.nii.gz", label, one.spacing)
    about = json.dumps(provenance(patients, seed, size), indent=1) + "\n"
    (root / "generated.json").write_text(about, encoding="utf-8")
    return root


def provenance(patients: int, seed: int, size: int) -> dict[str, object]:
    """What ``generated.json`` says of a cohort: generator, version, seed, number of patients and size."""
    return {
        "generated": True,
        "generator": "anatolab.data.phantoms.cardiac",
        "version": VERSION,
        "seed": seed,
        "patients": patients,
        "size": size,
    }
