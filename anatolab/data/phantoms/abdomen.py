"""A generated abdomen in CT numbers, in the layout of Synapse/BTCV: eight organs, from liver to gallbladder.

Every patient is drawn from a random generator of its own, ``(VERSION, seed, index)``: patient 7 is the same in a
cohort of 10 and of 100. Organs are ellipsoids and tubes in the coordinates of the patient's trunk, bent by smooth
fields, cut by ribs and diaphragm, and painted over each other from the outside in. Contrast phase, build, fat,
filling of stomach and bowel, noise and field of view vary; a gallbladder, spleen or kidney may have been removed.
Around the organs lie what they are mistaken for: bowel loops with fluid, gas or oral contrast, caval and portal
vein, muscle, lung and heart. No real data is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anatolab.data.phantoms.fields import Grid, chain, cover, ellipsoid, rotation
from anatolab.data.phantoms.files import write_nifti
from anatolab.data.phantoms.trunk import FAT, ORGANS, Trunk, paint_bowel, paint_spine, paint_wall

VERSION = 1  # part of every seed: raise it with any change of what is drawn
SIZE = 144  # pixels along a side of a slice
THICKNESS = 5.0  # of a slice, mm
THIN = 2  # positions averaged over the thickness of a slice
CODES = dict(zip(ORGANS, (8, 4, 3, 2, 6, 11, 1, 7), strict=True))  # BTCV's; it has thirteen organs, TransUNet reports 8


@dataclass(frozen=True)
class Abdomen:
    """One generated patient, without files."""

    patient: str  # "0001"
    spacing: tuple[float, float, float]  # (z, y, x) mm
    image: np.ndarray  # (z, y, x) int16 HU, feet first, rows to the back, columns to the patient's left
    label: np.ndarray  # (z, y, x) uint8, BTCV's numbers
    info: dict[str, str]  # contrast phase, and which organs were removed


def draw_abdomen(seed: int, index: int, *, size: int = SIZE) -> Abdomen:
    """Draws one patient, a pure function of its arguments.

    Args:
        seed: Seed of the cohort.
        index: Number of the patient in the cohort, from 0.
        size: Pixels along a side of a slice; the anatomy does not depend on it.

    Returns:
        Image ``(z, y, x)`` int16 in HU and label uint8 with BTCV's organ numbers, with spacing in mm.

    >>> one = draw_abdomen(0, 0, size=48)
    >>> one.spacing[0], one.image.shape[1:], set(one.label.flat) - {0} <= set(CODES.values())
    (5.0, (48, 48), True)
    """
    anatomy, scan = np.random.default_rng([VERSION, seed, index]).spawn(2)
    slices, top = int(anatomy.integers(22, 33)), anatomy.uniform(62, 98)
    pixel = round(anatomy.uniform(315, 375) / size, 6)
    side = (np.arange(size) - (size - 1) / 2) * pixel
    grid = Grid(side + anatomy.normal(0, 8), side + anatomy.normal(0, 8), reach=230)
    z = (top - THICKNESS / THIN * np.arange(slices * THIN - 1, -1, -1)).astype(np.float32)
    scene = Trunk(anatomy, grid, z)
    for part in (
        paint_wall,
        paint_spine,
        paint_bowel,
        _liver,
        _spleen,
        _kidneys,
        _pancreas,
        _vessels,
        _stomach,
        _gallbladder,
    ):
        part(scene)
    image, shares = (a.reshape(*a.shape[:-3], slices, THIN, size, size).mean(-3) for a in (scene.image, scene.shares))
    codes = np.array(list(CODES.values()), np.uint8)
    label = np.where(shares.sum(0) > 0.5, codes[shares.argmax(0)], np.uint8(0))
    info = {"phase": scene.phase, "removed": ", ".join(scene.removed)}
    return Abdomen(f"{index + 1:04d}", (THICKNESS, pixel, pixel), _scan(scan, image, pixel), label, info)


def _liver(s: Trunk) -> None:
    """Paints the right and left lobe of the liver under the diaphragm, with veins, and cysts in some patients."""
    rng = s.rng
    grow, reach = rng.normal(1, 0.07), rng.normal(1, 0.14)  # of the whole, of the left lobe
    (z, y, x), (z2, y2, x2) = np.array([(22, 4, -84), (40, -44, -32 + 20 * reach)]) + rng.normal(0, 5, (2, 3))
    right = ellipsoid(s.coordinates, (z, y, x), (92 * grow, 88 * grow, 73 * grow), rotation(rng, 0.08, (0.15, 0.35, 0)))
    left = ellipsoid(
        s.coordinates, (z2, y2, x2), (45 * reach, 32 * grow, 78 * reach), rotation(rng, 0.12, (0.15, 0.25, 0))
    )
    blend = np.clip(0.5 + (left - right) / 36, 0, 1)
    both = left + blend * (right - left) - 18 * blend * (1 - blend)
    hilum = ellipsoid(s.coordinates, (-6, -8, -12), (44, 26, 44))
    distance = np.maximum(np.maximum(both, -hilum), s.inside) + 1.2 * s.coarse
    s.put(cover(distance - 2, 3), FAT)
    s.put(cover(distance, 2.5), s.hu["liver"] + 3 * s.coarse + 4 * s.fine, organ="liver")
    for start, blood in (((66.0, 14.0, -18.0), "vein"),) * 3 + (((16.0, -8.0, -38.0), "portal"),) * 4:
        end = rng.uniform([-10, -55, -130], [75, 55, -60])
        points = np.stack([start, (start + end) / 2 + rng.normal(0, 8, 3), end])
        box, coordinates, _, fine = s.near(points, 12)
        vein = cover(chain(coordinates, points, np.array([4.6, 3.4, 1.0])) - 0.5 * fine, 2.5)
        s.put(vein * cover(distance[box] + 3, 3), s.hu[blood], box, None)
    for _ in range(int(rng.poisson(0.5))):
        point, radius = rng.uniform([-20, -40, -120], [70, 50, -40]), rng.uniform(4, 16)
        box, coordinates, _, fine = s.near(point[None], radius + 8)
        spot = cover(ellipsoid(coordinates, (point[0], point[1], point[2]), (radius,) * 3) - fine, 3)
        s.put(spot * cover(distance[box] + 2, 3), rng.uniform(0, 60), box, None)


def _spleen(s: Trunk) -> None:
    """Paints a crescent under the left ribs, streaky in the arterial phase."""
    size = np.exp(s.rng.normal(0, 0.15))
    z, y, x = np.array([38.0, 26, 104]) + s.rng.normal(0, 4, 3)
    turn = rotation(s.rng, 0.12, (0.5, 0.15, 0.2))
    box, coordinates, coarse, fine = s.near(np.array([[z, y, x]]), 78 * size)
    distance = ellipsoid(coordinates, (z, y, x), (48 * size, 49 * size, 28 * size), turn)
    distance = np.maximum(
        distance, -ellipsoid(coordinates, (z, y - 18, x - 34), (60, 34, 22), turn)
    )  # where the stomach lies
    distance = np.maximum(distance, s.inside[box] + 1) + 0.8 * coarse
    if "spleen" not in s.removed:
        s.put(cover(distance - s.rim, 3), FAT, box)
        streaks = (28 if s.phase == "arterial" else 3) * coarse
        s.put(cover(distance, 2.5), s.hu["spleen"] + streaks + 4 * fine, box, "spleen")


def _kidneys(s: Trunk) -> None:
    """Paints cortex, medulla, vein, and the sinus with its unlabeled fat; a cyst in some."""
    rng = s.rng
    for name, sign in (("left kidney", 1), ("right kidney", -1)):
        size = rng.normal(1, 0.08)
        z, y, x = np.array([-8 + 6 * sign, 42, sign * 66]) + rng.normal(0, [10, 4, 4])
        turn = rotation(rng, 0.1, (sign * 0.5, sign * 0.18, 0.15))
        box, coordinates, _, fine = s.near(np.array([[z, y, x]]), 72 * size)
        if name in s.removed:
            continue
        distance = ellipsoid(coordinates, (z, y, x), (54 * size, 27 * size, 29 * size), turn) + 0.7 * fine
        sinus = ellipsoid(coordinates, (z, y - 9, x - sign * 17), (24 * size, 10, 16 * size), turn) + 1.5 * fine
        s.put(cover(distance - 4 * s.rim, 4), FAT, box)
        s.put(cover(distance, 2.5), s.hu["cortex"] + 6 * fine, box, name)
        s.put(cover(distance + 9 + 3.5 * fine, 3), s.hu["medulla"] + 6 * fine, box, None)
        s.put(cover(sinus, 3), FAT + 15, box)
        s.put(cover(sinus + 6, 3), rng.choice([8, 20, 250], p=[0.5, 0.35, 0.15]), box)  # urine, with contrast or not
        cyst = ellipsoid(coordinates, (z + rng.uniform(-40, 40), y + 20, x + sign * 16), (9, 9, 9)) - rng.uniform(-3, 8)
        if rng.random() < 0.3:
            s.put(cover(np.maximum(cyst, distance - 2), 3), rng.uniform(0, 15), box, None)
        points = np.array([(z, y - 9, x - sign * 17), (z + 2, y - 16, sign * 34), (z + 4, 30, sign * 12)])
        s.vessel(points, np.full(3, 4.0), s.hu["vein"])


def _vessels(s: Trunk) -> None:
    """Paints caval vein, aorta (some calcified), the mesenteric vessels and the portal vein."""
    rng = s.rng
    heights, sway = np.array([-170.0, -60, 40, 150]), rng.normal(0, 3, (2, 4))
    for y, x, name, radii, organ in (
        (25, -22, "vein", rng.uniform(9, 14) * np.array([0.9, 1, 1.1, 1.1]), ""),
        (27, 10, "aorta", rng.uniform(9, 13) * np.array([0.85, 0.95, 1.1, 1.15]), "aorta"),
    ):
        points = np.column_stack([heights, y + sway[0], x + sway[1]])
        s.vessel(points, radii, s.hu[name], organ)
    if rng.random() < 0.35:
        box, coordinates, _, fine = s.near(points, 22)
        s.put(cover(abs(chain(coordinates, points, radii) + 1) - 1, 1.5) * cover(1 - fine, 0.5), 500, box, None)
    for way, name in (
        ([(-80, 8, 12), (-30, 4, 9), (8, 14, 9)], "aorta"),
        ([(-80, 0, -8), (-25, -4, -8), (0, -8, -12), (16, -8, -38)], "portal"),
    ):
        s.vessel(np.array(way) + rng.normal(0, 2, (len(way), 3)), np.full(len(way), rng.uniform(4, 6.5)), s.hu[name])


def _pancreas(s: Trunk) -> None:
    """Paints a lobed tube from the duodenum across the spine to the spleen, with the splenic vein behind it."""
    points = np.array([(-30, 6, -28), (-12, 0, -26), (2, -14, -4), (6, -14, 22), (14, 0, 50), (22, 14, 74)])
    points = points + s.rng.normal(0, 3, 3) + s.rng.normal(0, [4, 2.5, 3], (6, 3))
    radii = s.rng.normal(1, 0.1) * np.array([10, 15, 11, 11.5, 12, 8.5]) * s.rng.normal(1, 0.08, 6)
    s.vessel(points[2:] + np.array([0, 11, 0]), np.full(4, 4.0), s.hu["portal"])
    box, coordinates, coarse, fine = s.near(points, 26)
    distance = chain(coordinates, points, radii) - 0.8 * fine - coarse
    s.put(cover(distance - s.rim - 1, 3), FAT, box)
    fat = 0.35 * min(1.0, s.rim) * cover(1.2 - fine, 0.8)  # between its lobes
    s.put(cover(distance, 2.5), s.hu["pancreas"] * (1 - fat) + FAT * fat + 6 * fine, box, "pancreas")


def _stomach(s: Trunk) -> None:
    """Paints fundus, body and outlet, empty or full; content and gas belong to the stomach."""
    points = np.array([(74, 8, 58), (48, -14, 62), (14, -40, 54), (-10, -48, 26), (-4, -42, -6)])
    points = points + s.rng.normal(0, 4, 3) + s.rng.normal(0, 4.5, (5, 3))
    radii = s.rng.uniform(0.75, 1.15) * np.array([32, 31, 26, 18, 12]) * s.rng.normal(1, 0.08, 5)
    kind = str(s.rng.choice(["fluid", "food", "contrast", "gas"], p=[0.5, 0.22, 0.18, 0.1]))
    s.hollow(points, radii, kind, s.rng.uniform(3, 5.5), "stomach")


def _gallbladder(s: Trunk) -> None:
    """Paints a pear of bile under the liver, contracted after a meal, with stones in some patients."""
    rng, size = s.rng, s.rng.uniform(0.64, 1.14)
    neck = np.array([2.0, -22, -42]) + rng.normal(0, 4, 3)
    fundus = neck + size * np.array([-28, -22, -16]) + rng.normal(0, 3, 3)
    points = np.stack([neck, (neck + 2 * fundus) / 3, fundus])
    box, coordinates, _, fine = s.near(points, 24)
    distance = chain(coordinates, points, size * np.array([4.5, 10.5, 12])) - 0.5 * fine
    if "gallbladder" not in s.removed:
        s.put(cover(distance - 1.2, 2), s.hu["wall"], box)
        s.put(cover(distance, 2.5), rng.uniform(-2, 15) + 3 * fine, box, "gallbladder")
        if rng.random() < 0.2:
            stone = chain(coordinates, points[1:] + np.array([0, 4, 0]), size * np.array([1, 5])) + 1.5 * fine
            s.put(cover(np.maximum(stone, distance + 2), 2), rng.uniform(90, 350), box, None)


def _scan(rng: np.random.Generator, image: np.ndarray, pixel: float) -> np.ndarray:
    """Applies the kernel's blur and noise, correlated in the slice and stronger where the body is thick; int16 HU."""
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(image, (0, *[rng.uniform(0.8, 1.4) / pixel] * 2))
    grain = gaussian_filter(rng.standard_normal(image.shape, np.float32), (0, 0.6, 0.6))
    grain *= np.float32(rng.uniform(7, 16) / grain.std())
    thick = 0.5 + 0.7 * gaussian_filter((image > -500).astype(np.float32), (0, *[30 / pixel] * 2))
    return np.clip(blurred + grain * thick, -1024, 3071).round().astype(np.int16)


