"""Atomic checkpoints with a checksum, and the states of all random generators.

A file is the output of ``torch.save``, followed by one line with the format's number and the SHA-256 of what precedes.
"""

from __future__ import annotations

import hashlib
import random
import re
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from anatolab.errors import InputError, Notice
from anatolab.files import write_atomically

LAST, PREVIOUS = "last.pt", "previous.pt"
FORMAT = 2  # raised when the content of checkpoints changes; 1 had neither checksum nor description
_END = re.compile(rb"anatolab checkpoint (\d{4}) sha256 ([0-9a-f]{64})\n")
_LENGTH = 97  # bytes of that line


class DamagedError(InputError):
    """A checkpoint is missing, cut short, or differs from what was written."""


def save(payload: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint atomically and keeps the one before it as ``previous.pt``.

    A process killed at any instant leaves either the previous checkpoint or this one, never a partial file.

    Args:
        payload: Tensors, numbers, strings, and lists and dictionaries of them.
        path: The file.

    Raises:
        InputError: The system refuses to write; the existing checkpoint remains.
    """

    def write(file: BinaryIO) -> None:
        hashed = _Hashed(file)
        torch.save({**payload, "format": FORMAT}, hashed)  # type: ignore[arg-type]
        file.write(f"anatolab checkpoint {FORMAT:04d} sha256 {hashed.sha256.hexdigest()}\n".encode())

    write_atomically(path, write, overwrite=True, previous=path.with_name(PREVIOUS))


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a checkpoint, after its checksum, without running any code stored in it.

    Args:
        path: The file.
        device: Device for its tensors.

    Raises:
        DamagedError: The file is missing, truncated, or differs from what was written.
        InputError: It cannot be opened, or another version wrote it.
    """
    try:
        with path.open("rb") as file:
            _verify(file, path)
            file.seek(0)
            payload = torch.load(file, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise DamagedError(f"{path}: no such checkpoint; train first, or name the folder of a run.") from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be opened ({error.strerror or error}); check its permissions and disk, and try again."
        ) from error
    except (InputError, MemoryError):
        raise
    except Exception as error:  # what unpickling raises on foreign bytes is open-ended
        raise InputError(
            f"{path}: cannot be read ({next(iter(str(error).splitlines()), type(error).__name__)}); "
            "train into a new folder, or name a file that train wrote."
        ) from error
    if not isinstance(payload, dict) or "method" not in payload:
        raise InputError(f"{path}: not a checkpoint of anatolab (no entry 'method'); name a file that train wrote.")
    return payload


def exists(folder: Path) -> bool:
    """Returns whether a folder holds a checkpoint, damaged or not."""
    return (folder / LAST).exists() or (folder / PREVIOUS).exists()


def newest(folder: Path, device: torch.device | str = "cpu", *, repair: bool = False) -> dict[str, Any]:
    """Reads the last checkpoint of a run or, with a warning, the one before it if the last is damaged.

    Args:
        folder: The folder of the run.
        device: Device for its tensors.
        repair: Whether to remove the damaged file, so that the next checkpoint does not displace the intact one.

    Raises:
        InputError: As for :func:`load`, and neither of the two can be read.

    Warns:
        Notice: The last one is damaged.
    """
    path = folder / LAST
    try:
        return load(path, device)
    except DamagedError as error:
        if not (folder / PREVIOUS).exists():
            raise
        payload = load(folder / PREVIOUS, device)
        sentence = f"{error.args[0].partition(';')[0]}; {PREVIOUS} is used in its place, which ends at step"
        warnings.warn(f"{sentence} {payload.get('step', 'unknown')}.", Notice, stacklevel=2)
        if repair:
            path.unlink(missing_ok=True)
        return payload


class _Hashed:
    """An open file that hashes what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _verify(file: BinaryIO, path: Path) -> None:
    """Refuses an open file whose last line is not the checksum of the preceding bytes."""
    length = file.seek(0, 2)
    file.seek(max(0, length - _LENGTH))
    end = _END.fullmatch(file.read())
    if end is None:
        raise DamagedError(
            f"{path}: not a readable checkpoint, as it is cut short or comes from an older version of anatolab; "
            "train into a new folder, or evaluate it with the version that wrote it."
        )
    if int(end[1]) != FORMAT:
        raise InputError(
            f"{path}: is a checkpoint of format {int(end[1])}, and this version of anatolab reads format {FORMAT}; "
            "train into a new folder, or use the version that wrote it."
        )
    file.seek(0)
    digest, rest = hashlib.sha256(), length - _LENGTH
    while rest:
        block = file.read(min(rest, 1 << 20))
        digest.update(block)
        rest -= len(block)
        if not block:
            break
    if digest.hexdigest().encode() != end[2]:
        raise DamagedError(
            f"{path}: not a readable checkpoint, as it differs from what was written (its checksum is wrong); "
            "restore it from a copy, or train into a new folder."
        )


def rng_state() -> dict[str, Any]:
    """Returns the states of Python's, numpy's and torch's global generators, as tensors and plain numbers."""
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
