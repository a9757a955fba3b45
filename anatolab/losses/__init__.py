"""Losses: pure functions of tensors; nothing here knows a network."""

from anatolab.losses.consistency import consistency, predictive_entropy
from anatolab.losses.supervised import cross_entropy, dice_loss

__all__ = ["consistency", "cross_entropy", "dice_loss", "predictive_entropy"]
