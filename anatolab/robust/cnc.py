"""CnC: pulls together rows of one class that a first model predicts differently, and separates rows it confuses.

Stage 1 is a strongly regularized ERM, whose prediction stands for the attribute. For an anchor that it classifies
correctly, positives are misclassified rows of the same class, and negatives are rows of other classes with the anchor's
prediction. The contrast has one denominator for all positives and negatives. As in the released code it runs in two
directions: a positive is the anchor of a second contrast, whose positives are rows like the first anchor and whose
negatives are *easy*, correctly classified rows of other classes.

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
    Method,
    ProjectionHead,
    Select,
    Sgd,
    descend,
    draw_distinct,
    predict,
    train_projection,
)
from anatolab.types import InputError


class Cnc(Method["Cnc.Config"]):
    """Contrast across the predictions of a first model, with cross-entropy beside it."""

    @dataclass(frozen=True)
    class Config:
        first: Sgd = field(default_factory=lambda: Sgd(epochs=20, weight_decay=1e-3))  # stage 1
        sgd: Sgd = field(default_factory=lambda: Sgd(epochs=30, batch=32, lr=1e-4, weight_decay=1e-3))  # batch: anchors
        num: int = 17  # positives and negatives per anchor (code, Waterbirds), as far as there are so many
        easy: int = 17  # easy negatives of the second direction (code, Waterbirds); 0 leaves it out
        temperature: float = 0.1  # code, Waterbirds
        contrast: float = 0.75  # weight of the contrast; cross-entropy has 1 minus it
        steps: int = 37  # steps per epoch
        select: Select = "val_worst_group"

    def fit(
        self,
        features: Tensor,
        y: Tensor,
        groups: Tensor | None = None,
        generator: torch.Generator | None = None,
        validation: FeatureSet | None = None,
    ) -> ProjectionHead:
        """Trains in two stages; groups of training rows are not used.

        Raises:
            InputError: The first model leaves no class with anchors, positives and negatives.
        """
        check_features(features, y)
        c, best = self.config, Best(self.config.select, validation)
        first = train_projection(self.start, features, y, c.first, Best("last", None), generator)
        first_class = predict(first, features)
        right = first_class == y
        pools = []
        for k in y.unique():
            sets = [(y == k) & right, (y == k) & ~right, (y != k) & (first_class == k), (y != k) & right]
            pools.append([torch.nonzero(rows).flatten() for rows in sets])
        pools = [sets for sets in pools if all(len(rows) for rows in sets)]
        if not pools:
            raise InputError("CnC: the first model makes no errors to contrast; train it for fewer epochs.")
        head = self.start.head()

        def losses(epoch: int) -> Iterator[Tensor]:
            for step in range(c.steps):
                anchors, positives, negatives, easy = pools[step % len(pools)]
                n = min(c.sgd.batch, len(anchors))

                def some(pool: Tensor, k: int, n: int = n) -> Tensor:
                    return draw_distinct(pool, n, min(k, len(pool)), generator)

                anchor = some(anchors, n, 1).T  # (n, 1): n distinct anchors
                near, far = some(positives, c.num), some(negatives, c.num)
                parts = [anchor, near, far]
                if c.easy:
                    parts += [torch.cat([anchor, some(anchors, c.num - 1)], 1), some(easy, c.easy)]
                rows, back = torch.cat([part.flatten() for part in parts]).unique(return_inverse=True)
                z = head.embed(features[rows])[back]
                unit = [u.view(*p.shape, -1) for u, p in zip(z.split([p.numel() for p in parts]), parts, strict=True)]
                contrast = calibration_loss(unit[0][:, 0], unit[1], unit[2], c.temperature, joint=True)
                if c.easy:
                    second = calibration_loss(unit[1][:, 0], unit[3], unit[4], c.temperature, joint=True)
                    contrast = contrast + second
                plain = F.cross_entropy(head.scale * z @ head.text, y[rows][back])
                yield c.contrast * contrast + (1 - c.contrast) * plain

        descend(head, c.sgd, losses, best)
        return head
