"""DFR: the last layer again, on data in which all groups are equally frequent.

It shows what the frozen features hold. It needs the group of the rows that it trains on: those of validation, as
published, or those of training (DFR-Tr). Embeddings are standardized on training rows; a sparse logistic regression
is fitted on several balanced subsamples, and the *coefficients* are averaged, not the predictions.

Reference:
    Kirichenko, Izmailov and Wilson, Last layer re-training is sufficient for robustness to spurious correlations,
    ICLR 2023; settings of its released code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from anatolab.data.checks import check_features
from anatolab.robust._fit import (
    FeatureSet,
    Labels,
    LinearHead,
    Start,
    balanced,
    checked,
    embed,
    logistic,
    predict,
    worst,
)
from anatolab.types import InputError


class Dfr:
    """Averaged sparse logistic regressions on group-balanced subsamples."""

    @dataclass(frozen=True)
    class Config:
        on: Literal["validation", "training"] = "validation"  # which rows are balanced and fitted
        strengths: tuple[float, ...] = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)  # C; tuned on a half against the other
        refits: int = 20  # 10 in the form on training rows
        penalty: Literal["l1", "l2"] = "l1"  # l1 takes two classes only
        class_weights: tuple[float, ...] = (1.0, 2.0, 3.0, 10.0, 100.0, 300.0, 1000.0)  # of one class, on training

    sees_in_training: Labels = ("y", "group")
    sees_in_selection: Labels = ("y", "group")

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
        """Fits on balanced rows of validation (groups of training are then not looked at), or of training.

        Raises:
            InputError: Validation or its groups are missing, or those of training where they are fitted.
        """
        check_features(features, y)
        c = self.config
        if validation is None or validation.groups is None:
            raise InputError("DFR needs validation rows with their groups; give both.")
        z = embed(self.start, features)
        mean, std = z.mean(0), z.std(0)
        z, z_val = (z - mean) / std, (embed(self.start, validation.h) - mean) / std
        val = (z_val, validation.y, validation.groups)

        def head(weight: Tensor, bias: Tensor) -> LinearHead:
            return LinearHead(self.start, mean, std, weight, bias)

        def one(rows: tuple[Tensor, Tensor, Tensor], c_: float, heavy: tuple[int, float]) -> tuple[Tensor, Tensor]:
            at = balanced(rows[2], generator)
            weight = {int(k): heavy[1] if k == heavy[0] else 1.0 for k in rows[1].unique()}
            return logistic(rows[0][at], rows[1][at], c_, penalty=c.penalty, weight=weight)

        def score(fitted: tuple[Tensor, Tensor], at: Tensor) -> float:
            guess = predict(head(*fitted), validation.h[at])
            return worst(guess == validation.y[at], val[2][at])

        if c.on == "validation":
            order = torch.randperm(len(val[1]), generator=generator)
            half, other = order[::2], order[1::2]
            tuned = (val[0][half], val[1][half], val[2][half])
            settings = [(strength, (0, 1.0)) for strength in c.strengths]
            rows = val
        else:
            rows = tuned = (z, y, checked(y, groups, "DFR on training rows"))
            other = torch.arange(len(val[1]))
            settings = [(1.0, (k, w)) for k in (0, 1) for w in c.class_weights]
        best = settings[0]
        if len(settings) > 1:
            best = max(settings, key=lambda s: score(one(tuned, *s), other))
        fits = [one(rows, *best) for _ in range(c.refits)]
        return head(torch.stack([w for w, _ in fits]).mean(0), torch.stack([b for _, b in fits]).mean(0))
