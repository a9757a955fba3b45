r"""Mean teacher: a student is trained to agree with the moving average of its own weights.

Tarvainen and Valpola, *Mean teachers are better role models*, NeurIPS 2017. The teacher predicts a weak view of
unlabeled images; the student sees a strong view of the same images, mixed, and is pulled to the teacher's probabilities
by a squared difference whose weight ramps up.

Ours differs on purpose from the code that segmentation papers usually compare with (SSL4MIS): the student's view is
strong and mixed as in this library's base; the teacher runs in evaluation mode with averaged batch-norm statistics;
labeled and unlabeled rows pass through the student together, so that its batch statistics cover both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from anatolab.losses import consistency
from anatolab.methods._config import SemiSupervisedConfig
from anatolab.methods._teacher_student import make_views, supervised_terms
from anatolab.nn import Teacher
from anatolab.transforms import strong_view
from anatolab.types import Batch, Losses, Stage


class MeanTeacher(nn.Module):
    """Trains ``network`` with labels, and with its own moving average as teacher on unlabeled images.

    Args:
        network: From images ``(b, c, *s)`` to logits ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its defaults where None.
    """

    title: ClassVar[str] = "mean teacher"
    color: ClassVar[str] = "#2590fa"

    @dataclass(frozen=True)
    class Config(SemiSupervisedConfig):
        """Settings of mean teacher; the published ones are for natural images, so none is marked as the paper's."""

        consistency_weight: float = 10.0  # lambda, weight of the consistency term after the ramp

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
        """Computes the supervised loss on the labeled rows, and consistency with the teacher on the unlabeled ones."""
        c, n = self.config, batch.num_labeled
        views = make_views(self.teacher, batch, c)
        logits = self.student(strong_view(views.image, c.augmentation))
        losses = supervised_terms(logits[:n], views.label, c)
        losses.terms["consistency"] = consistency(logits[n:], views.probability, views.valid)
        losses.weights["consistency"] = c.consistency_weight * c.ramp_up(progress)
        losses.diagnostics["teacher_confidence"] = views.confidence.mean()
        return losses

    def after_step(self) -> None:
        """Moves the teacher towards the student."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of the teacher, or of the student if ``predict_with`` is ``student``."""
        return (self.teacher if self.config.predict_with == "teacher" else self.student)(image)
