"""AFR: trains the projection again on held-out rows, weighted by the errors of a first model.

Stage 1 is ERM on most of the training rows. Stage 2 continues on the other rows with full batches. A row's weight grows
as the frozen model of stage 1 gives its class less probability; classes are balanced.

Reference:
    Qiu et al., Simple and fast group robustness by automatic feature reweighting, ICML 2023; settings of its code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from anatolab.data.checks import check_features
from anatolab.losses import hardness_weights
from anatolab.robust._fit import (
    Best,
    FeatureSet,
    Method,
    ProjectionHead,
    Select,
    Sgd,
    descend,
    in_chunks,
    train_projection,
)


class Afr(Method["Afr.Config"]):
    """Weighted cross-entropy on a held-out part of the training rows, close to the model of stage 1."""

    @dataclass(frozen=True)
    class Config:
        first: Sgd = field(default_factory=lambda: Sgd(epochs=50, lr=1e-3))  # stage 1
        share: float = 0.8  # share of the training rows for stage 1
        gamma: float = 4.0  # 10 for Waterbirds, 1.44 for CelebA in the released code
        stay: float = 0.0  # lambda, weight of the squared distance to stage 1
        steps: int = 500
        lr: float = 1e-2
        select: Select = "val_worst_group"

    def fit(
        self,
        features: Tensor,
        y: Tensor,
        groups: Tensor | None = None,
        generator: torch.Generator | None = None,
        validation: FeatureSet | None = None,
    ) -> ProjectionHead:
        """Trains in two stages; groups of training rows are not used."""
        check_features(features, y)
        c, best = self.config, Best(self.config.select, validation)
        order = torch.randperm(len(y), generator=generator)
        first, rest = order[: round(c.share * len(y))], order[round(c.share * len(y)) :]
        head = train_projection(self.start, features, y, c.first, Best("last", None), generator, first)
        h, label = features[rest], y[rest]
        label_probability = in_chunks(head.logits, h).softmax(1).gather(1, label[:, None])[:, 0]
        weight = hardness_weights(label_probability, label, c.gamma)
        before = [p.detach().clone() for p in head.parameters()]

        def losses(epoch: int) -> Iterator[Tensor]:
            for _ in range(10):
                loss = (weight * F.cross_entropy(head.logits(h), label, reduction="none")).sum()
                if c.stay:
                    moved = [(p - b).square().sum() for p, b in zip(head.parameters(), before, strict=True)]
                    loss = loss + c.stay * torch.stack(moved).sum()
                yield loss

        # Ten steps are an epoch here, so that selection scores as many heads as elsewhere.
        descend(head, Sgd(-(-c.steps // 10), lr=c.lr, momentum=0.0, weight_decay=0.0), losses, best, clip=1.0)
        return head
