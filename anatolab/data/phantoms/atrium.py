"""A generated left-atrium cohort, late-gadolinium MR in the layout of the 2018 challenge: the atrium and its veins.

Every patient is drawn from a random generator of its own, ``(VERSION, seed, index)``: patient 7 is the same in a
cohort of 10 and of 60. The atrium is a warped ellipsoid with two to five pulmonary veins and an appendage; as in the
challenge, a vein belongs to it up to about a centimeter from the body, and the mitral plane, which is hardly seen,
ends it. Around it lie the other chambers, aorta, pulmonary artery, caval veins, esophagus and spine, as bright as the
atrium or nearly, in fat and between lungs. No real data is used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anatolab.data.phantoms.fields import Point, Volume, cover, ellipsoid, paint, smooth_min, tube, volume_field

VERSION = 2  # part of every seed: raise it with any change of what is drawn
SIZE = 96  # voxels along the columns
CLASSES = ("background", "LA")
REACH = 64.0  # mm from the center of the volume that random fields are drawn in
VEINS = {  # direction of the opening (z, y, x): up, to the back, to the left
    "right superior": (0.50, 0.20, -0.84),
    "right inferior": (-0.25, 0.50, -0.83),
    "left superior": (0.50, 0.25, 0.83),
    "left inferior": (-0.20, 0.60, 0.78),
    "right middle": (0.10, 0.35, -0.93),
    "left common": (0.15, 0.45, 0.88),
    "right common": (0.10, 0.40, -0.91),
}
ANATOMIES = (  # share of patients, and their veins
    (0.07, ("left common", "right common")),
    (0.20, ("left common", "right superior", "right inferior")),
    (0.53, ("left superior", "left inferior", "right superior", "right inferior")),
    (0.20, ("left superior", "left inferior", "right superior", "right inferior", "right middle")),
)


@dataclass(frozen=True)
class Atrium:
    """One generated patient, without files."""

    patient: str  # "ATR001"
    veins: int  # how many pulmonary veins open into the atrium
    spacing: float  # mm, the same along all axes
    image: np.ndarray  # (z, y, x) uint8, z from the feet up, y to the back, x to the patient's left
    label: np.ndarray  # (z, y, x) uint8, 1 in the atrium


def draw_atrium(seed: int, index: int, *, size: int = SIZE) -> Atrium:
    """Draws one patient, a pure function of its arguments.

    Args:
        seed: Seed of the cohort.
        index: Number of the patient in the cohort, from 0.
        size: Voxels along the columns; the anatomy does not depend on it.

    Returns:
        Image and label on an isotropic grid of at most ``size`` voxels a side, 105 to 120 mm wide.

    >>> one = draw_atrium(0, 0, size=32)
    >>> one.image.shape == one.label.shape, one.image.dtype.name, sorted(set(one.label.flat)) == [0, 1]
    (True, 'uint8', True)
    """
    anatomy, scan = np.random.default_rng([VERSION, seed, index]).spawn(2)
    axes, voxel = _draw_grid(anatomy, size)
    coordinates = _heart_coordinates(anatomy, axes)
    tissue = _draw_tissue(anatomy)
    veins = ANATOMIES[anatomy.choice(len(ANATOMIES), p=[share for share, _ in ANATOMIES])][1]
    body, vessels = _atrium_distances(anatomy, coordinates, veins)
    chamber = smooth_min(body, np.maximum(vessels, body - anatomy.normal(11, 1)), 4)  # veins up to a centimeter
    canvas = _paint_surroundings(anatomy, axes, coordinates, tissue, voxel)
    _paint_atrium(anatomy, canvas, axes, np.minimum(chamber, vessels), tissue, voxel)
    image, label = _scan(scan, canvas, axes, tissue, voxel), (chamber < 0).astype(np.uint8)
    return Atrium(f"ATR{index + 1:03d}", len(veins), voxel, image, label)


def _draw_grid(rng: np.random.Generator, size: int) -> tuple[Volume, float]:
    """Returns voxel centers along z, y and x, in mm from the middle of a patient-specific field of view."""
    voxel = round(rng.uniform(105, 120) / size, 6)
    counts = round(size * rng.uniform(0.50, 0.67)), round(size * rng.uniform(0.82, 1.0)), size
    z, y, x = ((np.arange(n) - (n - 1) / 2) * voxel for n in counts)
    return (z, y, x), voxel


def _heart_coordinates(rng: np.random.Generator, axes: Volume) -> Volume:
    """Returns each voxel's coordinates (z, y, x) in mm from the atrium's center, along the patient's warped axes."""
    center = rng.uniform(-1, 1, 3) * np.array([10, 15, 16])
    z, y, x = (
        axis.astype(np.float32).reshape([-1 if k == i else 1 for k in range(3)]) - np.float32(c)
        for i, (axis, c) in enumerate(zip(axes, center, strict=True))
    )
    warp = [3.2 * volume_field(rng, axes, 26, REACH) + 1.0 * volume_field(rng, axes, 11, REACH) for _ in range(3)]
    z, y, x = z + warp[0], y + warp[1], x + warp[2]
    for angle, plane in zip(np.radians(rng.normal(0, (13, 10, 8))), ((1, 2), (0, 1), (0, 2)), strict=True):
        place, (c, s) = [z, y, x], (np.float32(np.cos(angle)), np.float32(np.sin(angle)))
        one, two = place[plane[0]], place[plane[1]]
        place[plane[0]], place[plane[1]] = c * one - s * two, s * one + c * two
        z, y, x = place
    build = np.float32(rng.normal(1, 0.07))  # large and small people
    return z / build, y / build, x / build


