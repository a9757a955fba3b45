"""Counterfactual scores: the known 2 x 2 set, models that read one of the two alone, and the interval."""

from __future__ import annotations

import numpy as np
import pytest

from anatolab.metrics import counterfactual_scores
from anatolab.types import InputError


def test_effects_of_the_known_set() -> None:
    scores = counterfactual_scores(np.array([[[-4.0, -1.0], [1.0, 3.0]]] * 3))
    found = [scores[k] for k in ("foreground", "background", "interaction", "srr", "flips")]
    assert found == pytest.approx([4.5, 2.5, -0.5, 0.357143, 0.0], abs=1e-6)
    assert scores["intervals"]["srr"] == pytest.approx((0.357143, 0.357143), abs=1e-6)


def test_a_model_of_the_background_has_srr_1_and_flips_always_one_of_the_foreground_0_and_never() -> None:
    strength = np.random.default_rng(0).uniform(1, 5, (50, 1, 1))
    background = strength * np.array([[-1.0, 1.0], [-1.0, 1.0]])
    one, two = counterfactual_scores(background), counterfactual_scores(background.transpose(0, 2, 1))
    assert (one["srr"], one["flips"], one["foreground"]) == (1.0, 1.0, 0.0)
    assert (two["srr"], two["flips"], two["background"]) == (0.0, 0.0, 0.0)


def test_effects_of_opposite_sign_do_not_cancel_in_the_share() -> None:
    sets = np.array([[[-1.0, 1.0], [-1.0, 1.0]], [[1.0, -1.0], [1.0, -1.0]]])
    scores = counterfactual_scores(sets)
    assert scores["background"] == 0.0
    assert scores["srr"] == 1.0


def test_the_interval_holds_the_score_and_narrows_with_sets() -> None:
    margins = np.random.default_rng(1).normal(size=(400, 2, 2)) + np.array([[-2.0, 0.0], [0.0, 2.0]])
    few, many = (counterfactual_scores(margins[:n]) for n in (40, 400))
    for scores in (few, many):
        low, high = scores["intervals"]["srr"]
        assert low < scores["srr"] < high
    widths = [np.ptp(s["intervals"]["srr"]) for s in (few, many)]
    assert widths[1] == pytest.approx(widths[0] / 10**0.5, rel=0.4)


def test_wrong_shapes_and_values_are_said() -> None:
    with pytest.raises(InputError, match=r"margins \(3, 4\)"):
        counterfactual_scores(np.zeros((3, 4)))
    with pytest.raises(InputError, match="must be finite"):
        counterfactual_scores(np.full((1, 2, 2), np.nan))
