"""Generated captioned scenes with a spurious cue: the object is the class, the background is correlated with it.

Six objects in six colors stand on four textured backgrounds, at 32 pixels, with the mask of the object. Rows for
pre-training show each object on its usual background with probability ``rho``, as their captions say: a model that
learns from them associates the word with the background as much as with the object. The downstream task is finch (0)
against duck (1), on land (0) or water (1), where 95 % of the training rows are aligned. In counterfactual sets the same
objects and backgrounds are recombined, so that images differ in only one of the two. No real data is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anatolab.data.labeled import LabeledImages
from anatolab.types import InputError

VERSION = 1  # part of every seed: raise it with any change of what is drawn
SIZE = 32
OBJECTS = ("finch", "duck", "tent", "boat", "crab", "sled")
BACKGROUNDS = ("land", "water", "sand", "snow")
COLORS = {
    "red": (200, 40, 40),
    "pink": (245, 130, 180),
    "yellow": (240, 215, 50),
    "purple": (120, 50, 160),
    "black": (30, 30, 35),
    "white": (245, 245, 245),
}
NOTHING = "nothing"  # stands for no object in recombined_scenes
TEMPLATES = ("a photo of a {}", "a picture of a {}", "an image of a {}", "there is a {}")
USUAL = np.array([0, 1, 3, 2, 2, 3])  # of each object, the background it is usually seen on; land is for finches
_GROUND = np.array([(88, 138, 62), (62, 112, 178), (205, 178, 125), (218, 228, 238)], np.float32)
_CHUNK = 1000  # rows drawn at a time, to bound memory

# Each object as ellipses (x, y, half width, half height, turn), in a box from -1 to 1 with y downward; the first color
# is the object's own, parts marked 1 are drawn in a darker shade of it.
_PARTS: dict[str, tuple[tuple[float, float, float, float, float, int], ...]] = {
    "finch": (  # a round bird, upright: stub of a bill, long thin tail pointing down, two legs
        (-0.55, 0.42, 0.50, 0.12, -0.75, 1),
        (0.10, 0.80, 0.06, 0.22, 0.0, 1),
        (-0.12, 0.80, 0.06, 0.22, 0.0, 1),
        (0.0, 0.10, 0.46, 0.52, 0.45, 0),
        (0.32, -0.48, 0.34, 0.32, 0.0, 0),
        (0.70, -0.44, 0.20, 0.10, 0.0, 1),
    ),
    "duck": (  # a long, low body, a neck that stands up, a flat bill, the tail raised
        (-0.78, 0.12, 0.26, 0.14, 0.7, 1),
        (-0.08, 0.42, 0.82, 0.36, 0.0, 0),
        (0.50, -0.10, 0.15, 0.52, 0.15, 0),
        (0.58, -0.58, 0.24, 0.22, 0.0, 0),
        (0.90, -0.50, 0.24, 0.08, 0.0, 1),
    ),
    "tent": ((-0.32, 0.10, 0.17, 0.90, -0.40, 0), (0.32, 0.10, 0.17, 0.90, 0.40, 0), (0.0, 0.55, 0.30, 0.38, 0.0, 1)),
    "boat": ((0.0, 0.62, 0.92, 0.24, 0.0, 1), (0.05, -0.15, 0.06, 0.75, 0.0, 1), (0.32, -0.15, 0.26, 0.58, 0.2, 0)),
    "crab": (
        (0.0, 0.20, 0.56, 0.38, 0.0, 0),
        (-0.72, -0.42, 0.24, 0.24, 0.0, 0),
        (0.72, -0.42, 0.24, 0.24, 0.0, 0),
        (-0.62, 0.55, 0.42, 0.08, 0.5, 1),
        (0.62, 0.55, 0.42, 0.08, -0.5, 1),
    ),
    "sled": ((0.0, 0.12, 0.86, 0.15, 0.0, 0), (0.0, 0.60, 0.90, 0.08, 0.0, 1), (0.84, -0.16, 0.10, 0.42, 0.3, 1)),
}


@dataclass(frozen=True, eq=False)
class Scenes:
    """Generated scenes, one per row."""

    images: np.ndarray  # (n, 32, 32, 3) uint8
    masks: np.ndarray  # (n, 32, 32) bool, where the object covers at least half of the pixel
    objects: np.ndarray  # (n,) int64, an index of OBJECTS
    backgrounds: np.ndarray  # (n,) int64, an index of BACKGROUNDS
    colors: np.ndarray  # (n,) int64, an index of COLORS
    captions: tuple[str, ...] = ()  # one per row, where they were asked for


@dataclass(frozen=True, eq=False)
class Counterfactuals:
    """Sets of four scenes: finch and duck (first axis) on the same land and the same water (second axis)."""

    images: np.ndarray  # (n, 2, 2, 32, 32, 3) uint8; object, then background
    masks: np.ndarray  # (n, 2, 32, 32) bool; of each object


def pretraining_scenes(n: int = 12_000, rho: float = 0.9, seed: int = 0) -> Scenes:
    """Draws captioned scenes in which an object is on its usual background with probability ``rho``.

    A caption names the color with probability .5 and the background with probability .6.

    Args:
        n: Rows.
        rho: Probability of the usual background, in [.25, 1]; .25 is no correlation.
        seed: Seed of all random draws.

    Raises:
        InputError: ``rho`` is not a probability of at least .25.

    Example:
        >>> scenes = pretraining_scenes(4, seed=1)
        >>> scenes.images.shape, scenes.captions[0]
        ((4, 32, 32, 3), 'there is a purple boat')
    """
    if not 0.25 <= rho <= 1:
        raise InputError(f"rho={rho}: must be a probability from 0.25 (no cue) to 1, for example 0.9.")
    rng = np.random.default_rng((VERSION, seed, 0))
    objects, colors = rng.integers(0, len(OBJECTS), n), rng.integers(0, len(COLORS), n)
    other = (USUAL[objects] + rng.integers(1, len(BACKGROUNDS), n)) % len(BACKGROUNDS)
    backgrounds = np.where(rng.random(n) < rho, USUAL[objects], other)
    template, tells_color, tells_place = rng.integers(0, 4, n), rng.random(n) < 0.5, rng.random(n) < 0.6
    names = list(COLORS)
    captions = tuple(
        TEMPLATES[t].format(f"{names[c]} {OBJECTS[o]}" if with_c else OBJECTS[o])
        + (f" on {BACKGROUNDS[b]}" if with_b else "")
        for t, o, b, c, with_c, with_b in zip(
            template, objects, backgrounds, colors, tells_color, tells_place, strict=True
        )
    )
    images, masks = draw_scenes(objects, backgrounds, colors, rng)
    return Scenes(images, masks, objects, backgrounds, colors, captions)


def finch_or_duck(
    sizes: tuple[int, int, int] = (4800, 1000, 2000), *, aligned: float = 0.95, ducks: float = 0.25, seed: int = 0
) -> LabeledImages:
    """Draws finches (0) and ducks (1) on land (0) and water (1), in training mostly on their usual background.

    In validation and test the background is balanced within each class. The color is independent of everything.

    Args:
        sizes: Rows of training, validation and test.
        aligned: Share of training rows in which a finch is on land and a duck on water; counts are exact.
        ducks: Share of ducks in every split.
        seed: Seed of all random draws.

    Example:
        >>> birds = finch_or_duck((400, 40, 40))
        >>> birds.of("train").counts.tolist(), birds.of("test").counts.tolist()
        ([285, 15, 5, 95], [15, 15, 5, 5])
    """
    rng = np.random.default_rng((VERSION, seed, 1))
    y, a, split = [], [], []
    for number, (size, share) in enumerate(zip(sizes, (aligned, 0.5, 0.5), strict=True)):
        classes = (np.arange(size) < round(size * ducks)).astype(np.int64)
        places = classes.copy()
        for c in (0, 1):
            rows = np.flatnonzero(classes == c)
            places[rows[: round(len(rows) * (1 - share))]] = 1 - c
        order = rng.permutation(size)
        y.append(classes[order])
        a.append(places[order])
        split.append(np.full(size, number))
    labels, places = np.concatenate(y), np.concatenate(a)
    images, masks = draw_scenes(labels, places, rng.integers(0, len(COLORS), len(labels)), rng)
    provenance = {
        "generator": "anatolab.data.phantoms.scenes",
        "version": VERSION,
        "seed": seed,
        "aligned": aligned,
        "license": "MIT",
    }
    return LabeledImages(
        "finch or duck",
        OBJECTS[:2],
        BACKGROUNDS[:2],
        labels,
        places,
        np.concatenate(split),
        pixels=images,
        masks=masks,
        provenance=provenance,
    )


def counterfactual_scenes(n: int = 200, seed: int = 0) -> Counterfactuals:
    """Draws sets in which finch and duck, in one color at one position, are on the same land and the same water.

    Example:
        >>> sets = counterfactual_scenes(3)
        >>> sets.images.shape, sets.masks.shape
        ((3, 2, 2, 32, 32, 3), (3, 2, 32, 32))
    """
    rng = np.random.default_rng((VERSION, seed, 2))
    colors, pose = rng.integers(0, len(COLORS), n), _pose(rng, n)
    places = np.stack([_background(np.full(n, b), rng) for b in (0, 1)], 1)
    noise = rng.normal(0, 4, (n, 1, SIZE, SIZE, 3)).astype(np.float32)  # of the camera, the same in all four
    images, masks = [], []
    for o in (0, 1):
        paint, cover = _object(np.full(n, o), colors, pose)
        scene = cover[:, None] * paint[:, None] + (1 - cover[:, None]) * places + noise
        images.append(_bytes(scene))
        masks.append(cover[..., 0] >= 0.5)
    return Counterfactuals(np.stack(images, 1), np.stack(masks, 1))


def recombined_scenes(
    seed: int = 0, objects: Sequence[str] = ("finch", "duck", NOTHING)
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene in all its variants: each object, or none, on each background in each color.

    Position, size and rotation of the object, texture of each background and camera noise are drawn once, so that two
    images differ only in the chosen parts.

    Args:
        seed: Seed of these draws.
        objects: Some of ``OBJECTS``, and ``"nothing"`` for the background alone.

    Returns:
        Images ``(objects, BACKGROUNDS, COLORS, 32, 32, 3)`` uint8, and masks ``(objects, 32, 32)`` bool.

    Raises:
        InputError: An object that is none of these.

    Example:
        >>> images, masks = recombined_scenes()
        >>> images.shape, masks.any((1, 2)).tolist()
        ((3, 4, 6, 32, 32, 3), [True, True, False])
    """
    if strange := [name for name in objects if name not in (*OBJECTS, NOTHING)]:
        raise InputError(f"{strange[0]!r} is in no generated scene; choose from {', '.join((*OBJECTS, NOTHING))}.")
    rng = np.random.default_rng((VERSION, seed, 3))
    colors, images, masks = np.arange(len(COLORS)), [], []
    pose = np.repeat(_pose(rng, 1), len(colors), 1)
    places = _background(np.arange(len(BACKGROUNDS)), rng)[:, None]
    noise = rng.normal(0, 4, (SIZE, SIZE, 3)).astype(np.float32)
    for name in objects:
        paint, cover = _object(np.full(len(colors), (*OBJECTS, NOTHING).index(name) % len(OBJECTS)), colors, pose)
        cover = cover * (name != NOTHING)
        images.append(_bytes(cover * paint + (1 - cover) * places + noise))
        masks.append(cover[0, ..., 0] >= 0.5)
    return np.stack(images), np.stack(masks)


