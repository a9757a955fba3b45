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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from anatolab.data.phantoms.fields import Grid, Volume, chain, cover, ellipsoid, paint, rotation
from anatolab.data.phantoms.files import write_nifti, written_once
from anatolab.types import Cohort

VERSION = 1  # part of every seed: raise it with any change of what is drawn
SIZE = 144  # pixels along a side of a slice
THICKNESS = 5.0  # of a slice, mm
THIN = 2  # positions averaged over the thickness of a slice
ORGANS = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")
CODES = dict(zip(ORGANS, (8, 4, 3, 2, 6, 11, 1, 7), strict=True))  # BTCV's; it has thirteen organs, TransUNet reports 8
REMOVED = {"gallbladder": 0.08, "spleen": 0.02, "left kidney": 0.015, "right kidney": 0.015}  # share of patients
FAT, GAS, BONE = -100.0, -950.0, 190.0  # HU
WHOLE = (slice(None),) * 3
SIGNALS = ("aorta", "vein", "portal", "cortex", "medulla", "liver", "spleen", "pancreas", "wall")
HU = {  # mean of the above by contrast phase
    "arterial": (310, 95, 110, 185, 85, 72, 118, 105, 85),
    "portal venous": (165, 150, 175, 195, 180, 112, 122, 92, 95),
    "delayed": (115, 112, 118, 150, 155, 92, 96, 78, 75),
    "plain": (42, 40, 42, 32, 30, 58, 49, 40, 40),
}
PHASES = {"portal venous": 0.56, "arterial": 0.2, "delayed": 0.14, "plain": 0.1}  # share of patients


@dataclass(frozen=True)
class Abdomen:
    """One generated patient, without files."""

    patient: str  # "0001"
    spacing: tuple[float, float, float]  # (z, y, x) mm
    image: np.ndarray  # (z, y, x) int16 HU, feet first, rows to the back, columns to the patient's left
    label: np.ndarray  # (z, y, x) uint8, BTCV's numbers
    info: dict[str, str]  # contrast phase, and which organs were removed


