"""Fine-tuning: starts a run from the network weights of another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anatolab.nn import NETWORKS
from anatolab.training import exported
from anatolab.training.folder import RunInfo, open_run
from anatolab.types import InputError


def start_from(folder: Path | str, info: RunInfo) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the weights of another run's network that fit a new run, and their description.

    They are the weights that the other run predicts with. Heads beside the network, banks and the optimizer start
    afresh. If the classes differ in number, names or order, so do the layers that depend on them.

    Args:
        folder: Folder of a run or an export.
        info: Description of the new run.

    Returns:
        Weights for :func:`anatolab.training.folder.build`, and ``RunInfo.start``: the method they come from, their
        hash, and the names of the tensors that start afresh. It belongs to the fingerprint of the run.

    Raises:
        InputError: The network, or the number of channels or dimensions, differs.
    """
    with torch.random.fork_rng():  # opening a run draws weights
        method, source = open_run(folder)
    for name, what in (("network", "network"), ("in_channels", "number of channels")):
        ours, others = getattr(info, name), getattr(source, name)
        if ours != others:
            raise InputError(f"{folder}: its {what} is {others} and that of the new run {ours}; give the same.")
    if len(source.size) != len(info.size):
        raise InputError(
            f"{folder}: was trained in {len(source.size)}-D and the new run is {len(info.size)}-D; give the same."
        )
    state = {k: v.detach().clone() for k, v in backbone_of(exported.network_of(method)).state_dict().items()}
    replaced = tuple(sorted(_head(source))) if source.classes != info.classes else ()
    weights = {k: v for k, v in state.items() if k not in replaced}
    about = {"method": source.method, "weights_sha256": exported.sha256_of(weights), "replaced": replaced}
    return weights, about


def backbone_of(network: nn.Module) -> nn.Module:
    """Returns the network of :data:`anatolab.nn.NETWORKS` under the heads and taps that methods put around it."""
    while isinstance(inner := getattr(network, "net", None), nn.Module):
        network = inner
    return network


def _head(info: RunInfo) -> set[str]:
    """Returns the names of the tensors whose shape depends on the number of classes."""
    with torch.random.fork_rng():
        one, more = (
            NETWORKS[info.network](info.in_channels, len(info.classes) + k, spatial_dims=len(info.size)).state_dict()
            for k in (0, 1)
        )
    return {name for name, tensor in one.items() if name not in more or tensor.shape != more[name].shape}
