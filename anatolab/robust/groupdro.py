"""Group DRO: minimizes the loss of the worst group; needs the group of every training row.

Rows are sampled so that groups are equally frequent. Group weights q take a step of exponentiated ascent per update.
Only the projection is trained. Strong weight decay or early stopping by the worst group is part of the method.

Reference:
    Sagawa et al., Distributionally robust neural networks for group shifts, ICLR 2020; settings of its released code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from anatolab.data.checks import check_features
from anatolab.losses import group_dro, group_losses
from anatolab.robust._fit import Best, FeatureSet, Labels, Method, ProjectionHead, Select, Sgd, checked, descend


class GroupDro(Method["GroupDro.Config"]):
    """Minimizes the q-weighted sum of group losses through the text head."""

    @dataclass(frozen=True)
    class Config:
        sgd: Sgd = field(default_factory=lambda: Sgd(lr=1e-3, weight_decay=1e-4))
        step: float = 0.01  # eta, step size of the group weights
        adjustment: float = 0.0  # C; C / sqrt(n_g) is added to the losses that update q
        select: Select = "val_worst_group"

    sees_in_training: Labels = ("y", "group")

    def fit(
        self,
        features: Tensor,
        y: Tensor,
        groups: Tensor | None = None,
        generator: torch.Generator | None = None,
        validation: FeatureSet | None = None,
    ) -> ProjectionHead:
        """Trains on rows sampled with equal probability per group.

        Raises:
            InputError: The groups of the training rows are missing.
        """
        check_features(features, y)
        c, g = self.config, checked(y, groups, "GroupDRO")
        n = int(g.max()) + 1
        head = self.start.head()
        count = torch.bincount(g, minlength=n).float()
        odds, q = 1 / count[g], (count > 0) / (count > 0).sum()
        adjust = c.adjustment / count.clamp_min(1).sqrt()

        def losses(epoch: int) -> Iterator[Tensor]:
            nonlocal q
            for _ in range(max(len(y) // c.sgd.batch, 1)):
                batch = torch.multinomial(odds, c.sgd.batch, replacement=True, generator=generator)
                each = group_losses(
                    F.cross_entropy(head.logits(features[batch]), y[batch], reduction="none"), g[batch], n
                )
                _, q = group_dro(each + adjust, q, c.step)
                yield (q * each).sum()

        descend(head, c.sgd, losses, Best(c.select, validation))
        return head
