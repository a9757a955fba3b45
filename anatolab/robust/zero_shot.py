"""Zero-shot: predicts the class whose prompt is nearest, without training and labels.

The variant with group prompts has one prompt for each class and attribute, and a class scores as the best of its
prompts. It needs the names of the attributes but no row's attribute (Zhang and Re, NeurIPS 2022; from memory,
unverified).

Reference:
    Radford et al., Learning transferable visual models from natural language supervision, ICML 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anatolab.data.checks import check_features
from anatolab.robust._fit import FeatureSet, Head, Labels, Method, ProjectionHead


class GroupPromptHead(ProjectionHead):
    """Logits of a class: the largest over its prompts, which are adjacent columns of the text head."""

    attributes = 1

    def logits(self, h: Tensor) -> Tensor:
        """Returns logits ``(n, classes)``."""
        return super().logits(h).unflatten(1, (-1, self.attributes)).amax(2)


class ZeroShot(Method["ZeroShot.Config"]):
    """Uses the pre-trained model unchanged.

    The text head of its start has one column per class or, with ``attributes`` above 1, one per group, in the order of
    the groups' numbers.
    """

    @dataclass(frozen=True)
    class Config:
        attributes: int = 1  # prompts per class

    sees_in_training: Labels = ()

    def fit(
        self,
        features: Tensor,
        y: Tensor,
        groups: Tensor | None = None,
        generator: torch.Generator | None = None,
        validation: FeatureSet | None = None,
    ) -> Head:
        """Returns the head; no labels are used."""
        check_features(features, y)
        if self.config.attributes == 1:
            return self.start.head()
        head = GroupPromptHead(self.start.projection, self.start.text, self.start.scale)
        head.attributes = self.config.attributes
        return head
