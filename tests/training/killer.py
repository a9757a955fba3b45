"""Trains in child processes that kill themselves at given instants, then resumes each; run by test_kill.py.

One import of torch serves all children: they are forked before anything has run. Usage: killer.py FOLDER CASES.json
DIMS, where DIMS is 2 for slices and 3 for patches of volumes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning_fabric  # noqa: F401  # before the first fork: every child would import it anew
import torch
import torch._dynamo

from anatolab.data import Volumes
from anatolab.nn import Teacher
from anatolab.training import Settings, checkpoint, train
from tests.training import toy

DIMS = 2
SETTINGS = Settings(optimizer="sgd", precision="32-true", accelerator="cpu", checkpoint_every=3, log_every=2, lr=0.05)


def suicide(owner: Any, name: str, call: int, *, before: bool, half_written: bool = False) -> None:
    """Makes the ``call``-th call of ``owner.name`` the last thing this process does."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def killing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != call:
            return original(*args, **kwargs)
        if half_written:  # os.fsync of a file that has no name yet: half of the bytes reach the disk
            os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
        elif not before:
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("killed")

    setattr(owner, name, killing)


def arm(phase: str, call: int, before: bool) -> None:
    """Plants the kill in one of the phases of a step or of a checkpoint."""
    if phase == "take":
        suicide(Volumes, "take", call, before=before)
    elif phase == "forward":
        suicide(torch.nn.BatchNorm2d if DIMS == 2 else torch.nn.BatchNorm3d, "forward", call, before=before)
    elif phase == "backward":
        suicide(torch.Tensor, "backward", call, before=before)
    elif phase == "optimizer":
        suicide(torch.optim.SGD, "step", call, before=before)
    elif phase == "after_step":
        suicide(Teacher, "update", call, before=before)
    elif phase == "write":
        suicide(os, "fsync", call, before=before, half_written=True)
    elif phase == "fsync":
        suicide(os, "fsync", call, before=before)
    elif phase == "rename":
        suicide(os, "replace", call, before=before)
    else:
        raise ValueError(phase)


def in_child(work: Callable[[], None]) -> int:
    """Runs ``work`` in a fork and returns how it ended: minus the signal, or the exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fit(out: Path | None, weights: Path | None = None) -> None:
    """One training of the toy mean teacher; writes its whole state where asked."""
    torch.set_num_threads(1)
    method = toy.method(seed=0 if weights is None or out is None else 7, dims=DIMS)
    train(method, toy.rows() if DIMS == 2 else toy.volumes(), toy.SPLIT, SETTINGS, out=out, progress=False)
    if weights is not None:
        torch.save(method.state_dict(), weights)


def main(folder: Path, cases: list[dict[str, Any]]) -> None:
    results = []
    assert in_child(lambda: fit(None, folder / "whole.pt")) == 0
    for number, case in enumerate(cases):
        out = folder / str(number)

        def killed(case: dict[str, Any] = case, out: Path = out) -> None:
            arm(**case)
            fit(out)

        def resumed(out: Path = out, number: int = number) -> None:
            fit(out, folder / f"{number}.pt")

        def reads(out: Path = out) -> None:
            step = checkpoint.load(out / "last.pt")["step"]
            (out / "step").write_text(str(step))

        ended = in_child(killed)
        readable = in_child(reads) == 0
        step = int((out / "step").read_text()) if readable else 0
        results.append({**case, "ended": ended, "readable": readable, "step": step, "resumed": in_child(resumed)})
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    DIMS = int(sys.argv[3])
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
