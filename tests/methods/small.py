"""A small network, small settings and small images on which the staged methods are tested."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from anatolab.nn import light_unet, tap
from anatolab.transforms import Augmentation
from anatolab.types import IGNORE, Batch

STILL = Augmentation(rotate=0, scale=0, translate=0, flip=False, quarter_turns=False, strong_probability=0, mix="none")
STAGED = {"shares": (0.25, 0.25)}  # both distillations in front of the last stage, as ACTION prints them
SMALL: dict[str, Any] = {
    "updates": 40,
    "ramp_updates": 0,  # a tenth of the updates then
    "labeled": 3,
    "unlabeled": 3,
    "representation": 16,
    "representation_stride": 2,
    "num_anchors": 32,
    "num_negatives": 64,
}


def make(
    kind: type, dims: int = 2, pretraining: dict[str, Any] | None = None, seed: int = 0, **fields: Any
) -> nn.Module:
    torch.manual_seed(seed)
    default = kind.Config().pretraining
    if hasattr(kind.Config(), "bank"):
        fields = {"bank": 300, "neighbor_cells": 4, **fields}
    given = {"embedding": 16, "cells": 8 if dims == 2 else 4, **(pretraining or {})}
    config = kind.Config(pretraining=replace(default, **given), **{**SMALL, **fields})
    network = light_unet(1, 3, spatial_dims=dims, width=4, depth=4)
    return kind(tap(network, size=16), config).train()  # as the method taps it, but on a smaller dry run


def batch(dims: int = 2, labeled: int = 3, unlabeled: int = 3, seed: int = 1, side: int = 0) -> Batch:
    """Images in which the brightness of a box tells its class, on a darker ground; planes of 32, volumes of 16."""
    generator = torch.Generator().manual_seed(seed)
    side = side or (32 if dims == 2 else 16)
    sides, box = [side] * dims, side * 11 // 32
    label = torch.zeros(labeled + unlabeled, *sides, dtype=torch.long)
    for row in label:
        for c in (1, 2):
            corner = torch.randint(2, side * 18 // 32, (dims,), generator=generator).tolist()
            row[tuple(slice(a, a + box) for a in corner)] = c
    image = label[:, None] / 3 + 0.15 * torch.rand(len(label), 1, *sides, generator=generator)
    label[labeled:] = IGNORE
    return Batch(image.clamp(0, 1), label, labeled)


def stage(method: Any, name: str) -> Any:
    return next(s for s in method.stages() if s.name == name)