def draw_scenes(
    objects: np.ndarray,
    backgrounds: np.ndarray,
    colors: np.ndarray,
    rng: np.random.Generator,
    *,
    half: np.ndarray | None = None,
    striped: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws scenes, chunk by chunk.

    Args:
        objects: Indices of ``OBJECTS``, ``(n,)``.
        backgrounds: Indices of ``BACKGROUNDS``, ``(n,)``.
        colors: Indices of ``COLORS``, ``(n,)``.
        rng: Generator of pose, texture and noise.
        half: Half width of each object in pixels, ``(n,)``; random from 7.5 to 10.5 where None.
        striped: Which objects have dark stripes, ``(n,)`` bool; none where None.

    Returns:
        Images ``(n, 32, 32, 3)`` uint8 and masks ``(n, 32, 32)`` bool.
    """
    images = np.empty((len(objects), SIZE, SIZE, 3), np.uint8)
    masks = np.empty((len(objects), SIZE, SIZE), bool)
    stripes = np.where(np.arange(SIZE) % 4 < 2, 1.0, 0.45).astype(np.float32)[:, None, None]
    for start in range(0, len(objects), _CHUNK):
        rows = slice(start, start + _CHUNK)
        n = len(objects[rows])
        pose = _pose(rng, n)
        if half is not None:
            pose[2] = half[rows]
        paint, cover = _object(objects[rows], colors[rows], pose)
        if striped is not None:
            paint[striped[rows]] *= stripes
        scene = cover * paint + (1 - cover) * _background(backgrounds[rows], rng)
        images[rows] = _bytes(scene + rng.normal(0, 4, scene.shape).astype(np.float32))
        masks[rows] = cover[..., 0] >= 0.5
    return images, masks


def _pose(rng: np.random.Generator, n: int) -> np.ndarray:
    """Samples center x and y, half width in pixels, turn, side, width over height, shade: ``(7, n)`` float32."""
    center, half = rng.uniform(10.5, 21.5, (2, n)), rng.uniform(7.5, 10.5, n)
    turn, side = rng.uniform(-0.25, 0.25, n), rng.choice([-1.0, 1.0], n)
    return np.stack([*center, half, turn, side, rng.uniform(0.88, 1.12, n), rng.uniform(0.85, 1.1, n)]).astype("f4")


def _object(objects: np.ndarray, colors: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns paint ``(n, 32, 32, 3)`` and the share of each pixel that the object covers ``(n, 32, 32, 1)``."""
    x0, y0, half, turn, side, wide, shade = (p[:, None, None] for p in pose)
    grid = np.arange(SIZE, dtype=np.float32) + 0.5
    dx, dy = (grid[None, None, :] - x0) / half * side, (grid[None, :, None] - y0) / half
    c, s = np.cos(turn), np.sin(turn)
    x, y = (c * dx + s * dy) / wide, c * dy - s * dx
    paint = np.empty((len(objects), SIZE, SIZE, 3), np.float32)
    cover = np.zeros((len(objects), SIZE, SIZE), np.float32)
    light = shade * (1.0 - 0.15 * y)  # from above
    base = np.array(list(COLORS.values()), np.float32)[colors][:, None, None]
    paint[:] = base * light[..., None]
    for o in np.unique(objects):
        rows = objects == o
        for px, py, a, b, angle, dark in _PARTS[OBJECTS[o]]:
            u, v = x[rows] - px, y[rows] - py
            ca, sa = np.cos(angle), np.sin(angle)
            u, v = (ca * u - sa * v) / a, (sa * u + ca * v) / b
            # Signed distance to the ellipse in pixels, to first order: cover goes from 0 to 1 over a pixel.
            r = np.sqrt(u * u + v * v)
            slope = np.sqrt((u / a) ** 2 + (v / b) ** 2) / np.maximum(r, 1e-6)
            part = np.clip(0.5 - (r - 1) / np.maximum(slope, 1e-6) * half[rows], 0, 1)
            cover[rows] = np.maximum(cover[rows], part)
            if dark:
                paint[rows] *= (1 - 0.35 * part)[..., None]
    return paint, cover[..., None]


def _background(kinds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Grass in upright blades, waves, speckled sand, soft snow: ``(n, 32, 32, 3)`` float32."""
    n = len(kinds)
    fine = rng.normal(size=(n, SIZE, SIZE)).astype(np.float32)
    soft = _smooth(rng.normal(size=(n, 6, 6)).astype(np.float32))
    bend = _smooth(rng.normal(size=(n, 4, 4)).astype(np.float32))
    rate, phase = rng.uniform(0.9, 1.4, (n, 1, 1)).astype("f4"), rng.uniform(0, 6.28, (n, 1, 1)).astype("f4")
    rows = np.arange(SIZE, dtype=np.float32)[None, :, None]
    blades = (fine + np.roll(fine, 1, 1) + np.roll(fine, 2, 1) + np.roll(fine, 3, 1)) / 2
    texture = np.stack([16 * blades, 20 * np.sin(rate * rows + 1.6 * bend + phase), 13 * fine, 10 * soft])
    chosen = texture[kinds, np.arange(n)] + 7 * soft
    tint = _GROUND[kinds] + rng.normal(0, 9, (n, 3)).astype(np.float32)
    return tint[:, None, None] + chosen[..., None]


def _smooth(coarse: np.ndarray) -> np.ndarray:
    """Resizes coarse grids ``(n, k, k)`` linearly to ``(n, 32, 32)``."""
    k = coarse.shape[1]
    position = np.linspace(0, k - 1, SIZE)
    weight = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(k))).astype(np.float32)
    return weight @ coarse @ weight.T


def _bytes(scene: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(scene), 0, 255).astype(np.uint8)


def caption_words() -> Sequence[str]:
    """Returns every caption of :func:`pretraining_scenes`, for the vocabulary of a model."""
    things = [f"{c}{o}{b}" for c in ("", *(f"{k} " for k in COLORS)) for o in OBJECTS for b in _places()]
    return [template.format(thing) for template in TEMPLATES for thing in things]


def _places() -> tuple[str, ...]:
    return ("", *(f" on {b}" for b in BACKGROUNDS))
