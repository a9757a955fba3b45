"""anatolab: learning anatomy from few labels, and features that do not lie.

The names a reader types first; each is imported from its own module when it is first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "open_cohort": "anatolab.data",
    "prepare": "anatolab.data",
    "split_patients": "anatolab.data",
    "cardiac_cohort": "anatolab.data.phantoms",
    "Settings": "anatolab.training",
    "train": "anatolab.training",
    "open_run": "anatolab.training",
    "evaluate": "anatolab.inference",
    "predict_volume": "anatolab.inference",
    "current_size": "anatolab.presets",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'anatolab' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)
