"""Losses: pure functions of tensors; nothing here knows a network."""

from anatolab.losses.consistency import consistency, predictive_entropy
from anatolab.losses.info_nce import info_nce
from anatolab.losses.supervised import cross_entropy, dice_loss

__all__ = ["consistency", "cross_entropy", "dice_loss", "info_nce", "predictive_entropy"]
