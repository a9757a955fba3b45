r"""UniMatch: two strong views for each weak view, and a stream with perturbed features.

Yang, Qi, Feng, Zhang and Shi, *Revisiting weak-to-strong consistency in semi-supervised semantic segmentation*, CVPR
2023. FixMatch compares one strong view with the weak one. UniMatch compares two, mixed and augmented independently. A
further stream reads the weak view with half the channels of the encoder's maps dropped.

.. math::

    L = L_{sup} + \lambda_u \left(\tfrac14 L_{s_1} + \tfrac14 L_{s_2} + \tfrac12 L_{fp}\right)

In the recommended settings each stream has the unsupervised loss of the base, on the teacher's pseudo-labels: with one
stream and nothing dropped it is the base. :meth:`UniMatch.Config.paper` is what the released code does on ACDC. All
streams pass through the student together here; the code runs the weak views beside the labeled images, and the strong
views after them, so that its batch-norm statistics differ. Not reproduced of the code: its changes of intensities
(color jitter), CutMix in every second image and of 2 to 40 % of it (here always, half of it), and pseudo-labels of the
weak view made in training mode.

Reference:
    github.com/LiheYoung/UniMatch, more-scenarios/medical.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from anatolab.methods._config import WITHOUT_BASE, PseudoLabelConfig
from anatolab.methods._teacher_student import (
    in_evaluation,
    mix_views,
    sample_masks,
    strong_views,
    supervised_terms,
    unsupervised_loss,
    weak_views,
)
from anatolab.nn import Tap, Teacher, tap
from anatolab.transforms import Augmentation, strong_view
from anatolab.types import Batch, Losses, Stage


class UniMatch(nn.Module):
    """Trains ``network`` with labels, and with pseudo-labels on strong views and on perturbed features.

    Args:
        network: A network whose features :func:`anatolab.nn.tap` can perturb, from images ``(b, c, *s)`` to logits
            ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its recommended settings where None.
    """

    title: ClassVar[str] = "UniMatch"
    color: ClassVar[str] = "#ee1144"

    @dataclass(frozen=True)
    class Config(PseudoLabelConfig):
        """Settings of UniMatch, recommended by default."""

        stream_weights: tuple[float, ...] = (0.25, 0.25)  # weight of each strong stream, times lambda_u (code)
        perturbed_weight: float = 0.5  # weight of the perturbed stream, times lambda_u (code); 0: no such stream
        channel_dropout: float = 0.5  # share of channels that are dropped in it (code)
        pseudo_labels_from: Literal["teacher", "student"] = "teacher"  # student in the code

        @classmethod
        def paper(cls, **overrides: Any) -> UniMatch.Config:
            """Returns what the released code does on ACDC: Dice alone, from the student's own pseudo-labels."""
            printed = {
                "labeled": 12,  # (code)
                "unlabeled": 12,  # (code)
                "sup_weight": 0.25,  # half of (CE + Dice) / 2 (code)
                "unsup_weight": 0.5,  # lambda_u, half of all (code)
                "unsup": "dice",  # (code)
                "confidence_threshold": 0.95,  # tau (code)
                "pseudo_labels_from": "student",  # (code)
                "augmentation": Augmentation(rotate=20.0, scale=0.0, translate=0.0, flip=True, quarter_turns=True),
            }
            return cls(**{**WITHOUT_BASE, **printed, **overrides})

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.config = c = config or self.Config()
        self.student = network if isinstance(network, Tap) else tap(network)
        self.teacher = Teacher(self.student, c.ema_decay, warm_up=c.ema_warm_up)

    def stages(self) -> Sequence[Stage]:
        """Returns one stage on labeled and unlabeled rows."""
        c = self.config
        return [Stage("train", c.updates, self.student, (c.labeled, c.unlabeled), self.training_step)]

    def training_step(self, batch: Batch, progress: float) -> Losses:
        """Computes L_sup on labeled rows, and L_s1, L_s2 and L_fp on unlabeled ones."""
        c, n = self.config, batch.num_labeled
        labeler = self.teacher if c.pseudo_labels_from == "teacher" else partial(in_evaluation, self.student)
        weak = weak_views(labeler, batch, c)
        streams = [mix_views(weak, *sample_masks(weak, c)) for _ in c.stream_weights]

        # Rows: labeled images, the strong streams, and the weak views whose features are perturbed.
        parts = [strong_views(streams[0].image, n, c), *(strong_view(s.image[n:], c.augmentation) for s in streams[1:])]
        names = {f"strong_{k}": w for k, w in enumerate(c.stream_weights, 1)}
        if c.perturbed_weight:
            parts, streams = [*parts, weak.image[n:]], [*streams, weak]
            names["perturbed"] = c.perturbed_weight
        image = torch.cat(parts)
        dropout = torch.zeros(len(image), device=image.device)
        dropout[len(image) - len(weak.valid) :] = c.channel_dropout
        logits, _ = self.student(image, dropout if c.perturbed_weight else None)

        losses = supervised_terms(logits[:n], weak.label, c)
        for views, part, (name, weight) in zip(streams, logits[n:].chunk(len(streams)), names.items(), strict=True):
            losses.terms[name] = unsupervised_loss(part, views, c)
            losses.weights[name] = c.unsup_weight * weight * c.ramp_up(progress)
        losses.diagnostics["confident"] = (weak.confidence >= c.confidence_threshold).float().mean()
        return losses

    def after_step(self) -> None:
        """Moves the teacher towards the student."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of the teacher, or of the student if ``predict_with`` is ``student``."""
        return (self.teacher if self.config.predict_with == "teacher" else self.student)(image)[0]
