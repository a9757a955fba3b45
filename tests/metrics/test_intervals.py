"""Intervals, sign-flip tests and spreads: known values and properties."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import anatolab.metrics.intervals as intervals
from anatolab.metrics import bootstrap_interval, seed_spread, sign_flip_test
from anatolab.types import InputError


def slow_sign_flip(d):
    """The reference: every pattern of signs laid out."""
    sums = np.array([np.dot(s, d) for s in itertools.product((-1, 1), repeat=len(d))])
    return float((np.abs(sums) >= abs(np.sum(d)) - 1e-12).mean())


# intervals


def test_interval_equal_to_scipy_bca():
    """On the same kind of data scipy's BCa agrees up to resampling noise, which is small at 50,000 draws."""
    x = -np.random.default_rng(1).exponential(size=25)
    peer = stats.bootstrap((x,), np.mean, n_resamples=50_000, method="BCa", rng=np.random.default_rng(0))
    ours = bootstrap_interval(x, draws=50_000)
    np.testing.assert_allclose(ours, peer.confidence_interval, atol=0.02 * x.std())


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_coverage_on_normal_data(level):
    """Of 400 intervals from 40 normal units, about 1.5 % fewer than promised cover; the band is 4 standard errors."""
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(400):
        low, high = bootstrap_interval(rng.normal(size=40), level, seed=trial, draws=600)
        hits += low <= 0 <= high
    expected = level - 0.015
    assert abs(hits / 400 - expected) <= 4 * np.sqrt(expected * (1 - expected) / 400)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-20, 20).map(lambda k: k / 20), min_size=2, max_size=20), st.floats(-2, 2, width=16))
def test_interval_mirrors_shifts_and_scales(values, shift):
    x = np.array(values)
    low, high = bootstrap_interval(x, draws=400)
    assert low <= high
    assert x.min() - 1e-9 <= low
    assert high <= x.max() + 1e-9
    np.testing.assert_allclose(bootstrap_interval(-x, draws=400), (-high, -low), atol=1e-7)
    np.testing.assert_allclose(bootstrap_interval(x + shift, draws=400), (low + shift, high + shift), atol=1e-7)
    np.testing.assert_allclose(bootstrap_interval(4 * x, draws=400), (4 * low, 4 * high), atol=1e-7)


def test_interval_is_deterministic_narrows_and_follows_level():
    x = np.random.default_rng(0).normal(size=30)
    assert bootstrap_interval(x, seed=3) == bootstrap_interval(x, seed=3) != bootstrap_interval(x, seed=4)
    widths = [np.diff(bootstrap_interval(x, level))[0] for level in (0.5, 0.8, 0.95, 0.99)]
    assert widths == sorted(widths)
    wide = np.tile(x, 16)
    assert np.diff(bootstrap_interval(wide))[0] == pytest.approx(widths[2] / 4, rel=0.1)


def test_interval_of_one_and_of_equal_units():
    assert np.isnan(bootstrap_interval([0.3])).all()
    assert bootstrap_interval([0.3, 0.3, 0.3]) == (0.3, 0.3)


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [0.1, float("inf")], [[0.1], [0.2]]])
def test_bad_values_are_refused(values):
    for function in (bootstrap_interval, sign_flip_test, seed_spread):
        with pytest.raises(InputError, match="leave out patients"):
            function(values)


def test_bad_level_is_refused():
    with pytest.raises(InputError, match="level"):
        bootstrap_interval([0.1, 0.2], level=95)


# sign-flip test


@pytest.mark.parametrize("n", [1, 2, 5, 12, 20, 31, 40])
def test_all_positive_has_the_smallest_p(n):
    d = np.random.default_rng(n).uniform(0.1, 1, size=n)
    assert sign_flip_test(d) == 2.0 ** (1 - n)
    assert sign_flip_test(-d) == 2.0 ** (1 - n)


def test_known_p_values():
    assert sign_flip_test([1, 2, 3, 4, 5]) == 2 / 32
    assert sign_flip_test([-1, 2, 3]) == 4 / 8  # sums of 6, 4, 2, 0: |4| or more is 4 of 8
    assert sign_flip_test([0, 0, 0]) == 1
    assert sign_flip_test([1, -1]) == 1
    assert sign_flip_test([0.1] * 10) == 2 / 1024
    assert sign_flip_test([0.1, 0.1, -0.1, 0.1]) == 10 / 16  # ties in every order of summation


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(-5, 5) | st.floats(-1, 1).map(lambda v: round(v, 6)), min_size=1, max_size=9))
def test_equal_to_laying_out_every_pattern(values):
    p = sign_flip_test(values)
    assert p == pytest.approx(slow_sign_flip(values), abs=1e-12)
    assert p == sign_flip_test([-v for v in values])
    assert p == sign_flip_test(values[::-1])
    assert 0 < p <= 1


def test_monte_carlo_agrees_and_is_never_zero(monkeypatch):
    d = np.random.default_rng(0).normal(0.4, 1, size=30)
    exact = sign_flip_test(d)
    monkeypatch.setattr(intervals, "_EXACT_UP_TO", 0)
    drawn = sign_flip_test(d, draws=20_000)
    assert abs(drawn - exact) <= 4 * np.sqrt(exact * (1 - exact) / 20_000)
    assert sign_flip_test(np.ones(60), draws=999) == 1 / 1000


def test_p_is_uniform_under_the_null():
    rng = np.random.default_rng(0)
    p = [sign_flip_test(rng.normal(size=15)) for _ in range(400)]
    assert stats.kstest(p, "uniform").pvalue > 0.001


# spread


def test_seed_spread_by_hand():
    assert seed_spread({0: 0.8, 1: 0.9, 7: 1.0}) == pytest.approx(
        {"mean": 0.9, "std": 0.1, "min": 0.8, "max": 1.0, "seeds": 3}
    )
    assert np.isnan(seed_spread([0.8])["std"])
