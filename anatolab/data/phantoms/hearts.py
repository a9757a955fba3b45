"""Slices of generated hearts with a normal or an enlarged left ventricle, and a spurious cue of the scan.

Slices are cut from :func:`anatolab.data.phantoms.cardiac.draw_patient`, 140 mm wide around the left ventricle, at 32
pixels. A ventricle is enlarged if a disk of its area has a radius of 26 mm or more, and normal if it is 22 mm or less;
slices in between are left out. The cue is either a *marker*, a bright square in a corner like those burned into images,
or the *scanner*, whose contrast differs between two sites. In training most enlarged ventricles have the cue, in
validation and test half of each class. Splits are by patient. No real data is used.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

from anatolab.data.labeled import LabeledImages
from anatolab.data.phantoms.cardiac import CLASSES, draw_patient
from anatolab.data.phantoms.scenes import Counterfactuals
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
    jitter = rng.uniform(0.93, 1.07, len(a)) if cue == "scanner" else np.ones(len(a))
    images = _cued(np.stack(gray), a, cue, jitter)
    pixels = _pixels(images + rng.normal(0, 0.01, images.shape))
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


def counterfactual_hearts(
    cue: Literal["marker", "scanner"] = "marker", n: int = 100, *, seed: int = 0
) -> Counterfactuals:
    """Draws sets of four slices: a normal and an enlarged ventricle (first axis) without and with the cue (second).

    Patients are none of those of :func:`heart_slices`; between two slices of a row nothing differs but the cue.

    Args:
        cue: As in :func:`heart_slices`.
        n: Sets.
        seed: Of everything.

    Raises:
        InputError: There is no such cue.

    Example:
        >>> counterfactual_hearts(n=2).images.shape
        (2, 2, 2, 32, 32, 3)
    """
    if cue not in NAMES:
        raise InputError(f"{cue!r} is not a cue of generated hearts; choose from {', '.join(NAMES)}.")
    rng = np.random.default_rng((VERSION, seed, 1))
    kinds: tuple[list[tuple[np.ndarray, np.ndarray]], ...] = ([], [])
    index = 10_000
    while min(map(len, kinds)) < n:
        for image, label, enlarged in _slices(seed, index):
            kinds[enlarged].append((image, label > 0))
        index += 1
    chosen = [[kind[k] for k in rng.permutation(len(kind))[:n]] for kind in kinds]
    gray, masks = (np.stack([np.stack([row[part] for row in kind]) for kind in chosen], 1) for part in (0, 1))
    both = [_cued(gray.reshape(-1, SIZE, SIZE), np.full(2 * n, value), cue, np.ones(2 * n)) for value in (0, 1)]
    images = np.stack(both, 1) + rng.normal(0, 0.01, (2 * n, 1, SIZE, SIZE))
    return Counterfactuals(_pixels(images).reshape(n, 2, 2, SIZE, SIZE, 3), masks)


def _cued(images: np.ndarray, a: np.ndarray, cue: str, jitter: np.ndarray) -> np.ndarray:
    """Images ``(n, h, w)`` with the cue where ``a`` is 1; ``jitter`` varies the contrast of a site."""
    if cue == "marker":
        images = images.copy()
        images[a == 1, *MARKER] = 1.0
        return images
    gamma = np.where(a == 1, 0.6, 1.4) * jitter
    return np.asarray(images ** gamma[:, None, None].astype(np.float32))


def _pixels(images: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as gray pictures ``(..., 3)`` uint8."""
    return np.clip(np.rint(255 * images), 0, 255).astype(np.uint8)[..., None].repeat(3, -1)


@lru_cache(maxsize=512)  # both cues have the same patients
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