class Scene:
    """A patient while it is painted: coordinates in the trunk, CT numbers, and each organ's share of each voxel."""

    def __init__(self, rng: np.random.Generator, grid: Grid, z: np.ndarray) -> None:
        self.rng, n = rng, len(z)
        build, self.lean = rng.normal(1, 0.06), min(2.6, rng.gamma(2.4, 0.55))  # size; how much fat, about 1.3
        stretch = (build * rng.normal(1, [0.05, 0.06, 0.05])).astype(np.float32)
        bend = [6 * grid.field(rng, n, 55, 0.985) + 2.2 * grid.field(rng, n, 20, 0.93) for _ in range(3)]
        turn = rng.normal(0, 0.05)
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        y, x = grid.mesh
        self.flat = (y * c - x * s, x * c + y * s)  # rows and columns without bends, mm
        rigid = (z[:, None, None], *self.flat)
        self.at: Volume = tuple(a / k + b for a, k, b in zip(rigid, stretch, bend, strict=True))
        self.axes = [axis / k for axis, k in zip((rigid[0].ravel(), grid.y, grid.x), stretch, strict=True)]
        self.coarse, self.fine = grid.field(rng, n, 24, 0.93), grid.field(rng, n, 8, 0.75)
        self.image = np.full(self.at[0].shape, -1000, np.float32)
        self.shares = np.zeros((len(ORGANS), *self.image.shape), np.float32)
        self.phase = str(rng.choice(list(PHASES), p=list(PHASES.values())))
        self.hu = {k: v * rng.normal(1, 0.09) + rng.normal(0, 5) for k, v in zip(SIGNALS, HU[self.phase], strict=True)}
        self.hu["liver"] -= rng.uniform(15, 60) * (rng.random() < 0.2)  # fatty
        self.removed = [name for name, share in REMOVED.items() if rng.random() < share]
        self.rim = 0.5 + min(2.0, self.lean)  # fat between organs, mm
        self.inside = self.image  # how far outside the space for organs, mm; painting the trunk finds it

    def near(self, points: np.ndarray, reach: float) -> tuple[tuple[slice, ...], Volume, np.ndarray, np.ndarray]:
        """The box around some points; its coordinates, its coarse and its fine texture."""
        box = []
        for axis, low, high in zip(self.axes, points.min(0) - reach, points.max(0) + reach, strict=True):
            within = np.flatnonzero((axis >= low) & (axis <= high))
            box.append(slice(within[0], within[-1] + 1) if len(within) else slice(0, 0))
        z, y, x = (axis[tuple(box)] for axis in self.at)
        return tuple(box), (z, y, x), self.coarse[tuple(box)], self.fine[tuple(box)]

    def put(self, share: np.ndarray, hu: Any, box: tuple[slice, ...] = WHOLE, organ: str | None = "") -> None:
        """Paints CT numbers; voxels then belong to ``organ``, to none where empty, to the one before where None."""
        paint(self.image[box], hu, share)
        if organ is not None:
            self.shares[(slice(None), *box)] *= 1 - share
        if organ:
            self.shares[ORGANS.index(organ)][box] += share

    def vessel(self, points: np.ndarray, radii: np.ndarray, hu: float, organ: str | None = "") -> None:
        """A tube full of blood in a thin coat of fat."""
        box, at, _, fine = self.near(points, float(radii.max()) + 8)
        distance = chain(at, points, radii) - 0.4 * fine
        self.put(cover(distance - 2, 3), FAT, box)
        self.put(cover(distance, 2.5), hu + 4 * fine, box, organ)

    def hollow(self, points: np.ndarray, radii: np.ndarray, kind: str, wall: float = 2.6, organ: str = "") -> None:
        """A tube with a wall, filled with fluid, contrast, food or gas, and often with gas above it."""
        box, at, _, fine = self.near(points, float(radii.max()) + 12)
        if not at[0].size:
            return
        distance = np.maximum(chain(at, points, radii) - 1.3 * fine, self.inside[box] + self.rim)
        self.put(cover(distance - 1.5, 2.5), FAT, box)
        self.put(cover(distance, 2.5), self.hu["wall"] + 6 * fine, box, organ)
        content = {
            "fluid": self.rng.uniform(5, 35) + 4 * fine,
            "contrast": self.rng.uniform(170, 380) + 25 * fine,
            "food": self.rng.uniform(0, 60) - 150 * cover(1.1 - fine, 0.8) + 25 * fine,
            "gas": GAS,
        }
        lumen = cover(distance + wall, 2.5)
        self.put(lumen, content[kind], box, None)
        level = points[:, 1].mean() + self.rng.normal(-0.7, 0.7) * radii.max()
        if self.rng.random() < 0.7:
            self.put(lumen * cover(at[1] - level, 2.5), GAS, box, None)


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
    pixel = round(anatomy.uniform(325, 390) / size, 6)
    side = (np.arange(size) - (size - 1) / 2) * pixel
    grid = Grid(side + anatomy.normal(0, 8), side + anatomy.normal(0, 8), reach=230)
    z = (top - THICKNESS / THIN * np.arange(slices * THIN - 1, -1, -1)).astype(np.float32)
    scene = Scene(anatomy, grid, z)
    for part in (_trunk, _spine, _bowel, _liver, _spleen, _kidneys, _vessels, _pancreas, _stomach, _gallbladder):
        part(scene)
    image, shares = (a.reshape(*a.shape[:-3], slices, THIN, size, size).mean(-3) for a in (scene.image, scene.shares))
    codes = np.array(list(CODES.values()), np.uint8)
    label = np.where(shares.sum(0) > 0.5, codes[shares.argmax(0)], np.uint8(0))
    info = {"phase": scene.phase, "removed": ", ".join(scene.removed)}
    return Abdomen(f"{index + 1:04d}", (THICKNESS, pixel, pixel), _scan(scan, image, pixel), label, info)


