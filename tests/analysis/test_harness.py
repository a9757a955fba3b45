"""The table of all methods: pairs, adjusted p values and ranks from records, and nothing where there is no record."""

from pathlib import Path

import pytest

from anatolab import records
from anatolab.analysis.harness import between, limits_of, pairwise, per_patient, ranking, units
from anatolab.metrics import holm
from anatolab.metrics.verdicts import smallest_p

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
    with pytest.raises(records.RecordError, match="no value"):
        between("toy-a", "toy-c", "nobody")
    assert per_patient("toy-b", "hd95")[0]["p3"] != per_patient("toy-b", "hd95")[0]["p3"]


def test_pairs_leave_out_what_was_not_run_and_adjust_for_the_rest() -> None:
    pairs = pairwise(TOY)
    assert [(p.first, p.second) for p in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [p.adjusted for p in pairs] == holm([p.comparison.p_value for p in pairs]).tolist()
    assert pairs[0].comparison == between("toy-a", "toy-b")
    assert pairs[0].adjusted == pytest.approx(3 * smallest_p(3, 8))  # every unit differs by the same


def test_ranks_follow_the_direction_and_leave_out_a_patient_without_a_distance() -> None:
    assert ranking(TOY) is not None
    assert ranking(TOY).ranks == {"a": 1.0, "b": 2.0, "c": 3.0}
    far = ranking(TOY, "hd95", higher=False)
    assert far is not None
    assert (far.units, list(far.ranks)) == (7, ["a", "b", "c"])
    assert ranking({"a": "toy-a", "b": "toy-b", "d": "toy-d"}) is None


def test_nothing_run_gives_no_pair() -> None:
    assert pairwise({"x": "toy-x", "y": "toy-y"}) == []


def test_a_difference_of_differences_a_constant_and_one_number_a_seed() -> None:
    both = between(("toy-a", "toy-b"), ("toy-b", "toy-c"))
    assert both is not None
    assert both.difference == pytest.approx(0.1)
    constant = between("toy-a", 1.0)
    assert constant is not None
    assert constant.difference == pytest.approx(0.05 * 3.5 + 0.31 - 1)
    for seed in range(3):
        records.write(records.Record("one", seed, {"top": {"worst": 0.3 + 0.1 * seed}}))
    single = between("one", 0.1, "top.worst")
    assert single is not None
    assert (single.seeds, single.patients, single.difference) == (3, 1, pytest.approx(0.3))


def test_units_of_cases_are_averaged_over_the_cases_of_a_patient() -> None:
    cases = {f"p{i}_{t}": {"LV": {"dice": i / 10 + t / 100}, "RV": {"dice": None}} for i in (1, 10) for t in (0, 2)}
    record = records.Record("x", 0, {"per_patient": {"dice": {"p1": 0.0, "p10": 0.0}}, "cases": cases})
    assert units(record, "cases.*.LV.dice") == {"p1": pytest.approx(0.11), "p10": pytest.approx(1.01)}
    assert units(record, "cases.*.LV|RV.dice")["p1"] != units(record, "cases.*.LV|RV.dice")["p1"]
    assert units(record, "cases.*.LV|XX.dice") == units(record, "cases.*.LV.dice")
    assert units(record, "cases.*.RV.dice")["p1"] != units(record, "cases.*.RV.dice")["p1"]  # undefined, not left out
    with pytest.raises(records.RecordError, match="no value 'cases.*.XX.dice'".replace("*", r"\*")):
        units(record, "cases.*.XX.dice")


def test_a_side_that_is_at_its_floor_everywhere_is_noticed_by_the_name_of_the_metric() -> None:
    records.write(records.Record("lost", 0, {"per_patient": {"dice": dict.fromkeys((f"p{i}" for i in range(8)), 0.0)}}))
    compared = between("toy-a", "lost")
    assert compared is not None
    assert compared.saturated
    assert limits_of("methods.cfr.reliance.srr") is None


def test_where_no_patient_has_the_value_in_every_run_there_is_nothing_to_compare() -> None:
    none = dict.fromkeys((f"p{i}" for i in range(8)), None)
    records.write(records.Record("empty", 0, {"per_patient": {"dice": none}}))
    assert between("toy-a", "empty") is None
