"""Holm's correction, Friedman ranks and Nemenyi's critical difference: published values and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anatolab.metrics import Ranking, holm, rank_methods
from anatolab.types import InputError


def slow_holm(p):
    """The reference: reject one hypothesis after another; the smallest level at which each falls."""
    adjusted = {}
    for level in np.linspace(0, 1, 2001):
        order = sorted(range(len(p)), key=lambda i: p[i])
        for step, i in enumerate(order):
            if p[i] > level / (len(p) - step):
                break
            adjusted.setdefault(i, level)
    return [adjusted.get(i, 1.0) for i in range(len(p))]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1, width=16), min_size=1, max_size=6))
def test_holm_equals_rejecting_one_after_another(p):
    np.testing.assert_allclose(holm(p), slow_holm(p), atol=6e-4)


def test_holm_keeps_the_order_and_is_between_p_and_bonferroni():
    p = np.random.default_rng(0).random(20) ** 3
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, 20 * p)).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_critical_difference_is_that_of_the_published_table():
    """Demsar's table 5a: q at 95 % is 2.343 for two to 2.569 for four and 3.102 for nine classifiers."""
    for methods, q in ((3, 2.343), (4, 2.569), (9, 3.102)):
        values = {f"m{i}": {f"p{j}": float((i * j) % 7) for j in range(14)} for i in range(methods)}
        expected = q * np.sqrt(methods * (methods + 1) / (6 * 14))
        assert rank_methods(values).critical_difference == pytest.approx(expected, abs=1e-3 * expected)


def test_ranks_by_hand_with_a_tie_and_either_direction():
    values = {"a": {"x": 3.0, "y": 2.0}, "b": {"x": 2.0, "y": 2.0}, "c": {"x": 1.0, "y": 1.0}}
    assert rank_methods(values).ranks == {"a": 1.25, "b": 1.75, "c": 3.0}
    assert rank_methods(values, higher=False).ranks == {"c": 1.0, "b": 2.25, "a": 2.75}


def test_the_friedman_test_is_scipys_and_methods_that_are_equal_are_never_told_apart():
    table = np.random.default_rng(1).random((10, 4))
    values = {f"m{i}": {f"p{j}": table[j, i] for j in range(10)} for i in range(4)}
    assert rank_methods(values).p_value == pytest.approx(stats.friedmanchisquare(*table.T).pvalue)
    same = dict.fromkeys("abc", values["m0"])
    assert rank_methods(same).p_value == 1.0
    assert rank_methods(same).groups() == [("a", "b", "c")]


def test_only_the_largest_groups_are_named():
    ranking = Ranking({"a": 1.0, "b": 1.5, "c": 2.0, "d": 4.0}, 0.001, 1.2, 20)
    assert ranking.groups() == [("a", "b", "c")]


@pytest.mark.parametrize(
    "values",
    [
        {"a": {"x": 1.0, "y": 2.0}, "b": {"x": 1.0, "y": 2.0}},
        {m: {"x": 1.0} for m in "abc"},
        {"a": {"x": 1.0, "y": 2.0}, "b": {"x": 1.0, "z": 2.0}, "c": {"x": 1.0, "y": 2.0}},
        {m: {"x": 1.0, "y": float("nan")} for m in "abc"},
    ],
)
def test_what_cannot_be_ranked_is_refused(values):
    with pytest.raises(InputError):
        rank_methods(values)


def test_what_is_no_probability_is_refused():
    with pytest.raises(InputError):
        holm([0.5, 1.5])
