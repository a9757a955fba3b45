"""Comparisons over seeds and patients, decisions and scopes: closed forms, published tables, properties."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from anatolab.metrics import Comparison, Control, Decision, Setting, compare, decide, holm, phrase, scope_of
from anatolab.metrics.verdicts import components, crossed_test, exactly, smallest_p
from anatolab.types import InputError

RECORDED = (0.026, 0.022, 0.056)  # standard deviations of seeds, patients, rest; of the records of three labels


def tables(count, seeds, patients, deviations, key=0):
    """Random tables of differences with a mean of 0, ``(count, seeds, patients)``."""
    rng = np.random.default_rng(key)
    shapes = ((count, seeds, 1), (count, 1, patients), (count, seeds, patients))
    return sum(s * rng.normal(size=shape) for s, shape in zip(deviations, shapes, strict=True))


def as_runs(table):
    return {s: {f"p{i}": float(v) for i, v in enumerate(row)} for s, row in enumerate(table)}


def of_differences(table, **more):
    zero = as_runs(np.zeros_like(table))
    return compare(as_runs(table), zero, **more)


# ------------------------------------------------------------------------------------------ one test over both effects
def test_a_single_seed_gives_the_t_test_over_patients_and_a_single_patient_that_over_seeds():
    x = np.random.default_rng(0).normal(0.5, 1, 9)
    peer = stats.ttest_1samp(x, 0)
    low, high = peer.confidence_interval(0.95)
    for table in (x[None], x[:, None]):
        mean, p, half = crossed_test(table)
        assert p == pytest.approx(peer.pvalue, rel=1e-9)
        np.testing.assert_allclose((mean - half, mean + half), (low, high))


def test_the_squared_error_is_that_of_two_bootstraps_in_closed_form():
    """Seeds resampled, and patients resampled, 200,000 times each; the quantile is that of the two t, weighted."""
    table = tables(1, 4, 7, RECORDED)[0]
    rng = np.random.default_rng(1)
    by_seed = table.mean(1)[rng.integers(4, size=(200_000, 4))].mean(1).var() * 4 / 3
    by_patient = table.mean(0)[rng.integers(7, size=(200_000, 7))].mean(1).var() * 7 / 6
    weight = by_seed / (by_seed + by_patient)
    quantile = weight * stats.t.ppf(0.975, 3) + (1 - weight) * stats.t.ppf(0.975, 6)
    assert crossed_test(table)[2] == pytest.approx(quantile * np.sqrt(by_seed + by_patient), rel=0.01)


def test_p_is_the_level_at_which_the_interval_touches_zero():
    for table in tables(5, 3, 8, RECORDED) + 0.05:
        mean, p, _ = crossed_test(table)
        assert crossed_test(table, float(p))[2] == pytest.approx(abs(mean), rel=1e-6)


def test_tables_are_tested_all_at_once_as_one_by_one():
    many = tables(6, 3, 5, RECORDED)
    together = crossed_test(many)
    apart = [crossed_test(t) for t in many]
    np.testing.assert_allclose(np.array(together), np.array(apart).T, rtol=1e-9)


@pytest.mark.parametrize("deviations", [RECORDED, (0.05, 0.0, 0.02), (0.0, 0.04, 0.02), (0.03, 0.03, 0.001)])
@pytest.mark.parametrize(("seeds", "patients"), [(3, 6), (3, 10), (5, 10), (10, 20)])
def test_at_no_difference_at_most_five_percent_are_decided(seeds, patients, deviations):
    """The bound is 5 % and three standard errors of 4,000 draws; at 1 %, as Holm's correction asks, the same."""
    p = crossed_test(tables(4_000, seeds, patients, deviations))[1]
    for level in (0.05, 0.01):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / 4_000)


def test_it_sees_five_points_in_the_records_spread_more_often_with_more_seeds():
    power = [(crossed_test(tables(2_000, s, 10, RECORDED) + 0.05)[1] <= 0.05).mean() for s in (3, 5, 10)]
    assert power == sorted(power)
    assert power[0] > 0.2
    assert power[-1] > 0.85


def test_equal_units_have_no_width():
    mean, p, half = crossed_test(np.full((3, 4), 0.1))
    assert (float(mean), float(half)) == (pytest.approx(0.1), pytest.approx(0.0, abs=1e-15))
    assert p == smallest_p(3, 4)
    assert crossed_test(np.zeros((3, 4)))[1] == 1
    one = crossed_test(np.ones((1, 1)))
    assert one[1] == 1
    assert np.isnan(one[2])