def _trunk(s: Scene) -> None:
    """Couch, skin, fat, muscle, ribs, lung and heart; and where organs may be."""
    rng, (z, y, x), coarse, fine, lean = s.rng, s.at, s.coarse, s.fine, s.lean
    power, half_y, half_x, wall = rng.uniform(2.1, 2.5), rng.normal(80, 4), rng.normal(136, 5), rng.uniform(9, 13)
    front, side, back = lean * rng.uniform([8, 7, 6], [20, 14, 14])  # fat under the skin, mm

    def oval(center: float, thick_y: float, thick_x: float) -> np.ndarray:
        a, b = np.float32(half_x + thick_x), np.float32(half_y + thick_y)
        rho = (abs((y - np.float32(center)) / b) ** power + abs(x / a) ** power) ** (1 / power)
        return (rho - 1) * min(a, b)

    cavity, muscle = oval(-2, 0, 0), oval(10, wall + 11, wall) - 0.8 * fine
    skin = oval(10 + (back - front) / 2, wall + 13 + (front + back) / 2, wall + side + 3)
    couch = abs(s.flat[0] - (half_y + 42 + back) + (s.flat[1] / rng.uniform(120, 180)) ** 2 * 12) - 2
    s.put(0.25 * cover(couch, 3) * (abs(s.flat[1]) < 170), 0, organ=None)
    s.put(cover(skin - 1.5, 3), 20, organ=None)
    s.put(cover(skin + 1.5, 3), FAT + 6 * coarse + 8 * fine, organ=None)
    s.put(0.5 * cover(1.9 - fine - 0.4 * coarse, 0.6) * cover(skin + 6, 4), 30, organ=None)  # strands in the fat
    s.put(cover(muscle, 3), 56 + 5 * fine, organ=None)
    s.put(0.7 * cover(abs(cavity - 0.45 * wall) - 0.9, 1.5) * cover(abs(y) - 55, 8), FAT, organ=None)  # in the flank
    angle = np.arctan2(x, -y)  # 0 in front
    turn = np.mod((z + 26 * abs(angle) + 8 * np.sin(angle)) / np.float32(rng.uniform(26, 31)), 1)
    rib = np.maximum(abs(cavity - 0.55 * wall) - 4, (abs(turn - 0.5) - 0.17) * 28)
    rib = np.maximum(rib, 11 - 12 * abs(angle) - np.minimum(z, 40) / 4)  # none in front
    rib = np.maximum(rib, -z - 55 + 50 * (abs(x) < 60))
    s.put(cover(rib, 3), BONE + 260 * cover(2 - abs(rib + 1.5), 2), organ=None)
    s.put(cover(cavity, 3), FAT - 5 + 5 * coarse + 6 * fine, organ=None)
    s.put(0.8 * cover(1.75 - fine - 0.3 * coarse, 0.6) * cover(cavity + 8, 4), 75, organ=None)  # mesenteric vessels

    right, left = (
        rng.uniform(low, low + 24) - (x - at) ** 2 / rng.uniform(95, 130) - (y + 5) ** 2 / rng.uniform(110, 160)
        for at, low in ((np.float32(-68), 84), (np.float32(68), 76))
    )
    under = z - np.maximum(right, left) - 2 * coarse  # below the diaphragm where negative
    s.put(cover(cavity + 2, 3) * cover(-under, 3), -870 + 25 * fine, organ=None)
    s.put(0.8 * cover(1.9 - fine, 0.7) * cover(cavity + 6, 3) * cover(-under, 3), 40, organ=None)  # vessels of the lung
    heart = ellipsoid(s.at, (rng.uniform(98, 112), -34, 16), (34, 48, 58))
    s.put(cover(np.maximum(heart - 5, -under - 1) + coarse, 4), FAT + 10, organ=None)
    s.put(cover(np.maximum(heart, 2 - under), 3), 90 + 40 * coarse, organ=None)
    s.inside = np.maximum(cavity + s.rim, under + 3)