def _draw_tissue(rng: np.random.Generator) -> dict[str, float]:
    """Returns the mean signals of one scan, blood of the atrium 1, before the coil's shading."""
    muscle = rng.uniform(0.22, 0.48)  # nulled by the inversion pulse, well or badly
    return {
        "blood": 1.0,
        "right": rng.uniform(0.86, 1.10),
        "left": rng.uniform(0.90, 1.12),
        "artery": rng.uniform(0.88, 1.12),
        "muscle": muscle,
        "scar": rng.uniform(0.9, 1.6),
        "fat": rng.uniform(0.30, 0.85),
        "lung": rng.uniform(0.08, 0.30),
        "bone": rng.uniform(0.5, 1.1),
        "noise": rng.uniform(0.03, 0.10),
        "shade": rng.uniform(0.1, 0.35),
        "blur": rng.uniform(0.6, 1.2),  # mm in the plane; slices are acquired thicker
        "thick": rng.uniform(0.8, 1.8),
    }


def _point(values: np.ndarray) -> Point:
    return float(values[0]), float(values[1]), float(values[2])


def _atrium_distances(
    rng: np.random.Generator, coordinates: Volume, veins: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distances (mm) to the body with its appendage, and to the visible part of the veins."""
    radii = np.array([23.0, 18.0, 27.0]) * rng.normal(1, 0.10, 3)
    body = ellipsoid(coordinates, (0, 0, 0), _point(radii))
    mitral = np.array([-0.55, -0.60, 0.58]) + rng.normal(0, 0.08, 3)
    mitral /= np.linalg.norm(mitral)
    height = rng.uniform(0.62, 0.80) * np.linalg.norm(mitral * radii)
    plane = sum(c * np.float32(m) for c, m in zip(coordinates, mitral, strict=True)) - np.float32(height)
    body = np.maximum(body, plane)
    vessels = np.full_like(body, np.inf)
    for name in veins:
        direction = np.array(VEINS[name]) + rng.normal(0, 0.10, 3)
        direction /= np.linalg.norm(direction)
        opening = 0.55 * direction * radii
        bend = opening + direction * (radii * 0.4 + rng.uniform(8, 14))
        end = bend + (direction + rng.normal(0, 0.35, 3)) * rng.uniform(22, 34)
        wide = rng.uniform(8.0, 10.5) if "common" in name else rng.uniform(5.0, 7.5) * (0.8 if "middle" in name else 1)
        vessels = np.minimum(vessels, tube(np.stack([opening, bend, end]), (wide, 0.6 * wide), coordinates))
    root = np.array([0.25, -0.55, 0.75]) * radii
    hook = root + np.array([rng.uniform(-4, 8), rng.uniform(-16, -9), rng.uniform(4, 12)])
    tip = hook + np.array([rng.uniform(-8, 12), rng.uniform(-14, -4), rng.uniform(-12, 6)])
    wide = rng.uniform(5.5, 8.5)
    appendage = tube(np.stack([root, hook, tip]), (wide, rng.uniform(0.45, 0.8) * wide), coordinates)
    return smooth_min(body, np.maximum(appendage, plane), 5), vessels


def _paint_surroundings(
    rng: np.random.Generator, axes: Volume, coordinates: Volume, tissue: dict[str, float], voxel: float
) -> np.ndarray:
    """Returns everything but the atrium: lungs, fat, spine, esophagus, the other chambers and the great vessels."""
    z, y, x = coordinates
    soft = max(voxel, 1.2)
    coarse, fine = volume_field(rng, axes, 13, REACH), volume_field(rng, axes, 5, REACH)
    flow = 1 + 0.08 * coarse + 0.05 * fine

    canvas = tissue["lung"] * (1 + 0.3 * fine) + 0.6 * tissue["blood"] * cover(2.0 - fine - 0.3 * coarse, 0.6)
    middle = np.hypot((y + 5) / np.float32(rng.normal(62, 4)), x / np.float32(rng.normal(52, 6))) - 1
    paint(canvas, tissue["fat"] * (0.8 + 0.15 * coarse + 0.1 * fine), cover(50 * middle + 4 * coarse, 4))

    def shape(center: Point, radii: Point, spread: float = 3) -> np.ndarray:
        place = np.array(center) + rng.normal(0, spread, 3)
        return ellipsoid(coordinates, _point(place), _point(np.array(radii) * rng.normal(1, 0.10, 3)))

    def vessel(points: list[Point], radius: float, spread: float = 3) -> np.ndarray:
        placed = np.array(points) + rng.normal(0, spread, (1, 3)) + rng.normal(0, 1.5, (3, 3))
        wide = radius * rng.normal(1, 0.12)
        return tube(placed, (wide, wide), coordinates)

    # the spine with its discs, the esophagus, which lies on the atrium, and the descending aorta
    back = rng.normal(40, 4)
    discs = cover(abs(np.sin(z * np.float32(np.pi / 26) + np.float32(rng.uniform(0, 3)))) - 0.25, 0.15)
    spine = np.hypot((y - back - 6), x + np.float32(rng.normal(-3, 4))) - np.float32(rng.normal(17, 1.5))
    paint(canvas, tissue["bone"] * (1 - 0.45 * discs) * (1 + 0.12 * fine), cover(spine, 3))
    aorta = vessel([(-60, back - 10, 16), (0, back - 12, 19), (60, back - 14, 17)], 10)
    gullet = vessel([(-60, back - 14, 5), (0, back - 17, 2), (60, back - 13, 0)], 5)
    for distance, value, wall in ((gullet, 1.2 * tissue["muscle"], 0.0), (aorta, tissue["artery"], 1.5)):
        paint(canvas, tissue["muscle"], cover(distance - wall, soft))
        paint(canvas, value * flow, cover(distance, soft))

    # ventricles in their muscle, the right atrium beyond the septum, the great vessels
    left = shape((-34, -38, 36), (30, 20, 21))
    ventricle = shape((-22, -52, -2), (28, 18, 26))
    right = shape((-4, -16, -42), (26, 19, 17))
    upper = vessel([(60, -14, -34), (35, -13, -33), (10, -14, -36)], 8)
    lower = vessel([(-20, -8, -38), (-40, 0, -36), (-60, 4, -34)], 10)
    root = vessel([(-12, -30, 8), (18, -36, -6), (56, -34, -14)], 13.5)
    trunk = vessel([(-4, -52, 8), (24, -46, 16), (34, -18, 10)], 12)
    branches = np.minimum(
        vessel([(33, -16, 8), (33, -10, -18), (28, -4, -52)], 8.5),
        vessel([(34, -18, 10), (38, -2, 28), (33, 10, 50)], 8.5),
    )
    for distance, value, wall in (
        (left, tissue["left"], rng.normal(9, 1.2)),
        (ventricle, tissue["right"], 3.0),
        (np.minimum(np.minimum(right, upper), lower), tissue["right"] * rng.normal(1, 0.06), 1.5),
        (np.minimum(trunk, branches), tissue["artery"] * rng.normal(1, 0.08), 1.5),
        (root, tissue["artery"], 1.8),
    ):
        paint(canvas, tissue["muscle"] * (1 + 0.1 * fine), cover(distance - wall + 0.6 * coarse, soft))
        paint(canvas, value * flow, cover(distance, soft))
    return canvas


def _paint_atrium(
    rng: np.random.Generator,
    canvas: np.ndarray,
    axes: Volume,
    whole: np.ndarray,
    tissue: dict[str, float],
    voxel: float,
) -> None:
    """Paints the atrium and its veins in a thin wall, enhanced where there is scar."""
    soft = max(voxel, 1.2)
    coarse, fine = volume_field(rng, axes, 11, REACH), volume_field(rng, axes, 5, REACH)
    wall = cover(whole - np.float32(rng.uniform(1.2, 2.4)), soft)
    enhanced = cover(np.float32(rng.uniform(0.6, 2.0)) - coarse - 0.5 * fine, 0.6)
    paint(canvas, tissue["muscle"] + (tissue["scar"] - tissue["muscle"]) * enhanced, wall)
    paint(canvas, tissue["blood"] * (1 + 0.07 * coarse + 0.05 * fine), cover(whole, soft))


def _scan(
    rng: np.random.Generator, canvas: np.ndarray, axes: Volume, tissue: dict[str, float], voxel: float
) -> np.ndarray:
    """Applies coil shading, blur of the acquisition and Rician noise; eight bits, clipped at the 99th percentile."""
    from scipy.ndimage import gaussian_filter

    slope = rng.normal(0, 0.4, 3) + np.array([0, -1, 0])  # the coil lies on the front of the chest
    ramp = sum(
        axis.astype(np.float32).reshape([-1 if k == i else 1 for k in range(3)]) * np.float32(s / 60)
        for i, (axis, s) in enumerate(zip(axes, slope, strict=True))
    )
    shade = np.exp(np.float32(tissue["shade"]) * ramp + np.float32(0.12) * volume_field(rng, axes, 45, REACH))
    blurred = gaussian_filter(canvas, (tissue["thick"] / voxel, *[tissue["blur"] / voxel] * 2)) * shade
    noise = rng.standard_normal((2, *canvas.shape), np.float32) * np.float32(tissue["noise"])
    noisy = np.hypot(blurred + noise[0], noise[1])
    top = np.quantile(noisy, 0.995) * rng.uniform(1.0, 1.3)
    return np.clip(noisy * (255 / top), 0, 255).round().astype(np.uint8)


def write_atrium(root: str | Path, *, patients: int = 60, seed: int = 0, size: int = SIZE) -> Path:
    """Writes a generated cohort in the layout of the 2018 Atrial Segmentation Challenge.

    Args:
        root: Folder to write into; made where it is missing.
        patients: Number of patients.
        seed: Seed of the cohort.
        size: Voxels along the columns.

    Returns:
        The folder, which holds ``ATRxxx/lgemri.nrrd`` and ``ATRxxx/laendo.nrrd`` (0 and 255), and ``generated.json``
        with generator, version and seed.
    """
    import SimpleITK as sitk

    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    for index in range(patients):
        one = draw_atrium(seed, index, size=size)
        folder = root / one.patient
        folder.mkdir(exist_ok=True)
        for name, volume in (("lgemri", one.image), ("laendo", one.label * np.uint8(255))):
            image = sitk.GetImageFromArray(volume)
            image.SetSpacing((one.spacing,) * 3)
            image.SetOrigin([-(n - 1) / 2 * one.spacing for n in volume.shape[::-1]])
            sitk.WriteImage(image, str(folder / f"{name}.nrrd"), useCompression=True)
    about = json.dumps(provenance(patients, seed, size), indent=1) + "\n"
    (root / "generated.json").write_text(about, encoding="utf-8")
    return root


def provenance(patients: int, seed: int, size: int) -> dict[str, object]:
    """Returns what ``generated.json`` says of a cohort: generator, version, seed, number of patients and size."""
    return {
        "generated": True,
        "name": "generated left atrium",
        "generator": "anatolab.data.phantoms.atrium",
        "version": VERSION,
        "seed": seed,
        "patients": patients,
        "size": size,
    }
