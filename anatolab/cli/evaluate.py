"""``anatolab evaluate``: metrics of a run on annotated patients, held-out or others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from anatolab.cli.common import (
    Accelerator,
    Json,
    Overwrite,
    Stride,
    check_stride,
    cohort_of,
    device_of,
    one_of_these,
    patients_of,
    print_json,
)
from anatolab.files import check_target, write_atomically

METRICS = ("dice", "jaccard", "hd95", "assd", "nsd")


def command(arguments: Sequence[str]) -> Any:
    """Returns the function whose parameters are the flags."""
    return evaluate


def evaluate(
    run: Path,
    data: Path | None = None,
    on: Literal["validation", "test", "development", "all"] = "validation",
    json_file: Path | None = None,
    stride: Stride | None = None,
    accelerator: Accelerator = "auto",
    overwrite: Overwrite = False,
    json: Json = False,
) -> int:
    """Evaluate a run on annotated patients: Dice, Jaccard, HD95, ASSD and NSD per class, with intervals over patients.

    Args:
        run: Folder of a run, the --out of train.
        data: Folder of patients; by default the one the run was trained on.
        on: Patients to evaluate: a part of the run's split, or all annotated ones of the folder.
        json_file: Also write every case's values to this file.
        stride: For a run on 3-D patches: steps z y x of its sliding window; half a patch where not given. The papers
            use 4 18 18 on the left atrium.
        accelerator: Where to compute.
        overwrite: Replace the file of --json-file.
        json: Print every case's values as JSON.
    """
    import json as text

    from anatolab.inference import evaluate as measure
    from anatolab.metrics import summarize
    from anatolab.records import plain
    from anatolab.training import open_run
    from anatolab.training.exported import sha256_of, weights_of

    if json_file is not None:
        check_target(json_file, overwrite=overwrite)
    method, info = open_run(run, device := device_of(accelerator))
    stride = check_stride(stride, info.patch)
    remarks: dict[str, dict[Path, bool]] = {}  # each with the cases that it holds of, in their order
    units: dict[str, str] = {}

    def watch(case: Any) -> None:
        units[case.name] = "mm" if case.spacing else "voxels"
        for remark in info.remarks(case):
            remarks.setdefault(remark.removeprefix(case.source.name), {})[case.source] = True

    cohort = info.adapted(cohort_of(run, info, data), watch)
    patients = patients_of(run, info, cohort, on)
    refs = [ref for ref in cohort.of(patients) if ref.labeled or on != "all"]
    cases = measure(method, refs, info.classes, info.size, device=device, stride=stride, **info.rules)
    summary = summarize(cases, {ref.name: ref.patient for ref in refs})
    trained_on = [p for p in patients if p in info.split.train]
    notes = [] if info.finished else [f"the run is not finished: step {info.step} of {info.updates} updates."]
    for remark, sources in remarks.items():
        such = f" ({len(sources)} such)" if len(sources) > 1 else ""
        notes.append(f"{next(iter(sources)).name}{such}{remark}")
    if trained_on:
        labeled = sum(p in info.split.labeled_patients for p in trained_on)
        notes.append(
            f"{len(trained_on)} of these {len(patients)} patients have the names of training patients of the run "
            f"({labeled} of them labeled), so they are not held-out patients."
        )
    unit = " or ".join(sorted(set(units.values())))
    result = {
        "run": run,
        "on": on,
        "data": cohort.root,
        "patients": patients,
        "trained_on": trained_on,
        "unit": unit,
        "step": info.step,
        "finished": info.finished,
        "weights_sha256": sha256_of(weights_of(method)),
        "notes": notes,
        "summary": summary,
        "cases": cases,
    }
    if json_file is not None:
        write_atomically(json_file, text.dumps(plain(result), indent=1) + "\n", overwrite=overwrite)
    if json:
        print_json(result)
        return 0
    counted = one_of_these(len(patients), f"{'annotated' if on == 'all' else on} patient")
    print(f"{counted}, {one_of_these(len(cases), 'volume')}; distances in {unit}")
    for note in notes:
        print(f"note: {note}")
    _print_table(summary, info.classes)
    dice = summary["per_patient"]["dice"]
    _print_mean("mean Dice over patients", dice.values())
    if 0 < len(trained_on) < len(patients):
        _print_mean("  of those not trained on", [v for p, v in dice.items() if p not in trained_on])
    missed, invented = summary["counts"]["missed"]["total"], summary["counts"]["invented"]["total"]
    if missed or invented:
        print(f"missed organs: {missed}, invented: {invented} (Dice 0, distance not counted)")
    return 0


def _print_table(summary: Mapping[str, Any], classes: Sequence[str]) -> None:
    width = max(12, *map(len, classes))
    print(f"{'':{width}} {'Dice':>7} {'Jaccard':>8} {'HD95':>8} {'ASSD':>8} {'NSD':>7}")
    for name in (*classes[1:], "mean"):
        dice, jaccard, hd95, assd, nsd = (_number(summary[metric][name]) for metric in METRICS)
        print(f"{name:{width}} {dice:>7} {jaccard:>8} {hd95:>8} {assd:>8} {nsd:>7}")


def _print_mean(title: str, values: Any) -> None:
    """Prints the mean over patients with its interval, or why it does not exist."""
    from anatolab.metrics import bootstrap_interval

    finite = [v for v in values if math.isfinite(v)]
    if len(finite) < 2:
        mean = f" {finite[0]:.3f}" if finite else ": no patient has a class to measure"
        print(f"{title}{mean}, no interval, which takes at least two patients" if finite else f"{title}{mean}")
        return
    low, high = bootstrap_interval(finite)
    print(f"{title} {sum(finite) / len(finite):.3f}, 95 % interval {low:.3f} to {high:.3f}")


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"
