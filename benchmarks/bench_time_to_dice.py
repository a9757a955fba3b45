"""Measures the CPU seconds from raw files to a table of Dice: reading, preparing, training to a target, evaluating.

The base with three labeled patients of ACDC at size demo (`ANATOLAB_DATA` names the folder that holds ACDC; without it,
generated hearts, and no target). The networks of every 250th update are kept while the clock stands still, and measured
on the validation patients afterwards, so that the curve costs the run nothing. Its learning rate falls over all
updates, so a point within the curve is not where a run of that length ends: with few updates that one ends lower. One
process, one thread: CPU seconds of another machine differ, ratios less. Exits with 1 if the target takes longer than
ten CPU minutes; ``--report`` prints the same and exits with 0. ``--record`` writes a record a seed, which chapter 14
draws and ``targets.py`` judges.

    OMP_NUM_THREADS=1 python benchmarks/bench_time_to_dice.py [--report] [--seeds 0 1 2] [--updates 5000] [--record]
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anatolab import records
from anatolab.data import find_field_of_view, open_cohort, phantoms, prepare, split_patients
from anatolab.inference import evaluate
from anatolab.methods import METHODS
from anatolab.metrics import summarize
from anatolab.nn import NETWORKS
from anatolab.presets import SIZES
from anatolab.training import Settings, train
from anatolab.training.settings import resolve_precision
from anatolab.types import Cohort, Split

TARGET, LIMIT = 0.85, 600.0  # Dice; CPU seconds from files to table
EVERY = 250  # updates between kept networks


class Clock:
    """CPU seconds of this process, without those between ``stop`` and ``start``."""

    def __init__(self) -> None:
        self.offset = time.process_time()
        self.stopped = 0.0

    def read(self) -> float:
        """Returns the seconds on the clock while it runs."""
        return time.process_time() - self.offset

    def stop(self) -> None:
        """Halts the clock."""
        self.stopped = self.read()

    def start(self) -> None:
        """Lets the clock go on from where it was halted."""
        self.offset = time.process_time() - self.stopped


def data() -> tuple[Cohort, Split]:
    """Returns a cohort and its split with three labeled patients."""
    root = os.environ.get("ANATOLAB_DATA")
    if root:
        cohort = open_cohort(Path(root) / "ACDC")
        return cohort, split_patients(cohort, 3)
    cohort = phantoms.cardiac_cohort(24, seed=0)
    return cohort, split_patients(cohort, 3, validation=6, seed=0)


def run(name: str, seed: int, updates: int | None) -> dict[str, Any]:
    """Returns seconds by stage and the curve of (CPU seconds, update, Dice) of one training."""
    clock, seconds = Clock(), {}

    def lap(stage: str) -> None:
        seconds[stage] = clock.read() - sum(seconds.values())

    size = SIZES["demo"] if updates is None else replace(SIZES["demo"], updates=updates)
    cohort, split = data()
    view = find_field_of_view(cohort, split.labeled_patients)
    lap("field of view")
    rows = prepare(cohort, split.train, size=size.image, field_of_view=view)
    lap("preparation")

    torch.manual_seed(seed)
    network = NETWORKS[size.network](rows.channels, len(cohort.classes), spatial_dims=2)
    method = METHODS[name](network, METHODS[name].Config().for_size(size))
    kept: list[tuple[float, int, Any]] = []
    updated, count = method.after_step, 0

    def after_step() -> None:
        nonlocal count
        updated()
        count += 1
        if count % EVERY == 0 and count < size.updates:
            clock.stop()
            kept.append((clock.stopped, count, copy.deepcopy(method.state_dict())))
            clock.start()

    method.after_step = after_step
    train(method, rows, split, Settings(seed=seed), progress=False)
    lap("training")

    refs = cohort.of(split.validation)
    settings = {
        "field_of_view": view,
        "largest_component": True,
        "precision": resolve_precision("auto", "cpu", 2),
    }

    def dice() -> float:
        values = evaluate(method, refs, cohort.classes, size.image, **settings)
        return float(summarize(values, {ref.name: ref.patient for ref in refs})["dice"]["mean"])

    last = dice()
    lap("evaluation")
    curve = [(clock.read(), size.updates, last)]
    for moment, step, state in kept:
        method.load_state_dict(state)
        curve.append((moment + seconds["evaluation"], step, dice()))
    curve.sort()
    reached = next((s for s, _, value in curve if value >= TARGET), math.inf)
    return {"seed": seed, "seconds": seconds, "curve": curve, "dice": last, "reached_s": reached}


def record(name: str, measured: dict[str, Any], data: str, made: dict[str, Any]) -> Path:
    """Writes the record of one training: seconds by stage, and its curve."""
    seconds, updates, dice = zip(*measured["curve"], strict=True)
    curve = {"cpu_s": seconds, "updates": updates, "dice": dice}
    reached = measured["reached_s"] if math.isfinite(measured["reached_s"]) else None
    values = {"dice": measured["dice"], "reached_s": reached, "seconds": measured["seconds"], "curve": curve}
    config = {"data": data, "method": name, "target": TARGET, "time": "CPU seconds of one thread, files to table"}
    what = f"time to Dice, {name}"
    return records.write(
        records.Record(f"time-to-dice-{name}", measured["seed"], values, what, "benchmark", config, made)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="print, and exit with 0 whatever was measured")
    parser.add_argument("--method", choices=sorted(METHODS), default="base", help="row of the tables")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one training each")
    parser.add_argument("--updates", type=int, help="of the training; those of size demo where not given")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    parser.add_argument("--record", action="store_true", help="write a record of each seed")
    args = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "studies"))
    import recording

    torch.set_num_threads(1)
    name = "ACDC" if os.environ.get("ANATOLAB_DATA") else "generated hearts"
    with tempfile.TemporaryDirectory() as cache:
        runs = []
        for seed in args.seeds:
            os.environ["ANATOLAB_CACHE"] = str(Path(cache) / str(seed))  # nothing is prepared beforehand
            provenance = recording.Clock().provenance
            runs.append(run(args.method, seed, args.updates))
            if args.record:
                made = {**provenance(), "device": f"cpu ({recording.processor()}), one thread"}
                print(record(args.method, runs[-1], name, made))
            stages = ", ".join(f"{stage} {s:.0f} s" for stage, s in runs[-1]["seconds"].items())
            print(f"{name}, {args.method}, seed {seed}: Dice {runs[-1]['dice']:.3f}; {stages}", flush=True)
    for points in zip(*(r["curve"] for r in runs), strict=True):
        print(
            f"update {points[0][1]:>6,}: {np.mean([p[0] for p in points]):>5.0f} CPU s, "
            f"Dice {np.mean([p[2] for p in points]):.3f}"
        )
    reached = float(np.mean([r["reached_s"] for r in runs]))
    passed = name != "ACDC" or reached <= LIMIT
    what = f"{reached:.0f} CPU s" if math.isfinite(reached) else "not reached"
    print(f"Dice {TARGET}: {what} (limit {LIMIT:.0f})" + ("" if passed else ": FAILED"))
    if args.json:
        text = json.dumps({"benchmark": "time_to_dice", "data": name, "passed": passed, "runs": runs}, indent=1)
        args.json.write_text(text.replace("Infinity", "null") + "\n", encoding="utf-8")
    return 0 if passed or args.report else 1


if __name__ == "__main__":
    sys.exit(main())
