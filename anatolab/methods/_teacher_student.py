"""A step of teacher and student on labeled and unlabeled images: views, pseudo-labels, mixing, pixels.

The teacher reads each image once, as a weak view. Unlabeled views are then mixed with each other, or with labeled ones
and their annotation. Labels, confidences and the teacher's embeddings are mixed like the images. The student reads
strong views of the mixed images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.losses import (
    anatomical_contrast,
    class_means,
    confident_cross_entropy,
    confident_dice_loss,
    confident_pseudo_label_loss,
    cross_entropy,
    dice_loss,
    share_weighted_pseudo_label_loss,
)
from anatolab.methods._config import PseudoLabelConfig, SemiSupervisedConfig, SharedConfig
from anatolab.sampling import (
    PixelPool,
    bin_pixels,
    flatten_pixels,
    label_probability,
    negative_class_odds,
    pool_pixels,
    released_positions,
    sample_anchors,
    sample_negatives,
    sample_pixels,
)
from anatolab.transforms import mixing_mask, strong_view, weak_view
from anatolab.types import IGNORE, Batch, Losses

PSEUDO_LABEL_LOSSES = {
    "confident": confident_pseudo_label_loss,
    "share_weighted": share_weighted_pseudo_label_loss,
    "cross_entropy": confident_cross_entropy,
    "dice": confident_dice_loss,
}  # forms of L_unsup


@dataclass(frozen=True)
class Views:
    """Weak views of a batch of b images, n of them labeled, with labels or pseudo-labels; unlabeled ones are mixed.

    An unlabeled image takes the pixels of ``mask`` from the image whose number, among all b, is in ``partner``.
    """

    image: Tensor  # (b, c, *s) in [0, 1]
    label: Tensor  # (n, *s) int64, annotation; IGNORE outside of the image
    pseudo_label: Tensor  # (b - n, *s) int64, the teacher's class, or the annotation of a labeled partner
    confidence: Tensor  # (b - n, *s) in [0, 1]; 1 where annotated
    probability: Tensor  # (b - n, classes, *s), the teacher's, or one-hot where annotated
    valid: Tensor  # (b - n, *s) bool, pixels that losses may read
    mask: Tensor  # (b - n, *s) bool
    partner: Tensor  # (b - n,) int64
    teacher_logits: Tensor  # (b, classes, *s) of all rows, unmixed, where the teacher reads them; else (b - n, ...)
    teacher_maps: list[Tensor] | None  # of the same rows, coarse to fine, where the network gives them

    def mixed(self, values: Tensor) -> Tensor:
        """Mixes the unlabeled rows of values ``(b, ...)`` that may be on a coarser grid than the images."""
        n = len(self.label)
        grid = values.shape[-(self.mask.ndim - 1) :]
        mask = self.mask
        if mask.shape[1:] != grid:
            mask = F.interpolate(mask[:, None].float(), grid, mode="nearest-exact")[:, 0] > 0
        mask = mask if values.ndim == mask.ndim else mask[:, None]
        return torch.cat([values[:n], torch.where(mask, values[self.partner], values[n:])])


def make_views(
    teacher: Callable[[Tensor], Any], batch: Batch, config: SemiSupervisedConfig, *, read_labeled: bool = False
) -> Views:
    """Returns weak views with pseudo-labels of the teacher, mixed as the settings say; without gradient.

    Args:
        teacher: From images ``(b, c, *s)`` to logits ``(b, classes, *s)``, alone or first of a tuple with maps.
        batch: Labeled rows first.
        config: ``augmentation`` and ``labeled_partner`` are read.
        read_labeled: Whether the teacher reads labeled rows as well, for ``teacher_logits`` and ``teacher_maps``.
    """
    views = weak_views(teacher, batch, config, read_labeled=read_labeled)
    return mix_views(views, *sample_masks(views, config))


@torch.no_grad()
def weak_views(
    teacher: Callable[[Tensor], Any], batch: Batch, config: SemiSupervisedConfig, *, read_labeled: bool = False
) -> Views:
    """Returns the views of :func:`make_views` before mixing: ``mask`` is false everywhere, ``partner`` is set."""
    n = batch.num_labeled
    # Unlabeled rows carry class 0 through the warp, so that IGNORE marks what lies outside of the image.
    label = torch.cat([batch.label[:n], torch.zeros_like(batch.label[n:])])
    image, label = weak_view(batch.image, label, config.augmentation, batch.view)
    logits, maps = _logits_and_maps(teacher(image if read_labeled else image[n:]))

    number = torch.arange(len(image) - n, device=image.device)
    partner = n + (number + 1) % max(1, len(number))
    if config.labeled_partner:
        partner = torch.where(number % 2 == 0, number % max(1, n), partner)
    valid = label[n:] != IGNORE
    return Views(
        image,
        label[:n],
        **_pseudo_labels(logits[n if read_labeled else 0 :], valid),
        valid=valid,
        mask=torch.zeros_like(valid),
        partner=partner,
        teacher_logits=logits,
        teacher_maps=maps,
    )


@torch.no_grad()
def relabel(views: Views, logits: Tensor) -> Views:
    """Returns unmixed views with pseudo-labels of other logits ``(b - n, classes, *s)``, such as another teacher's."""
    return replace(views, **_pseudo_labels(logits, views.valid), teacher_logits=logits, teacher_maps=None)


