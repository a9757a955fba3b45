"""What the tool that records the methods shares between runs changes none of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from anatolab.robust import METHODS, Cfr, ErmProjection, Sgd
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
    assert set(counts.values()) == {3}
    assert set(robust.FEW) <= set(robust.RUNS)


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
