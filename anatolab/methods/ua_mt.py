r"""UA-MT: mean teacher with consistency only where the teacher is confident.

Yu, Wang, Li, Fu and Heng, *Uncertainty-aware self-ensembling model for semi-supervised 3D left atrium segmentation*,
MICCAI 2019. The teacher predicts several noisy copies of an unlabeled image; where the entropy of the mean prediction
lies under a threshold that rises to its maximum, the student is pulled to the teacher.

The network of the paper has dropout, switched on for these passes. Ours has none by default: the noise on the input
alone makes the passes differ, and modules of type dropout, where a network has them, are switched on as published.
The noise is in standard deviations of the image, because the paper's images have unit variance and ours lie in [0, 1]:
taken as an absolute number it would be several times what the paper adds. The entropy is taken for any number of
classes (the released threshold is hard-wired to two).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from anatolab.losses import consistency, cross_entropy, dice_loss, predictive_entropy
from anatolab.nn import Teacher
from anatolab.schedules import sigmoid_ramp
from anatolab.transforms import Augmentation, mix_unlabeled, strong_view, weak_view
from anatolab.types import Batch, Losses, Stage


class UAMT(nn.Module):
    """Trains ``network`` like mean teacher, with consistency only at pixels of low predictive entropy.

    Args:
        network: From images ``(b, c, *s)`` to logits ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its defaults where None.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of UA-MT; the paper's are for the left atrium in 3-D."""

        updates: int = 30_000  # optimizer steps
        labeled: int = 4  # labeled images a step
        unlabeled: int = 4  # unlabeled images a step
        ema_decay: float = 0.99  # m
        consistency_weight: float = 10.0  # lambda, reached after the ramp
        ramp: float = 0.2  # share of training over which lambda rises, exp(-5 (1 - t)^2)
        passes: int = 8  # T, noisy teacher predictions
        noise: float = 0.1  # of the teacher's input, in standard deviations of the image; clipped at twice that
        threshold: tuple[float, float] = (0.75, 1.0)  # H, from and to, as shares of log(classes)
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
        """Supervised loss on the labeled rows, consistency on the confident pixels of the unlabeled ones."""
        c, n = self.config, batch.num_labeled
        image, label = weak_view(batch.image, batch.label, c.augmentation)

        target = self.mean_prediction(image[n:])  # eq. (2): mu_c over T passes
        mixed, target, valid = mix_unlabeled(image[n:], target, c.augmentation)
        low, high = c.threshold
        limit = (low + (high - low) * sigmoid_ramp(progress)) * math.log(target.shape[1])
        confident = predictive_entropy(target) < limit  # eq. (2): u = -sum mu log mu < H

        logits = self.student(strong_view(torch.cat([image[:n], mixed]), c.augmentation))
        terms = {
            "ce": cross_entropy(logits[:n], label[:n]),
            "dice": dice_loss(logits[:n], label[:n]),
            "consistency": consistency(logits[n:], target, confident & valid),  # eq. (3)
        }
        weight = c.consistency_weight * sigmoid_ramp(progress / c.ramp if c.ramp else 1.0)
        return Losses(terms, {"ce": 0.5, "dice": 0.5, "consistency": weight}, {"confident": confident.float().mean()})

    @torch.no_grad()
    def mean_prediction(self, image: Tensor) -> Tensor:
        """Mean class probability ``(b, classes, *s)`` of the teacher over noisy copies, without gradient."""
        c = self.config
        copies = image.repeat(c.passes, *[1] * (image.ndim - 1))
        noise = (torch.randn_like(copies) * c.noise).clamp(-2 * c.noise, 2 * c.noise)
        noise = noise * copies.std(tuple(range(1, copies.ndim)), keepdim=True)
        with _dropout_on(self.teacher):
            probability = torch.softmax(self.teacher(copies + noise).float(), 1)
        return probability.unflatten(0, (c.passes, len(image))).mean(0)

    def after_step(self) -> None:
        """The teacher follows the student."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Logits ``(b, classes, *s)`` of the student."""
        return self.student(image)


@contextmanager
def _dropout_on(net: nn.Module) -> Iterator[None]:
    dropouts = [m for m in net.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
    for module in dropouts:
        module.training = True
    try:
        yield
    finally:
        for module in dropouts:
            module.training = False
