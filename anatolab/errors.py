"""What is said to a user, as an exception or as a notice; nothing here imports anything, so that every part may."""

from __future__ import annotations


class InputError(ValueError):
    """Says in one sentence what is wrong with which file or setting, and the remedy."""


class Notice(UserWarning):
    """Says in one sentence what a user should know of a result that is right nevertheless."""


class NonFiniteError(FloatingPointError):
    """Says which loss, gradient or setting is not finite, where, and what was kept."""
