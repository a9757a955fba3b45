"""ERM, which uses spurious cues like any other feature, in two forms whose worst groups may differ.

``ErmProjection`` is what CFR's code calls ERM: cross-entropy of the *text* head, with the visual projection alone
trained. ``ErmLinearProbe`` is a fresh logistic regression on standardized embeddings.

Reference:
    You et al., CVPR 2024 (baseline, in its released code); Kirichenko et al., ICLR 2023 (probe).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from anatolab.data.checks import check_features
from anatolab.robust._fit import (
    Best,
    FeatureSet,
    LinearHead,
    Method,
    ProjectionHead,
    Select,
    Sgd,
    embed,
    logistic,
    train_projection,
)


class ErmProjection(Method["ErmProjection.Config"]):
    """Cross-entropy through the text head; only the projection is trained."""

    @dataclass(frozen=True)
    class Config:
        """Settings; those of the released command are 100 epochs of 128 rows, lr 1e-4, selected by the worst group."""

        sgd: Sgd = field(default_factory=Sgd)
        select: Select = "last"

    def fit(
        self,
        features: Tensor,
        y: Tensor,
        groups: Tensor | None = None,
        generator: torch.Generator | None = None,
        validation: FeatureSet | None = None,
    ) -> ProjectionHead:
        """Trains on all rows; groups are not used."""
        check_features(features, y)
        best = Best(self.config.select, validation)
        return train_projection(self.start, features, y, self.config.sgd, best, generator)


class ErmLinearProbe(Method["ErmLinearProbe.Config"]):
    """Logistic regression on standardized unit embeddings, its strength chosen on validation."""

    @dataclass(frozen=True)
    class Config:
        strengths: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001)  # C, tried on validation; the first without it
        select: Select = "val_average"

    def fit(
        self,
        features: Tensor,
        y: Tensor,
        groups: Tensor | None = None,
        generator: torch.Generator | None = None,
        validation: FeatureSet | None = None,
    ) -> LinearHead:
        """Fits on all rows; groups are not used."""
        check_features(features, y)
        z = embed(self.start, features)
        mean, std = z.mean(0), z.std(0)
        strengths = self.config.strengths if validation is not None else self.config.strengths[:1]
        heads = [LinearHead(self.start, mean, std, *logistic((z - mean) / std, y, c)) for c in strengths]
        return heads[0] if len(heads) == 1 else max(heads, key=Best(self.config.select, validation).score)