def draw_abdomens(patients: int = 60, *, seed: int = 0, size: int = SIZE) -> Iterator[Abdomen]:
    """Draws the patients of a cohort one after another."""
    return (draw_abdomen(seed, index, size=size) for index in range(patients))


def write_abdomen(root: str | Path, *, patients: int = 60, seed: int = 0, size: int = SIZE) -> Path:
    """Writes a generated cohort as Synapse/BTCV comes: ``img/img0001.nii.gz`` and ``label/label0001.nii.gz``.

    Args:
        root: Folder to write into; made where it is missing.
        patients: Number of patients.
        seed: Seed of the cohort.
        size: Pixels along a side of a slice.

    Returns:
        The folder, which also holds ``generated.json`` with generator, version, seed, and each patient's contrast phase
        and removed organs.
    """
    root = Path(root)
    for part in ("img", "label"):
        (root / part).mkdir(parents=True, exist_ok=True)
    infos = {}
    for one in draw_abdomens(patients, seed=seed, size=size):
        write_nifti(root / "img" / f"img{one.patient}.nii.gz", one.image, one.spacing)
        write_nifti(root / "label" / f"label{one.patient}.nii.gz", one.label, one.spacing)
        infos[one.patient] = one.info
    about = json.dumps({**provenance(patients, seed, size), "info": infos}, indent=1) + "\n"
    (root / "generated.json").write_text(about, encoding="utf-8")
    return root


def provenance(patients: int, seed: int, size: int) -> dict[str, object]:
    """Returns what identifies a cohort."""
    return {
        "generated": True,
        "name": "generated abdomen",
        "generator": "anatolab.data.phantoms.abdomen",
        "version": VERSION,
        "seed": seed,
        "patients": patients,
        "size": size,
    }
