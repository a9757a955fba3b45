"""What several commands share: flags, devices, printed JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import tyro

from anatolab.errors import InputError

Flag = tyro.conf.FlagCreatePairsOff[bool]  # --flag, without a --no-flag beside it
Json = Annotated[Flag, tyro.conf.arg(name="json", help="Print the result as JSON, and nothing else.")]
Overwrite = Annotated[Flag, tyro.conf.arg(help="Replace files that exist.")]
Stride = tuple[int, int, int]
Accelerator = Literal["auto", "cpu", "cuda", "mps"]


def print_json(value: Any) -> None:
    """Prints dataclasses, dictionaries, paths and arrays as JSON; a number that is not finite becomes null."""
    from anatolab.records import plain

    print(json.dumps(plain(value), indent=1, ensure_ascii=False))


def device_of(accelerator: str) -> str:
    """Returns torch's name of the device.

    Raises:
        InputError: There is no such device here.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        return "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
    if not there[accelerator]:
        raise InputError(f"--accelerator {accelerator}: torch sees no such device here; use cpu, or install its build.")
    return accelerator


def check_stride(stride: Stride | None, patch: Sequence[int] | None) -> Stride | None:
    """Returns the stride, or refuses one where no window slides."""
    if stride is not None and patch is None:
        raise InputError("--stride: this run was trained on slices, which need no sliding window; leave it out.")
    return stride


def one_of_these(count: int, noun: str) -> str:
    """Returns ``1 patient`` or ``2 patients``."""
    return f"{count} {noun}{'s' * (count != 1)}"
