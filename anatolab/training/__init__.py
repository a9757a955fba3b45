"""The training loop and its checkpoints."""

from anatolab.training.loop import NonFiniteError, Run, Settings, train

__all__ = ["NonFiniteError", "Run", "Settings", "train"]
