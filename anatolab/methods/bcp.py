r"""BCP: pastes labeled and unlabeled images into each other, so that both are learned from the same kind of image.

Bai, Chen, Li, Shen and Wang, *Bidirectional copy-paste for semi-supervised medical image segmentation*, CVPR 2023. A
box of a labeled image is pasted into an unlabeled one (inward), and a box of an unlabeled image into a labeled one
(outward); pixels of unlabeled images have the teacher's pseudo-labels, with half the weight.

.. math::

    L = L_{in} + L_{out},\quad L_{in} = L(F(x_{in}), y \mid M) + \alpha\, L(F(x_{in}), \hat y \mid 1 - M)

and the other way round for :math:`L_{out}`; :math:`L` is the mean of cross-entropy and Dice, :math:`M` the box. The
paper calls this box "foreground"; it is placed at random and not around the organ.

Differences to the released code (github.com/DeepMed-Lab-ECNU/BCP): each image is read twice, inward and outward, with
different partners, where the code halves the batch; the loss is the mean of the two directions in the recommended
settings, and their sum in :meth:`Bcp.Config.paper`; each pair has a box of its own, not one for the batch; the teacher
is in evaluation mode. Not reproduced: pseudo-labels are reduced to the largest component of each class in the code,
which is done on the CPU image by image and makes the device wait (recommended instead: confident pixels alone); the
second stage starts from the last weights of the first, and not from those that were best on validation patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from anatolab.methods._config import WITHOUT_BASE, PseudoLabelConfig
from anatolab.methods._teacher_student import PSEUDO_LABEL_LOSSES, Views, supervised_terms, weak_views
from anatolab.nn import Teacher
from anatolab.transforms import Augmentation, box_mask, mix, strong_view, weak_view
from anatolab.types import IGNORE, Batch, Losses, Stage


@dataclass(frozen=True)
class Pasted:
    """Images with a pasted box, labeled images first, with the label and confidence of each pixel."""

    image: Tensor  # (b, c, *s)
    label: Tensor  # (b, *s) int64, annotation or pseudo-label; IGNORE outside of the images
    confidence: Tensor  # (b, *s) in [0, 1]; 1 where annotated
    annotated: Tensor  # (b, *s) bool, pixels of labeled images


def copy_paste(views: Views, share: float) -> Pasted:
    """Pastes a box of an unlabeled image into each labeled one, and vice versa; its sides are ``share`` of theirs."""
    n, m = len(views.label), len(views.valid)
    number = torch.arange(max(n, m), device=views.image.device)
    partner = torch.cat([n + (number[:n] + 1) % m, number[:m] % n])
    box = box_mask(views.image, share)
    label = torch.cat([views.label, torch.where(views.valid, views.pseudo_label, IGNORE)])
    confidence = torch.cat([torch.ones_like(views.label, dtype=views.confidence.dtype), views.confidence])
    return Pasted(
        torch.where(box[:, None], views.image[partner], views.image),
        torch.where(box, label[partner], label),
        torch.where(box, confidence[partner], confidence),
        torch.cat([~box[:n], box[n:]]),
    )


class Bcp(nn.Module):
    """Trains ``network`` on labeled and unlabeled images that are pasted into each other.

    Args:
        network: From images ``(b, c, *s)`` to logits ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its recommended settings where None.
    """

    title: ClassVar[str] = "BCP"
    color: ClassVar[str] = "#008833"

    @dataclass(frozen=True)
    class Config(PseudoLabelConfig):
        """Settings of BCP, recommended by default; ``labeled_partner``, ``strong_labeled`` and ``mix`` are not read."""

        unsup_weight: float = 0.5  # alpha, weight of pseudo-labeled pixels; annotated ones have 1 (code)
        box: float = 2 / 3  # beta, side of the box as a share of the image's (code)
        pretraining_share: float = 0.0  # share of updates on labeled images alone, pasted into each other

        @classmethod
        def paper(cls, **overrides: Any) -> Bcp.Config:
            """Returns what the released code does on ACDC, as far as it is reproduced (see the head of this file)."""
            printed = {
                "updates": 40_000,  # (code)
                "pretraining_share": 0.25,  # 10,000 (code)
                "labeled": 12,  # (code)
                "unlabeled": 12,  # (code)
                "sup_weight": 1.0,  # half of CE and half of Dice, in two directions (code)
                "unsup_weight": 1.0,  # alpha = .5, in two directions (code)
                "confidence_threshold": 0.0,  # every pixel of the unlabeled image (code)
                "augmentation": Augmentation(
                    rotate=20.0, scale=0.0, translate=0.0, flip=True, quarter_turns=True, strong_probability=0.0
                ),  # geometry of SSL4MIS, intensities as they are (code)
            }
            return cls(**{**WITHOUT_BASE, **printed, **overrides})

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        self.student = network
        self.teacher = Teacher(network, self.config.ema_decay, warm_up=self.config.ema_warm_up)

    def stages(self) -> Sequence[Stage]:
        """Returns the pre-training on labeled images, where there is one, and the training on all."""
        c = self.config
        first = round(c.pretraining_share * c.updates)
        before = Stage("pretrain", first, self.student, (c.labeled, 0), self.pretraining_step)
        last = Stage("train", c.updates - first, self.student, (c.labeled, c.unlabeled), self.training_step)
        return [before, last] if first else [last]

    def pretraining_step(self, batch: Batch, progress: float) -> Losses:
        """Computes L_sup of labeled images with a box of the next one."""
        image, label = weak_view(*batch.labeled, self.config.augmentation, batch.view)
        image, label = mix(box_mask(image, self.config.box), image, label)
        return supervised_terms(self.student(strong_view(image, self.config.augmentation)), label, self.config)

    def training_step(self, batch: Batch, progress: float) -> Losses:
        """Computes L_out on labeled images with an unlabeled box, and L_in on unlabeled images with a labeled box."""
        c, n = self.config, batch.num_labeled
        if c.pretraining_share and progress == 0:
            self.teacher.net.load_state_dict(self.student.state_dict())
        weak = weak_views(self.teacher, batch, c)
        pasted = copy_paste(weak, c.box)
        logits = self.student(strong_view(pasted.image, c.augmentation))

        directions = []
        for rows in (slice(n), slice(n, None)):
            label, annotated = pasted.label[rows], pasted.annotated[rows]
            losses = supervised_terms(logits[rows], torch.where(annotated, label, IGNORE), c)
            losses.terms["unsup"] = PSEUDO_LABEL_LOSSES[c.unsup](
                logits[rows], label, pasted.confidence[rows], ~annotated & (label != IGNORE), c.confidence_threshold
            )
            directions.append(losses)
        outward, inward = directions
        losses = Losses({name: (value + inward.terms[name]) / 2 for name, value in outward.terms.items()})
        losses.weights = {**outward.weights, "unsup": c.unsup_weight * c.ramp_up(progress)}
        losses.diagnostics["confident"] = (weak.confidence >= c.confidence_threshold).float().mean()
        return losses

    def after_step(self) -> None:
        """Moves the teacher towards the student."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of the teacher, or of the student if ``predict_with`` is ``student``."""
        return (self.teacher if self.config.predict_with == "teacher" else self.student)(image)
