"""The table of performance contracts: every script has a row, and every row that is not met says why or fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import script

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
targets = script("benchmarks/targets.py")
STEPS: dict[str, Any] = {
    "rows": [
        {"case": "2d-4", "method": "arco", "part": "overhead", "ratio": 0.4, "floor": 0.6},
        {"case": "2d-14", "method": "mona", "part": "overhead", "ratio": 0.7, "floor": 0.6},
        {"case": "2d-14", "method": "morse", "part": "overhead", "ratio": 9.0, "floor": None},  # without a limit
        {"case": "3d-4", "method": "arco", "part": "overhead", "ratio": 0.5, "floor": 0.6},
        {"case": "2d-4", "method": "arco", "part": "over mean teacher", "ratio": 0.3, "floor": 0.4},
    ]
}


def test_every_script_has_a_contract_and_every_contract_its_script() -> None:
    scripts = {path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py")}
    assert {c.script for c in targets.CONTRACTS} == {*scripts, targets.TESTED}


@pytest.mark.parametrize(
    ("ends", "words", "met"),
    [
        ([(0.86, 540.0), (0.85, 480.0)], "8.5 min", True),
        ([(0.86, 540.0), (0.85, 720.0)], "10.5 min", False),  # the mean alone would hide a seed
        ([(0.86, 540.0), (0.84, None)], "0.860 after 11.0 min, 0.840 after 11.0 min", False),
    ],
)
def test_the_time_to_a_dice_is_judged_by_its_slowest_seed(ends: Any, words: str, met: bool) -> None:
    runs = [{"dice": d, "reached_s": s, "curve": {"cpu_s": [60.0, 660.0]}} for d, s in ends]
    assert targets.reached({"runs": runs}) == (words, met)


@pytest.mark.parametrize(
    ("read", "words", "met"),
    [
        (targets.largest("overhead", "2d"), "1.70 (mona, 2d-14; largest of 2)", False),
        (targets.largest("overhead", "3d"), "1.50 (arco, 3d-4; largest of 1)", True),
        (targets.largest("loader"), "-", None),
        (targets.each("over mean teacher"), "arco 1.30", True),
        (targets.first("method", "mo", least=0.7), "0.70", True),
        (targets.first("method", "mo", most=0.6), "0.70", False),
        (targets.first("method", "mo"), "0.70", None),
        (targets.extreme(max, "ratio", "method", most=0.4, case="2d-4"), "0.40 (arco)", True),
        (targets.extreme(min, "ratio", "method", least=0.4), "0.30 (arco)", False),
    ],
)
def test_a_report_is_read_as_value_and_verdict(read: Any, words: str, met: bool | None) -> None:
    assert read(STEPS) == (words, met)


@pytest.mark.parametrize(("status", "seconds", "met"), [(0, 990, True), (0, 1_010, False), (1, 990, False)])
def test_the_time_of_the_tests_counts_where_they_passed(status: int, seconds: int, met: bool) -> None:
    assert targets.tested({"status": status, "seconds": seconds}) == (f"{seconds:,} s", met)


def test_a_row_is_met_missed_reported_or_not_measured() -> None:
    contract = targets.Contract("step", "networks", "<= 1.6", "step", targets.largest("overhead", "2d"), reason="why")
    met = replace(contract, read=targets.largest("overhead", "3d"))
    contracts = (
        contract,
        met,
        replace(contract, reason=""),
        replace(contract, needs="no_such_package"),
        replace(contract, script="other"),
        replace(contract, script="released", read=targets.first("method", "ReCo")),
        replace(contract, script="broken"),
    )
    rows = list(targets.judged(contracts, {"step": STEPS, "broken": None, "released": {"rows": []}}))
    assert [(row.verdict, row.reason) for row in rows] == [
        ("missed", "why"),
        ("met", ""),
        ("missed", ""),
        ("not measured", targets.NOT_INSTALLED),
        ("not measured", "left out of this run"),
        ("not measured", targets.ABSENT["released"]),
        ("missed", ""),
    ]
