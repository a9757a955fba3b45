"""What the pixel methods share in a step: pseudo-labels, the student's pixels, and the class of each of them.

The teacher predicts a weak view of the unlabeled images. Images and predictions are mixed alike, intensities are
changed, and the student reads the result beside the labeled images. So every pixel has a class: its annotation, or a
pseudo-label of sufficient confidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anatolab.losses import anatomical_contrast, class_means, cross_entropy, dice_loss, share_weighted_pseudo_label_loss
from anatolab.sampling import (
    PixelPool,
    bin_pixels,
    flatten_pixels,
    label_probability,
    negative_class_odds,
    released_positions,
    sample_anchors,
    sample_negatives,
    sample_pixels,
)
from anatolab.transforms import mix_unlabeled, strong_view, weak_view
from anatolab.types import IGNORE, Batch


@dataclass(frozen=True)
class TeacherStudentOutput:
    """Predictions of student and teacher for a batch of b images, n of them labeled, and the m pixels of contrasts."""

    num_labeled: int  # n
    label: Tensor  # (b, *s) int64, annotation or pseudo-label; IGNORE where its confidence is below weak_threshold
    image: Tensor  # (b, c, *s), the input of the student before its intensities were changed
    logits: Tensor  # the student's (b, classes, *s), with gradient
    representation: Tensor  # (b, d, *grid), with gradient
    pseudo_label: Tensor  # of the unlabeled rows (b - n, *s) int64
    confidence: Tensor  # the teacher's probability of the pseudo-label (b - n, *s), in [0, 1]
    valid: Tensor  # (b - n, *s) bool, pixels that count
    features: Tensor  # (m, d), the representation as rows, with gradient
    pixel_label: Tensor  # (m,) int64, their labels
    label_probability: Tensor  # (m,) in [0, 1], the student's probability of each pixel's label
    teacher_maps: list[Tensor] | None  # of the labeled rows on the weak view, coarse to fine, where asked for

    def base_terms(self, threshold: float) -> dict[str, Tensor]:
        """Returns the two halves of L_sup, and L_unsup."""
        n = self.num_labeled
        return {
            "ce": cross_entropy(self.logits[:n], self.label[:n]),
            "dice": dice_loss(self.logits[:n], self.label[:n]),
            "unsup": share_weighted_pseudo_label_loss(
                self.logits[n:], self.pseudo_label, self.confidence, self.valid, threshold
            ),
        }

    def diagnostics(self, pool: PixelPool, threshold: float) -> dict[str, Tensor]:
        """Returns the share of confident pseudo-labels, and that of pixels that may be anchors."""
        confident = (self.confidence >= threshold).float().mean()
        return {"confident": confident, "hard": pool.hard.sum() / pool.count.sum().clamp_min(1)}


def forward_pair(
    method: Any, batch: Batch, progress: float, *, teacher_on_labeled: bool = False
) -> TeacherStudentOutput:
    """Runs both networks on a batch; the first step of a stage restarts the teacher where the settings say so.

    Args:
        method: Has ``student``, ``teacher`` and ``config`` (``augmentation``, ``weak_threshold``, ``restart_teacher``).
        batch: Labeled rows first.
        progress: Share of the stage that is over, in [0, 1).
        teacher_on_labeled: Whether the teacher reads labeled rows as well, for ``teacher_maps``.
    """
    c, n, student, teacher = method.config, batch.num_labeled, method.student, method.teacher
    if c.restart_teacher and progress == 0:
        teacher.net.load_state_dict(student.state_dict())
    image, label = weak_view(batch.image, batch.label, c.augmentation)

    # Pseudo-labels and their confidence on a weak view; the student reads it mixed and strong.
    logits_t, maps_t = teacher(image if teacher_on_labeled else image[n:])
    probability = torch.softmax(logits_t[n if teacher_on_labeled else 0 :].float(), 1)
    mixed, probability, valid = mix_unlabeled(image[n:], probability, c.augmentation)
    confidence, pseudo_label = probability.max(1)
    image = torch.cat([image[:n], mixed])
    logits, maps = student(strong_view(image, c.augmentation))

    # Each pixel's class, on the grid of the representation.
    trusted = torch.where(valid & (confidence >= c.weak_threshold), pseudo_label, IGNORE)
    label = torch.cat([label[:n], trusted])
    representation = student.pixel(maps)
    features, pixel_label, probability = flatten_pixels(representation, label, label_probability(logits, label))
    return TeacherStudentOutput(
        num_labeled=n,
        label=label,
        image=image,
        logits=logits,
        representation=representation,
        pseudo_label=pseudo_label,
        confidence=confidence,
        valid=valid,
        features=features,
        pixel_label=pixel_label,
        label_probability=probability,
        teacher_maps=[m[:n] for m in maps_t] if teacher_on_labeled else None,
    )


def select_anchors(output: TeacherStudentOutput, pool: PixelPool, hard: Tensor, config: Any) -> Tensor:
    """Samples anchors of each class by the sampler of the settings, as pixel numbers ``(classes, num_anchors)``.

    Args:
        output: Whose pixels are sampled.
        pool: The same pixels, sorted.
        hard: ``(m,)`` bool, pixels that may be anchors.
        config: ``pixel_sampler``, ``grid`` and ``num_anchors`` are read.
    """
    c = config
    if c.pixel_sampler == "naive":
        return sample_anchors(pool, c.num_anchors)
    if c.pixel_sampler == "released":  # by position in the list of a class's candidates; waits for the device
        positions = [released_positions(max(1, n), c.num_anchors) for n in pool.hard.tolist()]
        return pool.order[(pool.start[:, None] + torch.stack(positions).to(pool.start)).clamp_max(len(pool.order) - 1)]
    b, _, *grid = output.representation.shape
    label, hard = output.pixel_label.reshape(b, *grid), hard.reshape(b, *grid)
    return sample_pixels(bin_pixels(label, len(pool.count), hard, grid=c.grid), c.num_anchors, c.pixel_sampler)


def contrast(output: TeacherStudentOutput, pool: PixelPool, hard: Tensor, config: Any, tau: float) -> Tensor:
    """L_anco of a batch: anchors to the mean of their class, away from pixels sampled along the class graph.

    Reference:
        ACTION, anatomical contrast; ACTION++ with its own temperature.
    """
    c, classes = config, len(pool.count)
    prototypes = class_means(output.features, output.pixel_label, classes)
    odds = negative_class_odds(prototypes, pool.present, tau)
    anchors, negatives = select_anchors(output, pool, hard, c), sample_negatives(pool, odds, c.num_negatives)
    return anatomical_contrast(output.features, anchors, negatives, prototypes, pool.queried, pool.present, tau)
