"""Fitted heads on disk: safetensors with a card that describes the head, its method and the labels that it used.

::

    head.safetensors    the trained tensors
    card.json           kind of head, model, classes, settings, labels, scores, checksum of the tensors
    README.md           the same for a reader
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anatolab.data.files import read_json
from anatolab.files import sha256_of_file, write_atomically
from anatolab.records import installed_version, plain
from anatolab.robust._fit import LinearHead, ProjectionHead, Start
from anatolab.robust.adapter import AdapterHead
from anatolab.robust.clip import Clip, load_clip
from anatolab.robust.zero_shot import GroupPromptHead
from anatolab.types import InputError

TENSORS, CARD, README = "head.safetensors", "card.json", "README.md"
FORMAT = 1  # of the card
KINDS = {
    "group prompts": GroupPromptHead,  # before the class that it extends
    "projection": ProjectionHead,
    "linear": LinearHead,
    "adapter": AdapterHead,
}


@dataclass(frozen=True)
class Card:
    """The description of a fitted head."""

    method: str  # name in anatolab.robust.catalog.METHODS
    title: str
    model: str  # name or folder given to load_clip
    pretrained: str | None
    model_sha256: str  # of all weights of the frozen model
    classes: tuple[str, ...]
    attributes: tuple[str, ...] = ("",)
    text: str = ""  # how the text head was made
    sees: dict[str, Any] = field(default_factory=dict)  # labels in training and in selection
    settings: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)  # the split, and what was measured on it
    seed: int = 0


def save_head(folder: str | Path, head: nn.Module, card: Card, *, overwrite: bool = False) -> Path:
    """Writes a head and its card.

    Args:
        folder: Created if it does not exist.
        head: Head of a method of :mod:`anatolab.robust`.
        card: Its description.
        overwrite: Whether to replace an existing head.

    Raises:
        InputError: The head is of another kind, or the folder holds one already.
    """
    from safetensors.torch import save

    folder = Path(folder)
    kind = next((name for name, cls in KINDS.items() if isinstance(head, cls)), None)
    if kind is None:
        raise InputError(f"{type(head).__name__}: is not a head of anatolab.robust; fit one of its methods.")
    # The frozen projection that a linear head or an adapter starts from is the model's own.
    tensors = {k: v.detach().clone().contiguous() for k, v in head.state_dict().items()}
    extra: dict[str, Any] = {"scale": getattr(head, "start", head).scale}
    if kind == "group prompts":
        extra["prompts_per_class"] = head.attributes
    write_atomically(folder / TENSORS, save(tensors), overwrite=overwrite)
    about = {
        "format": FORMAT,
        "kind": kind,
        **extra,
        **plain(card),
        "sha256": sha256_of_file(folder / TENSORS),
        "versions": {name: installed_version(name) for name in ("anatolab", "torch", "open_clip_torch")},
    }
    write_atomically(folder / CARD, json.dumps(about, indent=1, ensure_ascii=False) + "\n", overwrite=overwrite)
    write_atomically(folder / README, _readme(about), overwrite=overwrite)
    return folder


def load_head(folder: str | Path, clip: Clip | None = None) -> tuple[Any, dict[str, Any], Clip]:
    """Loads a head that :func:`save_head` wrote, with the frozen model that its features come from.

    Args:
        folder: With the head and its card.
        clip: The frozen model; loaded as the card says where None.

    Returns:
        The head, in evaluation mode; its card; the model.

    Raises:
        InputError: A file is missing or damaged, or the model is not the one the head was fitted on.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    card = read_json(folder / CARD)
    file = folder / TENSORS
    missing = [
        key for key in ("format", "kind", "sha256", "model", "model_sha256", "classes", "scale") if key not in card
    ]
    if missing or card["kind"] not in KINDS or card["format"] != FORMAT:
        raise InputError(f"{folder / CARD}: is not the card of a head; fit the head again.")
    if not file.is_file():
        raise InputError(f"{file}: this file is missing; copy it beside {CARD}, or fit the head again.")
    if sha256_of_file(file) != card["sha256"]:
        raise InputError(f"{file}: is damaged, or not the file that {CARD} describes; copy both again, or fit again.")
    clip = clip or load_clip(card["model"], card.get("pretrained"))
    if clip.sha256 != card["model_sha256"]:
        raise InputError(
            f"{folder}: was fitted on other weights than {clip.name} has; name the model it was fitted on."
        )
    tensors = load_file(file)
    head = _empty(card, tensors, clip)
    head.load_state_dict(tensors)
    return head.eval().requires_grad_(False), card, clip


def _empty(card: Mapping[str, Any], tensors: Mapping[str, Tensor], clip: Clip) -> Any:
    """Returns a head of the right kind and shapes, whose values are still to be loaded."""
    projection = clip.projection()
    if card["kind"] in ("projection", "group prompts"):
        head = KINDS[card["kind"]](projection, tensors["text"], card["scale"])
        if card["kind"] == "group prompts":
            head.attributes = card["prompts_per_class"]
        return head
    if card["kind"] == "linear":
        d = len(tensors["mean"])
        start = Start(projection, torch.zeros(d, len(tensors["bias"])), card["scale"])
        return LinearHead(start, *(torch.empty_like(tensors[k]) for k in ("mean", "std", "weight", "bias")))
    start = Start(projection, tensors["text"], card["scale"])
    return AdapterHead(start, len(tensors["adapter.0.bias"]), None)


def open_clip_state(head: nn.Module, clip: Clip) -> dict[str, Tensor]:
    """Returns the state dict of the open_clip model with a head's projection in place of its own.

    A model of the same name loads it strictly; zero-shot with the head's text then gives the head's classes.

    Args:
        head: A projection with its text head (ERM, WiSE-FT, JTT, AFR, CnC, GroupDRO, CFR).
        clip: The model that its features come from.

    Raises:
        InputError: The head is a linear layer or an adapter, which no open_clip model has.
    """
    if type(head) is not ProjectionHead:
        raise InputError(
            f"{type(head).__name__}: has no place in an open_clip model; export the head of a method that trains the "
            "projection, such as cfr."
        )
    return {k: v.contiguous() for k, v in clip.written_back(head.projection).state_dict().items()}


def _readme(card: Mapping[str, Any]) -> str:
    sees = card.get("sees", {})
    labels = {part: ", ".join(sees.get(part, ())) or "none" for part in ("training", "selection")}
    scores = "\n".join(f"- {key}: {value}" for key, value in card.get("scores", {}).items()) or "- not measured"
    return f"""# {card["title"]} on {card["model"]}

Classes: {", ".join(card["classes"])}. Text head: {card["text"]}.
Labels in training: {labels["training"]}. Labels in selection: {labels["selection"]}.

{scores}

```python
from anatolab.robust import load_head

head, card, clip = load_head("this/folder")
logits = head.logits(clip.trunk(images))  # images: (b, 3, {"size, size"}), normalized as clip.transform() does
```
"""
