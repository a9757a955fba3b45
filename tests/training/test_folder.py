"""A run's description lies with its weights: nothing exchanges it, nothing of a patient leaves with ``run.json``."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anatolab.data import Rows
from anatolab.errors import Notice
from anatolab.files import lock
from anatolab.methods import METHODS, Supervised
from anatolab.methods._config import SemiSupervisedConfig
from anatolab.nn import light_unet
from anatolab.training import NonFiniteError, RunInfo, Settings, checkpoint, open_run, train
from anatolab.training.folder import mirror, pseudonym
from anatolab.types import Batch, Case, InputError, Losses, Split
from tests import warm
from tests.training import toy

CPU = Settings(optimizer="sgd", precision="32-true", accelerator="cpu", checkpoint_every=4, log_every=2)
SPLIT = Split(train=tuple(toy.PATIENTS[:6]), labeled=3, validation=tuple(toy.PATIENTS[6:]), origin="seed 0")
CONFIG = Supervised.Config(updates=8, labeled=2)
INFO = RunInfo(
    "supervised",
    asdict(CONFIG),
    "light_unet",
    in_channels=1,
    classes=("background", "square"),
    side=16,
    split=SPLIT,
    data="/patients",
    window=(0.0, 1.0),
    orientation="LPS",
)


def fit(out: Path, info: RunInfo | None = INFO, settings: Settings = CPU, rows: Rows | None = None) -> Supervised:
    torch.manual_seed(0)
    method = Supervised(light_unet(1, 2), CONFIG)
    train(method, rows or toy.rows(), info.split if info else SPLIT, settings, out=out, info=info, progress=False)
    return method


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    fit(out)
    return out


def test_a_run_opens_with_what_it_was_trained_under(run: Path) -> None:
    method, info = open_run(run)
    assert replace(info, settings={}, loop={}, rows="", versions={}, commit="", step=0, updates=0) == INFO
    assert (info.step, info.updates, info.finished) == (8, 8, True)
    assert info.settings["lr"] == 0.01
    assert info.settings["precision"] == "32-true"
    assert "log_every" not in info.settings
    assert info.versions["torch"] == torch.__version__.split("+")[0] or info.versions["torch"] == torch.__version__
    assert len(info.commit.rstrip("+")) == 40
    trained = fit(run)
    assert all(torch.equal(v, method.state_dict()[k]) for k, v in trained.state_dict().items())


def test_run_json_says_it_to_people_without_paths_and_patients(run: Path) -> None:
    text = (run / "run.json").read_text()
    assert "somebody" not in text
    assert not any(f'"{patient}"' in text for patient in toy.PATIENTS)
    told = json.loads(text)
    assert (told["classes"], told["network"], told["window"]) == (["background", "square"], "light_unet", [0.0, 1.0])
    assert told["split"]["train"] == [pseudonym(patient) for patient in SPLIT.train]
    assert (told["finished"], told["format"]) == (True, checkpoint.FORMAT)
    assert len(set(map(pseudonym, toy.PATIENTS))) == len(toy.PATIENTS)


CHANGES: dict[str, Any] = {
    "network": "segresnet",
    "classes": ("background", "circle"),
    "window": (0.0, 2.0),
    "orientation": "RAS",
    "spacing": (1.0, 1.0, 1.0),
    "side": 32,
    "in_channels": 2,
    "field_of_view": {"mm": 120},
    "largest_component": True,
    "patch": (8, 8, 8),
    "split": replace(SPLIT, validation=SPLIT.validation[:1]),
    "config": {**INFO.config, "labeled": 1},
    "method": "mean_teacher",
    "settings": {"lr": 1.0},
    "start": {"method": "base", "weights_sha256": "0", "replaced": []},
}


def test_every_field_is_compared_or_marked_as_state() -> None:
    state = {f.name for f in fields(RunInfo) if f.metadata}
    assert state == {"data", "step", "updates", "versions", "commit", "loop", "command", "rows"}
    assert CHANGES.keys() | state == {f.name for f in fields(RunInfo)}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("field", [f for f in CHANGES if f not in ("config", "method", "settings")])
def test_a_run_is_not_continued_under_another_description_and_nothing_is_written(run: Path, field: str) -> None:
    before = contents(run)
    with pytest.raises(InputError, match=rf"last.pt: this run was started with another .*{field}|held_out") as error:
        fit(run, replace(INFO, **{field: CHANGES[field]}))
    assert "give another output folder" in str(error.value)
    assert contents(run) == before


def test_what_differs_is_named_with_both_values(run: Path) -> None:
    with pytest.raises(InputError, match=r"another network \(\"light_unet\", now \"vnet\"\); give another"):
        fit(run, replace(INFO, network="vnet"))
    with pytest.raises(InputError, match=r"another settings.lr \(0.01, now 0.5\); give another"):
        fit(run, settings=replace(CPU, lr=0.5))


def test_another_network_from_python_is_a_sentence_too(tmp_path: Path) -> None:
    fit(tmp_path, None)
    method = Supervised(light_unet(1, 2, width=4), CONFIG)
    with pytest.raises(InputError, match="another parameters"):
        train(method, toy.rows(), SPLIT, CPU, out=tmp_path, progress=False)


def test_a_refused_training_leaves_no_folder(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    unknown = toy.rows()
    unknown = Rows.from_arrays(unknown.images, np.full_like(unknown.labels, 255), unknown.patients)
    with pytest.raises(InputError, match=r"every pixel of the labeled rows \(p0.*\) is unknown; choose annotated"):
        fit(out, rows=unknown)
    with pytest.raises(InputError, match="lr must be a number"):
        fit(out, settings=replace(CPU, lr=-1.0))
    for updates in (0, -3):
        method = Supervised(light_unet(1, 2), replace(CONFIG, updates=updates))
        with pytest.raises(InputError, match=rf"updates must be a whole number from 1 to 1e\+09, not {updates}"):
            train(method, toy.rows(), SPLIT, CPU, out=out, progress=False)
    everyone = replace(SPLIT, train=tuple(toy.PATIENTS), labeled=8)
    with pytest.raises(InputError, match="needs unlabeled patients"):
        train(toy.method(), toy.rows(), everyone, CPU, out=out, progress=False)
    for kind in METHODS.values():
        if issubclass(kind.Config, SemiSupervisedConfig):
            method = kind(light_unet(1, 2), kind.Config(updates=1, unlabeled=0))
            with pytest.raises(InputError, match="unlabeled must be at least 1, as this method learns from unlabeled"):
                train(method, toy.rows(), SPLIT, CPU, out=out, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{}", r"run.json: says another .*network.* than the checkpoint beside it; restore it, or remove it"),
        ("[]", r"run.json: not the description of a run \(it holds a list\); remove it"),
        ("text", r"run.json: not the description of a run \(Expecting value"),
        ("[" * 100_000, r"run.json: not the description of a run"),
        ({"classes": ["background", "circle"]}, r"run.json: says another classes than the checkpoint"),
        ({"window": None}, r"run.json: says another window than the checkpoint"),
        ({"side": 32, "network": "vnet"}, r"run.json: says another network and side than the checkpoint"),
        ({"more": 1}, r"run.json: says another more than the checkpoint"),
    ],
)
def test_a_run_json_that_was_edited_is_refused(run: Path, tmp_path: Path, change: Any, message: str) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    file = copy / "run.json"
    file.write_text(change if isinstance(change, str) else json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        open_run(copy)
    file.unlink()
    assert open_run(copy)[1] == open_run(run)[1]


@pytest.mark.parametrize("damaged", [{"classes": ["background", "circle"]}, {"side": 32}, {"more": 1}])
def test_a_run_json_that_was_edited_is_not_trained_on(run: Path, tmp_path: Path, damaged: dict[str, Any]) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    file = copy / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **damaged}))
    before = contents(copy)
    with pytest.raises(InputError, match=r"run.json: says another (classes|side|more) than the checkpoint beside it"):
        fit(copy)
    assert contents(copy) == before


def test_a_run_json_without_its_checkpoint_is_not_replaced(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "run.json", tmp_path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"run.json: lies there without the last.pt that it describes; restore that"):
        fit(tmp_path)
    assert contents(tmp_path) == before


def test_run_json_may_lag_one_checkpoint_behind(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / "run.json").write_text(json.dumps(mirror(replace(open_run(run)[1], step=4))))
    assert open_run(copy)[1].finished


def test_the_checkpoint_before_it_is_opened_where_the_last_is_damaged(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    (copy / "last.pt").write_bytes(b"damaged")
    with pytest.warns(Notice, match="previous.pt is used in its place, which ends at step 4"):
        _, info = open_run(copy)
    assert (info.step, info.finished) == (4, False)
    with pytest.warns(Notice, match="previous.pt"):
        again = fit(copy)
    expected = open_run(run)[0].state_dict()
    assert [k for k, v in again.state_dict().items() if not torch.equal(v, expected[k])] == []
    assert open_run(copy)[1].finished


@pytest.mark.parametrize("info", ["", "[]", "{", '{"method": "none"}', json.dumps({**asdict(INFO), "config": None})])
def test_a_description_that_cannot_be_built_is_one_sentence(run: Path, tmp_path: Path, info: str) -> None:
    payload = checkpoint.load(run / "last.pt")
    checkpoint.save({**payload, "info": info}, tmp_path / "last.pt")
    said = "without a description" if not info else "cannot build the run that it describes"
    with pytest.raises(InputError, match=f"last.pt: .*{said}"):
        open_run(tmp_path)
    checkpoint.save({**payload, "method": {"a": torch.zeros(2)}}, tmp_path / "last.pt")
    with pytest.raises(InputError, match="cannot build the run that it describes"):
        open_run(tmp_path)


def test_a_folder_without_a_checkpoint_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no last.pt, so it is not a run; name the --out of a training"):
        open_run(tmp_path)
    with pytest.raises(InputError, match=r"absent: there is no such folder; check the path"):
        open_run(tmp_path / "absent")


def test_two_trainings_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(InputError, match=r"process \d+ on .* is writing there; wait for it, or give"):
        fit(tmp_path)
    assert list(tmp_path.iterdir()) == []
    fit(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "log.jsonl", "previous.pt", "run.json"]


class NaNLoss(Supervised):
    """A loss that is not finite, of which no gradient knows."""

    def training_step(self, batch: Batch, progress: float) -> Losses:
        losses = super().training_step(batch, progress)
        losses.terms["constant"] = torch.tensor(float("nan"))
        return losses


def test_a_loss_that_is_not_finite_stops_where_its_gradient_is(tmp_path: Path) -> None:
    method = NaNLoss(light_unet(1, 2), CONFIG)
    before = {k: v.clone() for k, v in method.named_parameters()}
    with pytest.raises(NonFiniteError, match=r"step 2: loss or gradient is not finite; .* and nothing was saved"):
        train(method, toy.rows(), SPLIT, CPU, out=tmp_path, progress=False)
    assert all(torch.equal(v, before[k]) for k, v in method.named_parameters())


def case(orientation: tuple[int, int], channels: int = 1, spacing: tuple[float, float, float] | None = None) -> Case:
    affine = np.diag([*orientation, 1.0, 1.0])
    image = np.arange(24 * channels, dtype=np.float32).reshape(channels, 2, 3, 4)
    return Case("a", "", image, None, spacing, affine, Path("a.nii"), window=(5.0, 6.0))


def test_a_case_is_seen_under_the_rules_of_the_run() -> None:
    lps, ras = case((-1, -1)), case((1, 1))
    assert INFO.case(lps).window == (0.0, 1.0)
    np.testing.assert_array_equal(INFO.case(lps).image, lps.image)
    np.testing.assert_array_equal(INFO.case(ras).image, ras.image[..., ::-1, ::-1])
    with pytest.raises(InputError, match=r"a.nii: has 2 channels, and this run was trained on 1; give images"):
        INFO.case(case((1, 1), channels=2))


def test_geometry_that_is_missing_or_other_is_remarked() -> None:
    patches = replace(INFO, patch=(8, 8, 8), spacing=(1.0, 1.0, 1.0))
    assert patches.remarks(case((1, 1), spacing=(1.2, 1.0, 1.0))) == []
    (remark,) = patches.remarks(case((1, 1), spacing=(3.0, 1.0, 1.0)))
    assert "a.nii has voxels of 3 x 1 x 1 mm (z, y, x) and the training images of 1 x 1 x 1 mm" in remark
    assert INFO.remarks(case((1, 1), spacing=(3.0, 1.0, 1.0))) == []  # slices are resized
    (remark,) = INFO.remarks(replace(case((1, 1)), affine=None))
    assert remark == (
        "a.nii carries no geometry, so its label volume has an identity affine, "
        "and it is taken to lie as the training images do (LPS)."
    )


def test_a_process_that_is_killed_does_not_keep_the_folder(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from tests.training.test_folder import fit, checkpoint
checkpoint.save = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
fit(Path({str(tmp_path)!r}))
"""
    assert warm.python("-c", code).returncode == -9
    assert (tmp_path / ".lock").exists()
    fit(tmp_path)
    assert open_run(tmp_path)[1].finished
    assert not (tmp_path / ".lock").exists()
