"""What the tool that records the methods shares between runs changes none of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from anatolab.robust import METHODS, Cfr, ErmProjection, FeatureSet, Sgd
from anatolab.robust.clip import WEIGHTS, load_small
from tests.scripts import script

robust = script("studies/robust.py")

SHORT = Sgd(epochs=3, batch=64)
pytestmark = pytest.mark.filterwarnings("ignore:CFR. the calibration set")


def test_cfr_on_a_reference_that_is_there_ends_where_it_would_with_its_own(small) -> None:
    config = Cfr.Config(erm=SHORT, sgd=Sgd(epochs=2, batch=64, lr=1e-3), select="last")
    generator = small.generator()
    erm = ErmProjection(small.start, ErmProjection.Config(SHORT)).fit(small.train.h, small.train.y, generator=generator)
    shared = small.fit(robust.OnReference(small.start, config, erm, generator.get_state()))
    assert torch.equal(shared.projection.weight, small.fit(Cfr(small.start, config)).projection.weight)


def test_no_key_of_a_cell_has_a_dot_which_separates_the_parts_of_a_key() -> None:
    names = [n for part, cells in robust.SETTINGS.items() for n in (part, *cells)]
    assert not [n for n in names if "." in n]


def test_every_run_but_zero_shot_chooses_among_equally_many_settings() -> None:
    counts = {run: len(METHODS[name].settings) for run, (name, _) in robust.RUNS.items()}
    assert counts.pop("zero_shot") == 1
    assert counts.pop("dfr") == 1  # it chooses in its fit
    assert len(METHODS["dfr"].settings[0].strengths) == 3
    assert set(counts.values()) == {3}
    assert set(robust.FEW) <= set(robust.RUNS)


def test_no_method_is_chosen_on_rows_that_it_was_fitted_on() -> None:
    fitted_on_validation = {n for n, entry in METHODS.items() if getattr(entry.settings[0], "on", "") == "validation"}
    assert fitted_on_validation == {"dfr"}
    assert all(len(METHODS[name].settings) == 1 for name in fitted_on_validation)


def test_settings_of_a_method_differ_and_begin_with_those_that_it_takes_by_default() -> None:
    for name, entry in METHODS.items():
        assert len({str(config) for config in entry.settings}) == len(entry.settings), name
    for name in ("erm", "wise_ft", "jtt", "afr", "cnc", "adapter", "cfr", "groupdro"):
        assert METHODS[name].settings[0] == METHODS[name].method.Config(), name


def test_the_run_without_the_term_differs_from_cfr_by_the_weight_of_the_term_alone(small, monkeypatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(robust, "measured", lambda task, method, reliance: made.append(method.config) or {})

    class Fake:
        def made(self, run: str, config: Any) -> Any:
            return METHODS["cfr"].make(small.start, config, robust.RUNS[run][1])

    for run in ("cfr", robust.TERM_REMOVED):
        robust.one(Fake(), run, {"cfr": 2}, reliance=False)
    with_term, without = (vars(config) for config in made)
    assert {k for k in with_term if with_term[k] != without[k]} == {"cal_weight"}
    assert without["cal_weight"] == 0


def test_aligned_validation_rows_are_nineteen_to_one() -> None:
    groups = torch.repeat_interleave(torch.arange(4), torch.tensor([95, 95, 38, 38]))
    rows = robust.aligned_part(FeatureSet(torch.randn(len(groups), 2), groups // 2, groups))
    assert torch.bincount(rows.groups).tolist() == [95, 5, 2, 38]


def test_reported_draws_are_none_of_those_that_settings_are_chosen_on() -> None:
    text = Path(robust.__file__).read_text(encoding="utf-8")
    assert '[100, 101] if args.what == "choose" else list(range(10, 20))' in text


def test_runs_named_free_of_groups_see_none() -> None:
    for run, (name, select) in robust.RUNS.items():
        sees = METHODS[name].sees(select, choosing=True)
        if run.endswith("_no_groups"):
            assert sees == {"training": ("y",), "selection": ("y",)}
    assert METHODS["cfr"].sees("val_worst_group")["selection"] == ("y", "group")
    assert METHODS["erm"].sees(choosing=True)["selection"] == ("y",)
    assert METHODS["erm"].sees()["selection"] == ()


def test_a_small_model_is_read_from_any_folder(tmp_path: Path) -> None:
    for file in WEIGHTS.glob("scenes-vit.*"):
        shutil.copy(file, tmp_path)
    assert load_small("scenes-vit", tmp_path).sha256 == load_small("scenes-vit").sha256
