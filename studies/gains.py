"""What several runs, averages over flips and turns, and a start from other weights buy, with three labeled patients.

    python studies/gains.py ensemble   # record gains-ensemble: one run, averaged, three runs, both
    python studies/gains.py init       # records gains-init: from generated hearts, against from nothing

Both train the base on ACDC with the command line, as a user does, and measure the validation patients. Trainings are
kept under ``--workdir`` and continued by the next call. ``--updates`` sets the budget; the record names it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from recording import Clock, rounded

from anatolab import postprocess, records
from anatolab.cli import main as anatolab
from anatolab.data import open_cohort, split_sha256
from anatolab.ensembles import member_of, predict_ensemble
from anatolab.errors import InputError
from anatolab.metrics import evaluate_volume, summarize
from anatolab.training import open_run

SEEDS = (0, 1, 2)
UPDATES = 1_000  # of each training; the tables of the book use 5,000
FEW = 300  # updates at which a start from other weights is measured, too
LABELED = 3
FLIPS = ("--flip", "--quarter-turns")
HEARTS = 40  # generated patients, all labeled, that the start was trained on
METRICS = ("dice", "nsd", "hd95")


def trained(data: Path, out: Path, seed: int, updates: int, *more: str, method: str = "base") -> Path:
    """Trains one run, or continues it, unless it is finished; its folder.

    Raises:
        KeyboardInterrupt: The training was stopped.
    """
    labeled = str(HEARTS) if method == "supervised" else str(LABELED)
    flags = ["--labeled-patients", labeled, "--largest-component", "--seed", str(seed), "--accelerator", "cpu"]
    options = [m for m in more if m not in FLIPS]
    chosen = [m for m in more if m in FLIPS]
    command = ["train", "--data", str(data), "--out", str(out), *flags, *options, method]
    code = anatolab([*command, "--updates", str(updates), *chosen])
    if code:
        raise KeyboardInterrupt if code == 3 else RuntimeError(f"{out}: training ended with code {code}")
    return out


def measured(runs: Sequence[Path], data: Path, *, average: bool = False) -> dict[str, Any]:
    """Predicts the validation patients by the mean probability of runs, as ``anatolab predict`` does, and measures.

    Returns:
        Means over volumes, the values of each patient, and CPU seconds a volume.
    """
    opened = [open_run(run) for run in runs]
    info = opened[0][1]
    cohort = info.adapted(open_cohort(data))
    refs = cohort.of(info.split.validation)
    members = [member_of(run, *one, average=average) for run, one in zip(runs, opened, strict=True)]
    for method, _ in opened:
        method.eval()
    cases, seconds = {}, 0.0
    for ref in refs:
        case = ref.load()
        assert case.label is not None
        begin = time.process_time()
        label = predict_ensemble(members, [case] * len(members)).label
        seconds += time.process_time() - begin
        label = postprocess.largest_component(label) if info.largest_component else label
        cases[case.name] = evaluate_volume(label, case.label, info.classes, case.spacing, case=case.name)
    summary = summarize(cases, {ref.name: ref.patient for ref in refs})
    kept = {m: summary[m] for m in METRICS}
    per_patient = {"dice": summary["per_patient"]["dice"]}
    return {**kept, "per_patient": per_patient, "cpu_s": seconds / len(refs), "counts": summary["counts"]}


def mean_of(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the means of nested numbers that have the same keys."""
    mean: dict[str, Any] = {}
    for key, first in values[0].items():
        parts = [v[key] for v in values]
        mean[key] = mean_of(parts) if isinstance(first, Mapping) else float(np.mean(parts))
    return mean


