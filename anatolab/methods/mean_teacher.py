r"""Mean teacher: a student that agrees with the slow average of itself.

Tarvainen and Valpola, *Mean teachers are better role models*, NeurIPS 2017. The teacher predicts a weak view of
unlabeled images; the student sees a strong view of the same images, mixed in pairs, and is pulled to the teacher's
probabilities by a squared difference whose weight ramps up.

Ours differs from the code that segmentation papers usually compare against (SSL4MIS) on purpose: the student's view is
strong and mixed, the teacher runs in evaluation mode with averaged batch-norm statistics, and labeled and unlabeled
rows pass through the student together, so that its batch statistics describe both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from anatolab.losses import consistency, cross_entropy, dice_loss
from anatolab.nn import Teacher
from anatolab.schedules import sigmoid_ramp
from anatolab.transforms import Augmentation, mix_unlabeled, strong_view, weak_view
from anatolab.types import Batch, Losses, Stage


class MeanTeacher(nn.Module):
    """Trains ``network`` with labels, and with its own moving average as teacher on unlabeled images.

    Args:
        network: From images ``(b, c, *s)`` to logits ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its defaults where None.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of mean teacher; the published ones are for natural images, so none is marked as the paper's."""

        updates: int = 30_000  # optimizer steps
        labeled: int = 4  # labeled images a step
        unlabeled: int = 4  # unlabeled images a step
        ema_decay: float = 0.99  # m; the student's weight in the teacher is 1 - m a step
        consistency_weight: float = 10.0  # lambda, reached after the ramp
        ramp: float = 0.2  # share of training over which lambda rises, exp(-5 (1 - t)^2)
        augmentation: Augmentation = field(default_factory=Augmentation)  # shared by all methods of a table

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        self.student = network
        self.teacher = Teacher(network, self.config.ema_decay, warm_up=True)

    def stages(self) -> Sequence[Stage]:
        """One stage on labeled and unlabeled rows."""
        c = self.config
        return [Stage("train", c.updates, self.student, (c.labeled, c.unlabeled), self.training_step)]

    def training_step(self, batch: Batch, progress: float) -> Losses:
        """Supervised loss on the labeled rows, consistency with the teacher on the unlabeled ones."""
        c, n = self.config, batch.num_labeled
        image, label = weak_view(batch.image, batch.label, c.augmentation)

        target = torch.softmax(self.teacher(image[n:]).float(), 1)
        mixed, target, valid = mix_unlabeled(image[n:], target, c.augmentation)

        logits = self.student(strong_view(torch.cat([image[:n], mixed]), c.augmentation))
        terms = {
            "ce": cross_entropy(logits[:n], label[:n]),
            "dice": dice_loss(logits[:n], label[:n]),
            "consistency": consistency(logits[n:], target, valid),
        }
        weight = c.consistency_weight * sigmoid_ramp(progress / c.ramp if c.ramp else 1.0)
        confidence = target.amax(1).mean()
        return Losses(terms, {"ce": 0.5, "dice": 0.5, "consistency": weight}, {"teacher_confidence": confidence})

    def after_step(self) -> None:
        """The teacher follows the student."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Logits ``(b, classes, *s)`` of the student."""
        return self.student(image)
