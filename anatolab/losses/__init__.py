"""Losses: pure functions of tensors; nothing here knows a network."""

from anatolab.losses.anatomical_contrast import anatomical_contrast, class_means
from anatolab.losses.calibration import calibration_loss
from anatolab.losses.class_centers import (
    assign_centers,
    center_contrast,
    optimized_centers,
    sampled_center_contrast,
    simplex_centers,
    uniformity,
    update_means,
)
from anatolab.losses.consistency import consistency, predictive_entropy
from anatolab.losses.distillation import relational_distillation
from anatolab.losses.equivariance import equivariance
from anatolab.losses.group_dro import group_dro, group_losses
from anatolab.losses.hardness import hardness_weights
from anatolab.losses.holistic import cosine_separation, targeted_contrast
from anatolab.losses.info_nce import info_nce
from anatolab.losses.nearest_neighbors import nearest_neighbors
from anatolab.losses.pseudo_label import (
    confident_cross_entropy,
    confident_dice_loss,
    confident_pseudo_label_loss,
    share_weighted_pseudo_label_loss,
)
from anatolab.losses.supervised import cross_entropy, dice_loss

__all__ = [
    "anatomical_contrast",
    "assign_centers",
    "calibration_loss",
    "center_contrast",
    "class_means",
    "confident_cross_entropy",
    "confident_dice_loss",
    "confident_pseudo_label_loss",
    "consistency",
    "cosine_separation",
    "cross_entropy",
    "dice_loss",
    "equivariance",
    "group_dro",
    "group_losses",
    "hardness_weights",
    "info_nce",
    "nearest_neighbors",
    "optimized_centers",
    "predictive_entropy",
    "relational_distillation",
    "sampled_center_contrast",
    "share_weighted_pseudo_label_loss",
    "simplex_centers",
    "targeted_contrast",
    "uniformity",
    "update_means",
]
