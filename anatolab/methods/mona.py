r"""MONA: mine one's own anatomy, by what is rare, what stays, and what is alike.

You, Dai, Liu, Min, Dvornek, Li, Clifton, Staib and Duncan, *Mine your own anatomy: revisiting medical image
segmentation with extremely limited labels*, TPAMI 2024 (arXiv 2209.13476). After the two distillations of the
pre-training (:mod:`anatolab.methods.action`), three principles: *tailness*, pixels are drawn class by class, hard ones
as anchors, and contrasted with banks of every class, however rare; *consistency*, segmenting a moved image is moving
the segmentation; *diversity*, an image's representation is near those of the images most alike. Only the abstract could
be read first-hand; what ARCO (NeurIPS 2023) reports of it is taken from there, the form of the equivariance term and
the hard anchors are recalled.

The released code differs. Switches of :meth:`Mona.Config.official` reproduce: linear heads, the strong view given to
the teacher in the pre-training, reliable instead of hard anchors, banks that a pixel enters only if three classes are
likelier than its own (with up to three classes they stay empty), neighbors picked by the student and measured on the
teacher (no gradient at all), and the equivariance in one direction, where the teacher is sure of foreground alone. Not
reproduced, because they are defects without a reading in the paper: classes shifted to other banks where one is absent;
the term computed and left out in 3-D; helper files swapped between 2-D and 3-D; a bank of whole feature maps (4.7 GB;
here they are pooled to 16 x 16 cells first); a teacher in training mode; thin-plate jitter of the moved image. Anchors
by list position are ARCO's (:func:`anatolab.sampling.released_positions`). Its intensity augmentation is replaced by
the recipe that all methods of a table share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from anatolab.losses import equivariance
from anatolab.methods._config import RELEASED_BASE, RELEASED_PRETRAINING, PretrainingConfig
from anatolab.methods._mining import RELEASED_MINING, Miner, MiningConfig, mining_step
from anatolab.methods._pretrain import Distiller, Student, stages
from anatolab.methods._teacher_student import TeacherStudentOutput
from anatolab.nn import Teacher
from anatolab.schedules import Temperature
from anatolab.transforms import Affine, Augmentation, strong_view
from anatolab.types import Batch, Losses, Stage


class Mona(nn.Module):
    """Trains ``network`` in three stages: global distillation, local distillation, mining of its own anatomy.

    Args:
        network: A network that :func:`anatolab.nn.tap` knows, from images ``(b, c, *s)`` to logits
            ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its recommended settings where None.
    """

    title: ClassVar[str] = "MONA"
    color: ClassVar[str] = "#c48300"

    @dataclass(frozen=True)
    class Config(MiningConfig):
        """Settings of MONA, recommended by default: those it shares with ARCO, and the equivariance.

        Recommended is the released form of the equivariance (one direction, confident foreground), on unlabeled rows:
        labeled ones are supervised under the same warps, and a second pass for them costs a third of an update.
        """

        equivariance_weight: float = 1.0  # of L_eqv (code; the order of the weights is from memory, unverified)
        equivariance_rows: Literal["unlabeled", "all"] = "unlabeled"  # images that are compared; all in the code
        equivariance_warp: Augmentation = field(
            default_factory=lambda: Augmentation(rotate=60.0, scale=0.2, translate=0.1)
        )  # (code, which mirrors, too)
        symmetric: bool = False  # both directions of the divergence (paper); one, target detached (code)
        everywhere: bool = False  # compares all pixels (paper); confident foreground (code)

        @classmethod
        def paper(cls, **overrides: Any) -> Mona.Config:
            """Returns the method as ARCO describes it: the positive key is the mean of the student's own pixels."""
            pretraining = PretrainingConfig(shares=(0.0, 0.5))
            printed = {"positive": "student", "symmetric": True, "everywhere": True, "pretraining": pretraining}
            return cls(**{**RELEASED_BASE, "equivariance_rows": "all", **printed, **overrides})

        @classmethod
        def official(cls, **overrides: Any) -> Mona.Config:
            """Returns what the released code does, as far as it is reproduced (see the head of this file)."""
            warp = Augmentation(rotate=60.0, scale=0.2, translate=0.1, flip=True)
            released = {"pretraining": RELEASED_PRETRAINING, "equivariance_rows": "all", "equivariance_warp": warp}
            return cls(**{**RELEASED_BASE, **RELEASED_MINING, **released, **overrides})

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.config = c = config or self.Config()
        self.student = Student(network, c)
        self.teacher = Teacher(self.student, c.ema_decay, warm_up=c.ema_warm_up)
        self.distiller = Distiller(self.student, c.pretraining)
        self.miner = Miner(self.student, c)

    def stages(self) -> Sequence[Stage]:
        """Returns the pre-training, where there is one, and the mining of anatomy."""
        parts = self.student.net, self.student.pixel, self.miner.predictor
        trained = [p for part in parts for p in part.parameters()]
        last = Stage("contrast", 0, trained, (0, 0), self.training_step, nesterov=self.config.nesterov)
        return stages(self, Temperature(), last)

    def training_step(self, batch: Batch, progress: float) -> Losses:
        """Computes L_sup + lambda_1 L_contrast + lambda_2 L_eqv + lambda_3 L_nn + lambda_4 L_unsup."""
        c = self.config
        output, losses = mining_step(self, batch, progress)
        if c.equivariance_weight:
            losses.terms["equivariance"] = self.equivariance(output)
            losses.weights["equivariance"] = c.equivariance_weight * c.ramp_up(progress)
        return losses

    def equivariance(self, output: TeacherStudentOutput) -> Tensor:
        """Computes L_eqv, consistency: segmenting a warped image is warping its segmentation.

        The student reads a second strong view, warped; its first prediction is warped alike.
        """
        c = self.config
        first = output.num_labeled if c.equivariance_rows == "unlabeled" else 0
        view, foreground = output.views.image[first:], output.label[first:, None] > 0
        warp = Affine.sample(view, c.equivariance_warp)
        again, _ = self.student(warp.warp_image(strong_view(view, c.augmentation)))
        mask = warp.warp_image((foreground | c.everywhere).to(view))[:, 0]
        return equivariance(warp.warp_image(output.logits[first:]), again, mask, symmetric=c.symmetric)

    def after_step(self) -> None:
        """Moves the teacher towards the student, heads included."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of the teacher, or of the student where the settings say so."""
        return (self.teacher if self.config.predict_with == "teacher" else self.student)(image)[0]
