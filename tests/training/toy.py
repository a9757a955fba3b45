"""A small world for tests of the loop: eight patients of bright squares or cubes, and a network that learns them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from anatolab.data import Rows, Volumes
from anatolab.methods import METHODS
from anatolab.types import Split

PATIENTS = [f"p{i}" for i in range(8)]
ANCHORS: dict[str, object] = {
    "representation": 8,
    "representation_stride": 2,
    "num_anchors": 16,
    "num_negatives": 32,
}
CONTRASTIVE = ("action", "actionpp", "mona", "arco")
SMALL: dict[str, dict[str, object]] = {  # methods that need a network that can be tapped, and their small heads
    "unimatch": {},
    "action": ANCHORS,
    "actionpp": ANCHORS,
    "mona": {**ANCHORS, "bank": 100},
    "arco": {**ANCHORS, "bank": 100},
    "morse": {
        **dict.fromkeys(("experts", "fused", "hidden", "frequencies"), 8),
        "head_width": 16,
        "gate_stride": 2,
        "points": 64,
        "render_points": 64,
    },
}
SPLIT = Split(train=tuple(PATIENTS), labeled=3)


def rows(seed: int = 0, side: int = 16) -> Rows:
    """Four slices a patient, each with one bright square (class 1) on noise."""
    generator = np.random.default_rng(seed)
    images = generator.random((32, 1, side, side), dtype=np.float32) * 0.3
    labels = np.zeros((32, side, side), np.uint8)
    for image, label in zip(images, labels, strict=True):
        y, x = generator.integers(0, side // 2, 2)
        image[0, y : y + 6, x : x + 6] += 0.6
        label[y : y + 6, x : x + 6] = 1
    return Rows.from_arrays(images, labels, [p for p in PATIENTS for _ in range(4)])


def volumes(seed: int = 0, foreground: float = 0.5) -> Volumes:
    """One volume a patient, of a size of its own, with a bright box (class 1) on noise; patches of 8 x 12 x 12."""
    generator = np.random.default_rng(seed)
    images, labels = [], []
    for _ in PATIENTS:
        shape = generator.integers((7, 14, 12), (14, 20, 20))
        image, label = generator.random((1, *shape), dtype=np.float32) * 0.3, np.zeros(shape, np.uint8)
        box = tuple(slice(a, a + 6) for a in generator.integers(0, shape - 6))
        image[0][box] += 0.6
        label[box] = 1
        images.append(image)
        labels.append(label)
    return Volumes.from_arrays(images, labels, PATIENTS, size=(8, 12, 12), foreground=foreground)


def method(name: str = "mean_teacher", updates: int = 12, seed: int = 0, dims: int = 2, **fields: object) -> nn.Module:
    """A method around a tiny network with batch norm, a baseline with dropout too: every random state matters."""
    torch.manual_seed(seed)
    kind = METHODS[name]
    if name in SMALL:
        from anatolab.nn import light_unet, tap

        net = light_unet(1, 2, spatial_dims=dims, width=4, depth=3)
        return kind(tap(net, size=16), kind.Config(**{"updates": updates, "labeled": 2, **SMALL[name], **fields}))
    conv, norm, drop = (
        (nn.Conv2d, nn.BatchNorm2d, nn.Dropout2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d, nn.Dropout3d)
    )
    net = nn.Sequential(conv(1, 6, 3, padding=1), norm(6), nn.ReLU(), drop(0.3), conv(6, 2, 3, padding=1))
    return kind(net, kind.Config(updates=updates, labeled=2, **fields))
