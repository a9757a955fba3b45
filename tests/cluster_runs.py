"""Runs for the tests of a cluster: a toy training in a worker, which one process does not survive."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Wanted:
    """What a list of wanted runs holds, as far as a cluster reads it."""

    id: str


def run(experiment: Wanted, seed: int, *, out: Path) -> dict[str, object]:
    """Trains the toy; ``lost`` is killed in the middle of its first attempt, ``told`` is told to stop."""
    from anatolab.training import Settings, checkpoint, train
    from tests.training import toy

    if experiment.id == "wrong":
        raise ValueError("this run cannot be made")
    found = checkpoint.newest(out)["step"] if checkpoint.exists(out) else 0
    method = toy.method(seed=seed)
    first = not (out.parent / f"{out.name}.pids").exists()
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f"{out.name}.pids").open("a") as file:
        file.write(f"{os.getpid()}\n")
    steps, after = 0, type(method).after_step

    def after_step() -> None:
        nonlocal steps
        steps += 1
        after(method)
        if first and steps == 7 and experiment.id in ("lost", "told"):
            os.kill(os.getpid(), signal.SIGKILL if experiment.id == "lost" else signal.SIGTERM)

    method.after_step = after_step  # type: ignore[assignment]
    settings = Settings(optimizer="sgd", precision="32-true", accelerator="cpu", checkpoint_every=4, log_every=2)
    trained = train(method, toy.rows(), toy.SPLIT, settings, out=out, progress=False)
    if not trained.finished:
        raise KeyboardInterrupt
    weights = {k: v for k, v in method.state_dict().items() if isinstance(v, torch.Tensor)}
    return {"found": found, "weights": weights, "pid": os.getpid()}
