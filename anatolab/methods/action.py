r"""ACTION: pre-train by comparison, then pull hard pixels to the mean of their class.

You, Dai, Min, Staib and Duncan, *Bootstrapping semi-supervised medical image segmentation with anatomical-aware
contrastive distillation*, IPMI 2023 (arXiv 2206.02307). Three stages: (i) global distillation: the student learns how
similar the teacher finds an image to other images; (ii) local distillation: the same for patches, beside the supervised
loss; (iii) anatomical contrast: pixels of which the student is unsure are pulled to the mean of their class and pushed
from pixels of classes that look alike, on labels and on the teacher's confident pseudo-labels.

The recommended profile is stage iii alone, as a term on the base (:mod:`anatolab.methods.base`).

The released code differs from the paper. :meth:`Action.Config.official` reproduces: three stages of 30,000 updates, the
first two on 3 + 3 images; linear heads; the strong view given to the teacher; the student's weights copied into the
teacher before stage iii; images that are not warped, labeled ones that keep their intensities; embeddings from a 3 x 3
and a 1 x 1 convolution on the full grid; the weight .01 of the contrast; Nesterov momentum in stage iii.

Not reproduced are defects without a basis in the paper: local embeddings reshaped so that "vectors" mix patches and
images; teacher projectors trained by gradient towards the student (here detached, and averaged); the strong view
leaking into the student's through a shared dictionary; a second update of the teacher in each step of stage iii, which
makes its decay .98; the teacher in training mode; confidences rounded to 8 bits; 36 patch positions that miss the last
row and column (here all 49); a mean over no pixel where every loss is 0. Three choices that cost memory or do not
matter to the idea are not reproduced either: 512 negatives sampled for each anchor (here shared by the anchors of a
class); CutMix boxes that span more than half of the width; and the intensity changes, among them a warp of the image
alone, which are replaced by the augmentation that all methods of a table share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from anatolab.methods._config import RELEASED_BASE, UNWARPED, ContrastConfig, PretrainingConfig
from anatolab.methods._pretrain import Distiller, Student, stages
from anatolab.methods._teacher_student import batch_contrast, forward_pair, hard_share, pseudo_label_terms
from anatolab.nn import Teacher
from anatolab.schedules import Temperature
from anatolab.types import Batch, Losses, Stage


class Action(nn.Module):
    """Trains ``network`` with anatomical contrast on the base, after two distillations where the settings say so.

    Args:
        network: A network that :func:`anatolab.nn.tap` knows, from images ``(b, c, *s)`` to logits
            ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its recommended settings where None.
    """

    title: ClassVar[str] = "ACTION"
    color: ClassVar[str] = "#b24d1b"

    @dataclass(frozen=True)
    class Config(ContrastConfig):
        """Holds the settings of ACTION, recommended by default; a comment names paper and code where they differ."""

        temperature: float = 0.5  # tau_an (paper)
        anco_weight: float = 0.01  # lambda, weight of L_anco (code); 1 in the paper's text; 0 switches it off

        @classmethod
        def paper(cls, **overrides: Any) -> Action.Config:
            """Returns the method as printed: equal weights, batches of 3 + 3, stages of 100, 100 and 200 epochs.

            Where the paper leaves a choice open (form of L_unsup, thresholds, views), the released code's is taken.
            """
            pretraining = PretrainingConfig(shares=(0.25, 0.25))
            printed = {"labeled": 3, "unlabeled": 3, "anco_weight": 1.0, "pretraining": pretraining}
            return cls(**{**RELEASED_BASE, **printed, **overrides})

        @classmethod
        def official(cls, **overrides: Any) -> Action.Config:
            """Returns what the released code does, as far as it is reproduced (see the head of this file)."""
            pretraining = PretrainingConfig(
                shares=(1 / 3, 1 / 3), batch=(3, 3), linear_heads=True, strong="teacher"
            )  # 30,000 updates in each of three stages
            released = {
                "updates": 90_000,
                "pretraining": pretraining,
                "augmentation": UNWARPED,
                "restart_teacher": True,
                "nesterov": True,
                "representation_stride": 1,
                "pixel_head": "conv",
            }
            return cls(**{**RELEASED_BASE, **released, **overrides})

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.config = c = config or self.Config()
        self.student = Student(network, c)
        self.teacher = Teacher(self.student, c.ema_decay, warm_up=c.ema_warm_up)
        self.distiller = Distiller(self.student, c.pretraining)

    def stages(self) -> Sequence[Stage]:
        """Returns the pre-training, where there is one, and the anatomical contrast."""
        c = self.config
        trained = [*self.student.net.parameters(), *self.student.pixel.parameters()]
        return stages(
            self, Temperature(), Stage("contrast", 0, trained, (0, 0), self.training_step, nesterov=c.nesterov)
        )

    def training_step(self, batch: Batch, progress: float) -> Losses:
        """Computes L_sup + L_unsup + lambda L_anco (stage iii of the paper)."""
        c = self.config
        output = forward_pair(self, batch, progress)
        losses = pseudo_label_terms(output.logits, output.views, c, progress)

        # AnCo: hard anchors R_q, prototypes r+, negatives sampled along the class graph G.
        if c.anco_weight:
            losses.terms["anco"], pool = batch_contrast(output, c, c.temperature)
            losses.weights["anco"] = c.anco_weight
            losses.diagnostics["hard"] = hard_share(pool)
        return losses

    def after_step(self) -> None:
        """Moves the teacher towards the student, heads included."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of the teacher, or of the student if ``predict_with`` is ``student``."""
        return (self.teacher if self.config.predict_with == "teacher" else self.student)(image)[0]