def against(new: dict[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """Returns measurements with the gain in Dice over others beside them: its mean, and that of each patient.

    Example:
        >>> one, other = ({"per_patient": {"dice": {"a": a, "b": b}}} for a, b in ((0.75, 0.5), (0.5, 0.5)))
        >>> against(one, other)["gain"], against(one, other)["per_patient"]["gain"]
        (0.125, {'a': 0.25, 'b': 0.0})
    """
    before = old["per_patient"]["dice"]
    each = {patient: dice - before[patient] for patient, dice in new["per_patient"]["dice"].items()}
    return {**new, "gain": float(np.mean(list(each.values()))), "per_patient": {**new["per_patient"], "gain": each}}


def ensemble(data: Path, workdir: Path, updates: int = UPDATES) -> list[records.Record]:
    """Measures one run, its average over flips and turns, three runs, and both; all were trained under these moves."""
    clock = Clock()
    runs = [trained(data, workdir / f"flips-u{updates}-seed{seed}", seed, updates, *FLIPS) for seed in SEEDS]
    one = mean_of([measured([run], data) for run in runs])
    ways = {
        "one": one,
        "averaged": mean_of([measured([run], data, average=True) for run in runs]),
        "ensemble": measured(runs, data),
        "both": measured(runs, data, average=True),
    }
    values = {way: against(measurements, one) for way, measurements in ways.items()}
    title = "what several runs, and averages over flips and turns, buy"
    return [recorded("gains-ensemble", title, 0, values, runs, clock)]


def init(data: Path, workdir: Path, updates: int = UPDATES) -> list[records.Record]:
    """Measures runs that start from a network trained on generated hearts against runs that start from nothing."""
    clock = Clock()
    hearts = workdir / "hearts"
    if not hearts.exists() and anatolab(["cohort", "cardiac", str(hearts), "--patients", str(HEARTS + 1)]):
        raise RuntimeError(f"{hearts}: no cohort was written")
    held_out = ("--split-seed", "0", "--held-out", "1")
    source = trained(hearts, workdir / f"source-u{updates}", 0, updates, *held_out, method="supervised")
    made = []
    for seed in SEEDS:
        values: dict[str, Any] = {}
        for name, budget in (("few", FEW), ("many", updates)):
            runs = [
                trained(data, workdir / f"{start}-u{budget}-seed{seed}", seed, budget, *more)
                for start, more in (("nothing", ()), ("hearts", ("--init", str(source))))
            ]
            nothing, started = (measured([run], data) for run in runs)
            values[name] = {"nothing": against(nothing, nothing), "hearts": against(started, nothing)}
        made.append(recorded("gains-init", "what a start from generated hearts buys", seed, values, runs, clock))
    return made


def recorded(
    experiment: str, title: str, seed: int, values: dict[str, Any], runs: Sequence[Path], clock: Clock
) -> records.Record:
    """Writes the record of a study on runs, whose description it names but for patients and folders."""
    _, info = open_run(runs[-1])
    description = {k: v for k, v in asdict(info).items() if k in ("config", "network", "settings", "start")}
    record = records.Record(
        experiment=experiment,
        seed=seed,
        kind="gains",
        title=title,
        config=records.plain(
            {"labeled_patients": LABELED, "updates": [FEW, info.updates], "seeds": SEEDS, **description}
        ),
        values=rounded(records.plain(values)),
        provenance=clock.provenance(),
        code=records.code_of("anatolab.methods.base"),
        split_sha256=split_sha256(info.split),
    )
    records.write(record)
    return record


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one of the two studies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["ensemble", "init"])
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--workdir", type=Path, default=Path("runs/gains"))
    args = parser.parse_args(arguments)
    root = os.environ.get("ANATOLAB_DATA")
    if not root:
        raise InputError("ANATOLAB_DATA is not set; let it name the folder that holds ACDC/.")
    os.environ.setdefault("ANATOLAB_SIZE", "demo")
    made = {"ensemble": ensemble, "init": init}[args.study](Path(root) / "ACDC", args.workdir, args.updates)
    for record in made:
        for name, of in record.values.items():
            for way, row in ({name: of} if "dice" in of else of).items():
                if "gain" in row:
                    print(f"{record.run_id}, {name} {way}: Dice {row['dice']['mean']:.3f}, {row['gain']:+.4f}")


if __name__ == "__main__":
    main()
