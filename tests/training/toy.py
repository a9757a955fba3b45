"""A small world for tests of the loop: eight patients of bright and dark squares, and a network that learns them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from anatolab.data import Rows
from anatolab.methods import METHODS
from anatolab.types import Split

PATIENTS = [f"p{i}" for i in range(8)]
CONTRASTIVE = ("action", "actionpp")  # they need a network that can be tapped
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


def method(name: str = "mean_teacher", updates: int = 12, seed: int = 0, **fields: object) -> nn.Module:
    """A method around a tiny network with batch norm, a baseline with dropout too: every random state matters."""
    torch.manual_seed(seed)
    kind = METHODS[name]
    if name in CONTRASTIVE:
        from anatolab.nn import light_unet

        small = {"representation": 8, "representation_stride": 2, "num_anchors": 16, "num_negatives": 32}
        return kind(light_unet(1, 2, width=4, depth=3), kind.Config(updates=updates, labeled=2, **small, **fields))
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.3), nn.Conv2d(6, 2, 3, padding=1)
    )
    return kind(net, kind.Config(updates=updates, labeled=2, **fields))
