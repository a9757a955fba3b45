r"""ARCO: MONA's contrast with less sampling variance, because anchors are sampled from strata.

You, Dai, Min, Liu, Clifton, Zhou, Staib and Duncan, *Rethinking semi-supervised medical image segmentation: a
variance-reduction perspective*, NeurIPS 2023 (arXiv 2302.01735), read in full. MONA without its equivariance and its
complex augmentation. Anchors are sampled in cells of each class's region (*stratified*, ARCO-SG), or in cells and in
mirrored pairs (*antithetic*, ARCO-SAG), so that the loss over a few hundred pixels varies less around the loss over all
pixels. With *naive* sampling it is the pipeline that the paper's tables call MONA.

The recommended profile adds its two terms to the base (:mod:`anatolab.methods.base`).

The sampler follows the paper's theory with its slips corrected (:func:`anatolab.sampling.sample_pixels`): each cell
gets its share of the anchors, fractions included, and the mirror of a pixel always lies in its cell.

The released code shares its 2-D script with MONA, and :meth:`Arco.Config.official` differs from MONA's in two things:
its sampler cuts the *list* of candidates, not the image, and there is no equivariance. The script does train with that
term; the paper drops it, and ``Mona.Config.official(pixel_sampler="released")`` is the script with it. The released
sampler also samples negatives from the list of a bank, by time of arrival; here they are sampled uniformly. For all
else that is reproduced or not, see :mod:`anatolab.methods.mona`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor, nn

from anatolab.methods._config import RELEASED_BASE, PretrainingConfig
from anatolab.methods._mining import RELEASED_MINING, Miner, MiningConfig, mining_step
from anatolab.methods._pretrain import Distiller, Student, stages
from anatolab.nn import Teacher
from anatolab.sampling import PixelSampler
from anatolab.schedules import Temperature
from anatolab.types import Batch, Losses, Stage


class Arco(nn.Module):
    """Trains ``network`` with contrast of stratified pixels on the base, after joint distillation if settings say so.

    Args:
        network: A network that :func:`anatolab.nn.tap` knows, from images ``(b, c, *s)`` to logits
            ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its recommended settings where None.
    """

    title: ClassVar[str] = "ARCO"
    color: ClassVar[str] = "#5757fa"

    @dataclass(frozen=True)
    class Config(MiningConfig):
        """Holds the settings of ARCO, recommended by default: those it shares with MONA, and its sampler."""

        pixel_sampler: PixelSampler = "stratified"  # SG, the paper's best (paper)

        @classmethod
        def paper(cls, **overrides: Any) -> Arco.Config:
            """Returns the method as printed: weak views alone, and all pixels of a class as anchors and key.

            The paper counts epochs, 100 of pre-training and 200 after it; here each is half of the updates.
            """
            printed = {
                "pretraining": PretrainingConfig(shares=(0.0, 0.5), batch=(3, 3)),
                "sup_weight": 1.0,
                "augmentation": replace(RELEASED_BASE["augmentation"], strong_probability=0.0, mix="none"),
                "positive": "student",
                "hard_threshold": 1.0,
                "weak_threshold": 0.0,
            }
            return cls(**{**RELEASED_BASE, **printed, **overrides})

        @classmethod
        def official(cls, **overrides: Any) -> Arco.Config:
            """Returns what the released code does, as far as it is reproduced (see the head of this file)."""
            return cls(**{**RELEASED_BASE, **RELEASED_MINING, "pixel_sampler": "released", **overrides})

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.config = c = config or self.Config()
        self.student = Student(network, c)
        self.teacher = Teacher(self.student, c.ema_decay, warm_up=c.ema_warm_up)
        self.distiller = Distiller(self.student, c.pretraining)
        self.miner = Miner(self.student, c)

    def stages(self) -> Sequence[Stage]:
        """Returns the pre-training, where there is one, and the contrast of stratified pixels."""
        parts = self.student.net, self.student.pixel, self.miner.predictor
        trained = [p for part in parts for p in part.parameters()]
        last = Stage("contrast", 0, trained, (0, 0), self.training_step, nesterov=self.config.nesterov)
        return stages(self, Temperature(), last)

    def training_step(self, batch: Batch, progress: float) -> Losses:
        """Computes L_sup + lambda_1 L_contrast + lambda_2 L_unsup + lambda_3 L_nn."""
        return mining_step(self, batch, progress)[1]

    def after_step(self) -> None:
        """Moves the teacher towards the student, heads included."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of the teacher, or of the student if ``predict_with`` is ``student``."""
        return (self.teacher if self.config.predict_with == "teacher" else self.student)(image)[0]
