"""Intervals, sign-flip tests, comparisons and verdicts: known values and properties."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import anatolab.metrics.intervals as intervals
from anatolab.metrics import (
    Claim,
    Comparison,
    bootstrap_interval,
    compare,
    seed_spread,
    sign_flip_test,
    verdict,
)
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


def test_the_interval_of_a_comparison_is_that_of_the_differences():
    a, b = {"x": 0.9, "y": 0.7, "z": 0.4}, {"z": 0.3, "y": 0.7, "x": 0.5}
    np.testing.assert_allclose(compare({0: a}, {0: b}).interval, bootstrap_interval([0.4, 0.0, 0.1]))
    with pytest.raises(InputError, match="'w'"):
        compare({0: a}, {0: b | {"w": 0.1}})


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


# comparisons


def test_seed_spread_by_hand():
    assert seed_spread({0: 0.8, 1: 0.9, 7: 1.0}) == pytest.approx(
        {"mean": 0.9, "std": 0.1, "min": 0.8, "max": 1.0, "seeds": 3}
    )
    assert np.isnan(seed_spread([0.8])["std"])


def runs(effect, n=12, seeds=(0, 1, 2), noise=0.02, key=0):
    rng = np.random.default_rng(key)
    base = rng.uniform(0.6, 0.9, size=n)
    return {s: {f"p{i}": float(base[i] + effect + rng.normal(0, noise)) for i in range(n)} for s in seeds}


def test_compare_averages_seeds_within_a_patient():
    a = {0: {"p": 0.9, "q": 0.5}, 1: {"p": 0.7, "q": 0.5}}
    b = {0: {"q": 0.4, "p": 0.6}, 1: {"p": 0.6, "q": 0.2}}
    result = compare(a, b)
    assert result.difference == pytest.approx(0.2)  # p: 0.2, q: 0.2
    assert result.per_seed == pytest.approx({0: 0.2, 1: 0.2})
    assert (result.patients, result.seeds, result.left_out) == (2, 2, ())
    np.testing.assert_allclose(result.interval, (0.2, 0.2))
    assert result.p_value == 0.5  # 2 patients, not 4 rows: 2 of 4 patterns


def test_seeds_do_not_count_as_patients():
    """The same runs under more seed names leave interval and p as they were."""
    a, b = runs(0.01, seeds=(0,)), runs(0.0, seeds=(0,), key=5)
    many = compare(dict.fromkeys(range(10), a[0]), dict.fromkeys(range(10), b[0]))
    one = compare(a, b)
    np.testing.assert_allclose(many.interval, one.interval, atol=1e-12)
    assert many.p_value == one.p_value


def test_nan_patients_are_left_out_and_named():
    a, b = runs(0.1), runs(0.0)
    b[1]["p3"] = float("nan")
    result = compare(a, b)
    assert (result.patients, result.left_out) == (11, ("p3",))
    without = [{s: {p: v for p, v in r.items() if p != "p3"} for s, r in side.items()} for side in (a, b)]
    assert compare(*without).interval == result.interval


def test_compare_is_antisymmetric():
    a, b = runs(0.03), runs(0.0, key=1)
    ab, ba = compare(a, b), compare(b, a)
    assert ab.difference == -ba.difference
    assert ab.p_value == ba.p_value
    np.testing.assert_allclose(ab.interval, (-ba.interval[1], -ba.interval[0]), atol=1e-12)
    assert ab.per_seed == {s: -d for s, d in ba.per_seed.items()}


def test_bad_runs_are_named():
    a = runs(0.1)
    with pytest.raises(InputError, match="Seeds"):
        compare(a, {0: a[0]})
    with pytest.raises(InputError, match="Seeds"):
        compare({}, {})
    with pytest.raises(InputError, match=r"Run b, seed 1.*p0"):
        compare(a, a | {1: {p: v for p, v in a[1].items() if p != "p0"}})
    with pytest.raises(InputError, match="nothing to compare"):
        compare({0: {"p": float("nan")}}, {0: {"p": 0.5}})


# verdicts


def outcome(low, high, patients=20):
    return Comparison((low + high) / 2, (low, high), 0.01, {0: 0.0}, patients=patients, seeds=1)


@pytest.mark.parametrize(
    ("interval", "size", "tolerance", "word"),
    [
        ((0.01, 0.05), None, 0, "reproduced"),
        ((0.01, 0.05), 0.03, 0, "reproduced"),  # inside
        ((0.01, 0.05), 0.05, 0, "reproduced"),  # the end counts
        ((0.01, 0.05), 0.002, 0, "reproduced"),  # ours is larger
        ((0.01, 0.05), 0.06, 0, "direction only"),
        ((0.01, 0.05), 0.06, 0.02, "reproduced"),
        ((-0.01, 0.05), 0.02, 0, "inconclusive"),
        ((0.0, 0.05), 0.02, 0, "inconclusive"),  # an end on 0 holds 0
        ((-0.05, 0.0), 0.02, 0, "inconclusive"),
        ((-0.01, 0.05), 0.02, 9.0, "inconclusive"),  # tolerance is about size alone
        ((-0.05, -0.01), 0.02, 0, "contradicted"),
        ((-0.05, -0.01), None, 9.0, "contradicted"),
        ((float("nan"), float("nan")), 0.02, 0, "inconclusive"),
    ],
)
def test_verdict_table(interval, size, tolerance, word):
    low, high = interval
    assert verdict(outcome(low, high), Claim("higher", size, tolerance)) == word
    assert verdict(outcome(-high, -low), Claim("lower", size, tolerance)) == word


def test_no_record_is_not_attempted():
    assert verdict(None, Claim("higher", 0.1)) == "not attempted"


def test_five_patients_cannot_decide_at_95_percent():
    assert verdict(outcome(0.01, 0.05, patients=5), Claim("higher")) == "inconclusive"
    assert verdict(outcome(-0.05, -0.01, patients=5), Claim("higher")) == "inconclusive"
    assert verdict(outcome(0.01, 0.05, patients=6), Claim("higher")) == "reproduced"


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted),
    st.none() | st.floats(0, 1),
    st.floats(0, 0.5),
    st.integers(1, 30),
)
def test_verdict_properties(interval, size, tolerance, patients):
    ours = outcome(*interval, patients)
    word = verdict(ours, Claim("higher", size, tolerance))
    mirrored = outcome(-interval[1], -interval[0], patients)
    assert word == verdict(mirrored, Claim("lower", size, tolerance))
    other = verdict(ours, Claim("lower", size, tolerance))
    if word == "inconclusive":
        assert other == "inconclusive"
    else:  # of two opposite claims exactly one is contradicted
        assert [word, other].count("contradicted") == 1
    if word == "reproduced" and size is not None:  # a smaller claim is no harder
        assert verdict(ours, Claim("higher", size / 2, tolerance)) == "reproduced"


def test_verdicts_of_compared_runs():
    better, base = runs(0.05), runs(0.0, key=1)
    base = {s: {p: better[s][p] - 0.05 + 0.01 * ((i % 3) - 1) for i, p in enumerate(better[s])} for s in base}
    ours = compare(better, base)
    words = [verdict(ours, Claim(d, s)) for d, s in (("higher", 0.05), ("higher", 0.3), ("lower", 0.05))]
    assert words == ["reproduced", "direction only", "contradicted"]
    assert verdict(compare(base, better), Claim("lower", 0.05)) == "reproduced"
    assert verdict(compare(base, base), Claim("higher", 0.05)) == "inconclusive"


@pytest.mark.parametrize("fields", [("up",), ("higher", -0.1), ("higher", float("nan")), ("lower", 0.1, -1.0)])
def test_bad_claims_are_refused(fields):
    with pytest.raises(InputError):
        Claim(*fields)
