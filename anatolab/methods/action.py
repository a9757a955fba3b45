r"""ACTION: pre-train by comparing, then pull hard pixels to their anatomy.

You, Dai, Min, Staib and Duncan, *Bootstrapping semi-supervised medical image segmentation with anatomical-aware
contrastive distillation*, IPMI 2023 (arXiv 2206.02307). Three stages: (i) global distillation, an image is compared
with other images, and the student learns the teacher's soft answers; (ii) local distillation, the same for patches,
beside the supervised loss; (iii) anatomical contrast, pixels of which the student is not sure are pulled to the mean
of their class and pushed from pixels of classes that look alike, on labels and on the teacher's confident classes.

The released code differs from the paper and from this file. Switches of :meth:`Action.Config.official` reproduce:
linear heads, the strong view given to the teacher, and the student's weights copied into the teacher before stage iii.
Not reproduced, because it is a defect without a reading in the paper: local embeddings reshaped so that "vectors" mix
patches and images; teacher projectors trained by gradient towards the student (here detached, and averaged); the strong
view leaking into the student's by a shared dictionary; a second teacher update a step; the teacher in training mode;
confidences rounded to 8 bits; 36 patch positions that miss the last row and column (here all 49); a mean of nothing
where every loss is 0. Its intensity augmentation is replaced by the recipe that all methods of a table share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from anatolab.methods._pretrain import Distiller, PretrainingConfig, Student, stages, start_teacher
from anatolab.methods._teacher_student import contrast, forward_pair
from anatolab.sampling import PixelSampler, pool_pixels
from anatolab.schedules import Temperature
from anatolab.transforms import Augmentation
from anatolab.types import Batch, Losses, Stage


class Action(nn.Module):
    """Trains ``network`` in three stages: global distillation, local distillation, anatomical contrast.

    Args:
        network: A network that :func:`anatolab.nn.tap` knows, from images ``(b, c, *s)`` to logits
            ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its recommended settings where None.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of ACTION, recommended by default; where the paper and its code differ, the comment names both."""

        updates: int = 30_000  # of the student in all stages
        labeled: int = 4  # labeled images a step (code, stage iii; 3 before it)
        unlabeled: int = 4  # unlabeled images a step
        ema_decay: float = 0.99  # m (paper)
        pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)  # stages i and ii
        restart_teacher: bool = False  # before stage iii the teacher becomes the student again (code)
        representation: int = 512  # d, width of a pixel's embedding (paper)
        representation_stride: int = 4  # of its grid; 1 in the code, which needs 1 GiB for 8 images of 256 x 256
        temperature: float = 0.5  # tau_an (paper)
        pixel_sampler: PixelSampler = "naive"  # of anchors; "stratified" and "antithetic" are ARCO's
        grid: int = 4  # cells a side of those two
        num_anchors: int = 256  # hard pixels a class (paper)
        num_negatives: int = 512  # keys a class; shared by its anchors, drawn for each of them in the code
        strong_threshold: float = (
            0.97  # theta_s: below it a pixel is hard; from it on a pseudo-label is confident (paper)
        )
        weak_threshold: float = 0.7  # theta_w: below it a pseudo-label is not used (code; paper is silent)
        unsup_weight: float = 1.0  # of L_unsup (paper and code)
        anco_weight: float = 0.01  # lambda of L_anco (code); 1 in the paper's text
        augmentation: Augmentation = field(default_factory=Augmentation)  # shared by all methods of a table

        @classmethod
        def paper(cls, **overrides: Any) -> Action.Config:
            """The method as printed: equal weights, batches of 3 + 3; where the paper is silent, as recommended."""
            return cls(**{"labeled": 3, "unlabeled": 3, "anco_weight": 1.0, **overrides})

        @classmethod
        def official(cls, **overrides: Any) -> Action.Config:
            """What the released code does, as far as it is reproduced (see the head of this file); for comparison."""
            pretraining = PretrainingConfig(linear_heads=True, strong="teacher")
            return cls(**{"pretraining": pretraining, "restart_teacher": True, **overrides})

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.config = c = config or self.Config()
        self.student = Student(network, c.pretraining, c.representation, c.representation_stride)
        self.teacher = start_teacher(self.student, c.ema_decay)
        self.distiller = Distiller(self.student, c.pretraining)

    def stages(self) -> Sequence[Stage]:
        """Global distillation, local distillation, anatomical contrast; an empty one is left out."""
        trained = [*self.student.net.parameters(), *self.student.pixel.parameters()]
        return stages(self, Temperature(), Stage("contrast", 0, trained, (0, 0), self.training_step))

    def training_step(self, batch: Batch, progress: float) -> Losses:
        """Stage iii: L_sup + L_unsup + lambda L_anco."""
        c = self.config
        output = forward_pair(self, batch, progress)

        # AnCo: hard anchors R_q, prototypes r+, negatives drawn along the class graph G.
        hard = output.label_probability <= c.strong_threshold
        pool = pool_pixels(output.pixel_label, self.student.net.classes, hard)
        terms = output.base_terms(c.strong_threshold) | {"anco": contrast(output, pool, hard, c, c.temperature)}
        weights = {"ce": 0.5, "dice": 0.5, "unsup": c.unsup_weight, "anco": c.anco_weight}
        return Losses(terms, weights, output.diagnostics(pool, c.strong_threshold))

    def after_step(self) -> None:
        """The teacher follows the student, heads included."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Logits ``(b, classes, *s)`` of the student."""
        return self.student(image)[0]
