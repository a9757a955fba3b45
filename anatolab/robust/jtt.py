"""JTT: trains twice; the second time the errors of the first are repeated.

Stage 1 is ERM for some epochs; its errors on the training rows are the error set. Stage 2 starts again from the
pre-trained projection, on all rows and ``extra`` further copies of the error set. The released settings are for whole
ResNets (60 epochs of stage 1 and 100 copies for Waterbirds). The learning rate of stage 2 matters most: at the 1e-2 of
ERM the projection is back at ERM within an epoch.

Reference:
    Liu et al., Just train twice, ICML 2021.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from anatolab.data.checks import check_features
from anatolab.robust._fit import (
    Best,
    FeatureSet,
    Method,
    ProjectionHead,
    Select,
    Sgd,
    predict,
    train_projection,
)


class Jtt(Method["Jtt.Config"]):
    """ERM on the training rows with the errors of an earlier ERM repeated."""

    @dataclass(frozen=True)
    class Config:
        first: Sgd = field(default_factory=lambda: Sgd(epochs=20))  # stage 1
        sgd: Sgd = field(default_factory=lambda: Sgd(epochs=60, lr=1e-4))  # stage 2; 1e-5 in the code (Waterbirds)
        extra: int = 100  # lambda, additional copies of each error; 0 is ERM
        select: Select = "val_worst_group"

    def fit(
        self,
        features: Tensor,
        y: Tensor,
        groups: Tensor | None = None,
        generator: torch.Generator | None = None,
        validation: FeatureSet | None = None,
    ) -> ProjectionHead:
        """Trains twice; groups of training rows are not used."""
        check_features(features, y)
        c, best = self.config, Best(self.config.select, validation)
        rows = torch.arange(len(y))
        if c.extra:
            first = train_projection(self.start, features, y, c.first, Best("last", None), generator)
            errors = torch.nonzero(predict(first, features) != y).flatten()
            rows = torch.cat([rows, errors.repeat(c.extra)])
        return train_projection(self.start, features, y, c.sgd, best, generator, rows)