def sample_masks(views: Views, config: SemiSupervisedConfig) -> tuple[Tensor, Tensor]:
    """Samples which pixels of unmixed views come from the partner, and which are blanked: two masks ``(b - n, *s)``."""
    known = torch.where(views.valid, views.pseudo_label, IGNORE)
    return mixing_mask(views.image[len(views.label) :], known, views.probability.shape[1], config.augmentation.mix)


@torch.no_grad()
def mix_views(views: Views, mask: Tensor, blank: Tensor) -> Views:
    """Mixes each unlabeled image, its pseudo-labels and its confidences with those of its partner.

    Args:
        views: The result of :func:`weak_views`.
        mask: ``(b - n, *s)`` bool, pixels that come from the partner.
        blank: ``(b - n, *s)`` bool, pixels that are blanked and left out of the losses.
    """
    n, label = len(views.label), views.label
    views = replace(views, mask=mask)

    def mixed(labeled: Tensor, unlabeled: Tensor) -> Tensor:
        return views.mixed(torch.cat([labeled, unlabeled]))[n:]

    annotated = views.probability.new_zeros(n, *views.probability.shape[1:])
    annotated.scatter_(1, label.clamp_min(0)[:, None], 1.0)  # one-hot; that of torch waits for the device
    certain = torch.ones_like(views.confidence[:1]).expand(n, *views.confidence.shape[1:])
    image = torch.where(blank[:, None], 0.0, mixed(views.image[:n], views.image[n:]))
    return replace(
        views,
        image=torch.cat([views.image[:n], image]),
        pseudo_label=mixed(label.clamp_min(0), views.pseudo_label),
        confidence=mixed(certain, views.confidence),
        probability=mixed(annotated, views.probability),
        valid=mixed(label != IGNORE, views.valid) & ~blank,
    )


@torch.no_grad()
def in_evaluation(network: nn.Module, image: Tensor) -> Any:
    """Returns a network's output in evaluation mode, without gradient, and restores its training mode."""
    training = {module: module.training for module in network.modules()}
    try:
        return network.eval()(image)
    finally:
        for module, mode in training.items():
            module.training = mode


def supervised_terms(logits: Tensor, label: Tensor, config: SharedConfig) -> Losses:
    """Returns L_sup of logits ``(n, classes, *s)`` and annotations ``(n, *s)``: cross-entropy and Dice."""
    terms = {"ce": cross_entropy(logits, label), "dice": dice_loss(logits, label)}
    return Losses(terms, {"ce": config.sup_weight, "dice": config.sup_weight})


def pseudo_label_terms(logits: Tensor, views: Views, config: PseudoLabelConfig, progress: float) -> Losses:
    """Returns L_sup of the labeled rows and L_unsup of the unlabeled ones, with the share of confident pixels.

    Args:
        logits: The student's of all views ``(b, classes, *s)``, with gradient.
        views: The result of :func:`make_views`.
        config: Form, weight, threshold and ramp of L_unsup.
        progress: Completed share of the stage, in [0, 1).
    """
    n, c = len(views.label), config
    losses = supervised_terms(logits[:n], views.label, c)
    losses.terms["unsup"] = unsupervised_loss(logits[n:], views, c)
    losses.weights["unsup"] = c.unsup_weight * c.ramp_up(progress)
    losses.diagnostics["confident"] = (views.confidence >= c.confidence_threshold).float().mean()
    return losses


def unsupervised_loss(logits: Tensor, views: Views, config: PseudoLabelConfig) -> Tensor:
    """Returns L_unsup, a scalar, of the student's logits of the unlabeled rows ``(b - n, classes, *s)``."""
    loss = PSEUDO_LABEL_LOSSES[config.unsup]
    return loss(logits, views.pseudo_label, views.confidence, views.valid, config.confidence_threshold)


@dataclass(frozen=True)
class TeacherStudentOutput:
    """Predictions of student and teacher for a batch, and the m pixels of the contrast, on the embedding's grid."""

    views: Views
    image: Tensor  # (b, c, *s) in [0, 1], what the student read
    label: Tensor  # (b, *s) int64, annotation or pseudo-label; IGNORE where the teacher is below the weak threshold
    logits: Tensor  # the student's (b, classes, *s), with gradient
    representation: Tensor  # the student's (b, d, *grid), with gradient
    features: Tensor  # (m, d), the representation as rows, with gradient
    pixel_label: Tensor  # (m,) int64
    label_probability: Tensor  # (m,) in [0, 1], the student's probability of each pixel's label

    @property
    def num_labeled(self) -> int:
        return len(self.views.label)


