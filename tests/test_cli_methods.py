"""Every method of the list starts from the command line, in 2-D and 3-D; one is killed there and goes on bitwise."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, cast, get_type_hints

import pytest
import torch

from anatolab.cli import main
from anatolab.cli.flags import comments_of, converted, with_distinct_flags
from anatolab.data.phantoms import write_atrium, write_cardiac
from anatolab.methods import METHODS
from anatolab.nn import tap
from anatolab.training import open_run

ROOT = Path(__file__).resolve().parents[1]
SPLIT = ["--split-seed", "0", "--held-out", "1", "--labeled-patients", "1", "--accelerator", "cpu"]
SHAPE = {2: ["--side", "32"], 3: ["--patch", "8", "16", "16"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("data")
    return {
        2: write_cardiac(root / "hearts", patients=4, seed=0, size=64),
        3: write_atrium(root / "atria", patients=4, seed=0, size=24),
    }


@pytest.fixture(autouse=True)
def _small_dry_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finds channels and strides of a volume's network on a side of 16, where they are those on 64."""
    monkeypatch.setitem(cast(dict[str, Any], tap.__kwdefaults__), "size", 16)


def command(data: Path, out: Path, dims: int, method: str, *flags: str, loop: tuple[str, ...] = ()) -> list[str]:
    batch = ["--labeled", "2", *(["--unlabeled", "2"] if "unlabeled" in names(METHODS[method].Config) else [])]
    start = ["train", "--data", str(data), "--out", str(out), "--dims", str(dims), *SHAPE[dims], *SPLIT, *loop]
    return [*start, method.replace("_", "-"), *batch, *flags]


def names(kind: type) -> list[str]:
    return [f.name for f in fields(kind)]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_two_updates_is_evaluated_and_predicts(
    data: dict[int, Path], method: str, dims: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(command(data[dims], run, dims, method, "--updates", "2")) == 0
    assert f"finished at step 2: {run}" in capsys.readouterr().out
    assert open_run(run)[1].method == method
    assert main(["evaluate", "--run", str(run), "--accelerator", "cpu"]) == 0
    out = ["predict", "--run", str(run), "--data", str(data[dims]), "--on", "validation", "--out", str(tmp_path / "p")]
    assert main([*out, "--accelerator", "cpu"]) == 0
    assert len(list((tmp_path / "p").glob("*.nii*"))) == {2: 2, 3: 1}[dims]


@pytest.mark.parametrize("dims", ["2", "3"])
@pytest.mark.parametrize("method", METHODS)
def test_the_help_of_a_method_lists_every_setting_under_a_flag_of_its_own(
    method: str, dims: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--dims", dims, method.replace("_", "-"), "--help"])
    assert stopped.value.code == 0
    text = "".join(line.strip(" │") + " " for line in capsys.readouterr().out.splitlines())
    for name in names(METHODS[method].Config):
        assert name in ("augmentation", "pretraining") or f"--{name.replace('_', '-')}" in text, name


@pytest.mark.parametrize("method", METHODS)
def test_no_two_settings_share_a_flag_and_each_keeps_its_comment(method: str) -> None:
    kind = METHODS[method].Config
    flags = with_distinct_flags(kind)
    assert converted(converted(kind(), flags), kind) == kind()
    hints = get_type_hints(flags, include_extras=True)
    given: list[str] = []
    for f in fields(flags):
        part = get_type_hints(flags)[f.name]
        if is_dataclass(part):
            inner = get_type_hints(part, include_extras=True)
            given += [
                inner[g.name].__metadata__[0].name if hasattr(inner[g.name], "__metadata__") else g.name
                for g in fields(part)
            ]
        else:
            given.append(f.name)
    assert hints
    assert [name for name, count in Counter(n.replace("_", "-") for n in given).items() if count > 1] == []


@dataclass(frozen=True)
class Part:
    noise: float = 0.05  # of the part
    other: int = 1  # alone


@dataclass(frozen=True)
class Whole:
    noise: float = 0.1  # of the whole
    part: Part = field(default_factory=Part)


def test_a_flag_that_two_settings_would_share_is_named_by_its_part() -> None:
    import tyro

    flags = with_distinct_flags(Whole)
    config = (tyro.conf.OmitArgPrefixes,)
    parsed = tyro.cli(flags, args=["--noise", "1", "--part-noise", "2", "--other", "3"], config=config)
    assert converted(parsed, Whole) == Whole(1.0, Part(2.0, 3))
    assert converted(tyro.cli(flags, args=[], config=config), Whole) == Whole()
    assert converted(converted(replace(Whole(), noise=3.0), flags), Whole) == replace(Whole(), noise=3.0)
    assert comments_of(Part) == {"noise": "of the part", "other": "alone"}


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_run_killed_through_the_command_line_goes_on_bitwise(data: dict[int, Path], tmp_path: Path) -> None:
    flags = "--updates", "24"
    loop = "--checkpoint-every", "1", "--log-every", "4"
    assert main(command(data[2], tmp_path / "whole", 2, "mean_teacher", *flags, loop=loop)) == 0
    out = tmp_path / "killed"
    child = subprocess.Popen(
        [sys.executable, "-m", "anatolab", *command(data[2], out, 2, "mean_teacher", *flags, loop=loop)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    while child.poll() is None and not (out / "previous.pt").exists():
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    stopped = open_run(out)[1]
    assert 1 <= stopped.step < 24
    assert not stopped.finished
    assert main(command(data[2], out, 2, "mean_teacher", *flags, loop=loop)) == 0
    whole, again = (open_run(tmp_path / name)[0].state_dict() for name in ("whole", "killed"))
    assert [k for k in whole if not torch.equal(whole[k], again[k])] == []
    assert (out / "log.jsonl").read_text() == (tmp_path / "whole" / "log.jsonl").read_text()
    assert sorted(path.name for path in out.iterdir()) == ["last.pt", "log.jsonl", "previous.pt", "run.json"]
    assert json.loads((out / "run.json").read_text())["finished"]
