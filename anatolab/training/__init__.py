"""The training loop, its checkpoints and the folder of a run."""

from anatolab.training.folder import RunInfo, open_run, save_info
from anatolab.training.loop import NonFiniteError, Run, train
from anatolab.training.settings import Settings

__all__ = ["NonFiniteError", "Run", "RunInfo", "Settings", "open_run", "save_info", "train"]
