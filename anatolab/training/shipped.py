"""Small networks trained on generated hearts, which come with the package so that a page starts from learned organs.

``studies/checkpoints.py`` makes them: one per method, with its recipe in the header of the file and its Dice in the
record ``checkpoints-hearts``. A file holds the network that the method predicts with, as float16.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from anatolab.files import write_atomically
from anatolab.nn import stem_unet
from anatolab.records import seal
from anatolab.training import exported
from anatolab.types import InputError

WEIGHTS = Path(__file__).parent / "weights"
CHECKPOINTS = ("base", "action", "actionpp", "mona", "arco")  # methods, as on the command line
CLASSES = ("background", "RV", "Myo", "LV")


def file_of(name: str, folder: Path = WEIGHTS) -> Path:
    """Returns the path of a checkpoint's file."""
    return folder / f"hearts-{name}.safetensors"


def load_checkpoint(name: str, folder: Path = WEIGHTS) -> nn.Module:
    """Loads a network that a method has trained on generated hearts with three labeled patients.

    It replaces a network with random weights: a method that is built around it starts with student and teacher equal to
    it. Heads beside the network and banks start afresh, as with ``anatolab train --init``.

    Args:
        name: The method: ``base``, ``action``, ``actionpp``, ``mona`` or ``arco``.
        folder: Folder of the files; by default that of the package.

    Returns:
        A :func:`anatolab.nn.stem_unet` in fp32, from images ``(b, 1, h, w)`` to logits ``(b, 4, h, w)``; sides are
        multiples of 16. It was trained at 64 x 64.

    Raises:
        InputError: There is no checkpoint of this name, or its file is damaged.

    Example:
        >>> import torch
        >>> from anatolab.methods import Action
        >>> method = Action(load_checkpoint("action"), Action.Config(updates=60))
        >>> method.predict(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 4, 64, 64])
    """
    if name not in CHECKPOINTS:
        raise InputError(f"name must be one of {', '.join(CHECKPOINTS)}, not {name!r}.")
    card, tensors = read_checkpoint(file_of(name, folder))
    network = stem_unet(1, len(CLASSES), widths=card["widths"])
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    return network


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads the recipe and the tensors of a file, as they are stored.

    Raises:
        InputError: The file cannot be read, or differs from what was written.
    """
    try:
        text, tensors = exported.opened(path)
        card = json.loads(text or "{}")
        intact = seal({k: v for k, v in card.items() if k != "seal"}) == card["seal"]
        intact = intact and exported.sha256_of(tensors) == card["tensors"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        intact = False
    if not intact:
        raise InputError(f"{path}: is missing or not as it was written; restore it by installing anatolab again.")
    return card, tensors


def write_checkpoint(path: Path, network: nn.Module, recipe: dict[str, Any]) -> None:
    """Writes a network as float16, with its recipe and the checksums of both in the header.

    Args:
        path: The file.
        network: A stem U-Net.
        recipe: How it was trained, as JSON; ``widths`` are those of :func:`anatolab.nn.stem_unet`.
    """
    from safetensors.torch import save

    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    card = {**recipe, "tensors": exported.sha256_of(half)}
    content = save(half, {exported.KEY: json.dumps({**card, "seal": seal(card)})})
    write_atomically(path, content, overwrite=True)
