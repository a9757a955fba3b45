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
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from anatolab.losses import equivariance
from anatolab.methods._mining import Miner, MiningConfig, mining_step
from anatolab.methods._pretrain import Distiller, PretrainingConfig, Student, stages, start_teacher
from anatolab.methods._teacher_student import TeacherStudentOutput
from anatolab.schedules import Temperature, sigmoid_ramp
from anatolab.transforms import Affine, strong_view
from anatolab.types import Batch, Losses, Stage


class Mona(nn.Module):
    """Trains ``network`` in three stages: global distillation, local distillation, mining of its own anatomy.

    Args:
        network: A network that :func:`anatolab.nn.tap` knows, from images ``(b, c, *s)`` to logits
            ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its recommended settings where None.
    """

    @dataclass(frozen=True)
    class Config(MiningConfig):
        """Settings of MONA, recommended by default: those it shares with ARCO, and the equivariance."""

        equivariance_weight: float = 1.0  # of L_eqv (code; the order of the weights is recalled)
        equivariance_ramp: float = 0.0  # share of the last stage over which that weight rises; no ramp in the code
        symmetric: bool = True  # both directions of the divergence; one in the code
        everywhere: bool = True  # compares all pixels; in the code, those that the teacher is sure are foreground

        @classmethod
        def paper(cls, **overrides: Any) -> Mona.Config:
            """The method as ARCO describes it: the positive key is the mean of the student's own pixels."""
            return cls(**{"positive": "student", **overrides})

        @classmethod
        def official(cls, **overrides: Any) -> Mona.Config:
            """What the released code does, as far as it is reproduced (see the head of this file); for comparison."""
            heads = PretrainingConfig(linear_heads=True, strong="teacher")
            code = {"anchors": "reliable", "bank_rule": "rank", "measured": "teacher", "symmetric": False}
            return cls(**{"pretraining": heads, "everywhere": False, **code, **overrides})

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.config = c = config or self.Config()
        self.student = Student(network, c.pretraining, c.representation, c.representation_stride)
        self.teacher = start_teacher(self.student, c.ema_decay)
        self.distiller = Distiller(self.student, c.pretraining)
        self.miner = Miner(self.student, c)

    def stages(self) -> Sequence[Stage]:
        """Global distillation, local distillation, anatomical mining; an empty one is left out."""
        parts = self.student.net, self.student.pixel, self.miner.predictor
        trained = [p for part in parts for p in part.parameters()]
        return stages(self, Temperature(), Stage("contrast", 0, trained, (0, 0), self.training_step))

    def training_step(self, batch: Batch, progress: float) -> Losses:
        """L_sup + lambda_1 L_contrast + lambda_2 L_eqv + lambda_3 L_nn + lambda_4 L_unsup."""
        c = self.config
        output, losses = mining_step(self, batch, progress)
        if c.equivariance_weight:
            losses.terms["equivariance"] = self.equivariance(output)
            ramp = sigmoid_ramp(progress / c.equivariance_ramp if c.equivariance_ramp else 1.0)
            losses.weights["equivariance"] = c.equivariance_weight * ramp
        return losses

    def equivariance(self, output: TeacherStudentOutput) -> Tensor:
        """Consistency, L_eqv, of the unlabeled rows: a second strong view is warped, and so is the segmentation."""
        c, n = self.config, output.num_labeled
        image, foreground = output.image[n:], output.label[n:, None] > 0
        warp = Affine.sample(image, c.augmentation)
        logits_of_warped, _ = self.student(warp.warp_image(strong_view(image, c.augmentation)))
        inside = warp.warp_image((foreground | c.everywhere).to(image))[:, 0]
        return equivariance(warp.warp_image(output.logits[n:]), logits_of_warped, inside, symmetric=c.symmetric)

    def after_step(self) -> None:
        """The teacher follows the student, heads included."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Logits ``(b, classes, *s)`` of the student."""
        return self.student(image)[0]