def test_the_smallest_p_is_twice_the_chance_of_the_most_extreme_resample():
    """Three draws have 27 ordered resamples, of which one is the largest value three times."""
    assert smallest_p(1, 3) == smallest_p(3, 1) == pytest.approx(2 / 27)
    assert smallest_p(3, 2) == pytest.approx(2 / 27 / 4)
    assert smallest_p(1, 1) == smallest_p(1, 2) * 2 == 1


def test_components_are_those_that_the_tables_were_drawn_with():
    estimates = [components(t) for t in tables(400, 6, 12, RECORDED)]
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(estimates), axis=0)), RECORDED, rtol=0.12)


# ------------------------------------------------------------------------------------------------------- comparisons
def runs(effect, n=12, seeds=(0, 1, 2), noise=0.02, key=0):
    rng = np.random.default_rng(key)
    base = rng.uniform(0.6, 0.9, size=n)
    return {s: {f"p{i}": float(base[i] + effect + rng.normal(0, noise)) for i in range(n)} for s in seeds}


def test_compare_by_hand():
    a = {0: {"p": 0.9, "q": 0.5}, 1: {"p": 0.7, "q": 0.5}}
    b = {0: {"q": 0.4, "p": 0.6}, 1: {"p": 0.6, "q": 0.2}}
    result = compare(a, b)
    assert result.difference == pytest.approx(0.2)
    assert result.per_seed == pytest.approx({0: 0.2, 1: 0.2})
    assert (result.patients, result.seeds, result.left_out) == (2, 2, ())


def test_a_seed_that_is_copied_is_no_second_seed_to_the_reader_but_seeds_that_differ_widen_the_interval():
    a, b = runs(0.03, noise=0.0), runs(0.0, noise=0.0)
    shaken = {s: {p: v + (0, 0.04, -0.04)[s] for p, v in run.items()} for s, run in a.items()}
    width = [np.diff(compare(side, b).interval)[0] for side in (a, shaken)]
    assert width[0] == pytest.approx(0, abs=1e-12)
    assert width[1] == pytest.approx(2 * stats.t.ppf(0.975, 2) * 0.04 / np.sqrt(3))


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
    with pytest.raises(InputError, match="level"):
        compare(a, a, level=95)


def test_a_side_at_its_floor_or_ceiling_in_every_unit_is_noticed():
    a, floor = runs(0.0), as_runs(np.zeros((3, 12)))
    assert compare(a, floor, limits=(0, 1)).saturated
    assert compare(as_runs(np.full((3, 12), 0.998)), a, limits=(0, 1)).saturated
    assert not compare(a, floor).saturated
    floor[1]["p4"] = 0.1
    assert not compare(a, floor, limits=(0, np.inf)).saturated


# --------------------------------------------------------------------------------------------------------- decisions
FAR = Comparison(0.03, (0.01, 0.05), 0.004, {}, patients=20, seeds=3)


def words(*claims):
    return [d.outcome for d in decide(claims)]


@pytest.mark.parametrize(
    ("changes", "word", "reason"),
    [
        ({}, "agrees", ""),
        ({"interval": (-0.01, 0.07), "p_value": 0.2}, "undecided", ""),
        ({"interval": (0.0, 0.07), "p_value": 0.05}, "undecided", ""),  # an end on 0 holds 0
        ({"difference": -0.03, "interval": (-0.05, -0.01)}, "opposite", ""),
        ({"seeds": 1}, "undecided", "one seed"),
        ({"seeds": 2}, "undecided", "two seeds"),
        ({"saturated": True}, "no power", "at a floor or a ceiling"),
        ({"smallest_p": 0.074, "p_value": 0.074}, "no power", "too few units"),
        ({"seeds": 1, "sampled": False}, "agrees", ""),
        ({"seeds": 1, "sampled": False, "difference": 0.0}, "opposite", ""),
    ],
)
def test_decisions_by_the_rule_and_their_mirror_image(changes, word, reason):
    given = replace(FAR, **changes)
    (low, high) = given.interval
    mirrored = replace(given, difference=-given.difference, interval=(-high, -low))
    for comparison, direction in ((given, "higher"), (mirrored, "lower")):
        (made,) = decide([(comparison, direction)])
        assert (made.outcome, made.reason) == (word, reason)


