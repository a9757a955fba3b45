"""Runs every benchmark and prints a row for each performance contract: what, peer, target, measured, met or why not.

A contract whose peer is not installed is printed as such (``pip install surface-distance batchgenerators kornia``; the
code that papers released is cloned, see ``bench_released.py``). What ``make test`` took is that of its last whole run.
Exits with 1 where a target is missed that has no reason beside it; ``--report`` prints the same and exits with 0. The
numbers of each script are written to ``--out``; ``--keep`` does not measure again what lies there, so that a run that
was stopped goes on. ``--record`` makes of them the record that the page on speed prints.

    python benchmarks/targets.py [--report] [--quick] [--keep] [--record] [--only sampling] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Report = dict[str, Any]
Measured = tuple[str, bool | None]  # in words, and whether it meets the target; None where there is no target
LEFT_OUT = "left out of this run"
RECORDED = "time_to_dice"  # its own command records it, because it trains
TESTED = "make test"  # tools/phases.sh writes what its last run took
NOT_INSTALLED = "the peer is not installed"


@dataclass(frozen=True)
class Contract:
    """One performance contract."""

    what: str
    peer: str
    target: str
    script: str  # bench_<script>.py
    read: Callable[[Report], Measured]  # of its report
    needs: str = ""  # the package of the peer
    reason: str = ""  # why a target is missed or not measured here


@dataclass(frozen=True)
class Row:
    """One contract as it was measured."""

    what: str
    peer: str
    target: str
    measured: str
    verdict: str  # "met", "missed", "reported" or "not measured"
    reason: str


def largest(part: str, cases: str = "") -> Callable[[Report], Measured]:
    """Reads the largest ratio of a part over methods, and whose it is."""

    def read(report: Report) -> Measured:
        rows = [r for r in report["rows"] if r["part"] == part and r["case"].startswith(cases)]
        rows = [r for r in rows if r["floor"] is not None]
        if not rows:
            return "-", None
        worst = max(rows, key=lambda r: r["ratio"] - r["floor"])
        value = worst["ratio"] + (part != "loader")
        words = f"{value:.2f} ({worst['method']}, {worst['case']}; largest of {len(rows)})"
        return words, worst["ratio"] <= worst["floor"]

    return read


def each(part: str) -> Callable[[Report], Measured]:
    """Reads the ratio of a part for every method that has it."""

    def read(report: Report) -> Measured:
        rows = [r for r in report["rows"] if r["part"] == part]
        words = ", ".join(f"{r['method']} {r['ratio'] + 1:.2f}" for r in rows)
        return words or "-", all(r["ratio"] <= r["floor"] for r in rows) if rows else None

    return read


def first(
    key: str, name: str, least: float | None = None, most: float | None = None, *, value: str = "ratio"
) -> Callable[[Report], Measured]:
    """Reads the value of the first row whose ``key`` begins with a name, against a least or greatest one."""

    def read(report: Report) -> Measured:
        row = next((r for r in report["rows"] if str(r[key]).startswith(name)), None)
        if row is None:
            return "-", None
        known = least is not None or most is not None
        met = (least is None or row[value] >= least) and (most is None or row[value] <= most)
        return f"{row[value]:.2f}", met if known else None

    return read


def extreme(
    pick: Callable[..., Any],
    key: str,
    label: str,
    *,
    least: float | None = None,
    most: float | None = None,
    **only: Any,
) -> Callable[[Report], Measured]:
    """Reads the smallest or largest value over the rows that agree with ``only``, and which row it is."""

    def read(report: Report) -> Measured:
        rows = [r for r in report["rows"] if r.get(key) is not None and all(r[k] == v for k, v in only.items())]
        if not rows:
            return "-", None
        row = pick(rows, key=lambda r: r[key])
        met = (least is None or row[key] >= least) and (most is None or row[key] <= most)
        return f"{row[key]:.2f} ({row[label]})", met if (least, most) != (None, None) else None

    return read


def synchronizations(report: Report) -> Measured:
    """Reads the largest number of host synchronizations of a step."""
    most = max(report["synchronizations"].values())
    return str(most), most == 0


def faults(report: Report) -> Measured:
    """Reads the page faults of the slower of the judged forms."""
    most = max(r["faults"] for r in report["rows"] if r["form"] != "as it was")
    return f"{most:,.0f}", most < 1000


def rendering(*, floor: float | None, most: float) -> Callable[[Report], Measured]:
    """Reads the largest ratio of MORSE over its backbone, with that of the products alone that rendering needs."""

    def read(report: Report) -> Measured:
        rows = [r for r in report["rows"] if r["floor"] == floor]
        row = max(rows, key=lambda r: r["ratio"])
        words = f"{row['ratio']:.2f} ({row['preset']}, {row['network']}; products alone {row['needed']:.2f})"
        return words, row["ratio"] <= most

    return read


def reached(report: Report) -> Measured:
    """Reads the CPU minutes to the Dice wanted, or where the trainings ended."""
    runs = report["runs"]
    minutes = [r["reached_s"] / 60 for r in runs if r["reached_s"] is not None]
    if len(minutes) == len(runs):
        return f"{sum(minutes) / len(minutes):.1f} min", max(minutes) <= 10
    ends = ", ".join(f"{r['dice']:.3f} after {r['curve']['cpu_s'][-1] / 60:.1f} min" for r in runs)
    return ends, False


def tested(report: Report) -> Measured:
    """Reads the seconds of the last whole run of the tests."""
    return f"{report['seconds']:,} s", not report["status"] and report["seconds"] <= 1000


def fit(report: Report) -> Measured:
    """Reads the CPU seconds of a fit of CFR."""
    seconds = report["fit_seconds"]["cfr"]
    return f"{seconds:.1f} s", seconds <= 60


SHORT = "seeds end above and below it; the chapter on the budget draws the curve"
MORSE = "the products that rendering needs stand beside it; the rest is reading maps at points (bench_morse.py)"
WIDE = "the products of the published widths alone stand beside it; at demo the widths are smaller"
HASHED = "bound by memory; records hash this code, so it is not written anew for a tenth"
ELSEWHERE = "on an idle core; the target was set on a machine where the update as it was took 2.6 s"
GROWS = "memory still grew in the few rounds of this run"
AGAIN = "the student of MONA reads unlabeled images a second time, warped; what ARCO exceeds by is not explained"
BUSY = "torch's optimizers import its compiler, over a second; tests hold starts to multiples of torch's own"
ABSENT = {  # why a report is not there
    RECORDED: "a training, by its own command: benchmarks/bench_time_to_dice.py --record",
    TESTED: "has not run whole in this checkout",
    "released": "its clone was not at hand; bench_released.py says how to get it",
}
CONTRACTS = (
    Contract("time to Dice .85, 3 patients of ACDC", "none", "<= 10 CPU min", "time_to_dice", reached, reason=SHORT),
    Contract(
        "an update at 256, fp32", "fp32 as it was", ">= 2x", "update", first("form", "fp32", 2.0), reason=ELSEWHERE
    ),
    Contract(
        "an update at 256, bf16",
        "fp32 as it was",
        ">= 3x",
        "update",
        first("form", "bf16", 3.0),
        reason=ELSEWHERE,
    ),
    Contract("page faults an update", "none", "< 1,000", "update", faults, reason=GROWS),
    Contract("step, 2-D, 4 and 14 classes", "its networks", "<= 1.6", "step", largest("overhead", "2d")),
    Contract("step, 3-D, 4 and 14 classes", "its networks", "<= 1.6", "step", largest("overhead", "3d")),
    Contract("loader and augmentation", "a step", "<= 0.3", "step", largest("loader")),
    Contract(
        "step of ARCO, of MONA",
        "mean teacher's networks",
        "<= 1.4, 1.8",
        "step",
        each("over mean teacher"),
        reason=AGAIN,
    ),
    Contract(
        "growth with classes, worst part",
        "exponent",
        "<= 1.2",
        "scaling",
        extreme(max, "value", "part", most=1.2, what="exponent in classes"),
        reason="two classes fit into the caches and fourteen do not",
    ),
    Contract("contrast", "literal form", ">= 10x", "contrast", first("part", "anatomical", 10.0)),
    Contract("the same, equal estimator", "literal form", "beside it", "contrast", first("part", "equal estimator")),
    *(
        Contract("contrast, end to end", f"released {peer}", ">= 10x", "released", first("part", peer, 10.0))
        for peer in ("ReCo", "ARCO")
    ),
    Contract("host synchronizations in a step", "none", "0", "contrast", synchronizations),
    Contract("stratified draw", "naive gather", "<= 3", "sampling", first("part", "stratified", most=3.0)),
    Contract(
        "binning and stratified draw",
        "naive gather",
        "<= 3",
        "sampling",
        first("part", "binning and", most=3.0),
        reason=HASHED,
    ),
    Contract("HD95 + ASSD, heart", "medpy", ">= 10x", "surface", first("case", "heart", 10.0), "medpy"),
    Contract("HD95 + ASSD, worst case", "medpy", "reported", "surface", extreme(min, "ratio", "case"), "medpy"),
    Contract("HD95 + ASSD, worst case", "MONAI", ">= 1x", "surface", extreme(min, "monai", "case", least=1.0), "monai"),
    Contract(
        "HD95 + ASSD, worst case",
        "surface-distance",
        ">= 1x",
        "surface",
        extreme(min, "surface_distance", "case", least=1.0),
        "surface_distance",
    ),
    *(
        Contract(
            f"augmentation, {dims}-D",
            {"monai": "MONAI"}.get(peer, peer),
            target,
            "augmentation",
            extreme(min, "ratio", "case", least=least, dims=dims, peer=peer),
            peer,
        )
        for dims, peer, target, least in (
            (2, "batchgenerators", ">= 1.3x", 1.3),
            (2, "monai", ">= 1.3x", 1.3),
            (2, "kornia", "reported", None),
            (3, "batchgenerators", ">= 2x", 2.0),
            (3, "monai", ">= 2x", 2.0),
        )
    ),
    Contract(
        "MORSE prediction, demo",
        "its backbone",
        "<= 1.5",
        "morse",
        rendering(floor=1.5, most=1.5),
        reason=MORSE,
    ),
    Contract(
        "MORSE prediction, published widths",
        "its backbone",
        "<= 4",
        "morse",
        rendering(floor=None, most=4.0),
        reason=WIDE,
    ),
    Contract(
        "CFR, extraction of features", "bare forward pass", "<= 2x", "cfr", extreme(max, "ratio", "part", most=2.0)
    ),
    Contract("CFR, fit on 4,800 features", "none", "<= 60 s", "cfr", fit),
    Contract("start: --help", "none", "<= 0.5 s", "scaling", first("part", "--help", most=0.5, value="value")),
    Contract("start: import torch", "none", "reported", "scaling", first("part", "import torch", value="value")),
    Contract(
        "start: first step",
        "none",
        "<= 3 s",
        "scaling",
        first("part", "first step", most=3.0, value="value"),
        reason=BUSY,
    ),
    Contract(
        "start: first prediction",
        "none",
        "<= 3 s",
        "scaling",
        first("part", "first pred", most=3.0, value="value"),
        reason=BUSY,
    ),
    Contract(
        "opening a cache of 1,000 volumes", "none", "<= 1 s", "scaling", first("part", "cache", most=1.0, value="value")
    ),
    Contract(
        "a row of 20,000 volumes", "a row of 20", "<= 2", "scaling", first("part", "Volumes", most=2.0, value="value")
    ),
    Contract(TESTED, "none", "<= 1,000 s", TESTED, tested, reason="its phases are held to budgets in tools/phases.sh"),
)


def measured(script: str, folder: Path, *, quick: bool, keep: bool) -> Report | None:
    """Runs one benchmark; returns its report, or None where it could not run."""
    path = folder / f"{script}.json"
    if not (keep and path.exists()):
        command = [sys.executable, "-W", "ignore", str(HERE / f"bench_{script}.py"), "--report", "--json", str(path)]
        if subprocess.run(command + (["--repeats", "2"] if quick else []), check=False).returncode:
            return None
    return json.loads(path.read_text(encoding="utf-8"))


def judged(contracts: tuple[Contract, ...], reports: dict[str, Report | None]) -> Iterator[Row]:
    """Yields each contract with what was measured, a verdict, and the reason of one that is not met."""
    for c in contracts:
        report = reports.get(c.script)
        if c.script not in reports:
            words, verdict, reason = "-", "not measured", ABSENT.get(c.script, LEFT_OUT)
        elif report is None:
            words, verdict, reason = "-", "missed", ""
        elif c.needs and not find_spec(c.needs):
            words, verdict, reason = "-", "not measured", NOT_INSTALLED
        else:
            words, met = c.read(report)
            verdict = {None: "reported", True: "met", False: "missed"}[met]
            reason = c.reason if verdict == "missed" else ""
            if words == "-":
                verdict, reason = "not measured", ABSENT.get(c.script, LEFT_OUT)
        yield Row(c.what, c.peer, c.target, words, verdict, reason)


def record(rows: list[Row], rounds: str) -> Path:
    """Writes the record that the page on speed prints."""
    from recording import Clock, processor

    from anatolab import records

    made = {**Clock().provenance(), "device": f"cpu ({processor()}), one thread"}
    values = {"rows": [asdict(row) for row in rows], "processor": processor()}
    values |= {v: sum(row.verdict == v for row in rows) for v in ("met", "missed", "reported")}
    values["unmeasured"] = len(rows) - sum(values[v] for v in ("met", "missed", "reported"))
    config = {"rounds": rounds, "time": "CPU seconds of one thread, ratios of interleaved rounds"}
    return records.write(records.Record("benchmarks", 0, values, "performance", "benchmark", config, made))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="print, and exit with 0 whatever was measured")
    parser.add_argument("--quick", action="store_true", help="two rounds each")
    parser.add_argument("--keep", action="store_true", help="do not measure again what lies in --out")
    parser.add_argument("--record", action="store_true", help="write the record that the book prints")
    scripts = sorted({c.script for c in CONTRACTS} - {RECORDED, TESTED})
    parser.add_argument("--only", choices=scripts, action="append", help="only this script; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder for the numbers")
    args = parser.parse_args()

    sys.path[:0] = [str(HERE.parent), str(HERE.parent / "studies")]
    from recording import processor

    from anatolab import records

    args.out.mkdir(parents=True, exist_ok=True)
    names = args.only or scripts
    reports = {n: measured(n, args.out, quick=args.quick, keep=args.keep) for n in names}
    if records.exists("time-to-dice-base"):
        reports[RECORDED] = {"runs": [r.values for r in records.load("time-to-dice-base")]}
    phases = HERE.parent / "_build" / "phases.json"
    if phases.exists() and (last := json.loads(phases.read_text(encoding="utf-8")))["phases"].endswith("site"):
        reports[TESTED] = last
    rows = list(judged(CONTRACTS, reports))
    print(f"\n{processor()}, CPU time of one thread")
    print(f"{'contract':<38}{'against':<25}{'target':<15}{'measured':<36}verdict")
    for row in rows:
        why = f": {row.reason}" if row.reason else ""
        print(f"{row.what:<38}{row.peer:<25}{row.target:<15}{row.measured:<36}{row.verdict}{why}")
    if args.record:
        print(record(rows, "two" if args.quick else "those of each script"))
    missed = [row for row in rows if row.verdict == "missed" and not row.reason]
    print("FAILED: " + ", ".join(row.what for row in missed) if missed else "passed")
    return 0 if not missed or args.report else 1


if __name__ == "__main__":
    sys.exit(main())
