"""DFR: trains the last layer again, on data in which all groups are equally frequent.

It measures the information in the frozen features. It needs the group of the rows that it trains on: those of
validation, as published, or those of training (DFR-Tr). Embeddings are standardized on training rows. A sparse logistic
regression is fitted on several balanced subsamples, and the *coefficients* are averaged, not the predictions. Its
strength C is tuned by the worst group: on one half of validation against the other, or on training rows against
validation. Class weights are 1 in both forms, the default of the released code.

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
    Best,
    FeatureSet,
    Labels,
    LinearHead,
    Method,
    Select,
    balanced,
    checked,
    embed,
    logistic,
)
from anatolab.types import InputError


class Dfr(Method["Dfr.Config"]):
    """Averaged sparse logistic regressions on group-balanced subsamples."""

    @dataclass(frozen=True)
    class Config:
        on: Literal["validation", "training"] = "validation"  # the rows that are balanced and fitted
        strengths: tuple[float, ...] = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)  # C; tuned on a half against the other
        refits: int = 20  # 10 in the form on training rows
        penalty: Literal["l1", "l2"] = "l1"
        select: Select = "val_worst_group"  # tunes C

    sees_in_training: Labels = ("y", "group")

    def fit(
        self,
        features: Tensor,
        y: Tensor,
        groups: Tensor | None = None,
        generator: torch.Generator | None = None,
        validation: FeatureSet | None = None,
    ) -> LinearHead:
        """Fits on balanced rows of validation (groups of training rows are then not used), or of training.

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

        def one(rows: tuple[Tensor, Tensor, Tensor], strength: float) -> tuple[Tensor, Tensor]:
            even = balanced(rows[2], generator)
            return logistic(rows[0][even], rows[1][even], strength, penalty=c.penalty)

        if c.on == "validation":
            order = torch.randperm(len(val[1]), generator=generator)
            half, other = order[::2], order[1::2]
            rows, tuned = val, (val[0][half], val[1][half], val[2][half])
            held = FeatureSet(validation.h[other], validation.y[other], validation.groups[other])
        else:
            rows = tuned = (z, y, checked(y, groups, "DFR on training rows"))
            held = validation
        strength = c.strengths[0]
        if len(c.strengths) > 1:
            rule = Best(c.select, held)
            strength = max(c.strengths, key=lambda s: rule.score(head(*one(tuned, s))))
        fits = [one(rows, strength) for _ in range(c.refits)]
        return head(torch.stack([w for w, _ in fits]).mean(0), torch.stack([b for _, b in fits]).mean(0))