def _spine(s: Scene) -> None:
    """Vertebrae and disks, the canal, processes, psoas and the muscles along the back."""
    box, (z, y, x), _, fine = s.near(np.array([[-300.0, 30, -75], [300, 110, 75]]), 30)
    for sign in (-1, 1):
        back = np.hypot((y - 88) / 20, (x - sign * 31) / 27) * 20 - 20
        psoas = np.hypot((y - 56) / 1.25, x - sign * 36) - np.clip(19 - (z + 60) / 7, 4, 21)
        s.put(cover(np.minimum(back, psoas), 3), 55 + 6 * fine, box)
    level = np.mod(z / np.float32(s.rng.uniform(32, 37)) + s.rng.random(), 1)  # 0 to 1 from disk to disk
    body = np.maximum(np.hypot((y - 52) / 0.82, x) - s.rng.uniform(20, 24), y - 66)
    marrow = BONE * s.rng.uniform(0.6, 1.15) + 25 * fine
    spinous = np.maximum(abs(x) - 3.5, abs(y - 94) - 16) + 4 * (level > 0.6)
    transverse = np.maximum(abs(x) - 34, abs(y - 76 - 0.1 * abs(x)) - 4) + 18 * (level > 0.35)
    arch = np.minimum(np.hypot(y - 76, x / 1.15) - 15, np.minimum(spinous, transverse))
    s.put(cover(arch, 3), marrow + 150, box)
    s.put(cover(body, 3), marrow + 190 * cover(2.2 - abs(body + 1.8), 2), box)
    s.put(cover(np.maximum(body + 1, 34 * abs(level - 0.5) - 13), 4) * (level > 0), 85, box)
    s.put(cover(np.hypot(y - 76, x / 1.15) - 9, 3), 25, box)


def _bowel(s: Scene) -> None:
    """Small bowel, colon along the flanks and across the front, duodenum around the pancreas' head."""
    rng, oral = s.rng, s.rng.random() < 0.35
    small = ["contrast", "fluid", "gas"] if oral else ["fluid", "fluid", "fluid", "gas"]
    large = ["food", "food", "gas", "contrast" if oral else "fluid"]
    for _ in range(int(rng.integers(20, 32))):
        start = rng.uniform([-105, -62, -85], [-12, 28, 88])
        start[0] += -25 * (start[2] < -20) + 22 * (start[2] > 30 and start[1] < 20)
        points = start + np.cumsum(rng.normal(0, 1, (3, 3)) * [10, 14, 20], axis=0)
        points[:, 1] = np.clip(points[:, 1], -64, 32)
        s.hollow(points, rng.uniform(8, 14, 3), str(rng.choice(small)))
    low, front = rng.uniform(-75, -25), rng.uniform(-62, -48)
    way = np.array(
        [
            *((-130, 18, -104), (-70, 22, -102), (-38, 2, -96), (low, front, -55), (low - 8, front - 4, 0)),
            *((low + 18, front, 60), (30, -5, 104), (0, 30, 106), (-60, 25, 105), (-120, 22, 104)),
        ]
    ) + rng.normal(0, 5, (10, 3))
    for k in (0, 2, 4, 6, 7):
        s.hollow(way[k : k + 3], rng.uniform(13, 23, 3), str(rng.choice(large)), 2)
    points = np.array([(-2, -30, -22), (-12, -6, -46), (-45, 6, -42), (-50, 18, 0), (-30, 10, 26)])
    s.hollow(points + rng.normal(0, 4, (5, 3)), rng.uniform(8, 12, 5), str(rng.choice(small)))