def forward_pair(method: Any, batch: Batch, progress: float, *, read_labeled: bool = False) -> TeacherStudentOutput:
    """Runs both networks on a batch; with ``restart_teacher``, copies the student first in a stage's first step.

    Args:
        method: Has ``student``, ``teacher`` and ``config``, a :class:`anatolab.methods._config.ContrastConfig`.
        batch: Labeled rows first.
        progress: Completed share of the stage, in [0, 1).
        read_labeled: Whether the teacher reads labeled rows as well, for its maps.
    """
    c, student, teacher = method.config, method.student, method.teacher
    if c.restart_teacher and progress == 0:
        teacher.net.load_state_dict(student.state_dict())
    views = make_views(teacher, batch, c, read_labeled=read_labeled)
    image = strong_views(views.image, batch.num_labeled, c)
    logits, maps = student(image)
    trusted = views.valid & (views.confidence >= c.weak_threshold)
    label = torch.cat([views.label, torch.where(trusted, views.pseudo_label, IGNORE)])
    representation = student.pixel(maps)
    features, pixel_label, probability = flatten_pixels(representation, label, label_probability(logits, label))
    return TeacherStudentOutput(views, image, label, logits, representation, features, pixel_label, probability)


def strong_views(image: Tensor, num_labeled: int, config: Any) -> Tensor:
    """Returns strong views of images ``(b, c, *s)``; labeled rows, which come first, only with ``strong_labeled``.

    Args:
        image: Intensities in [0, 1].
        num_labeled: Number of labeled rows.
        config: ``augmentation`` and ``strong_labeled`` are read.
    """
    if config.strong_labeled or not num_labeled:
        return strong_view(image, config.augmentation)
    return torch.cat([image[:num_labeled], strong_view(image[num_labeled:], config.augmentation)])


def anchors(output: TeacherStudentOutput, pool: PixelPool, candidates: Tensor, config: Any) -> Tensor:
    """Samples anchors of each class with the sampler of the settings, as pixel numbers ``(classes, num_anchors)``.

    Args:
        output: Holds the pixels.
        pool: The same pixels, sorted by class.
        candidates: ``(m,)`` bool, pixels that may be anchors.
        config: ``pixel_sampler``, ``grid`` and ``num_anchors`` are read.
    """
    c = config
    if c.pixel_sampler == "naive":
        return sample_anchors(pool, c.num_anchors)
    if c.pixel_sampler == "released":  # by position in the list of a class's candidates; waits for the device
        position = [released_positions(max(1, n), c.num_anchors) for n in pool.hard.tolist()]
        return pool.order[(pool.start[:, None] + torch.stack(position).to(pool.start)).clamp_max(len(pool.order) - 1)]
    b, _, *grid = output.representation.shape
    label, candidates = output.pixel_label.reshape(b, *grid), candidates.reshape(b, *grid)
    return sample_pixels(bin_pixels(label, len(pool.count), candidates, grid=c.grid), c.num_anchors, c.pixel_sampler)


def batch_contrast(output: TeacherStudentOutput, config: Any, temperature: float) -> tuple[Tensor, PixelPool]:
    """Returns L_anco of a batch, and its pixels by class.

    Args:
        output: Holds the pixels.
        config: ``hard_threshold``, the sampler's fields and ``num_negatives`` are read.
        temperature: That of the class graph and of the contrast.

    Reference:
        ACTION, anatomical contrast; ACTION++ with its own temperature.
    """
    c, classes = config, output.logits.shape[1]
    hard = output.label_probability <= c.hard_threshold
    pool = pool_pixels(output.pixel_label, classes, hard)
    prototypes = class_means(output.features, output.pixel_label, classes)
    odds = negative_class_odds(prototypes, pool.present, temperature)
    sampled, negatives = anchors(output, pool, hard, c), sample_negatives(pool, odds, c.num_negatives)
    loss = anatomical_contrast(output.features, sampled, negatives, prototypes, pool.queried, pool.present, temperature)
    return loss, pool


def hard_share(pool: PixelPool) -> Tensor:
    """Returns the share of the pixels with a label that may be anchors, a scalar in [0, 1]."""
    return pool.hard.sum() / pool.count.sum().clamp_min(1)


def _pseudo_labels(logits: Tensor, valid: Tensor) -> dict[str, Tensor]:
    probability = torch.softmax(logits.float(), 1)
    confidence, pseudo_label = probability.max(1)
    return {"pseudo_label": torch.where(valid, pseudo_label, 0), "confidence": confidence, "probability": probability}


def _logits_and_maps(output: Any) -> tuple[Tensor, list[Tensor] | None]:
    return output if isinstance(output, tuple) else (output, None)
