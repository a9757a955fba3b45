"""Exceptions and notices for users; imports nothing, so that every module may import it."""

from __future__ import annotations


class InputError(ValueError):
    """Names in one sentence the file or setting, what is wrong with it, and the remedy."""


class Notice(UserWarning):
    """Tells a user in one sentence about a limitation of a valid result."""


class NonFiniteError(FloatingPointError):
    """Names the loss, gradient or setting that is not finite, its place, and what was saved."""