def _liver(s: Scene) -> None:
    """Right and left lobe under the diaphragm, with veins, and cysts in some patients."""
    rng = s.rng
    grow, reach = rng.normal(1, 0.07), rng.normal(1, 0.14)  # of the whole, of the left lobe
    (z, y, x), (z2, y2, x2) = np.array([(22, 4, -84), (40, -44, -32 + 20 * reach)]) + rng.normal(0, 6, (2, 3))
    right = ellipsoid(s.at, (z, y, x), (92 * grow, 88 * grow, 73 * grow), rotation(rng, 0.08, (0.15, 0.35, 0)))
    left = ellipsoid(s.at, (z2, y2, x2), (45 * reach, 32 * grow, 78 * reach), rotation(rng, 0.12, (0.15, 0.25, 0)))
    blend = np.clip(0.5 + (left - right) / 36, 0, 1)
    both = left + blend * (right - left) - 18 * blend * (1 - blend)
    hilum = ellipsoid(s.at, (-6, -8, -12), (44, 26, 44))
    distance = np.maximum(np.maximum(both, -hilum), s.inside) + 1.2 * s.coarse
    s.put(cover(distance - 2, 3), FAT)
    s.put(cover(distance, 2.5), s.hu["liver"] + 3 * s.coarse + 4 * s.fine, organ="liver")
    for start, blood in (((66.0, 14.0, -18.0), "vein"),) * 3 + (((16.0, -8.0, -38.0), "portal"),) * 4:
        end = rng.uniform([-10, -55, -130], [75, 55, -60])
        points = np.stack([start, (start + end) / 2 + rng.normal(0, 8, 3), end])
        box, at, _, fine = s.near(points, 12)
        vein = cover(chain(at, points, np.array([4.6, 3.4, 1.0])) - 0.5 * fine, 2.5)
        s.put(vein * cover(distance[box] + 3, 3), s.hu[blood], box, None)
    for _ in range(int(rng.poisson(0.7))):
        point, radius = rng.uniform([-20, -40, -120], [70, 50, -40]), rng.uniform(4, 16)
        box, at, _, fine = s.near(point[None], radius + 8)
        spot = cover(ellipsoid(at, (point[0], point[1], point[2]), (radius,) * 3) - fine, 3)
        s.put(spot * cover(distance[box] + 2, 3), rng.uniform(0, 60), box, None)


def _spleen(s: Scene) -> None:
    """A crescent under the left ribs, streaky in the arterial phase."""
    size = np.exp(s.rng.normal(0, 0.15))
    z, y, x = np.array([38.0, 26, 104]) + s.rng.normal(0, 5, 3)
    turn = rotation(s.rng, 0.12, (0.5, 0.15, 0.2))
    box, at, coarse, fine = s.near(np.array([[z, y, x]]), 78 * size)
    distance = ellipsoid(at, (z, y, x), (48 * size, 49 * size, 28 * size), turn)
    distance = np.maximum(distance, -ellipsoid(at, (z, y - 18, x - 34), (60, 34, 22), turn))  # where the stomach lies
    distance = np.maximum(distance, s.inside[box] + 1) + 0.8 * coarse
    if "spleen" not in s.removed:
        s.put(cover(distance - s.rim, 3), FAT, box)
        streaks = (28 if s.phase == "arterial" else 3) * coarse
        s.put(cover(distance, 2.5), s.hu["spleen"] + streaks + 4 * fine, box, "spleen")


