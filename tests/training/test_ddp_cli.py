"""The command line in several processes: under torchrun, and started by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from anatolab.training import checkpoint
from tests.test_cli_runs import METHOD, TRAIN, patients

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "anatolab"],
    "itself": ["-m", "anatolab"],
}


@pytest.mark.timeout(600)
def test_two_processes_train_one_run_however_they_are_started(tmp_path: Path) -> None:
    data, weights = patients(tmp_path / "d", count=4), {}
    for name, launcher in LAUNCHERS.items():
        out = tmp_path / name
        command = ["train", "--data", str(data), "--out", str(out), *TRAIN, "--devices", "2", "--held-out", "1"]
        done = subprocess.run(
            [sys.executable, *launcher, *command, "--validate-every", "1", *METHOD],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(f"finished at step 2: {out}") == 1  # one process speaks
        assert done.stdout.count("training patients labeled") == 1
        described = json.loads((out / "run.json").read_text())
        assert (described["finished"], described["settings"]["devices"]) == (True, 2)
        steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
        assert steps == [1, 2, 2]  # measured twice, and one line of the log
        weights[name] = checkpoint.newest(out)["method"]
    one, two = weights.values()
    assert all(torch.equal(v, two[k]) for k, v in one.items() if isinstance(v, torch.Tensor))
