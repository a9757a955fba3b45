"""Supervised baseline: what the labeled patients alone can teach.

Every other method is this one plus what it draws from unlabeled patients, so its protocol is the shortest: one stage,
labeled rows only, cross-entropy and Dice in equal parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from anatolab.losses import cross_entropy, dice_loss
from anatolab.transforms import Augmentation, strong_view, weak_view
from anatolab.types import Batch, Losses, Stage


class Supervised(nn.Module):
    """Trains ``network`` on labeled images with an equal mix of cross-entropy and Dice.

    Args:
        network: From images ``(b, c, *s)`` to logits ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its defaults where None.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of the supervised baseline."""

        updates: int = 30_000  # optimizer steps
        labeled: int = 4  # labeled images a step
        augmentation: Augmentation = field(default_factory=Augmentation)  # shared by all methods of a table

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        self.student = network

    def stages(self) -> Sequence[Stage]:
        """One stage on labeled rows."""
        c = self.config
        return [Stage("train", c.updates, self.student, (c.labeled, 0), self.training_step)]

    def training_step(self, batch: Batch, progress: float) -> Losses:
        """Supervised loss on an augmented view of the labeled rows."""
        image, label = weak_view(*batch.labeled, self.config.augmentation)
        logits = self.student(strong_view(image, self.config.augmentation))
        return Losses({"ce": cross_entropy(logits, label), "dice": dice_loss(logits, label)}, {"ce": 0.5, "dice": 0.5})

    def after_step(self) -> None:
        """Nothing follows a step: there is no teacher."""

    def predict(self, image: Tensor) -> Tensor:
        """Logits ``(b, classes, *s)`` of the student."""
        return self.student(image)