def _kidneys(s: Scene) -> None:
    """Cortex, medulla, vein, and the sinus with its fat, which is not labeled; a cyst in some."""
    rng = s.rng
    for name, sign in (("left kidney", 1), ("right kidney", -1)):
        size = rng.normal(1, 0.08)
        z, y, x = np.array([-8 + 6 * sign, 42, sign * 66]) + rng.normal(0, [12, 5, 5])
        turn = rotation(rng, 0.1, (sign * 0.5, sign * 0.18, 0.15))
        box, at, _, fine = s.near(np.array([[z, y, x]]), 72 * size)
        if name in s.removed:
            continue
        distance = ellipsoid(at, (z, y, x), (54 * size, 27 * size, 29 * size), turn) + 0.7 * fine
        sinus = ellipsoid(at, (z, y - 9, x - sign * 17), (24 * size, 10, 16 * size), turn) + 1.5 * fine
        s.put(cover(distance - 4 * s.rim, 4), FAT, box)
        s.put(cover(distance, 2.5), s.hu["cortex"] + 6 * fine, box, name)
        s.put(cover(distance + 9 + 3.5 * fine, 3), s.hu["medulla"] + 6 * fine, box, None)
        s.put(cover(sinus, 3), FAT + 15, box)
        s.put(cover(sinus + 6, 3), rng.choice([8, 20, 250], p=[0.5, 0.35, 0.15]), box)  # urine, with contrast or not
        cyst = ellipsoid(at, (z + rng.uniform(-40, 40), y + 20, x + sign * 16), (9, 9, 9)) - rng.uniform(-3, 8)
        if rng.random() < 0.3:
            s.put(cover(np.maximum(cyst, distance - 2), 3), rng.uniform(0, 15), box, None)
        points = np.array([(z, y - 9, x - sign * 17), (z + 2, y - 16, sign * 34), (z + 4, 30, sign * 12)])
        s.vessel(points, np.full(3, 4.0), s.hu["vein"])


def _vessels(s: Scene) -> None:
    """Caval vein, aorta, some with lime in its wall, the mesenteric vessels and the portal vein."""
    rng = s.rng
    heights, sway = np.array([-170.0, -60, 40, 150]), rng.normal(0, 3, (2, 4))
    for y, x, name, radii, organ in (
        (25, -22, "vein", rng.uniform(9, 14) * np.array([0.9, 1, 1.1, 1.1]), ""),
        (27, 10, "aorta", rng.uniform(8, 12.5) * np.array([0.85, 0.95, 1.1, 1.15]), "aorta"),
    ):
        points = np.column_stack([heights, y + sway[0], x + sway[1]])
        s.vessel(points, radii, s.hu[name], organ)
    if rng.random() < 0.35:
        box, at, _, fine = s.near(points, 22)
        s.put(cover(abs(chain(at, points, radii) + 1) - 1, 1.5) * cover(1 - fine, 0.5), 500, box, None)
    for way, name in (
        ([(-80, 8, 12), (-30, 4, 9), (8, 14, 9)], "aorta"),
        ([(-80, 0, -8), (-25, -4, -8), (0, -8, -12), (16, -8, -38)], "portal"),
    ):
        s.vessel(np.array(way) + rng.normal(0, 2, (len(way), 3)), np.full(len(way), rng.uniform(4, 6.5)), s.hu[name])


def _pancreas(s: Scene) -> None:
    """A lobed tube from the duodenum across the spine to the spleen, with the splenic vein behind it."""
    points = np.array([(-30, 6, -28), (-12, 0, -26), (2, -14, -4), (6, -14, 22), (14, 0, 50), (22, 14, 74)])
    points = points + s.rng.normal(0, 3, 3) + s.rng.normal(0, [5, 3.5, 4], (6, 3))
    radii = s.rng.normal(1, 0.12) * np.array([9, 13, 9.5, 10, 10.5, 7]) * s.rng.normal(1, 0.1, 6)
    s.vessel(points[2:] + np.array([0, 11, 0]), np.full(4, 4.0), s.hu["portal"])
    box, at, coarse, fine = s.near(points, 26)
    distance = chain(at, points, radii) - 1.1 * fine - coarse
    s.put(cover(distance - s.rim - 1, 3), FAT, box)
    fat = 0.35 * min(1.0, s.rim) * cover(1.2 - fine, 0.8)  # between its lobes
    s.put(cover(distance, 2.5), s.hu["pancreas"] * (1 - fat) + FAT * fat + 6 * fine, box, "pancreas")


