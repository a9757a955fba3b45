"""Zero-shot: the class whose prompt is nearest; no training, no labels.

The variant with group prompts has one prompt for each class and attribute, and a class scores as the best of its
prompts. It needs the names of the attributes, though no row's attribute (recalled from Zhang and Re, NeurIPS 2022).

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
    """Logits of a class: the largest of those of its prompts, which stand side by side in the text head."""

    attributes = 1

    def logits(self, h: Tensor) -> Tensor:
        """Logits ``(n, classes)``."""
        return super().logits(h).unflatten(1, (-1, self.attributes)).amax(2)


class ZeroShot(Method["ZeroShot.Config"]):
    """Reads the pre-trained model as it is.

    The text head of its start has a column a class; or, with ``attributes`` above 1, a column a group in the order of
    the groups' numbers.
    """

    @dataclass(frozen=True)
    class Config:
        attributes: int = 1  # prompts a class

    sees_in_training: Labels = ()

    def fit(
        self,
        features: Tensor,
        y: Tensor,
        groups: Tensor | None = None,
        generator: torch.Generator | None = None,
        validation: FeatureSet | None = None,
    ) -> Head:
        """Returns the head; no label is looked at."""
        check_features(features, y)
        if self.config.attributes == 1:
            return self.start.head()
        head = GroupPromptHead(self.start.projection, self.start.text, self.start.scale)
        head.attributes = self.config.attributes
        return head
