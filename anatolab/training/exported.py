"""Reads exported weights: safetensors with the description of the run in their header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from anatolab.records import seal
from anatolab.training import checkpoint
from anatolab.types import InputError

WEIGHTS = "model.safetensors"
FORMAT = 2  # raised when the required content of the card changes
KEY = "anatolab"  # the header's key of the card


def exists(folder: Path) -> bool:
    """Returns whether a folder holds an export."""
    return (folder / WEIGHTS).is_file()


def opened(path: Path) -> tuple[str | None, dict[str, Tensor]]:
    """Reads the text under our key in the header of a safetensors file, or None, and the tensors.

    Raises:
        InputError: The file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(KEY), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error}); download or copy it again.") from error


def header(card: Mapping[str, Any]) -> dict[str, str]:
    """Returns the header of an export: its card, with a seal over it."""
    return {KEY: json.dumps({**card, "seal": seal(card)}, sort_keys=True), "format": "pt"}


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads the card and the tensors of an export, without running any code stored in it.

    Raises:
        InputError: The file cannot be read, is not an export that this version knows, or differs from what was written.
    """
    text, tensors = opened(path)
    try:
        card = json.loads(text or "null")
    except ValueError:
        card = None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise InputError(f"{path}: holds no description of format {FORMAT} of an anatolab run; export the run again.")
    if card.pop("seal", None) != seal(card) or card.get("weights_sha256") != sha256_of(tensors):
        raise InputError(
            f"{path}: differs from what was exported (its checksum is wrong); download or copy it again, or export the "
            "run again."
        )
    return card, tensors


def card(folder: Path) -> dict[str, Any] | None:
    """Returns the card of an export; None for the folder of a run, which has no card."""
    return read(folder / WEIGHTS)[0] if exists(folder) and not checkpoint.exists(folder) else None


def network_of(method: nn.Module) -> nn.Module:
    """Returns the network that a method predicts with: the teacher's copy, or the student."""
    teacher = getattr(method, "teacher", None)
    if teacher is not None and getattr(getattr(method, "config", None), "predict_with", "teacher") == "teacher":
        return teacher.net
    return method.student  # type: ignore[return-value]


def weights_of(method: nn.Module) -> dict[str, Tensor]:
    """Returns copies of the tensors of :func:`network_of`, on the CPU."""
    state = network_of(method).state_dict()
    return {k: v.detach().cpu().contiguous().clone() for k, v in state.items() if isinstance(v, Tensor)}


def load(method: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Loads exported weights into the student and, where there is one, its teacher.

    Raises:
        RuntimeError: Names or shapes of the tensors are not those of the network.
    """
    networks = [method.student, *([method.teacher.net] if hasattr(method, "teacher") else [])]  # type: ignore[union-attr]
    for network in networks:
        network.load_state_dict(dict(tensors))  # type: ignore[union-attr]


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """Returns a hash of names, shapes and values, which ties an evaluation to weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
