"""Slices of generated hearts with a normal or an enlarged left ventricle, and a spurious cue of the scan.

Slices are cut from :func:`anatolab.data.phantoms.cardiac.draw_patient`, 140 mm wide around the left ventricle, at 32
pixels. A ventricle is enlarged if a disk of its area has a radius of 26 mm or more, and normal if it is 22 mm or less;
slices in between are left out. The cue is either a *marker*, a bright square in a corner like those burned into images,
or the *scanner*, whose contrast differs between two sites. In training most enlarged ventricles have the cue, in
validation and test half of each class. Splits are by patient. No real data is used.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from anatolab.data.labeled import LabeledImages
from anatolab.data.phantoms.cardiac import CLASSES, draw_patient
from anatolab.types import InputError

VERSION = 1  # part of every seed: raise it with any change of what is drawn
SIZE, WIDTH = 32, 140.0  # pixels, and mm that they span
SMALL, LARGE = 22.0, 26.0  # mm, radius of a disk with the area of the cavity
MARKER = np.s_[2:7, 25:30]  # rows and columns of the square
NAMES = {"marker": ("no marker", "marker"), "scanner": ("site A", "site B")}


def heart_slices(
    cue: Literal["marker", "scanner"] = "marker",
    patients: tuple[int, int, int] = (170, 50, 80),
    *,
    aligned: float = 0.95,
    seed: int = 0,
) -> LabeledImages:
    """Draws slices of hearts with normal (0) and enlarged (1) left ventricles.

    Args:
        cue: The spurious cue: a burned-in marker, or the contrast of the scanner.
        patients: Numbers of training, validation and test patients.
        aligned: Share of training slices of a class that come with the cue of the class; exact.
        seed: Seed of all random draws.

    Returns:
        Images ``(n, 32, 32, 3)`` uint8, gray, with the mask of the heart (both ventricles and myocardium).

    Raises:
        InputError: There is no such cue, or a part has no patient.

    Example:
        >>> slices = heart_slices(patients=(5, 5, 5))
        >>> slices.classes, slices.pixels.shape[1:], bool(slices.masks.any((1, 2)).all())
        (('normal', 'enlarged'), (32, 32, 3), True)
    """
    if cue not in NAMES:
        raise InputError(f"{cue!r} is not a cue of generated hearts; choose from {', '.join(NAMES)}.")
    if min(patients) < 1:
        raise InputError(f"patients={patients}: training, validation and test each need at least one.")
    rng = np.random.default_rng((VERSION, seed, 0))
    gray, mask, y, split = [], [], [], []
    for index in range(sum(patients)):
        part = int(np.searchsorted(np.cumsum(patients), index, side="right"))
        for image, label, enlarged in _slices(seed, index):
            gray.append(image)
            mask.append(label > 0)
            y.append(enlarged)
            split.append(part)
    labels, parts = np.array(y, np.int64), np.array(split, np.int64)
    a = labels.copy()
    for part in range(3):
        share = aligned if part == 0 else 0.5
        for k in (0, 1):
            rows = rng.permutation(np.flatnonzero((parts == part) & (labels == k)))
            a[rows[: round(len(rows) * (1 - share))]] = 1 - k
    images = np.stack(gray)
    if cue == "marker":
        images[a == 1, *MARKER] = 1.0
    else:
        gamma = np.where(a == 1, 0.6, 1.4) * rng.uniform(0.93, 1.07, len(a))
        images = images ** gamma[:, None, None].astype(np.float32)
    images = images + rng.normal(0, 0.01, images.shape)
    pixels = np.clip(np.rint(255 * images), 0, 255).astype(np.uint8)[..., None].repeat(3, -1)
    provenance = {
        "generator": "anatolab.data.phantoms.hearts",
        "version": VERSION,
        "cue": cue,
        "seed": seed,
        "aligned": aligned,
        "license": "MIT",
    }
    return LabeledImages(
        f"generated hearts, {cue}",
        ("normal", "enlarged"),
        NAMES[cue],
        labels,
        a,
        parts,
        pixels=pixels,
        masks=np.stack(mask),
        provenance=provenance,
    )


def _slices(seed: int, index: int) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Returns image in [0, 1], labels and class of those slices of a patient that are normal or enlarged."""
    patient = draw_patient(seed, index, size=64)
    pixel = patient.spacing[1]
    kept = []
    for image, label in patient.frames.values():
        cavity = (label == CLASSES.index("LV")).sum((1, 2))
        radius = np.sqrt(cavity * pixel**2 / np.pi)
        for z in np.flatnonzero(cavity > 0.6 * cavity.max()):
            if not SMALL < radius[z] < LARGE:
                y, x = (float(np.mean(axis)) for axis in np.nonzero(label[z] == CLASSES.index("LV")))
                low, high = np.percentile(image[z], (1, 99))
                scaled = np.clip((image[z] - low) / max(high - low, 1), 0, 1).astype(np.float32)
                kept.append((_cut(scaled, y, x, pixel, 1), _cut(label[z], y, x, pixel, 0), int(radius[z] >= LARGE)))
    return kept


def _cut(image: np.ndarray, y: float, x: float, pixel: float, order: int) -> np.ndarray:
    """Cuts a square of ``WIDTH`` mm around a point, at ``SIZE`` pixels."""
    from scipy import ndimage

    steps = (np.arange(SIZE) + 0.5 - SIZE / 2) * WIDTH / SIZE / pixel
    grid = np.meshgrid(y + steps, x + steps, indexing="ij")
    return ndimage.map_coordinates(image, grid, order=order, mode="nearest")
