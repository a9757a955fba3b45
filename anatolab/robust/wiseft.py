"""WiSE-FT: the weights half way between zero-shot and fine-tuned.

.. math:: \\theta = (1-\\alpha)\\,\\theta_{zero-shot} + \\alpha\\,\\theta_{fine-tuned}

Reference:
    Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from anatolab.data.checks import check_features
from anatolab.robust._fit import Best, FeatureSet, Method, ProjectionHead, Sgd, train_projection


class WiseFt(Method["WiseFt.Config"]):
    """Interpolates the projection between the pre-trained one and that of ERM."""

    @dataclass(frozen=True)
    class Config:
        sgd: Sgd = field(default_factory=Sgd)
        alpha: float = 0.5  # 0 is zero-shot, 1 is ERM

    def fit(
        self,
        features: Tensor,
        y: Tensor,
        groups: Tensor | None = None,
        generator: torch.Generator | None = None,
        validation: FeatureSet | None = None,
    ) -> ProjectionHead:
        """Trains ERM and interpolates; groups and validation are not used."""
        check_features(features, y)
        head, c = self.start.head(), self.config
        tuned = train_projection(self.start, features, y, c.sgd, Best("last", None), generator)
        with torch.no_grad():
            for p, q in zip(head.parameters(), tuned.parameters(), strict=True):
                p.lerp_(q, c.alpha)
        return head
