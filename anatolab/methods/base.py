r"""The base: confident pseudo-labels of an EMA teacher, on mixed images. It is ours, not a paper's.

It combines the common parts of current semi-supervised segmentation: the EMA teacher of mean teacher, the confidence
threshold of FixMatch, and CutMix with labeled partners of BCP. Every recommended method of this library adds its own
terms to exactly this one, so a difference in a table is what these terms add.

.. math::

    L = \tfrac12 (L_{CE} + L_{Dice}) + w(t)\, \tfrac12 (L_{CE} + L_{Dice})\big|_{\hat c \ge \theta}

An unlabeled image is mixed with the next unlabeled one or, every second time, with a labeled one and its annotation.

Reference:
    Tarvainen and Valpola, NeurIPS 2017; Sohn et al., FixMatch, NeurIPS 2020; French et al., BMVC 2020; Bai et al.,
    Bidirectional copy-paste, CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from anatolab.methods._config import PseudoLabelConfig
from anatolab.methods._teacher_student import make_views, pseudo_label_terms, strong_views
from anatolab.nn import Teacher
from anatolab.types import Batch, Losses, Stage


class Base(nn.Module):
    """Trains ``network`` with labels, and with its teacher's confident pseudo-labels on unlabeled images.

    Args:
        network: From images ``(b, c, *s)`` to logits ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its defaults where None.
    """

    title: ClassVar[str] = "base"
    color: ClassVar[str] = "#6c6060"

    @dataclass(frozen=True)
    class Config(PseudoLabelConfig):
        """Settings of the base: those that all methods built on it share."""

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        self.student = network
        self.teacher = Teacher(network, self.config.ema_decay, warm_up=self.config.ema_warm_up)

    def stages(self) -> Sequence[Stage]:
        """Returns one stage on labeled and unlabeled rows."""
        c = self.config
        return [Stage("train", c.updates, self.student, (c.labeled, c.unlabeled), self.training_step)]

    def training_step(self, batch: Batch, progress: float) -> Losses:
        """Computes L_sup on labeled rows and L_unsup on mixed unlabeled ones."""
        views = make_views(self.teacher, batch, self.config)
        logits = self.student(strong_views(views.image, batch.num_labeled, self.config))
        return pseudo_label_terms(logits, views, self.config, progress)

    def after_step(self) -> None:
        """Moves the teacher towards the student."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of the teacher, or of the student if ``predict_with`` is ``student``."""
        return (self.teacher if self.config.predict_with == "teacher" else self.student)(image)
