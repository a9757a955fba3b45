"""Further generated worlds: cues other than the background, three classes with two cues, and no cue.

They use the objects and backgrounds of :mod:`anatolab.data.phantoms.scenes`, which the package's small models know:

- ``stripes``: most ducks have dark stripes, most finches none; backgrounds are sand or snow, independent of the class;
- ``size``: most ducks are large, most finches small; backgrounds as before;
- ``two-cues``: finch, duck and boat, each usually on its own background *and* usually striped or plain;
- ``none``: finches and ducks on sand or snow, plain, of any size: only the object is correlated with the class.

In validation and test every cue is balanced within each class. No real data is used.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from anatolab.data.labeled import LabeledImages
from anatolab.data.phantoms.scenes import COLORS, OBJECTS, draw_scenes
from anatolab.types import InputError

VERSION = 1  # part of every seed: raise it with any change of what is drawn
World = Literal["stripes", "size", "two-cues", "none"]
HALVES = ((7.0, 8.5), (9.5, 11.0))  # half width of small and large objects, in pixels
_ATTRIBUTES = {
    "stripes": ("plain", "striped"),
    "size": ("small", "large"),
    "two-cues": ("both cues usual", "background unusual", "stripes unusual", "both cues unusual"),
    "none": ("sand", "snow"),
}
_THINGS = (0, 1, 3)  # finch, duck, boat
_PLACES = (0, 1, 2)  # land, water, sand: where pre-training shows these three most


def generated_world(
    kind: World, sizes: tuple[int, int, int] = (4800, 1000, 2000), *, aligned: float = 0.95, seed: int = 0
) -> LabeledImages:
    """Draws a world of finches (0) and ducks (1), with boats (2) where there are two cues.

    A quarter of two classes are ducks; three classes are equally frequent. Counts are exact.

    Args:
        kind: Name of the world.
        sizes: Rows of training, validation and test.
        aligned: Share of training rows of a class whose cue is the usual one, of each cue by itself; ``none`` ignores
            it.
        seed: Seed of all random draws.

    Raises:
        InputError: There is no such world, or ``aligned`` is not a share from 0.5 to 1.

    Example:
        >>> world = generated_world("stripes", (400, 40, 40))
        >>> world.group_names[2:], world.of("train").counts.tolist()
        (('duck, plain', 'duck, striped'), [285, 15, 5, 95])
    """
    if kind not in get_args(World):
        raise InputError(f"{kind!r} is not a generated world; choose from {', '.join(get_args(World))}.")
    if not 0.5 <= aligned <= 1:
        raise InputError(f"aligned={aligned}: must be a share from 0.5 (no cue) to 1, for example 0.95.")
    rng = np.random.default_rng((VERSION, seed, get_args(World).index(kind)))
    two = kind == "two-cues"
    y, first, second, split = [], [], [], []
    for number, (n, share) in enumerate(zip(sizes, (0.5 if kind == "none" else aligned, 0.5, 0.5), strict=True)):
        classes = np.arange(n) % 3 if two else (np.arange(n) < round(n * 0.25)).astype(np.int64)
        usual, plain = np.ones(n, bool), np.ones(n, bool)
        for k in np.unique(classes):
            rows = np.flatnonzero(classes == k)
            few = round(len(rows) * (1 - share))
            usual[rows[:few]] = False
            # Of either part of the first cue, the same share has the other value of the second.
            for part in (rows[:few], rows[few:]):
                plain[part[: round(len(part) * (1 - share))]] = False
        order = rng.permutation(n)
        y.append(classes[order])
        first.append(usual[order])
        second.append(plain[order])
        split.append(np.full(n, number))
    label, usual, kept = (np.concatenate(part) for part in (y, first, second))
    colors = rng.integers(0, len(COLORS), len(label))
    cue = np.where(usual, label, 1 - label)  # of two classes: 1 is what most ducks have
    neutral = rng.integers(2, 4, len(label))  # sand or snow
    if two:
        other = (label + rng.integers(1, 3, len(label))) % 3
        places, things = np.take(_PLACES, np.where(usual, label, other)), np.take(_THINGS, label)
        striped = (label == 1) == kept
        images, masks = draw_scenes(things, places, colors, rng, striped=striped)
        a = 2 * ~kept + ~usual
    elif kind == "size":
        low, high = np.take(np.array(HALVES), cue, 0).T
        images, masks = draw_scenes(label, neutral, colors, rng, half=rng.uniform(low, high))
        a = cue
    elif kind == "stripes":
        images, masks = draw_scenes(label, neutral, colors, rng, striped=cue == 1)
        a = cue
    else:
        images, masks = draw_scenes(label, cue + 2, colors, rng)
        a = cue
    names = tuple(OBJECTS[k] for k in (_THINGS if two else (0, 1)))
    provenance = {
        "generator": "anatolab.data.phantoms.worlds",
        "version": VERSION,
        "kind": kind,
        "seed": seed,
        "aligned": aligned,
        "license": "MIT",
    }
    return LabeledImages(
        f"generated world: {kind}",
        names,
        _ATTRIBUTES[kind],
        label.astype(np.int64),
        a.astype(np.int64),
        np.concatenate(split),
        pixels=images,
        masks=masks,
        provenance=provenance,
    )