def test_holm_counts_every_sampled_claim_of_the_paper_also_those_that_were_not_run():
    assert decide([(FAR, "higher")])[0].adjusted == pytest.approx(0.004)
    eleven = [(FAR, "higher"), *[(None, "higher")] * 10]
    assert decide(eleven)[0].adjusted == pytest.approx(0.044)
    assert words((FAR, "higher"), *[(None, "higher")] * 11)[0] == "agrees"
    assert words((FAR, "higher"), *[(None, "higher")] * 12)[0] == "undecided"
    exact = (exactly(-1.0), "lower")
    assert decide([(FAR, "higher"), *[exact] * 40])[0].adjusted == pytest.approx(0.004)  # mathematics is not sampled


def test_what_the_correction_makes_unattainable_is_no_power_and_not_undecided():
    close = replace(FAR, smallest_p=0.01, p_value=0.01)
    assert words(*[(close, "higher")] * 2) == ["agrees"] * 2
    other = replace(FAR, p_value=0.5, interval=(-0.1, 0.1))
    assert words((close, "higher"), *[(other, "higher")] * 5)[0] == "no power"  # 6 x .01


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(1e-4, 1), st.booleans()), min_size=1, max_size=8))
def test_decisions_follow_holm_and_turn_with_the_claim(given):
    claims = [(replace(FAR, p_value=p), "higher" if up else "lower") for p, up in given]
    turned = [(c, {"higher": "lower", "lower": "higher"}[d]) for c, d in claims]
    swap = {"agrees": "opposite", "opposite": "agrees"}
    assert [swap.get(w, w) for w in words(*claims)] == words(*turned)
    decided = [w in swap for w in words(*claims)]
    assert decided == (holm([p for p, _ in given]) <= 0.05).tolist()


def test_a_direction_that_is_none_is_refused():
    with pytest.raises(InputError, match="not 'up'"):
        decide([(FAR, "up")])


# ------------------------------------------------------------------------------------------------------------ scopes
PRINTED = Setting("acdc", 3, side=256, updates=30_000, network="basic_unet", profile="paper")
FAITHFUL = Control(all_labels=0.90, printed_all=0.915, supervised=0.50, printed_supervised=0.517)


@pytest.mark.parametrize(
    ("run", "control", "scope"),
    [
        ({}, {}, "own setting"),
        ({"data": "generated hearts"}, {}, "stand-in data"),
        ({"updates": 60_000}, {}, "own setting"),
        ({"labeled": 7}, {}, "reduced"),
        ({"side": 96}, {}, "reduced"),
        ({"updates": 5_000}, {}, "reduced"),
        ({"network": "stem_unet"}, {}, "reduced"),
        ({"profile": "recommended"}, {}, "reduced"),
        ({}, {"all_labels": 0.742}, "reduced"),  # a ceiling that is 17 points too low
        ({}, {"supervised": 0.46}, "reduced"),
        ({}, {"all_labels": 0.742, "supervised": 0.79}, "reduced"),  # a low ceiling over a strong base
        ({}, {"all_labels": None, "supervised": 0.79}, "stronger base"),
        ({}, {"supervised": 0.79}, "stronger base"),
        ({"side": 96}, {"supervised": 0.79}, "stronger base"),
        ({}, {"all_labels": 0.97}, "stronger base"),
        ({}, {"all_labels": None}, "reduced"),  # the control was not run
        ({}, {"printed_all": None}, "reduced"),  # what is printed is not known
    ],
)
def test_scopes(run, control, scope):
    assert scope_of(PRINTED, replace(PRINTED, **run), replace(FAITHFUL, **control)) == scope


def test_without_a_control_nothing_is_the_claims_own_setting():
    assert scope_of(PRINTED, PRINTED) == "reduced"


def test_only_the_own_setting_and_mathematics_make_the_two_strong_words():
    strong = {"reproduced", "contradicted"}
    for scope in ("own setting", "stronger base", "reduced", "stand-in data", "mathematics"):
        said = {phrase(Decision(o, 0.01), scope) for o in ("agrees", "opposite")}
        assert (said == strong) == (scope in ("own setting", "mathematics"))
        for outcome in ("undecided", "no power", "not run"):
            assert phrase(Decision(outcome, 1.0), scope) == outcome
    assert phrase(Decision("opposite", 0.01), "stand-in data") == "opposite on stand-in data"
    assert phrase(Decision("agrees", 0.01), "reduced") == "agrees at reduced scope"
