"""What the tool that records the methods shares between runs changes none of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from anatolab.robust import Cfr, ErmProjection, Sgd
from anatolab.robust._fit import train_projection
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


def test_all_rules_along_one_training_keep_what_each_keeps_along_its_own(small) -> None:
    every = robust.AllRules(small.val)
    train_projection(small.start, small.train.h, small.train.y, SHORT, every, small.generator())
    kept = set()
    for rule, best in every.rules.items():
        head = small.start.head()
        best.restore(head)
        alone = small.fit(ErmProjection(small.start, ErmProjection.Config(SHORT, rule)))
        assert torch.equal(head.projection.weight, alone.projection.weight)
        kept.add(best.epoch)
    assert len(kept) > 1  # else the rules agree, and this shows nothing


def test_no_key_of_a_cell_has_a_dot_which_separates_the_parts_of_a_key() -> None:
    names = [n for part, cells in robust.SETTINGS.items() for n in (part, *cells)] + list(robust.WHY)
    assert not [n for n in names if "." in n]


def test_a_small_model_is_read_from_any_folder(tmp_path: Path) -> None:
    for file in WEIGHTS.glob("scenes-vit.*"):
        shutil.copy(file, tmp_path)
    assert load_small("scenes-vit", tmp_path).sha256 == load_small("scenes-vit").sha256
