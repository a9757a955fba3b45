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
from anatolab.data.phantoms.heart import PATHOLOGIES, Heart, draw_heart, paint_heart, rotated

VERSION = 4  # part of every seed: raise it with any change of what is drawn
SIZE = 216  # pixels along the longer side of a slice
CLASSES = ("background", "RV", "Myo", "LV")


@dataclass(frozen=True)
class Drawing:
    """One generated patient, without files."""

    patient: str  # "patient001"
    pathology: str  # a key of PATHOLOGIES
    spacing: tuple[float, float, float]  # (z, y, x) mm
    frames: dict[str, tuple[np.ndarray, np.ndarray]]  # phase -> image (z, y, x) int16 and label (z, y, x) uint8
    info: dict[str, str]  # the lines of Info.cfg


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
    heart = draw_heart(anatomy, PATHOLOGIES[pathology], grid, wide)
    thickness = float(anatomy.choice([10.0] * 7 + [8.0, 7.0, 5.0]))
    top, bottom = heart.length + anatomy.uniform(-24, -3), anatomy.uniform(-9, 9)
    heights = np.arange(top, bottom, -thickness)  # mm above the apex, base first
    tissue = _draw_tissue(anatomy)
    shift = anatomy.normal(0, 1.3, (len(heights), 2))
    body = _paint_body(anatomy, grid, heart, tissue, heights, wide)
    frames = {}
    fields = anatomy.integers(2**31)
    for phase in ("ED", "ES"):  # the same tissue fields in both phases
        image, label = paint_heart(
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
    """Returns the field of view: longer side 310 to 375 mm."""
    long, ratio = rng.uniform(310, 375), rng.uniform(0.72, 0.98)
    pixel, short = long / size, round(size * ratio)
    h, w = (short, size) if wide else (size, short)
    return Grid((np.arange(h) - (h - 1) / 2) * pixel, (np.arange(w) - (w - 1) / 2) * pixel), round(pixel, 6)


def _draw_tissue(rng: np.random.Generator) -> dict[str, float]:
    """Returns the mean signals of one scan, blood about 1, before the coil's shading."""
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


def _paint_body(
    rng: np.random.Generator,
    grid: Grid,
    heart: Heart,
    tissue: dict[str, float],
    heights: np.ndarray,
    wide: bool,
) -> np.ndarray:
    """Returns everything but the heart, ``(z, h, w)``: air, fat, chest wall, lungs, abdomen, spine, vessels."""
    n = len(heights)
    y, x = grid.mesh
    up = (heights / heart.length).astype(np.float32)[:, None, None]  # 0 at the apex, 1 at the base
    wy, wx = (8 * grid.field(rng, n, 60, 0.95) + 2.5 * grid.field(rng, n, 22, 0.8) for _ in range(2))
    dy, dx = y - np.float32(heart.center[0]) + wy, x - np.float32(heart.center[1]) + wx
    coarse, fine = grid.field(rng, n, 26, 0.8), grid.field(rng, n, 7, 0.5)

    # the chest: an ellipse whose front left holds the heart
    turn = rng.normal(0, 0.10) if wide else rng.normal(0.1, 0.3)
    half_x, half_y = rng.normal(172, 16), rng.normal(128, 12)
    along, across = rotated(dy - rng.normal(52, 12) - 8 * up, dx + rng.normal(8, 16), turn)
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


def _scan(
    rng: np.random.Generator, image: np.ndarray, grid: Grid, tissue: dict[str, float], pixel: float
) -> np.ndarray:
    """Applies coil shading, blur of the acquisition, Rician noise and the scanner's gain; int16."""
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
    """Returns what ``generated.json`` says of a cohort: generator, version, seed, number of patients and size."""
    return {
        "generated": True,
        "generator": "anatolab.data.phantoms.cardiac",
        "version": VERSION,
        "seed": seed,
        "patients": patients,
        "size": size,
    }
