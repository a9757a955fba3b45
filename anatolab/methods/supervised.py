"""Supervised baseline: cross-entropy and Dice on the labeled patients alone.

Every other method adds terms on unlabeled patients to this one, so its protocol is the shortest: one stage, labeled
rows only, cross-entropy and Dice in equal parts. It is evaluated with the moving average of its weights, as all methods
of a table are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from anatolab.methods._config import SharedConfig
from anatolab.methods._teacher_student import supervised_terms
from anatolab.nn import Teacher
from anatolab.transforms import strong_view, weak_view
from anatolab.types import Batch, Losses, Stage


class Supervised(nn.Module):
    """Trains ``network`` on labeled images with an equal mix of cross-entropy and Dice.

    Args:
        network: From images ``(b, c, *s)`` to logits ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its defaults where None.
    """

    title: ClassVar[str] = "supervised"
    color: ClassVar[str] = "#a19558"

    @dataclass(frozen=True)
    class Config(SharedConfig):
        """Settings of the supervised baseline: those that all methods share."""

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        self.student = network
        self.teacher = Teacher(network, self.config.ema_decay, warm_up=self.config.ema_warm_up)

    def stages(self) -> Sequence[Stage]:
        """Returns one stage on labeled rows."""
        c = self.config
        return [Stage("train", c.updates, self.student, (c.labeled, 0), self.training_step)]

    def training_step(self, batch: Batch, progress: float) -> Losses:
        """Computes the supervised loss of an augmented view of the labeled rows."""
        image, label = weak_view(*batch.labeled, self.config.augmentation, batch.view)
        logits = self.student(strong_view(image, self.config.augmentation))
        return supervised_terms(logits, label, self.config)

    def after_step(self) -> None:
        """Moves the averaged weights towards the student's."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of the teacher, or of the student if ``predict_with`` is ``student``."""
        return (self.teacher if self.config.predict_with == "teacher" else self.student)(image)
