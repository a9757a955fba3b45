"""The trunk that organs lie in: its coordinates and tissues while it is painted, its wall, spine and bowel."""

from __future__ import annotations

from typing import Any

import numpy as np

from anatolab.data.phantoms.fields import Grid, Volume, chain, cover, ellipsoid, paint

ORGANS = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")
REMOVED = {"gallbladder": 0.06, "spleen": 0.015, "left kidney": 0.005, "right kidney": 0.005}  # share of patients
FAT, GAS, BONE = -100.0, -950.0, 190.0  # HU
SIGNALS = ("aorta", "vein", "portal", "cortex", "medulla", "liver", "spleen", "pancreas", "wall")
HU = {  # mean of the above by contrast phase
    "arterial": (310, 95, 110, 185, 85, 72, 118, 105, 85),
    "portal venous": (165, 150, 175, 195, 180, 112, 122, 92, 95),
    "delayed": (115, 112, 118, 150, 155, 92, 96, 78, 75),
    "plain": (42, 40, 42, 32, 30, 58, 49, 40, 40),
}
PHASES = {"portal venous": 0.66, "arterial": 0.18, "delayed": 0.11, "plain": 0.05}  # share of patients
WHOLE = (slice(None),) * 3


class Trunk:
    """A patient while it is painted, from the outside in: what is painted later lies on top.

    Attributes:
        coordinates: (z, y, x) in mm of every voxel in the patient: turned, scaled to the patient's build, and bent.
        flat: Rows and columns in mm, only turned.
        axes: Coordinates along the sides of the volume, neither turned nor bent, for boxes.
        coarse: Smooth random texture of 24 mm, mean 0 and standard deviation 1.
        fine: The same of 8 mm.
        image: (z, y, x) CT numbers.
        shares: (organ, z, y, x) each organ's share of each voxel.
        hu: Mean CT number of each signal, in this patient's contrast phase.
        removed: Organs that this patient lacks.
        rim: Fat between organs, mm.
        inside: How far outside the space for organs, mm; ``paint_wall`` finds it.
    """

    def __init__(self, rng: np.random.Generator, grid: Grid, z: np.ndarray) -> None:
        self.rng, n = rng, len(z)
        build, self.lean = rng.normal(1, 0.06), min(2.6, rng.gamma(2.4, 0.55))  # size; how much fat, about 1.3
        stretch = (build * rng.normal(1, [0.05, 0.06, 0.05])).astype(np.float32)
        bend = [6 * grid.field(rng, n, 55, 0.985) + 2.2 * grid.field(rng, n, 20, 0.93) for _ in range(3)]
        turn = rng.normal(0, 0.05)
        c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        y, x = grid.mesh
        self.flat = (y * c - x * s, x * c + y * s)
        rigid = (z[:, None, None], *self.flat)
        self.coordinates: Volume = tuple(a / k + b for a, k, b in zip(rigid, stretch, bend, strict=True))
        self.axes = [axis / k for axis, k in zip((z, grid.y, grid.x), stretch, strict=True)]
        self.coarse, self.fine = grid.field(rng, n, 24, 0.93), grid.field(rng, n, 8, 0.75)
        self.image = np.full(self.coordinates[0].shape, -1000, np.float32)
        self.shares = np.zeros((len(ORGANS), *self.image.shape), np.float32)
        self.phase = str(rng.choice(list(PHASES), p=list(PHASES.values())))
        self.hu = {k: v * rng.normal(1, 0.07) + rng.normal(0, 3) for k, v in zip(SIGNALS, HU[self.phase], strict=True)}
        self.hu["liver"] -= rng.uniform(15, 50) * (rng.random() < 0.12)  # fatty
        self.removed = [name for name, share in REMOVED.items() if rng.random() < share]
        self.rim = 0.5 + min(2.0, self.lean)
        self.inside = self.image

    def near(self, points: np.ndarray, reach: float) -> tuple[tuple[slice, ...], Volume, np.ndarray, np.ndarray]:
        """Returns the box around some points; its coordinates, its coarse and its fine texture."""
        box = []
        for axis, low, high in zip(self.axes, points.min(0) - reach, points.max(0) + reach, strict=True):
            within = np.flatnonzero((axis >= low) & (axis <= high))
            box.append(slice(within[0], within[-1] + 1) if len(within) else slice(0, 0))
        z, y, x = (axis[tuple(box)] for axis in self.coordinates)
        return tuple(box), (z, y, x), self.coarse[tuple(box)], self.fine[tuple(box)]

    def put(self, share: np.ndarray, hu: Any, box: tuple[slice, ...] = WHOLE, organ: str | None = "") -> None:
        """Paints CT numbers; voxels then belong to ``organ``, to none where empty, to the one before where None."""
        paint(self.image[box], hu, share)
        if organ is not None:
            self.shares[(slice(None), *box)] *= 1 - share
        if organ:
            self.shares[ORGANS.index(organ)][box] += share

    def vessel(self, points: np.ndarray, radii: np.ndarray, hu: float, organ: str | None = "") -> None:
        """Paints a tube full of blood in a thin coat of fat."""
        box, coordinates, _, fine = self.near(points, float(radii.max()) + 8)
        distance = chain(coordinates, points, radii) - 0.4 * fine
        self.put(cover(distance - 2, 3), FAT, box)
        self.put(cover(distance, 2.5), hu + 4 * fine, box, organ)

    def hollow(self, points: np.ndarray, radii: np.ndarray, kind: str, wall: float = 2.6, organ: str = "") -> None:
        """Paints a tube with a wall, filled with fluid, contrast, food or gas, and often with gas above it."""
        box, coordinates, _, fine = self.near(points, float(radii.max()) + 12)
        if not coordinates[0].size:
            return
        distance = np.maximum(chain(coordinates, points, radii) - 1.3 * fine, self.inside[box] + self.rim)
        self.put(cover(distance - 1.5, 2.5), FAT, box)
        self.put(cover(distance, 2.5), self.hu["wall"] + 6 * fine, box, organ)
        content = {
            "fluid": self.rng.uniform(15, 40) + 4 * fine,
            "contrast": self.rng.uniform(170, 380) + 25 * fine,
            "food": self.rng.uniform(0, 60) - 150 * cover(1.1 - fine, 0.8) + 25 * fine,
            "gas": GAS,
        }
        lumen = cover(distance + wall, 2.5)
        self.put(lumen, content[kind], box, None)
        level = points[:, 1].mean() + self.rng.normal(-0.7, 0.7) * radii.max()
        if self.rng.random() < 0.7:
            self.put(lumen * cover(coordinates[1] - level, 2.5), GAS, box, None)


