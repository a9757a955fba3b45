"""A run is repeated from its run.json to the bit, and started from another one's network."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from anatolab.cli import main
from anatolab.methods import METHODS
from anatolab.nn import NETWORKS
from anatolab.training import checkpoint, open_run
from anatolab.training.folder import build, compared
from anatolab.training.start import backbone_of, start_from
from anatolab.types import InputError
from tests.test_cli_runs import METHOD, complaint, patients, result, run_of

BASE = ["base", "--updates", "3", "--labeled", "2", "--unlabeled", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return patients(tmp_path_factory.mktemp("data") / "d", count=5)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = ["--seed", "3", "--held-out", "1", "--lr", "0.003", "--validate-every", "2", "--log-every", "1"]
    return run_of(data, tmp_path_factory.mktemp("runs") / "r", *settings, method=BASE)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {k: v for k, v in checkpoint.newest(run)["method"].items() if isinstance(v, torch.Tensor)}


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(v, second[k]) for k, v in first.items())


def test_a_run_is_validated_from_the_command_line(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    measured = [line for line in lines if "validation" in line]
    assert [line["step"] for line in measured] == [2, 3]
    assert measured[0]["validation"].keys() == {"outer", "inner", "mean"}


def test_run_json_repeats_a_run_to_the_bit(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = tmp_path / "handed-on.json"  # away from the run, as a colleague has it
    shutil.copy(run / "run.json", described)
    held = json.loads(described.read_text())
    assert held["loop"]["log_every"] == 1
    assert held["command"][:6] == ["anatolab", "train", "--data", "DATA", "--out", "OUT"]
    assert str(data.parent) not in described.read_text()
    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    again = ["train", "--config", described, "--data", moved, "--out", tmp_path / "again"]
    assert result(capsys, *again, "--json")["finished"]
    assert same(run, tmp_path / "again")
    ours, theirs = (open_run(folder)[1] for folder in (run, tmp_path / "again"))
    assert replace(ours, data="") == replace(theirs, data="")
    logs = [(folder / "log.jsonl").read_text() for folder in (run, tmp_path / "again")]
    assert logs[0] == logs[1]


def test_a_description_that_does_not_fit_is_refused(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["train", "--data", data, "--out", tmp_path / "x", "--config"]
    held = json.loads((run / "run.json").read_text())
    changed = tmp_path / "changed.json"
    for edits, said in (
        ({"split": {**held["split"], "train": ["p-0000000000"]}}, "1 of the patients of its split are not in"),
        ({"split": None}, "describes no split"),
        ({"method": "other"}, f"{changed}: not the run.json of this version of anatolab ('other')"),
        ({"network": "other"}, "not the run.json of this version of anatolab ('other')"),
        ({"side": "x"}, "(side must be a whole number, not 'x')"),
        ({"side": 33}, "(side 33: stem_unet_small needs multiples of 16, from 16 to 4096; choose such sides)"),
        ({"in_channels": 3}, "has 1 channels and the run 3; give the data of the run"),
        ({"largest_component": 1}, "(largest_component must be a bool, not 1)"),
        ({"spacing": "x"}, "(spacing must be 3 numbers, not 'x')"),
        ({"versions": 3}, "(versions must be a dict, not 3)"),
        ({"config": {}}, "(no augmentation)"),
        ({"config": {**held["config"], "updates": 0}}, "(updates must be a whole number from 1 to 1e+09, not 0)"),
        ({"config": {**held["config"], "augmentation": 5}}, "(Augmentation is 5)"),
        ({"settings": {}}, "(no clip)"),
        ({"settings": {**held["settings"], "lr": -1}}, "(lr must be a number above 0 to 1e+06, not -1)"),
        ({"field_of_view": {"a": 1}}, "unexpected keyword argument 'a'"),
        ({"rows": "0" * 64}, "its prepared images are not those of the run"),
        ({"classes": ["background", "other", "inner"]}, "its classes is"),
        ({"unknown": 1}, "not the run.json of this version of anatolab (RunInfo has no field 'unknown')"),
        ({"start": {"method": "base", "weights_sha256": "", "replaced": []}}, "started from another one; give it with"),
    ):
        changed.write_text(json.dumps({**held, **edits}))
        assert said in complaint(capsys, *start, changed), edits
    assert "did not start from another one" in complaint(capsys, *start, run / "run.json", "--init", run)
    assert "this file is missing" in complaint(capsys, *start, tmp_path / "none.json")
    assert not (tmp_path / "x").exists()


def test_a_run_starts_from_another_ones_network(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, seed = tmp_path / "tuned", ["--seed", "7", "--held-out", "1"]
    run_of(data, out, *seed, "--init", str(run))
    assert "note: the network starts from the weights of a base run." in capsys.readouterr().out
    info = open_run(out)[1]
    assert info.start is not None
    assert (info.start["method"], info.start["replaced"]) == ("base", ())
    fresh = run_of(data, tmp_path / "fresh", *seed)
    assert not same(out, fresh)
    held = json.loads((out / "run.json").read_text())
    assert "RUN" in held["command"]
    assert held["start"] == {**info.start, "replaced": []}
    again = ["train", "--config", out / "run.json", "--data", data, "--out", tmp_path / "again", "--init", run]
    assert main([str(c) for c in again]) == 0
    assert same(out, tmp_path / "again")
    said = complaint(capsys, *again[:-1], fresh)
    assert "is not the run that this one started from" in said
    base = ["train", "--data", data, "--out", out, "--split-seed", "0", "--side", "32", "--dims", "2"]
    base += ["--labeled-patients", "2", "--accelerator", "cpu", *seed]
    assert "was started with another start" in complaint(capsys, *base, *METHOD)  # it is part of the fingerprint


def test_layers_of_other_classes_start_afresh_and_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = patients(tmp_path / "d", count=5, labels={"background": 0, "inner": 1, "outer": 2})
    start = open_run(run_of(other, tmp_path / "t", "--init", str(run)))[1].start
    assert "as the classes differ, these start afresh: " in capsys.readouterr().out
    assert start is not None
    assert 0 < len(start["replaced"]) <= 4  # of the same shape, and of another meaning
    info = open_run(run)[1]
    held, about = start_from(run, replace(info, classes=("background", "one", "two", "three")))
    network = NETWORKS[info.network](1, 4)
    missing = network.load_state_dict(held, strict=False).missing_keys
    assert tuple(sorted(missing)) == about["replaced"]
    assert all(name.startswith(about["replaced"][0].split(".")[0]) for name in about["replaced"])


@pytest.mark.parametrize("name", ["base", "mona", "morse", "cps"])
def test_every_method_gives_and_takes_the_plain_network(run: Path, name: str) -> None:
    info = open_run(run)[1]
    kind = METHODS[name]
    new = replace(info, method=name, config=asdict(kind.Config()))
    held, _ = start_from(run, new)
    method = build(new, held)
    for network in (method.student, method.teacher.net):  # type: ignore[union-attr]
        state = backbone_of(network).state_dict()  # type: ignore[arg-type]
        assert state.keys() == held.keys()
        assert all(torch.equal(v, state[k]) for k, v in held.items())


def test_networks_that_do_not_fit_are_refused(run: Path) -> None:
    info = open_run(run)[1]
    for changes, said in (
        ({"network": "basic_unet"}, "its network is stem_unet_small and that of the new run basic_unet"),
        ({"in_channels": 2}, "its number of channels is 1 and that of the new run 2"),
        ({"patch": (8, 16, 16)}, "was trained in 2-D and the new run is 3-D"),
    ):
        with pytest.raises(InputError, match=said):
            start_from(run, replace(info, **changes))  # type: ignore[arg-type]


def test_runs_from_before_starts_were_recorded_are_continued(run: Path) -> None:
    assert "start" not in compared(open_run(run)[1])
    assert "start" not in json.loads((run / "run.json").read_text())
