"""ERM, which takes whatever cue is there, in two forms whose worst groups may differ.

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
    Labels,
    LinearHead,
    ProjectionHead,
    Select,
    Selecting,
    Sgd,
    Start,
    embed,
    fraction,
    logistic,
    predict,
    train_projection,
)


class ErmProjection(Selecting["ErmProjection.Config"]):
    """Cross-entropy through the text head; only the projection is trained."""

    @dataclass(frozen=True)
    class Config:
        """Settings; those of the released command are 100 epochs of 128 rows, lr 1e-4, selected by the worst group."""

        sgd: Sgd = field(default_factory=Sgd)
        select: Select = "last"

    sees_in_training: Labels = ("y",)

    def fit(
        self,
        features: Tensor,
        y: Tensor,
        groups: Tensor | None = None,
        generator: torch.Generator | None = None,
        validation: FeatureSet | None = None,
    ) -> ProjectionHead:
        """Trains on all rows; groups are not looked at."""
        check_features(features, y)
        best = Best(self.config.select, validation)
        return train_projection(self.start, features, y, self.config.sgd, best, generator)


class ErmLinearProbe:
    """Logistic regression on standardized unit embeddings, its strength chosen by average accuracy on validation."""

    @dataclass(frozen=True)
    class Config:
        strengths: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001)  # C, tried on validation; the first without it

    sees_in_training: Labels = ("y",)
    sees_in_selection: Labels = ("y",)

    def __init__(self, start: Start, config: Config | None = None) -> None:
        self.start, self.config = start, config or self.Config()

    def fit(
        self,
        features: Tensor,
        y: Tensor,
        groups: Tensor | None = None,
        generator: torch.Generator | None = None,
        validation: FeatureSet | None = None,
    ) -> LinearHead:
        """Fits on all rows; groups are not looked at."""
        check_features(features, y)
        z = embed(self.start, features)
        mean, std = z.mean(0), z.std(0)
        found: list[tuple[float, LinearHead]] = []
        for c in self.config.strengths if validation is not None else self.config.strengths[:1]:
            head = LinearHead(self.start, mean, std, *logistic((z - mean) / std, y, c))
            score = 0.0 if validation is None else fraction(predict(head, validation.h) == validation.y)
            found.append((score, head))
        return max(found, key=lambda pair: pair[0])[1]
