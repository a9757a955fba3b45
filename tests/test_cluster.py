"""The list of wanted runs on a cluster: what is lost continues, what fails is named, what is missing is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from anatolab.types import InputError
from tests import cluster_runs
from tests.cluster_runs import Wanted
from tests.scripts import script

tool = script("studies/cluster.py")


def test_without_ray_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"--ray: the package ray is missing; install anatolab\[cluster\]"):
        list(tool.run_all([], cluster_runs.run, workdir=tmp_path))
    trainings = script("studies/trainings.py")
    monkeypatch.setattr(trainings, "_todo", lambda only, size: [])
    assert trainings.main(["records", "--ray"]) == 1
    assert capsys.readouterr().err.startswith("trainings: --ray: the package ray is missing")


class Slow:
    """Ray whose node registers too late, some times."""

    def __init__(self, late: int) -> None:
        self.late = late
        self.calls: list[str] = []

    def init(self, **options: object) -> None:
        self.calls.append("init")
        if self.calls.count("init") <= self.late:
            raise Exception("The current node timed out during startup.")

    def shutdown(self) -> None:
        self.calls.append("shutdown")


def test_a_cluster_that_starts_slowly_is_started_again() -> None:
    slow = Slow(late=2)
    tool._start(slow, None, {})
    assert slow.calls == ["init", "shutdown", "init", "shutdown", "init"]
    for late, address in ((tool.STARTS, None), (1, "auto")):
        with pytest.raises(Exception, match="timed out"):
            tool._start(Slow(late), address, {})


ATTEMPT = """
import sys
from pathlib import Path
from cluster import _work
from tests.cluster_runs import Wanted, run
_work(run, Wanted(sys.argv[1]), 0, Path(sys.argv[2]))
"""


@pytest.mark.timeout(1800)  # a guard against a hang: nothing here waits for a time
@pytest.mark.parametrize(("name", "code", "found"), [("lost", -9, 4), ("told", 1, 7)])
def test_a_worker_that_ends_leaves_what_the_next_one_continues(
    tmp_path: Path, name: str, code: int, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).resolve().parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{root / 'studies'}")
    out, whole = tmp_path / name / "seed0", tmp_path / "plain" / "seed0"
    assert subprocess.run([sys.executable, "-c", ATTEMPT, name, str(out)], cwd=root).returncode == code
    result, plain = (tool._work(cluster_runs.run, Wanted(n), 0, o) for n, o in ((name, out), ("plain", whole)))
    assert (result["found"], plain["found"]) == (found, 0)
    assert all(torch.equal(v, result["weights"][k]) for k, v in plain["weights"].items())


@pytest.mark.timeout(1800)  # a guard against a hang: nothing here waits for a time
def test_a_killed_workers_run_continues_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    todo = [(Wanted(name), 0) for name in ("lost", "told", "plain", "wrong")]
    results = {e.id: result for e, _, result in tool.run_all(todo, cluster_runs.run, workdir=tmp_path, cpus=1)}
    assert "this run cannot be made" in str(results.pop("wrong"))
    assert {name: result["found"] for name, result in results.items()} == {"lost": 4, "told": 7, "plain": 0}
    for name in ("lost", "told"):
        attempts = (tmp_path / name / "seed0.pids").read_text().split()
        assert len(set(attempts)) == 2
        weights = results[name]["weights"]
        assert all(torch.equal(v, weights[k]) for k, v in results["plain"]["weights"].items())


@pytest.mark.timeout(1800)  # a guard against a hang: nothing here waits for a time
def test_more_than_a_machine_has_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="no machine has 1 CPUs and 64 GPUs for a run"):
        list(tool.run_all([(Wanted("plain"), 0)], cluster_runs.run, workdir=tmp_path, gpus=64))
