"""The studies of ensembles, averages and a start from other weights: what they measure is what predict writes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anatolab import records
from anatolab.cli import main
from anatolab.data import open_cohort
from anatolab.data.phantoms import KINDS
from anatolab.metrics import evaluate_volume
from anatolab.training import open_run
from tests.scripts import script

gains = script("studies/gains.py")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cohort in ACDC's layout, and a folder in which both studies have run at a few updates."""
    folder = tmp_path_factory.mktemp("gains")
    data = folder / "hearts"
    KINDS["cardiac"][0](data, patients=6, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANATOLAB_RECORDS", str(folder / "records"))
        patch.setenv("ANATOLAB_SIZE", "tiny")
        patch.setattr(gains, "HEARTS", 2)
        patch.setattr(gains, "FEW", 1)
        command = gains.trained

        def small(data: Path, out: Path, seed: int, updates: int, *more: str, method: str = "base") -> Path:
            split = () if "--held-out" in more else ("--split-seed", "0", "--held-out", "2")
            return command(data, out, seed, updates, *split, *more, "--side", "32", method=method)

        patch.setattr(gains, "trained", small)
        patch.setattr(gains, "SEEDS", (0, 1))
        gains.ensemble(data, folder / "runs", 2)
        patch.setattr(gains, "SEEDS", (0,))
        gains.init(data, folder / "runs", 2)
    return data, folder


def test_both_studies_leave_records(world: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANATOLAB_RECORDS", str(world[1] / "records"))
    (one,) = records.load("gains-ensemble")
    assert one.values.keys() == {"one", "averaged", "ensemble", "both"}
    assert one.values["one"]["gain"] == 0
    starts = records.load("gains-init")
    assert [record.seed for record in starts] == [0]
    assert starts[0].config["start"]["method"] == "supervised"
    for row in (
        *one.values.values(),
        *(starts[0].values[k][s] for k in ("few", "many") for s in ("nothing", "hearts")),
    ):
        assert row["per_patient"]["gain"].keys() == row["per_patient"]["dice"].keys()
    assert "patient0" not in str([one.config, starts[0].config])


def test_what_is_measured_is_what_predict_writes(world: tuple[Path, Path], tmp_path: Path) -> None:
    data, folder = world
    runs = [folder / "runs" / f"flips-u2-seed{seed}" for seed in (0, 1)]
    flags = [flag for run in runs for flag in ("--run", str(run))]
    out = ["--out", str(tmp_path / "out"), "--on", "validation", "--average", "--accelerator", "cpu"]
    assert main(["predict", *flags, "--data", str(data), *out]) == 0
    measured = gains.measured(runs, data, average=True)
    info = open_run(runs[0])[1]
    dice = []
    for ref in open_cohort(data).of(info.split.validation):
        case = ref.load()
        written = np.asarray(nib.load(tmp_path / "out" / f"{ref.name}.nii.gz").dataobj).transpose(2, 1, 0)
        assert case.label is not None
        values = evaluate_volume(written.astype(np.uint8), case.label, info.classes, case.spacing)
        dice.append(np.mean([row["dice"] for row in values.values()]))
    assert measured["dice"]["mean"] == pytest.approx(np.mean(dice), abs=1e-9)
    assert measured["cpu_s"] > 0


def test_a_gain_is_the_mean_difference_of_patients() -> None:
    new, old = ({"per_patient": {"dice": dict(zip("abc", dice, strict=True))}} for dice in ((9, 7, 8), (8, 7, 6)))
    assert gains.against(new, old)["gain"] == 1
    assert gains.against(new, old)["per_patient"]["gain"] == {"a": 1, "b": 0, "c": 2}
    assert gains.mean_of([{"a": {"b": 1.0}}, {"a": {"b": 3.0}}]) == {"a": {"b": 2.0}}


def test_a_missing_folder_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANATOLAB_DATA", raising=False)
    with pytest.raises(gains.InputError, match="ANATOLAB_DATA is not set"):
        gains.main(["ensemble"])


def test_records_of_the_book_have_the_budgets_that_the_page_names() -> None:
    text = (Path(__file__).resolve().parents[1] / "book" / "tool.md").read_text(encoding="utf-8")
    assert f"for {gains.UPDATES:,} updates" in text
    assert f"nothing, {gains.FEW}" in text
    assert f"trained on {gains.HEARTS} generated hearts" in text
    for name in ("gains-ensemble", "gains-init"):
        for record in records.load(name) if records.exists(name) else []:
            assert record.config["updates"] == [gains.FEW, gains.UPDATES]
            assert record.config["labeled_patients"] == gains.LABELED
