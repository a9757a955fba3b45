"""Settings of a training run, and the optimizer, learning rate, precision and memory options they imply."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from anatolab.schedules import poly, warm_up_cosine
from anatolab.types import InputError


@dataclass(frozen=True)
class Settings:
    """Settings of the training loop; what is trained is described by the method's own ``Config``.

    None stands for the default of the optimizer. AdamW has warm-up and a cosine schedule, as every recommended method
    uses it. SGD has polynomial decay, as in the papers.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float | None = None  # highest learning rate; .002 with AdamW, .01 with SGD
    weight_decay: float | None = None  # weight decay; .02 with AdamW, 1e-4 with SGD
    clip: float | None = None  # largest gradient norm; 1 with AdamW, 10 with SGD
    schedule: Literal["cosine", "poly"] | None = None  # of the learning rate; cosine with AdamW, poly with SGD
    floor: float | None = None  # last learning rate as a share of lr; .01 with cosine, 0 with poly
    warm_up: float = 0.05  # share of a stage over which the cosine schedule warms up from 0
    power: float = 0.9  # exponent of the poly schedule
    momentum: float = 0.9  # momentum of SGD
    nesterov: bool = False  # Nesterov momentum for SGD
    seed: int = 0  # seed of weights, sampler and augmentation
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"  # auto: bf16 where the processor has it, else fp32
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1  # processes on this machine; more than one trains with DDP
    nodes: int = 1  # machines, under torchrun
    compile: bool = False  # torch.compile of every network
    log_every: int = 20  # steps between log lines
    checkpoint_every: int = 200  # steps between checkpoints
    validate_every: int = 0  # steps between validations, which select nothing; 0: no validation
    logger: Literal["none", "tensorboard"] = "none"  # a further log beside log.jsonl

    def resolved(self) -> Settings:
        """Returns these settings with the optimizer's defaults in place of None.

        Example:
            >>> Settings(optimizer="sgd").resolved().lr, Settings(lr=0.1).resolved().lr
            (0.01, 0.1)
        """
        if self.optimizer not in DEFAULTS:
            raise InputError(f"optimizer must be 'adamw' or 'sgd', not {self.optimizer!r}.")
        defaults = DEFAULTS[self.optimizer]
        chosen = replace(self, **{k: v for k, v in defaults.items() if getattr(self, k) is None})
        return chosen if chosen.floor is not None else replace(chosen, floor=FLOORS[chosen.schedule or "poly"])


DEFAULTS: dict[str, dict[str, Any]] = {
    "adamw": {"lr": 0.002, "weight_decay": 0.02, "clip": 1.0, "schedule": "cosine"},
    "sgd": {"lr": 0.01, "weight_decay": 1e-4, "clip": 10.0, "schedule": "poly"},
}
FLOORS = {"cosine": 0.01, "poly": 0.0}


def learning_rate(settings: Settings, step: int, updates: int) -> float:
    """Returns the learning rate of update ``step``, counted from 0, of a stage of ``updates``.

    Example:
        >>> [round(learning_rate(Settings().resolved(), step, 1_000), 5) for step in (0, 49, 999)]
        [4e-05, 0.002, 2e-05]
    """
    lr, floor = settings.lr or 0.0, settings.floor or 0.0
    if settings.schedule == "cosine":
        return lr * warm_up_cosine((step + 1) / updates, settings.warm_up, floor)
    return lr * (floor + (1 - floor) * poly(step / updates, settings.power))


def build_optimizer(parameters: Sequence[nn.Parameter], settings: Settings, *, nesterov: bool = False) -> Any:
    """Returns the fused optimizer of resolved settings; it skips an update when ``found_inf`` is 1."""
    nesterov = nesterov or settings.nesterov
    lr, decay = settings.lr or 0.0, settings.weight_decay or 0.0
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr, weight_decay=decay, fused=True)
    sgd = torch.optim.SGD(parameters, lr, settings.momentum, weight_decay=decay, nesterov=nesterov, fused=True)
    if settings.momentum:  # torch leaves them unwritten where the first update is skipped (2.13)
        for parameter in parameters:
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def resolve_precision(precision: str, accelerator: str = "auto", dims: int = 2) -> str:
    """Returns ``32-true`` or ``bf16-mixed``: what "auto" means on this machine, anything else as given.

    "auto" is bf16 where the device computes in it natively (a GPU of compute capability 8 or more, a CPU with AVX-512
    BF16 or AMX), since elsewhere it is emulated and slow. In 3-D a CPU computes in fp32: the weight gradient of a bf16
    ``Conv3d`` is wrong there on maps of depth 2 (torch 2.13, oneDNN; see ``tests/training/test_settings.py``).

    Args:
        precision: ``auto``, ``32-true`` or ``bf16-mixed``.
        accelerator: That of the settings.
        dims: 2 or 3, the dimensions of the network's convolutions.

    Raises:
        InputError: The precision is unknown, or bf16 is given in 3-D on a CPU.
    """
    if precision not in ("auto", "32-true", "bf16-mixed"):
        raise InputError(f"precision must be 'auto', '32-true' or 'bf16-mixed', not {precision!r}.")
    cuda = accelerator in ("auto", "cuda") and torch.cuda.is_available()
    mps = not cuda and accelerator in ("auto", "mps") and torch.backends.mps.is_available()
    if precision == "bf16-mixed" and dims == 3 and not (cuda or mps):
        raise InputError("precision 'bf16-mixed' gives wrong gradients of 3-D convolutions on a CPU; use '32-true'.")
    if precision != "auto":
        return precision
    if cuda:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        cpu = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        native = cpu and dims == 2 and not mps
    return "bf16-mixed" if native else "32-true"


def keep_memory() -> None:
    """Lets glibc keep the memory of freed tensors instead of returning it at every use; elsewhere does nothing.

    Mapping and unmapping memory takes a third of an update on a CPU. Results stay bitwise the same.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
