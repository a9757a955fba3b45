"""Measures what a verdict is worth: how often the rule decides where nothing differs, and what it can see.

    python studies/verdicts.py repeats                 # 20 seeds of each row, trained on generated hearts
    python studies/verdicts.py repeats --row base      # this row alone; continues after the last recorded seed
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from recording import Clock, rounded

from anatolab import records
from anatolab.presets import SIZES

ROWS = ("supervised", "mean_teacher", "base")  # keys of METHODS; cheap, and of very different spread over seeds
SEEDS = range(20)
PATIENTS, TRAIN, VALIDATION, LABELED = 40, 30, 10, 7  # generated hearts


def repeats(row: str, seeds: Sequence[int] = SEEDS) -> records.Record:
    """Trains one method once per seed, all else equal, and records the Dice of each validation patient.

    One record a row, ``repeats-<row>``, with ``dice.<seed>.<patient>``; it is rewritten after each training, and a
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
    settings = {"accelerator": "cpu"}
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


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    again = commands.add_parser("repeats", help="train the same rows with 20 seeds")
    again.add_argument("--row", choices=ROWS, action="append", help="only this one")
    again.add_argument("--seeds", type=int, default=len(SEEDS), help="how many")
    given = parser.parse_args(arguments)
    for row in given.row or ROWS:
        repeats(row, range(given.seeds))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
