"""What the pixel methods share in a step: the teacher's classes, the student's pixels, and the class of each of them.

The teacher reads unlabeled images on a weak view. These are mixed with its answers, their intensities are changed, and
the student reads them beside the labeled ones: so every pixel has a class, from its annotation or from a teacher that
is sure enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anatolab.losses import anatomical_contrast, class_means, cross_entropy, dice_loss, pseudo_label_loss
from anatolab.sampling import (
    PixelPool,
    bin_pixels,
    draw_anchors,
    draw_negatives,
    draw_pixels,
    flatten_pixels,
    negative_class_odds,
    own_probability,
    released_positions,
)
from anatolab.transforms import mix_unlabeled, strong_view, weak_view
from anatolab.types import IGNORE, Batch


@dataclass(frozen=True)
class Reading:
    """What student and teacher say of a batch of b images, n of them labeled, and the m pixels that contrasts use."""

    num_labeled: int  # n
    label: Tensor  # (b, *s) int64, annotation or the teacher's class; IGNORE where it is not even weakly sure
    seen: Tensor  # (b, c, *s), what the student saw before its intensities were changed
    logits: Tensor  # the student's (b, classes, *s), with gradient
    representation: Tensor  # (b, d, *grid), with gradient
    guess: Tensor  # the teacher's classes of the unlabeled rows (b - n, *s) int64
    confidence: Tensor  # and their probability, in [0, 1]
    valid: Tensor  # (b - n, *s) bool, pixels that count
    features: Tensor  # (m, d), the representation as rows, with gradient
    at: Tensor  # (m,) int64, their labels
    own: Tensor  # (m,) in [0, 1], how probable its class is to the student
    teacher_maps: list[Tensor] | None  # of the labeled rows on the weak view, coarse to fine, where asked for

    def base_terms(self, threshold: float) -> dict[str, Tensor]:
        """L_sup as its two halves, and L_unsup."""
        n = self.num_labeled
        return {
            "ce": cross_entropy(self.logits[:n], self.label[:n]),
            "dice": dice_loss(self.logits[:n], self.label[:n]),
            "unsup": pseudo_label_loss(self.logits[n:], self.guess, self.confidence, self.valid, threshold),
        }

    def diagnostics(self, pool: PixelPool, threshold: float) -> dict[str, Tensor]:
        """Shares of unlabeled pixels that the teacher is sure of, and of pixels that may be anchors."""
        sure = (self.confidence >= threshold).float().mean()
        return {"sure": sure, "hard": pool.hard.sum() / pool.count.sum().clamp_min(1)}


def read(method: Any, batch: Batch, done: float, *, labeled_too: bool = False) -> Reading:
    """Both networks read a batch; the first step of a stage restarts the teacher where the settings say so.

    Args:
        method: Has ``student``, ``teacher`` and ``config`` (``augment``, ``weak_threshold``, ``restart_teacher``).
        batch: Labeled rows first.
        done: Share of the stage that is done.
        labeled_too: Whether the teacher reads labeled rows as well, for ``teacher_maps``.
    """
    c, n, student, teacher = method.config, batch.num_labeled, method.student, method.teacher
    if c.restart_teacher and done == 0:
        teacher.net.load_state_dict(student.state_dict())
    image, label = weak_view(batch.image, batch.label, c.augment)

    # The teacher's classes and confidence on a weak view; the student sees it mixed and strong.
    logits_t, maps_t = teacher(image if labeled_too else image[n:])
    probability = torch.softmax(logits_t[n if labeled_too else 0 :].float(), 1)
    mixed, probability, valid = mix_unlabeled(image[n:], probability, c.augment)
    confidence, guess = probability.max(1)
    seen = torch.cat([image[:n], mixed])
    logits, maps = student(strong_view(seen, c.augment))

    # Each pixel's class, on the grid of the representation.
    trusted = torch.where(valid & (confidence >= c.weak_threshold), guess, IGNORE)
    label = torch.cat([label[:n], trusted])
    representation = student.pixel(maps)
    features, at, own = flatten_pixels(representation, label, own_probability(logits, label))
    kept = [m[:n] for m in maps_t] if labeled_too else None
    return Reading(n, label, seen, logits, representation, guess, confidence, valid, features, at, own, kept)


def draw(reading: Reading, pool: PixelPool, hard: Tensor, config: Any) -> Tensor:
    """Anchors of each class by the sampler of the settings, as pixel numbers ``(classes, num_anchors)``.

    Args:
        reading: Its pixels.
        pool: They, sorted.
        hard: ``(m,)`` bool, pixels that may be anchors.
        config: ``pixel_sampler``, ``grid`` and ``num_anchors`` are read.
    """
    c = config
    if c.pixel_sampler == "naive":
        return draw_anchors(pool, c.num_anchors)
    if c.pixel_sampler == "released":  # by position in the list of a class's candidates; waits for the device
        at = [released_positions(max(1, n), c.num_anchors) for n in pool.hard.tolist()]
        return pool.order[(pool.start[:, None] + torch.stack(at).to(pool.start)).clamp_max(len(pool.order) - 1)]
    b, _, *grid = reading.representation.shape
    label, hard = reading.at.reshape(b, *grid), hard.reshape(b, *grid)
    return draw_pixels(bin_pixels(label, len(pool.count), hard, grid=c.grid), c.num_anchors, c.pixel_sampler)


def contrast(reading: Reading, pool: PixelPool, hard: Tensor, config: Any, tau: float) -> Tensor:
    """L_anco of a batch: anchors to the mean of their class, away from pixels drawn along the class graph.

    Reference:
        ACTION, anatomical contrast; ACTION++ with its own temperature.
    """
    c, classes = config, len(pool.count)
    prototypes = class_means(reading.features, reading.at, classes)
    odds = negative_class_odds(prototypes, pool.present, tau)
    anchors, negatives = draw(reading, pool, hard, c), draw_negatives(pool, odds, c.num_negatives)
    return anatomical_contrast(reading.features, anchors, negatives, prototypes, pool.queried, pool.present, tau)
