"""CnC: rows of one class that a first model treats differently are pulled together, rows that it confuses apart.

Stage 1 is a strongly regularized ERM, whose prediction stands for the attribute. For an anchor that it gets right,
positives are rows of the same class that it gets wrong, and negatives rows of other classes that it takes for the
anchor's. The contrast has one denominator for all positives and negatives.

Reference:
    Zhang et al., Correct-N-Contrast, ICML 2022; settings of its released code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from anatolab.data.checks import check_features
from anatolab.losses import calibration_loss
from anatolab.robust._fit import (
    Best,
    FeatureSet,
    Labels,
    ProjectionHead,
    Select,
    Selecting,
    Sgd,
    descend,
    draw_distinct,
    predict,
    train_projection,
)
from anatolab.types import InputError


class Cnc(Selecting["Cnc.Config"]):
    """Contrast across the predictions of a first model, with cross-entropy beside it."""

    @dataclass(frozen=True)
    class Config:
        first: Sgd = field(default_factory=lambda: Sgd(epochs=20, weight_decay=1e-3))  # stage 1
        sgd: Sgd = field(default_factory=lambda: Sgd(epochs=30, batch=32, lr=1e-3, weight_decay=1e-3))  # batch: anchors
        num: int = 17  # positives and negatives an anchor (code, Waterbirds), as far as there are so many
        temperature: float = 0.1  # code, Waterbirds
        contrast: float = 0.75  # weight of the contrast; 1 minus it for cross-entropy
        steps: int = 37  # an epoch
        select: Select = "val_worst_group"

    sees_in_training: Labels = ("y",)

    def fit(
        self,
        features: Tensor,
        y: Tensor,
        groups: Tensor | None = None,
        generator: torch.Generator | None = None,
        validation: FeatureSet | None = None,
    ) -> ProjectionHead:
        """Trains in two stages; groups of training rows are not looked at.

        Raises:
            InputError: The first model leaves no class with anchors, positives and negatives.
        """
        check_features(features, y)
        c, best = self.config, Best(self.config.select, validation)
        first = train_projection(self.start, features, y, c.first, Best("last", None), generator)
        guess = predict(first, features)
        pools = []
        for k in y.unique():
            sets = [(y == k) & (guess == k), (y == k) & (guess != k), (y != k) & (guess == k)]
            pools.append([torch.nonzero(rows).flatten() for rows in sets])
        pools = [sets for sets in pools if all(len(rows) for rows in sets)]
        if not pools:
            raise InputError("CnC: the first model makes no errors to contrast; train it for fewer epochs.")
        head = self.start.head()

        def losses(epoch: int) -> Iterator[Tensor]:
            for step in range(c.steps):
                anchors, positives, negatives = pools[step % len(pools)]
                at = draw_distinct(anchors, 1, min(c.sgd.batch, len(anchors)), generator)[0]
                near = draw_distinct(positives, len(at), min(c.num, len(positives)), generator)
                far = draw_distinct(negatives, len(at), min(c.num, len(negatives)), generator)
                rows, back = torch.cat([at, near.flatten(), far.flatten()]).unique(return_inverse=True)
                z = head.embed(features[rows])
                z_at, z_near, z_far = z[back].split([len(at), near.numel(), far.numel()])
                contrast = calibration_loss(
                    z_at, z_near.view(*near.shape, -1), z_far.view(*far.shape, -1), c.temperature, joint=True
                )
                plain = F.cross_entropy(head.scale * z[back] @ head.text, y[rows][back])
                yield c.contrast * contrast + (1 - c.contrast) * plain

        descend(head, c.sgd, losses, best)
        return head
