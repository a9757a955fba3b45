r"""MONA: contrast with a bank for every class, consistency under warps, and similarity to the nearest images.

You, Dai, Liu, Min, Dvornek, Li, Clifton, Staib and Duncan, *Mine your own anatomy: revisiting medical image
segmentation with extremely limited labels*, TPAMI 2024 (arXiv 2209.13476). After one joint stage of the two
distillations (:mod:`anatolab.methods.action`), three principles. *Tailness*: pixels are sampled class by class, hard
ones as anchors, and contrasted with banks of every class, however rare. *Consistency*: the segmentation of a warped
image is the warped segmentation. *Diversity*: an image's representation is near those of the images most similar to it.
Only the abstract was read first-hand. Details that the ARCO paper (NeurIPS 2023) prints are taken from there. The form
of the equivariance term, the hard anchors and the numbering of the weights are from memory, unverified.

The recommended profile adds these terms to the base (:mod:`anatolab.methods.base`).

The released code differs. :meth:`Mona.Config.official` reproduces: 30,000 updates of joint pre-training on 3 + 3 images
with linear heads, the strong view given to the teacher and both temperatures .1, then 30,000 of the last stage, which
starts with the student's weights in both networks; the plain sum of Dice and cross-entropy; reliable instead of hard
anchors, which pass the predictor; keys from a second read of the strong views; banks that a pixel enters only if three
classes are likelier than its own, which start with a row of zeros and hold the negatives of their class (with up to
three classes they keep that row alone, a pull to the class mean); neighbors picked by the student and measured on the
teacher (no gradient at all); the equivariance on all images, in one direction, on confident foreground, in the released
geometry; labeled images that keep their intensities; Nesterov momentum in the last stage.

Not reproduced, because they are defects without a basis in the paper: classes shifted to other banks where one is
absent; the equivariance computed and left out in 3-D; helper files swapped between 2-D and 3-D; a teacher in training
mode; thin-plate jitter of the warped image, and one mirror for a whole batch. Not reproduced, because they cost memory
or do not matter to the idea: a bank of whole feature maps of unlabeled images (4.7 GB; here maps of all images, pooled
to 16 x 16 cells); 512 negatives for each anchor (here shared by the anchors of a class); at most ``num_anchors`` new
rows of a bank per step (all in the release); 50,000 rows of background (here 30,000 as of other classes: the rank rule
hardly fills them); the pyramid of 1 x 1 convolutions without activation, which is one linear map of the resized maps,
as here; and the intensity changes, which are replaced by the augmentation that all methods of a table share. Anchors by
position in a list belong to ARCO (:func:`anatolab.sampling.released_positions`). In 3-D the released weight of the
supervised terms is .5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from anatolab.losses import equivariance
from anatolab.methods._config import RELEASED_BASE, PretrainingConfig
from anatolab.methods._mining import RELEASED_MINING, Miner, MiningConfig, mining_step
from anatolab.methods._pretrain import Distiller, Student, stages
from anatolab.methods._teacher_student import TeacherStudentOutput, strong_views
from anatolab.nn import Teacher
from anatolab.schedules import Temperature
from anatolab.transforms import Affine, Augmentation
from anatolab.types import IGNORE, Batch, Losses, Stage


class Mona(nn.Module):
    """Trains ``network`` with MONA's three terms on the base, after joint distillation where the settings say so.

    Args:
        network: A network that :func:`anatolab.nn.tap` knows, from images ``(b, c, *s)`` to logits
            ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its recommended settings where None.
    """

    title: ClassVar[str] = "MONA"
    color: ClassVar[str] = "#c48300"

    @dataclass(frozen=True)
    class Config(MiningConfig):
        """Holds the settings of MONA, recommended by default: those it shares with ARCO, and the equivariance.

        The recommended equivariance has the released form (one direction, confident foreground), on unlabeled rows
        alone: labeled rows are supervised under the same warps, and a second pass for them costs a third of an update.
        """

        equivariance_weight: float = 1.0  # lambda_2, weight of L_eqv (code); 0 switches it off
        equivariance_rows: Literal["unlabeled", "all"] = "unlabeled"  # images that are compared; all in the code
        equivariance_warp: Augmentation = field(
            default_factory=lambda: Augmentation(rotate=60.0, scale=0.2, translate=0.1)
        )  # warp of the second view (the code mirrors, too)
        symmetric: bool = False  # both directions of the divergence (paper); one, target detached (code)
        everywhere: bool = False  # compares all pixels (paper); confident foreground (code)
        equivariance_threshold: float = 0.7  # least confidence of a pseudo-label that is compared (code)

        @classmethod
        def paper(cls, **overrides: Any) -> Mona.Config:
            """Returns the method as the ARCO paper has it: the positive key is the mean of the student's own pixels.

            The paper counts epochs, 100 of pre-training and 200 after it; here each is half of the updates.
            """
            printed = {
                "pretraining": PretrainingConfig(shares=(0.0, 0.5), batch=(3, 3)),
                "sup_weight": 1.0,
                "positive": "student",
                "equivariance_rows": "all",
                "symmetric": True,
                "everywhere": True,
            }
            return cls(**{**RELEASED_BASE, **printed, **overrides})

        @classmethod
        def official(cls, **overrides: Any) -> Mona.Config:
            """Returns what the released code does, as far as it is reproduced (see the head of this file)."""
            warp = Augmentation(rotate=60.0, scale=0.2, translate=0.1, flip=True, quarter_turns=False)
            released = {"equivariance_rows": "all", "equivariance_warp": warp}
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
        """Computes L_eqv, consistency: the segmentation of a warped image is the warped segmentation.

        The student reads a second, warped strong view; its first prediction is warped the same way.
        """
        c, views = self.config, output.views
        known = views.valid & (views.confidence >= c.equivariance_threshold)
        label = torch.cat([views.label, torch.where(known, views.pseudo_label, IGNORE)])
        first = output.num_labeled if c.equivariance_rows == "unlabeled" else 0
        view, foreground = views.image[first:], label[first:, None] > 0
        warp = Affine.sample(view, c.equivariance_warp)
        again, _ = self.student(warp.warp_image(strong_views(view, output.num_labeled - first, c)))
        mask = warp.warp_image((foreground | c.everywhere).to(view))[:, 0]
        return equivariance(warp.warp_image(output.logits[first:]), again, mask, symmetric=c.symmetric)

    def after_step(self) -> None:
        """Moves the teacher towards the student, heads included."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of the teacher, or of the student if ``predict_with`` is ``student``."""
        return (self.teacher if self.config.predict_with == "teacher" else self.student)(image)[0]
