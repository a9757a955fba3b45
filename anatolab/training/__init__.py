"""The training loop, its checkpoints and the folder of a run."""

from anatolab.errors import NonFiniteError
from anatolab.training.folder import RunInfo, open_run, save_run
from anatolab.training.loop import Run, train
from anatolab.training.settings import Settings
from anatolab.training.shipped import load_checkpoint
from anatolab.training.watch import Validation

__all__ = [
    "NonFiniteError",
    "Run",
    "RunInfo",
    "Settings",
    "Validation",
    "load_checkpoint",
    "open_run",
    "save_run",
    "train",
]