def paint_wall(s: Trunk) -> None:
    """Paints couch, skin, fat, muscle, ribs, lung and heart, and marks the space for organs."""
    rng, (z, y, x), coarse, fine, lean = s.rng, s.coordinates, s.coarse, s.fine, s.lean
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
        rng.uniform(low, low + 24) - (x - middle) ** 2 / rng.uniform(95, 130) - (y + 5) ** 2 / rng.uniform(110, 160)
        for middle, low in ((np.float32(-68), 84), (np.float32(68), 76))
    )
    under = z - np.maximum(right, left) - 2 * coarse  # below the diaphragm where negative
    s.put(cover(cavity + 2, 3) * cover(-under, 3), -870 + 25 * fine, organ=None)
    s.put(0.8 * cover(1.9 - fine, 0.7) * cover(cavity + 6, 3) * cover(-under, 3), 40, organ=None)  # vessels of the lung
    heart = ellipsoid(s.coordinates, (rng.uniform(98, 112), -34, 16), (34, 48, 58))
    s.put(cover(np.maximum(heart - 5, -under - 1) + coarse, 4), FAT + 10, organ=None)
    s.put(cover(np.maximum(heart, 2 - under), 3), 90 + 40 * coarse, organ=None)
    s.inside = np.maximum(cavity + s.rim, under + 3)


def paint_spine(s: Trunk) -> None:
    """Paints vertebrae and disks, the canal, processes, psoas and the muscles along the back."""
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


def paint_bowel(s: Trunk) -> None:
    """Paints small bowel, colon along the flanks and across the front, duodenum around the pancreas' head."""
    rng, oral = s.rng, s.rng.random() < 0.35
    small = ["contrast", "fluid", "gas"] if oral else ["fluid", "fluid", "fluid", "gas"]
    large = ["food", "food", "gas", "contrast" if oral else "fluid"]
    for _ in range(int(rng.integers(16, 26))):
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
