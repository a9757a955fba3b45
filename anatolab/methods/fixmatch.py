r"""FixMatch: confident predictions on a weak view are pseudo-labels for a strong view.

Sohn et al., *FixMatch: simplifying semi-supervised learning with consistency and confidence*, NeurIPS 2020. An image is
predicted on a weak view; where the confidence reaches a threshold, the class becomes the pseudo-label of a strong view
of the same image. Written for whole images, it is used here for each pixel, as segmentation papers do.

.. math::

    L = L_{sup} + \lambda_u \frac{1}{|V|} \sum_{p \in V} 1[\max \hat q_p \ge \tau]\, \mathrm{CE}(F(x)_p, \hat y_p)

The recommended settings are those of this library's base, with one exception: an unlabeled image is mixed only with
unlabeled ones, because labeled partners are not part of FixMatch. The difference to the base measures these partners.
:meth:`FixMatch.Config.paper` has the form above, with the student's own pseudo-labels. Not reproduced of the released
code: its augmentation for natural images (CTAugment), seven unlabeled images for each labeled one, pseudo-labels made
in training mode, and a supervised loss without Dice, which all methods of a table share.

Reference:
    github.com/google-research/fixmatch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from anatolab.methods._config import WITHOUT_BASE, PseudoLabelConfig
from anatolab.methods._teacher_student import in_evaluation, make_views, pseudo_label_terms, strong_views
from anatolab.nn import Teacher
from anatolab.transforms import Augmentation
from anatolab.types import Batch, Losses, Stage


class FixMatch(nn.Module):
    """Trains ``network`` with labels, and with confident pseudo-labels of weak views on strong ones.

    Args:
        network: From images ``(b, c, *s)`` to logits ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its recommended settings where None.
    """

    title: ClassVar[str] = "FixMatch"
    color: ClassVar[str] = "#1188aa"

    @dataclass(frozen=True)
    class Config(PseudoLabelConfig):
        """Settings of FixMatch, recommended by default."""

        labeled_partner: bool = False  # unlabeled images are mixed with each other alone
        pseudo_labels_from: Literal["teacher", "student"] = "teacher"  # student in the code

        @classmethod
        def paper(cls, **overrides: Any) -> FixMatch.Config:
            """Returns the published settings: cross-entropy over all pixels, from the student's own pseudo-labels."""
            printed = {
                "unsup": "cross_entropy",  # (code)
                "confidence_threshold": 0.95,  # tau (code)
                "unsup_weight": 1.0,  # lambda_u (code)
                "pseudo_labels_from": "student",  # (code)
                "ema_decay": 0.999,  # of the weights that are evaluated (code)
                "predict_with": "teacher",  # (code)
                "augmentation": Augmentation(flip=True, mix="cutout"),  # Cutout (code); geometry of the library
            }
            return cls(**{**WITHOUT_BASE, **printed, **overrides})

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
        """Computes L_sup on labeled rows, and L_unsup on strong views of unlabeled ones."""
        c = self.config
        labeler = self.teacher if c.pseudo_labels_from == "teacher" else partial(in_evaluation, self.student)
        views = make_views(labeler, batch, c)
        return pseudo_label_terms(self.student(strong_views(views.image, batch.num_labeled, c)), views, c, progress)

    def after_step(self) -> None:
        """Moves the teacher towards the student."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of the teacher, or of the student if ``predict_with`` is ``student``."""
        return (self.teacher if self.config.predict_with == "teacher" else self.student)(image)
