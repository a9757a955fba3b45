"""SIGKILL at drawn instants of every phase, then resume: bitwise the run that was never stopped."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
IN_A_STEP = ("forward", "backward", "optimizer", "after_step")
IN_A_CHECKPOINT = ("write", "fsync", "rename")
LEFT = ["last.pt", "log.jsonl", "previous.pt", "step"]  # "step" is of the killer itself


def drawn(dims: int, seed: int = 0) -> list[dict[str, Any]]:
    """Two instants a phase, one before and one after the call; past the first checkpoint, which is at step 3."""
    draw = random.Random(seed)
    if dims == 3:  # what differs there: patches are cut at random, on the host, within the step
        calls = {"take": range(5, 13), "forward": range(9, 21), "after_step": range(5, 13), "write": (5, 7, 9)}
        return [  # forward: twice a step; write: the fsync of a checkpoint, after that of the log and of folders
            {"phase": phase, "call": draw.choice(among), "before": before}
            for phase, among in calls.items()
            for before in (True, False)
        ]
    cases: list[dict[str, Any]] = []
    for before in (True, False):
        cases += [{"phase": phase, "call": draw.randint(5, 12), "before": before} for phase in IN_A_STEP]
        # The log and four checkpoints, each with two fsyncs (file and folder) and one rename; past the first two.
        calls = {"write": 2 * draw.randint(2, 4) + 1, "fsync": draw.randint(5, 10), "rename": draw.randint(3, 5)}
        cases += [{"phase": phase, "call": calls[phase], "before": before} for phase in IN_A_CHECKPOINT]
    return cases


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("dims", [2, 3])
def test_a_run_killed_anywhere_resumes_bitwise(tmp_path: Path, dims: int) -> None:
    cases, due = tmp_path / "cases.json", drawn(dims)
    cases.write_text(json.dumps(due))
    command = [sys.executable, "-m", "tests.training.killer", str(tmp_path), str(cases), str(dims)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=280)
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results) == len(due) == (2 * len(IN_A_STEP + IN_A_CHECKPOINT) if dims == 2 else 8)
    whole = torch.load(tmp_path / "whole.pt", weights_only=True)
    for number, result in enumerate(results):
        assert result["ended"] == -9, result
        assert result["readable"], result
        assert result["step"] >= 3, result
        assert result["resumed"] == 0, result
        assert sorted(p.name for p in (tmp_path / str(number)).iterdir()) == LEFT, result
        again = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert again.keys() == whole.keys()
        assert [k for k in whole if not torch.equal(whole[k], again[k])] == [], result
    assert {r["step"] for r in results} >= ({3, 6, 9} if dims == 2 else {3, 6})
