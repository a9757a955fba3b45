"""A run's folder: what was trained on what, beside its checkpoint, so that it can be opened again in one call."""

from __future__ import annotations

import json
import typing
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anatolab.methods import METHODS
from anatolab.nn import NETWORKS
from anatolab.training import checkpoint
from anatolab.types import InputError, Split

FILE = "run.json"


@dataclass(frozen=True)
class RunInfo:
    """All that is needed, beside the checkpoint, to evaluate a run or to predict with it."""

    method: str  # a key of anatolab.methods.METHODS
    config: dict[str, Any]  # fields of the method's Config
    network: str  # a key of anatolab.nn.NETWORKS
    in_channels: int
    classes: tuple[str, ...]  # background first
    side: int  # slices are side x side pixels; not read where there is a patch
    split: Split
    data: str  # the folder it was trained on
    patch: tuple[int, int, int] | None = None  # (z, y, x) voxels of 3-D patches; None where it was trained on slices
    window: tuple[float, float] | None = None  # intensities are clipped to it, as in Case

    @property
    def size(self) -> tuple[int, ...]:
        """Sides of what the network was trained on, height and width of slices or (z, y, x) of patches."""
        return self.patch or (self.side, self.side)


def save_info(info: RunInfo, folder: Path) -> None:
    """Writes ``run.json`` into a run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(asdict(info), indent=1) + "\n", encoding="utf-8")


def build(info: RunInfo) -> nn.Module:
    """The method of a run with fresh weights, drawn from torch's global generator."""
    kind = METHODS[info.method]
    network = NETWORKS[info.network](info.in_channels, len(info.classes), spatial_dims=len(info.size))
    return kind(network, _from_plain(kind.Config, info.config))


def open_run(folder: Path | str, device: torch.device | str = "cpu") -> tuple[nn.Module, RunInfo]:
    """Opens a trained run: its method with the weights of the last checkpoint, in evaluation mode.

    Args:
        folder: What ``train`` was given as ``out``.
        device: Where the method shall live.

    Returns:
        The method and what is known of the run.

    Raises:
        InputError: The folder holds no run, or one that this version cannot read.
    """
    path = Path(folder) / FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        info = _from_plain(RunInfo, raw)
        method = build(info)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, so this is no run; name the --out of a training.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the description of a run ({error}); train again into a new folder.") from error
    method.load_state_dict(checkpoint.load(Path(folder) / "last.pt")["method"])
    return method.to(device).eval(), info


def _from_plain(kind: Any, fields: dict[str, Any]) -> Any:
    """A dataclass from what JSON holds: nested dataclasses are rebuilt, lists become tuples."""
    hints = typing.get_type_hints(kind)
    values = {}
    for name, value in fields.items():
        if is_dataclass(hints[name]):
            value = _from_plain(hints[name], value)
        elif isinstance(value, list):
            value = tuple(value)
        values[name] = value
    return kind(**values)
