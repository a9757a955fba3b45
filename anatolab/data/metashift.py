"""MetaShift cats and dogs, photographs: the class is the animal, the attribute indoor or outdoor.

Folders as SubpopBench has them, also below a folder ``metashift``::

    MetaShift-Cat-Dog-indoor-outdoor/train/cat/cat(indoor)/*.jpg      train/dog/dog(outdoor)/*.jpg
    MetaShift-Cat-Dog-indoor-outdoor/test/cat/cat(outdoor)/*.jpg      test/dog/dog(indoor)/*.jpg

``train`` and ``test`` are pooled there and split anew by a seed, 25 % test and 10 % validation, so that every split has
all groups. Files are sorted by path first. The original code takes them in the order of the disk, which differs between
machines, so its split cannot be reproduced exactly. An image in two folders (a scene that is indoor and outdoor, or cat
and dog) is kept once per folder, as in the original.

Reference:
    Liang and Zou, MetaShift, ICLR 2022; split of Yang et al., Change is hard (SubpopBench), ICML 2023.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from anatolab.data.labeled import LabeledImages, labeled_images
from anatolab.types import InputError

CLASSES, ATTRIBUTES = ("dog", "cat"), ("outdoor", "indoor")
PROVENANCE = {"source": "MetaShift, Liang and Zou, ICLR 2022", "license": "CC BY 4.0, images of Visual Genome"}
FOLDER = "MetaShift-Cat-Dog-indoor-outdoor"
_PLACE = re.compile(r"(cat|dog)\((indoor|outdoor)\)")


def read_metashift(root: str | Path, seed: int = 42) -> LabeledImages:
    """Reads MetaShift cat against dog, pooled and split again.

    Args:
        root: The folder with ``train`` and ``test``, or one above it.
        seed: Seed of the split.

    Raises:
        InputError: The folders are not there, or one of the four groups has no image.
    """
    root = Path(root)
    above = (root / "metashift" / FOLDER, root / FOLDER, root)
    root = next((path for path in above if (path / "train").is_dir()), root)
    images = []
    for path in sorted(root.glob("*/*/*/*.jpg")):
        match = _PLACE.fullmatch(path.parent.name)
        if match and path.parts[-4] in ("train", "test"):
            images.append((path, CLASSES.index(match[1]), ATTRIBUTES.index(match[2])))
    for y, animal in enumerate(CLASSES):
        for a, place in enumerate(ATTRIBUTES):
            if not any(row[1:] == (y, a) for row in images):
                raise InputError(
                    f"{root}: holds no image of {animal}({place}); copy train/{animal} and test/{animal} of "
                    f"{FOLDER} there."
                )
    n = len(images)
    order = np.random.RandomState(seed).permutation(n)  # the generator of the published split
    split = np.zeros(n, np.int64)
    tests, vals = round(0.25 * n), round(0.10 * n)
    split[order[:tests]], split[order[tests : tests + vals]] = 2, 1
    files = [path for path, _, _ in images]
    values = [(y, a, int(s)) for (_, y, a), s in zip(images, split, strict=True)]
    return labeled_images(
        root, "MetaShift", CLASSES, ATTRIBUTES, files, values, {**PROVENANCE, "split": f"seed {seed}"}
    )
