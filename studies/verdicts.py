"""Measures the error rates of verdicts: decisions where nothing differs, and power where something does.

python studies/verdicts.py repeats                 # 20 seeds of each row, trained on generated hearts
python studies/verdicts.py repeats --row base      # this row alone; continues after the last recorded seed
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from recording import Clock, rounded

from anatolab import records
from anatolab.analysis.harness import per_patient
from anatolab.analysis.repeats import SeedValues, recorded_rows, triples
from anatolab.metrics import bootstrap_interval, compare
from anatolab.metrics.verdicts import LEVEL, components, crossed_test
from anatolab.metrics.verdicts import SEEDS as LEAST
from anatolab.presets import SIZES

ROWS = ("supervised", "mean_teacher", "base")  # keys of METHODS; cheap, and of very different spread over seeds
SEEDS = range(20)
PATIENTS, TRAIN, VALIDATION, LABELED = 40, 30, 10, 7  # generated hearts


def repeats(row: str, seeds: Sequence[int] = SEEDS) -> records.Record:
    """Trains one method once per seed, all else equal, and records the Dice of each validation patient.

    One record per row, ``repeats-<row>``, with ``dice.<seed>.<patient>``; it is rewritten after each training, and a
    call continues after the last one.
    """
    import torch

    from anatolab.data import find_field_of_view, phantoms, prepare, split_patients, split_sha256
    from anatolab.inference import evaluate
    from anatolab.methods import METHODS
    from anatolab.metrics import summarize
    from anatolab.nn import NETWORKS
    from anatolab.training import Settings, train

    clock, size, kind = Clock(), SIZES["tiny"], METHODS[row]
    cohort = phantoms.cardiac_cohort(PATIENTS, seed=0, size=2 * size.side)
    split = split_patients(cohort, LABELED, validation=VALIDATION, seed=0)
    view = find_field_of_view(cohort, split.labeled_patients, slack=0.15)
    rows = prepare(cohort, split.train, size=size.image, field_of_view=view)
    refs = cohort.of(split.validation)
    config = kind.Config().for_size(size)
    name = f"repeats-{row.replace('_', '-')}"
    settings: dict[str, Any] = {"accelerator": "cpu"}
    described = records.plain(
        {
            "method": row,
            "cohort": f"{PATIENTS} generated hearts",
            "labeled_patients": LABELED,
            "size": asdict(size),
            "fields": asdict(config),
            "settings": settings,
        }
    )
    dice: dict[str, dict[str, float]] = {}
    if records.exists(name) and (before := records.load(name)[0]).config == described and not records.is_stale(before):
        dice = dict(before.values["dice"])
    record = None
    for seed in seeds:
        if str(seed) in dice:
            continue
        torch.manual_seed(seed)
        method = kind(NETWORKS[size.network](rows.channels, len(cohort.classes)), config)
        if not train(method, rows, split, Settings(seed=seed, **settings), progress=False).finished:
            raise KeyboardInterrupt
        cases = evaluate(method, refs, cohort.classes, size.image, field_of_view=view, largest_component=True)
        summary = summarize(cases, {ref.name: ref.patient for ref in refs})
        dice[str(seed)] = summary["per_patient"]["dice"]
        record = records.Record(
            experiment=name,
            seed=0,
            kind="repeats",
            title=f"{kind.title}, {len(dice)} seeds",
            config=described,
            values=rounded({"dice": dice}),
            provenance=clock.provenance(),
            code=records.code_of(kind.__module__),
            split_sha256=split_sha256(split),
        )
        records.write(record)
        print(f"{name}, seed {seed}: Dice {summary['dice']['mean']:.3f}", flush=True)
    return record or records.load(name)[0]


RATES, TABLES = "verdicts-rates", 20_000
SEED_COUNTS, PATIENT_COUNTS, EFFECTS = (3, 5, 10), (6, 10, 20), {"d01": 0.01, "d02": 0.02, "d05": 0.05}
CLAIMS = 8  # of the paper with the most that are sampled; Holm's correction divides the level by it at first
LOSS = 0.3  # Dice of a patient that an organ of three takes away


def recorded_components(left_out: Collection[str] = ()) -> tuple[np.ndarray, int]:
    """Returns the median variance components of differences between methods: seeds, patients, residual.

    Over all pairs of recorded methods with the same patients and three common seeds; zeros where there is no pair. Runs
    of the earlier regime count unless they are left out; no verdict rests on them.
    """
    names = sorted(p.name for p in records.root().glob("*-*-*") if len(list(p.glob("seed*.json"))) >= LEAST)
    names = [name for name in names if name not in left_out]
    by_table: dict[str, list[str]] = {}
    for name in names:
        if "labeled_patients" in records.load(name)[0].config:
            by_table.setdefault("-".join(name.split("-")[:2]), []).append(name)
    deviations = []
    for one, other in (pair for table in by_table.values() for pair in combinations(table, 2)):
        a, b = per_patient(one), per_patient(other)
        seeds = sorted(a.keys() & b.keys())
        if len(seeds) >= 3 and a[seeds[0]].keys() == b[seeds[0]].keys():
            deviations.append(components(np.array([[a[s][p] - b[s][p] for p in a[s]] for s in seeds])))
    return np.median(deviations, axis=0) if deviations else np.zeros(3), len(deviations)


def hard_cases(rng: np.random.Generator, seeds: int = 3, patients: int = 10) -> dict[str, float]:
    """Returns how often the rule decides at a true difference of 0 where its assumptions are strained.

    In the first two nothing differs at all. In the others the means are equal and the distributions are not: what a
    method gains in most runs, or in most patients, it loses in few.
    """
    small = 0.005 * rng.normal(size=(TABLES, seeds, 1)) + 0.02 * rng.normal(size=(TABLES, seeds, patients))

    def lost(chance: float, *shape: int) -> np.ndarray:
        return -LOSS * (rng.random((TABLES, *shape)) < chance)

    equal = np.where(rng.random((TABLES, 1, patients)) < 0.6, 0, 0.05 * rng.normal(size=(TABLES, seeds, patients)))
    tables = {
        "both_lose": small + lost(0.2, seeds, 1) - lost(0.2, seeds, 1),
        "ties": equal,
        "skewed_patients": 0.02 * (1 - rng.exponential(size=(TABLES, 1, patients))) + 0.01 * small,
        "lost_in_a_case": small + lost(0.1, seeds, patients) + 0.1 * LOSS,
        "lost_in_a_patient": small + lost(0.1, 1, patients) + 0.1 * LOSS,
        "lost_in_a_run": small + lost(0.1, seeds, 1) + 0.1 * LOSS,
    }
    return {name: decided_share(table) for name, table in tables.items()}


def decided_share(tables: np.ndarray, alpha: float = LEVEL) -> float:
    """Returns the share of tables whose interval of level 1 - alpha excludes 0."""
    mean, _, half = crossed_test(tables, alpha)
    return float((np.abs(mean) > half).mean())


def inflation(runs: SeedValues, rng: np.random.Generator, pairs: int = 60, rows: int = 1_000) -> float:
    """Returns by how much shared seeds raise the variance of an A/A rate above that of as many independent pairs.

    Simulated for rows of as many seeds and patients as ``runs`` has, which vary as they do there.
    """
    table = np.array([list(v.values()) for v in runs.values()])
    seeds, patients = table.shape
    by_seed, _, rest = components(table)  # the effect of a patient is the same on both sides
    made = by_seed * rng.normal(size=(rows, seeds, 1)) + rest * rng.normal(size=(rows, seeds, patients))
    one, other = (np.array(side) for side in zip(*triples(list(range(seeds)), pairs), strict=True))
    mean, _, half = crossed_test(made[:, one] - made[:, other])
    decided = (np.abs(mean) > half).sum(1)
    rate = decided.mean() / pairs
    return float(decided.var(ddof=1) / (pairs * rate * (1 - rate)))


def rates() -> records.Record:
    """Simulates tables of differences, and records how often the rule decides, with and without a difference."""
    clock, rng = Clock(), np.random.default_rng(0)
    (by_seed, by_patient, rest), pairs = recorded_components()
    today, pairs_today = recorded_components(json.loads((records.root() / "earlier.json").read_text(encoding="utf-8")))
    tables = {}
    for seeds in SEED_COUNTS:
        for patients in PATIENT_COUNTS:
            cell: dict[str, Any] = {}
            for kind in ("normal", "skewed"):
                shapes = ((TABLES, seeds, 1), (TABLES, 1, patients), (TABLES, seeds, patients))
                drawn = [rng.normal(size=shape) for shape in shapes]
                if kind == "skewed":  # a few patients on whom one method fails
                    drawn[1:] = [1 - rng.exponential(size=shape) for shape in shapes[1:]]
                table = by_seed * drawn[0] + by_patient * drawn[1] + rest * drawn[2]
                cell["none" if kind == "normal" else "skewed"] = decided_share(table)
                if kind == "normal":
                    error = float(np.sqrt(cell["none"] * (1 - cell["none"]) / TABLES))
                    cell["none_interval"] = [cell["none"] - 1.96 * error, cell["none"] + 1.96 * error]
                    cell |= {name: decided_share(table + size) for name, size in EFFECTS.items()}
                    cell["d05_corrected"] = decided_share(table + EFFECTS["d05"], LEVEL / CLAIMS)
            tables[f"s{seeds}p{patients}"] = cell
    rows = recorded_rows()
    single = [decided for runs in rows.values() for _, _, decided in one_against_one(runs)]
    record = records.Record(
        experiment=RATES,
        seed=0,
        kind="verdicts",
        title="What the rule of verdicts decides",
        config={"tables": TABLES, "level": LEVEL, "claims": CLAIMS, "pairs_of_methods": pairs, "rows": sorted(rows)},
        values=rounded(
            {
                "components": {"seeds": by_seed, "patients": by_patient, "rest": rest, "pairs": pairs},
                "today": {
                    **dict(zip(("seeds", "patients", "rest"), today.tolist(), strict=True)),
                    "pairs": pairs_today,
                },
                "tables": tables,
                "hard": hard_cases(rng),
                "inflation": float(np.mean([inflation(runs, rng) for runs in rows.values()])),
                "one_seed": {"decided": int(sum(single)), "pairs": len(single)},
            }
        ),
        provenance=clock.provenance(),
        code=records.code_of("anatolab.metrics.verdicts"),
    )
    records.write(record)
    picture(rows)
    return record


def one_against_one(runs: SeedValues) -> Iterator[tuple[float, tuple[float, float], bool]]:
    """Yields difference, interval over patients, and whether that excludes 0, of every two seeds of one method."""
    for one, other in combinations(sorted(runs), 2):
        differences = np.array([runs[one][p] - runs[other][p] for p in runs[one]])
        low, high = bootstrap_interval(differences, draws=2_000)
        yield float(differences.mean()), (low, high), low > 0 or high < 0


def picture(rows: dict[str, SeedValues], most: int = 45) -> Path:
    """Draws a method against itself: single seeds on the left, three against three on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    rng = np.random.default_rng(0)
    single = [pair for runs in rows.values() for pair in one_against_one(runs)]
    single = [single[i] for i in rng.permutation(len(single))[:most]]
    groups = []
    for runs in rows.values():
        for a, b in triples(sorted(runs), most // len(rows)):
            sides = ({k: runs[s] for k, s in enumerate(group)} for group in (a, b))
            compared = compare(*sides)
            low, high = compared.interval
            groups.append((compared.difference, compared.interval, low > 0 or high < 0))
    for axis, pairs, title in zip(axes, (single, groups), ("one seed against one", "three against three"), strict=True):
        for x, (difference, (low, high), decided) in enumerate(sorted(pairs)):
            color = "#d0445f" if decided else "#808080"
            axis.plot([x, x], [low, high], color=color, linewidth=2)
            axis.plot([x], [difference], "o", color=color, markersize=3)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_title(f"{title}: {sum(d for *_, d in pairs)} of {len(pairs)} decided", fontsize=10)
        axis.set_xticks([])
    axes[0].set_ylabel("difference in Dice")
    path = records.root() / "figures" / "repeats.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def awaited() -> list[str]:
    """Writes the runs of the ledger that are not recorded yet, one experiment per line, with its seeds."""
    sys.path.insert(0, str(records.PACKAGE.parent / "book" / "_ext"))
    import anatolab_ledger as ledger

    runs = ledger.unrecorded(ledger.read())
    lines = [" ".join([name, *map(str, sorted(seeds))]) for name, seeds in runs.items()]
    path = ledger.path().with_name("awaited.txt")
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    again = commands.add_parser("repeats", help="train the same rows with 20 seeds")
    again.add_argument("--row", choices=ROWS, action="append", help="only this one")
    commands.add_parser("rates", help="simulate what the rule decides, and draw one method against itself")
    commands.add_parser("awaited", help="write book/awaited.txt anew")
    again.add_argument("--seeds", type=int, default=len(SEEDS), help="how many")
    given = parser.parse_args(arguments)
    if given.command == "rates":
        print(rates().values)
    elif given.command == "awaited":
        print(f"{len(awaited())} experiments are awaited")
    else:
        for row in given.row or ROWS:
            repeats(row, range(given.seeds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
