"""Checkpoints that are either whole or not there, and every random state that training reads."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anatolab.types import InputError


def save(payload: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint atomically: to a file beside it, flushed to disk, then renamed over it.

    A process killed at any instant leaves the previous checkpoint or this one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            torch.save(payload, file)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"{path}: the checkpoint could not be written ({error.strerror}); free space there and run again, "
            "training continues from the last one."
        ) from error
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the rename itself reaches the disk
    finally:
        os.close(directory)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a checkpoint without running any code stored in it.

    Raises:
        InputError: The file is missing, or is no checkpoint.
    """
    try:
        payload = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such checkpoint; train first, or name the folder of a run.") from error
    except Exception as error:  # what unpickling raises on foreign bytes is open-ended
        raise InputError(f"{path}: not a readable checkpoint; delete it to train from the start.") from error
    if not isinstance(payload, dict) or "method" not in payload:
        raise InputError(f"{path}: not a checkpoint of anatolab (no entry 'method'); name a file that train wrote.")
    return payload


def rng_state() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's global generators, as tensors and plain numbers."""
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": [version, list(internal), gauss],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],  # type: ignore[union-attr]
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restores what :func:`rng_state` returned, in any process on the same kind of machine."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
