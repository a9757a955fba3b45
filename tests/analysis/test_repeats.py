"""A/A: disjoint groups, a rate by hand, and that a rule which is too eager is caught."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from anatolab import records
from anatolab.analysis.repeats import Rate, is_too_high, recorded_rows, repeat_rate, total, triples
from anatolab.types import InputError


def runs(seeds: int, between: float = 0.03, key: int = 0) -> dict[int, dict[str, float]]:
    rng = np.random.default_rng(key)
    table = 0.7 + between * rng.normal(size=(seeds, 1)) + 0.05 * rng.normal(size=(seeds, 8))
    return {s: {f"p{i}": float(v) for i, v in enumerate(row)} for s, row in enumerate(table)}


def test_groups_of_a_pair_are_disjoint_and_pairs_of_a_partition_share_no_seed() -> None:
    pairs = triples(list(range(20)), 9)
    assert all(not set(a) & set(b) for a, b in pairs)
    for start in (0, 3, 6):
        used = [s for pair in pairs[start : start + 3] for group in pair for s in group]
        assert len(used) == len(set(used)) == 18
    assert pairs == triples(list(range(20)), 9) != triples(list(range(20)), 9, seed=1)
    with pytest.raises(InputError, match="5 seeds"):
        triples(list(range(5)), 1)


def test_the_interval_is_that_of_scipy() -> None:
    for k, n in ((0, 40), (3, 120), (40, 40)):
        peer = stats.binomtest(k, n).proportion_ci(method="exact")
        assert Rate(k, n).interval == pytest.approx((peer.low, peer.high))


def test_one_method_is_seldom_told_from_itself_and_two_methods_are() -> None:
    rate = repeat_rate(runs(20), 120)
    assert rate.pairs == 120
    assert not is_too_high(rate)
    low, high = runs(3, 0.002), runs(3, 0.002, key=1)
    two = low | {s + 3: {p: x - 0.3 for p, x in v.items()} for s, v in high.items()}
    apart = [pair for pair in triples(list(range(6)), 60) if {*pair[0]} in ({0, 1, 2}, {3, 4, 5})]
    assert apart, "the groups that differ are among the pairs"
    assert repeat_rate(two, 60).decided >= len(apart)


def test_pairs_at_the_floor_do_not_count() -> None:
    lost = {s: dict.fromkeys("abcdefgh", 0.0) for s in range(8)}
    assert repeat_rate(lost, 10) == Rate(0, 0)
    assert not is_too_high(Rate(0, 0))


def test_a_rate_of_a_third_stops_the_build_and_one_of_a_twentieth_does_not() -> None:
    assert is_too_high(Rate(18, 50))
    assert not is_too_high(Rate(6, 120))
    assert total({"a": Rate(1, 10), "b": Rate(2, 30)}) == Rate(3, 40)


def test_rows_are_those_with_six_seeds_that_are_not_of_the_earlier_regime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANATOLAB_RECORDS", str(tmp_path))
    (tmp_path / "earlier.json").write_text(json.dumps({"old": "old"}))
    for name, seeds in (("old", 7), ("six", 6), ("five", 5)):
        for s, v in runs(seeds).items():
            records.write(records.Record(name, s, {"per_patient": {"dice": v}}))
    for s in range(6):
        records.write(records.Record("draws", s, {"methods": {}}))
    records.write(records.Record("repeats-toy", 0, {"dice": {str(s): v for s, v in runs(9).items()}}))
    assert {name: len(v) for name, v in recorded_rows().items()} == {"repeats-toy": 9, "six": 6}


def test_the_rule_holds_its_promise_on_everything_that_is_recorded() -> None:
    """The rate of the book: at least 100 pairs, and its lower bound not above 5 %."""
    rates = {name: repeat_rate(values) for name, values in recorded_rows().items()}
    assert total(rates).pairs >= 100
    assert not is_too_high(total(rates))