def _stomach(s: Scene) -> None:
    """Fundus, body and outlet, empty or full; what is in it and the gas above belong to it."""
    points = np.array([(74, 8, 58), (48, -14, 62), (14, -40, 54), (-10, -48, 26), (-4, -42, -6)])
    points = points + s.rng.normal(0, 4, 3) + s.rng.normal(0, 6, (5, 3))
    radii = s.rng.uniform(0.75, 1.15) * np.array([32, 31, 26, 18, 12]) * s.rng.normal(1, 0.08, 5)
    kind = str(s.rng.choice(["fluid", "food", "contrast", "gas"], p=[0.5, 0.22, 0.18, 0.1]))
    s.hollow(points, radii, kind, s.rng.uniform(3, 5.5), "stomach")


def _gallbladder(s: Scene) -> None:
    """A pear of bile under the liver, contracted after a meal, with stones in some patients."""
    rng, size = s.rng, s.rng.uniform(0.64, 1.14)
    neck = np.array([2.0, -22, -42]) + rng.normal(0, 5, 3)
    fundus = neck + size * np.array([-28, -22, -16]) + rng.normal(0, 4, 3)
    points = np.stack([neck, (neck + 2 * fundus) / 3, fundus])
    box, at, _, fine = s.near(points, 24)
    distance = chain(at, points, size * np.array([4.5, 10.5, 12])) - 0.5 * fine
    if "gallbladder" not in s.removed:
        s.put(cover(distance - 1.2, 2), s.hu["wall"], box)
        s.put(cover(distance, 2.5), rng.uniform(0, 22) + 3 * fine, box, "gallbladder")
        if rng.random() < 0.2:
            stone = chain(at, points[1:] + np.array([0, 4, 0]), size * np.array([1, 5])) + 1.5 * fine
            s.put(cover(np.maximum(stone, distance + 2), 2), rng.uniform(90, 350), box, None)


def _scan(rng: np.random.Generator, image: np.ndarray, pixel: float) -> np.ndarray:
    """Blur of the kernel, noise that is correlated in the slice and stronger where the body is thick, as int16 HU."""
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(image, (0, *[rng.uniform(0.8, 1.4) / pixel] * 2))
    grain = gaussian_filter(rng.standard_normal(image.shape, np.float32), (0, 0.6, 0.6))
    grain *= np.float32(rng.uniform(8, 22) / grain.std())
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
    about = json.dumps({**_provenance(patients, seed, size), "info": infos}, indent=1) + "\n"
    (root / "generated.json").write_text(about, encoding="utf-8")
    return root


def _provenance(patients: int, seed: int, size: int) -> dict[str, object]:
    return {
        "generated": True,
        "name": "generated abdomen",
        "generator": "anatolab.data.phantoms.abdomen",
        "version": VERSION,
        "seed": seed,
        "patients": patients,
        "size": size,
    }


def abdomen_cohort(patients: int = 60, *, seed: int = 0, size: int = SIZE, cache: str | Path | None = None) -> Cohort:
    """Opens a generated cohort, written once under the cache root; two processes at once do no harm.

    Args:
        patients: Number of patients.
        seed: Seed of the cohort.
        size: Pixels along a side of a slice.
        cache: Cache root; ``ANATOLAB_CACHE``, else ``~/.cache/anatolab``, where it is None.

    Returns:
        The cohort, its provenance naming generator, version and seed.
    """
    from anatolab.data import open_cohort

    name = f"abdomen-v{VERSION}-seed{seed}-{patients}x{size}"
    folder = written_once(name, lambda root: write_abdomen(root, patients=patients, seed=seed, size=size), cache)
    return replace(open_cohort(folder), name="generated abdomen", provenance=_provenance(patients, seed, size))
