"""The generated task shows what it is for, on the shipped weights: loose gates, with everything at its defaults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from anatolab.data.phantoms import counterfactual_scenes
from anatolab.metrics import counterfactual_scores
from anatolab.robust import Cfr, Dfr, ErmProjection, Head, Sgd, ZeroShot, calibration_set


@pytest.fixture(scope="module")
def fitted(full) -> dict[str, Head]:
    methods = {
        "zero-shot": ZeroShot(full.start),
        "erm": ErmProjection(full.start),
        "dfr": Dfr(full.start),
        "cfr": Cfr(full.start),
    }
    return {name: full.fit(method) for name, method in methods.items()}


@pytest.fixture(scope="module")
def scores(full, fitted) -> dict[str, dict[str, Any]]:
    return {name: full.score(head) for name, head in fitted.items()}


@pytest.fixture(scope="module")
def reliance(full, fitted) -> dict[str, float]:
    sets = counterfactual_scenes(100)
    h = full.clip.trunk(full.clip.preprocess(sets.images.reshape(-1, *sets.images.shape[3:])))

    def margin(head: Head) -> Tensor:
        with torch.no_grad():
            logits = head.logits(h)
        return (logits[:, 1] - logits[:, 0]).reshape(-1, 2, 2)

    return {name: counterfactual_scores(margin(head).numpy())["srr"] for name, head in fitted.items()}


def test_zero_shot_is_right_on_average_and_wrong_in_its_worst_group(scores) -> None:
    assert scores["zero-shot"]["worst"] <= 0.6
    assert scores["zero-shot"]["train_weighted"] >= 0.9


def test_dfr_shows_that_the_features_hold_the_object(scores) -> None:
    assert scores["dfr"]["worst"] >= 0.8


def test_cfr_lifts_the_worst_group_over_erm_without_any_group_label(full, scores) -> None:
    assert "group" not in Cfr(full.start).sees_in_selection
    assert scores["cfr"]["worst"] >= scores["erm"]["worst"] + 0.15


def test_cfr_relies_less_on_the_background_than_erm(reliance) -> None:
    assert reliance["cfr"] < reliance["erm"]
    assert reliance["erm"] > 0.2


@pytest.mark.parametrize("negative", ["nearest", "same_class_as_released"])
def test_without_ordinary_cross_entropy_the_classifier_turns_over_and_epoch_0_is_kept(full, negative: str) -> None:
    """The cosine form in place of cross-entropy: the majority falls to nothing, which selection must not take."""
    config = Cfr.Config(
        reference="zero_shot", holistic="cosine", negative=negative, sgd=Sgd(epochs=3, lr=1e-3), select="last"
    )
    assert full.score(full.fit(Cfr(full.start, config)))["train_weighted"] < 0.5
    method = Cfr(full.start, replace(config, select="val_worst_class"))
    full.fit(method)
    assert method.best.epoch == 0


def test_errors_of_erm_are_mostly_of_the_minority_groups_though_these_are_a_twentieth_of_the_rows(full, fitted) -> None:
    errors = calibration_set(fitted["erm"], full.train.h, full.train.y).anchors
    group = full.train.groups[errors]
    minority = ((group == 1) | (group == 2)).double().mean().item()
    assert minority > 0.5
    assert full.counts[[1, 2]].sum() / full.counts.sum() == pytest.approx(0.05, abs=0.001)
