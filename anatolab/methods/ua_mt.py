r"""UA-MT: mean teacher with consistency only on pixels of low predictive entropy.

Yu, Wang, Li, Fu and Heng, *Uncertainty-aware self-ensembling model for semi-supervised 3D left atrium segmentation*,
MICCAI 2019. The teacher predicts several noisy copies of an unlabeled image; where the entropy of the mean prediction
lies under a threshold that rises to its maximum, the student is pulled to the teacher.

The paper's network has dropout, switched on for these passes. Ours has none by default, so only the input noise makes
the passes differ; dropout modules of other networks are switched on, as published. The noise is in standard deviations
of the image, because the paper's images have unit variance and ours lie in [0, 1]: as an absolute number it would be
several times what the paper adds. The entropy works for any number of classes (the released threshold assumes two).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from anatolab.losses import consistency, predictive_entropy
from anatolab.methods._config import SemiSupervisedConfig
from anatolab.methods._teacher_student import make_views, supervised_terms
from anatolab.nn import Teacher
from anatolab.schedules import sigmoid_ramp
from anatolab.transforms import strong_view
from anatolab.types import Batch, Losses, Stage

CHUNK = 4  # images a forward pass of the teacher: on a CPU, small batches stay in the cache


class UAMT(nn.Module):
    """Trains ``network`` like mean teacher, with consistency only at pixels of low predictive entropy.

    Args:
        network: From images ``(b, c, *s)`` to logits ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its defaults where None.
    """

    title: ClassVar[str] = "UA-MT"
    color: ClassVar[str] = "#457d57"

    @dataclass(frozen=True)
    class Config(SemiSupervisedConfig):
        """Settings of UA-MT; the paper's are for the left atrium in 3-D."""

        consistency_weight: float = 10.0  # lambda, weight of the consistency term after the ramp
        passes: int = 8  # T, noisy teacher predictions
        noise: float = 0.1  # input noise of the teacher, in standard deviations of the image; clipped at twice that
        threshold: tuple[float, float] = (0.75, 1.0)  # H, first and last entropy threshold, as shares of log(classes)

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
        """Computes the supervised loss on the labeled rows, and consistency on the certain pixels of the others."""
        c, n = self.config, batch.num_labeled

        views = make_views(lambda x: self.mean_prediction(x).log(), batch, c)  # eq. (2): mu_c over T passes
        low, high = c.threshold
        limit = (low + (high - low) * sigmoid_ramp(progress)) * math.log(views.probability.shape[1])
        certain = predictive_entropy(views.probability) < limit  # eq. (2): u = -sum mu log mu < H

        logits = self.student(strong_view(views.image, c.augmentation))
        losses = supervised_terms(logits[:n], views.label, c)
        losses.terms["consistency"] = consistency(logits[n:], views.probability, certain & views.valid)  # eq. (3)
        losses.weights["consistency"] = c.consistency_weight * c.ramp_up(progress)
        losses.diagnostics["certain"] = certain.float().mean()
        return losses

    @torch.no_grad()
    def mean_prediction(self, image: Tensor) -> Tensor:
        """Returns the mean class probability ``(b, classes, *s)`` of the teacher over noisy copies, above 0."""
        c = self.config
        deviation = image.std(tuple(range(1, image.ndim)), keepdim=True)
        total: Tensor | None = None
        with _dropout_on(self.teacher):
            for _ in range(c.passes):
                noise = (torch.randn_like(image) * c.noise).clamp(-2 * c.noise, 2 * c.noise) * deviation
                parts = (image + noise).split(CHUNK)
                probability = torch.cat([torch.softmax(self.teacher(part).float(), 1) for part in parts])
                total = probability if total is None else total + probability
        assert total is not None  # there is at least one pass
        return (total / c.passes).clamp_min(torch.finfo(total.dtype).tiny)

    def after_step(self) -> None:
        """Moves the teacher towards the student."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of the teacher, or of the student if ``predict_with`` is ``student``."""
        return (self.teacher if self.config.predict_with == "teacher" else self.student)(image)


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
