"""The table of all methods: pairs, adjusted p values and ranks from records, and nothing where there is no record."""

from pathlib import Path

import pytest

from anatolab import records
from anatolab.analysis.harness import between, pairwise, per_patient, ranking
from anatolab.metrics import holm

TOY = {"a": "toy-a", "b": "toy-b", "c": "toy-c", "not there": "toy-d"}


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANATOLAB_RECORDS", str(tmp_path))
    for name, lift in {"toy-a": 0.3, "toy-b": 0.1, "toy-c": 0.0}.items():
        for seed in range(2 if name == "toy-c" else 3):
            dice = {f"p{i}": 0.05 * i + lift + 0.01 * seed for i in range(8)}
            hd95 = {p: None if (name, p) == ("toy-b", "p3") else 9 - v for p, v in dice.items()}
            records.write(records.Record(name, seed, {"per_patient": {"dice": dice, "hd95": hd95}}))


def test_a_pair_is_compared_over_the_seeds_that_both_have() -> None:
    found = between("toy-a", "toy-c")
    assert found is not None
    assert (found.seeds, found.patients, found.difference) == (2, 8, pytest.approx(0.3))
    assert between("toy-a", "toy-d") is None
    assert per_patient("toy-b", "hd95")[0]["p3"] != per_patient("toy-b", "hd95")[0]["p3"]


def test_pairs_leave_out_what_was_not_run_and_adjust_for_the_rest() -> None:
    pairs = pairwise(TOY)
    assert [(p.first, p.second) for p in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [p.adjusted for p in pairs] == holm([p.comparison.p_value for p in pairs]).tolist()
    assert pairs[0].comparison.p_value == 2 / 2**8
    assert pairs[0].adjusted == pytest.approx(3 * 2 / 2**8)


def test_ranks_follow_the_direction_and_leave_out_a_patient_without_a_distance() -> None:
    assert ranking(TOY) is not None
    assert ranking(TOY).ranks == {"a": 1.0, "b": 2.0, "c": 3.0}
    far = ranking(TOY, "hd95", higher=False)
    assert far is not None
    assert (far.units, list(far.ranks)) == (7, ["a", "b", "c"])
    assert ranking({"a": "toy-a", "b": "toy-b", "d": "toy-d"}) is None


def test_nothing_run_gives_no_pair() -> None:
    assert pairwise({"x": "toy-x", "y": "toy-y"}) == []
