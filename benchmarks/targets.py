"""Runs every benchmark and prints a row for each performance contract: what, against which peer, ratio, target.

A contract without a benchmark, or whose peer is not installed, is printed as such. Exits with 1 where a benchmark
misses a target; ``--report`` prints the same and exits with 0. The numbers of each script are written to ``--out``.

    python benchmarks/targets.py [--report] [--quick] [--only sampling] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Report = dict[str, Any]


@dataclass(frozen=True)
class Contract:
    """One performance contract."""

    what: str
    peer: str
    target: str
    script: str | None = None  # bench_<script>.py
    value: Callable[[Report], str] | None = None  # of its report
    needs: str | None = None  # the package of the peer
    note: str = ""


def largest(report: Report, part: str, cases: str = "") -> str:
    """The largest ratio of a part over methods, and whose it is."""
    judged = [r for r in report["rows"] if r["part"] == part and r["floor"] is not None and r["case"].startswith(cases)]
    if not judged:
        return "-"
    worst = max(judged, key=lambda row: row["ratio"])
    return f"{worst['ratio'] + (part == 'overhead'):.2f} ({worst['method']}, {worst['case']})"


def row(report: Report, key: str, name: str, value: str = "ratio") -> str:
    """The ratio of the row whose ``key`` begins with a name."""
    match = next((r for r in report["rows"] if str(r[key]).startswith(name)), None)
    return "-" if match is None else f"{match[value]:.2f}"


NO_RELEASED = "the released files of the peer are not part of this repository"
CONTRACTS = (
    Contract("time to Dice .85, 3 patients of ACDC", "-", "<= 10 CPU min", note="a record of trainings, no benchmark"),
    Contract("one update of BasicUNet at 256", "fp32, memory as it was", ">= 3x, fp32 >= 2x", note="no benchmark yet"),
    Contract("step, 2-D", "its networks", "<= 1.6", "step", lambda r: largest(r, "overhead", "2d")),
    Contract("step, 3-D", "its networks", "<= 1.6", "step", lambda r: largest(r, "overhead", "3d")),
    Contract("loader and augmentation", "a step", "<= 0.3", "step", lambda r: largest(r, "loader")),
    Contract("step of ARCO, MONA", "mean teacher's networks", "<= 1.4, 1.8", note="no benchmark yet"),
    Contract("contrast", "literal form", ">= 10x", "contrast", lambda r: row(r, "part", "anatomical")),
    Contract(
        "the same, equal estimator",
        "literal form",
        "beside it",
        "contrast",
        lambda r: row(r, "part", "equal estimator"),
    ),
    Contract("contrast, end to end", "released ReCo, ARCO", ">= 10x", note=NO_RELEASED),
    Contract(
        "host synchronizations in a step", "-", "0", "contrast", lambda r: str(max(r["synchronizations"].values()))
    ),
    Contract("stratified draw", "naive gather", "<= 3", "sampling", lambda r: row(r, "part", "stratified")),
    Contract("HD95 + ASSD, heart", "medpy", ">= 10x", "surface", lambda r: row(r, "case", "heart"), "medpy"),
    Contract(
        "HD95 + ASSD, worst case", "medpy", "reported", "surface", lambda r: f"{min(x['ratio'] for x in r['rows']):.2f}"
    ),
    Contract(
        "HD95 + ASSD, worst case", "MONAI", ">= 1x", "surface", lambda r: f"{min(x['monai'] for x in r['rows']):.2f}"
    ),
    Contract("HD95 + ASSD", "surface-distance", ">= 1x", needs="surface_distance"),
    Contract("augmentation", "batchgenerators", ">= 2x 3-D, 1.3x 2-D", needs="batchgenerators"),
    Contract("augmentation", "kornia", "reported", needs="kornia"),
    Contract("MORSE prediction", "its backbone", "<= 1.5x demo", "morse", lambda r: row(r, "preset", "")),
    Contract("CFR: extraction", "bare forward pass", "<= 2x", "cfr", lambda r: row(r, "part", "extraction")),
    Contract("CFR: fit on 4,800 features", "-", "<= 60 s", "cfr", lambda r: f"{r['fit_seconds']['cfr']:.1f} s"),
    Contract(
        "start-up; a cache of 1,000 volumes", "-", "3 s; 1 s", note="tests/test_startup.py, tests/data/test_store.py"
    ),
    Contract("make test", "-", "<= 1,000 s", note="its phases have budgets: tools/phases.sh"),
)


def measured(script: str, folder: Path, *, quick: bool) -> Report | None:
    """Runs one benchmark; its report, or None where it could not run."""
    path = folder / f"{script}.json"
    command = [sys.executable, str(HERE / f"bench_{script}.py"), "--report", "--json", str(path)]
    done = subprocess.run(command + (["--repeats", "2"] if quick else []), check=False)
    return json.loads(path.read_text(encoding="utf-8")) if done.returncode == 0 else None


def outcome(contract: Contract, reports: dict[str, Report | None]) -> str:
    """The ratio of a contract, or why there is none."""
    if contract.needs and not find_spec(contract.needs):
        return f"not measured: {contract.needs} is not installed"
    if contract.value is None or contract.script is None:
        return f"not measured here: {contract.note or 'no benchmark yet'}"
    if contract.script not in reports:
        return "not asked for"
    report = reports[contract.script]
    return "FAILED to run" if report is None else contract.value(report)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="print, and exit with 0 whatever was measured")
    parser.add_argument("--quick", action="store_true", help="two rounds each")
    scripts = sorted({c.script for c in CONTRACTS if c.script})
    parser.add_argument("--only", choices=scripts, action="append", help="only this script; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder for the numbers")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    reports = {name: measured(name, args.out, quick=args.quick) for name in args.only or scripts}
    print(f"\n{'contract':<38}{'against':<26}{'target':<22}measured")
    for contract in CONTRACTS:
        print(f"{contract.what:<38}{contract.peer:<26}{contract.target:<22}{outcome(contract, reports)}")
    passed = all(report is not None and report["passed"] for report in reports.values())
    print("passed" if passed else "FAILED: a target was missed")
    return 0 if passed or args.report else 1


if __name__ == "__main__":
    sys.exit(main())
