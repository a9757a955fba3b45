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


def drawn(dims: int, seed: int = 0) -> list[dict[str, Any]]:
    """Two instants a phase, one before and one after the call; past the first checkpoint, which is at step 3."""
    draw = random.Random(seed)
    if dims == 3:  # what differs there: patches are cut at random, on the host, within the step
        calls = {"take": (5, 12), "forward": (9, 20), "after_step": (5, 12), "write": (2, 4)}  # forward: twice a step
        return [
            {"phase": phase, "call": draw.randint(*among), "before": before}
            for phase, among in calls.items()
            for before in (True, False)
        ]
    cases: list[dict[str, Any]] = []
    for before in (True, False):
        cases += [{"phase": phase, "call": draw.randint(5, 12), "before": before} for phase in IN_A_STEP]
        # Four checkpoints, each with one write, two fsyncs (file and folder) and one rename.
        cases += [
            {"phase": phase, "call": draw.randint(3, 8) if phase == "fsync" else draw.randint(2, 4), "before": before}
            for phase in IN_A_CHECKPOINT
        ]
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
        again = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert again.keys() == whole.keys()
        assert [k for k in whole if not torch.equal(whole[k], again[k])] == [], result
    assert {r["step"] for r in results} >= ({3, 6, 9} if dims == 2 else {3, 6})
