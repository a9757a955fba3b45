"""Trains in two processes on the CPU; run as under torchrun by test_ddp.py. Usage: ddp.py FOLDER"""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from anatolab.methods._config import PretrainingConfig
from anatolab.training import Settings, train
from anatolab.types import Batch, Losses, Stage
from tests.training import toy

DISTILLED = {"pretraining": PretrainingConfig(shares=(0.25, 0.25))}  # half of the updates, global and local
SETTINGS = Settings(
    optimizer="sgd", precision="32-true", accelerator="cpu", devices=2, lr=0.05, checkpoint_every=4, log_every=2
)


class Plain(nn.Module):
    """A loss that is a mean over samples and draws no random number: two processes must equal one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.student = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        self.images = 0

    def stages(self) -> list[Stage]:
        return [Stage("train", 10, self.student, (2, 4), self.step)]

    def step(self, batch: Batch, progress: float) -> Losses:
        self.images += len(batch.image)
        return Losses({"square": (self.student(batch.image) - batch.image).square().mean()})

    def after_step(self) -> None: ...

    def predict(self, image: Tensor) -> Tensor:
        return self.student(image)


def main(folder: Path) -> None:
    plain = Plain()
    train(plain, toy.rows(), toy.SPLIT, SETTINGS)
    rank = torch.distributed.get_rank()
    torch.save({"images": plain.images, **plain.state_dict()}, folder / f"plain{rank}.pt")

    for name in toy.SMALL:
        banks = toy.method(name, **(DISTILLED if name in toy.CONTRASTIVE else {}))
        train(banks, toy.rows(), toy.SPLIT, SETTINGS)
        torch.save(banks.state_dict(), folder / f"{name}{rank}.pt")

    whole = toy.method()
    train(whole, toy.rows(), toy.SPLIT, SETTINGS, out=folder / "whole")
    torch.save(whole.state_dict(), folder / f"whole{rank}.pt")

    halted, steps = toy.method(), 0
    if rank == 0:  # one process alone is told to stop: both do, at the same step

        def after_step() -> None:
            nonlocal steps
            steps += 1
            type(halted).after_step(halted)
            if steps == 5:
                signal.raise_signal(signal.SIGTERM)

        halted.after_step = after_step  # type: ignore[assignment]
    run = train(halted, toy.rows(), toy.SPLIT, SETTINGS, out=folder / "halted")
    assert not run.finished
    assert run.step == 6
    resumed = toy.method(seed=5)
    assert train(resumed, toy.rows(), toy.SPLIT, replace(SETTINGS), out=folder / "halted").finished
    torch.save(resumed.state_dict(), folder / f"resumed{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
