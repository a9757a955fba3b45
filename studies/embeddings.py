"""Follows how six methods embed the same validation pixels during training; writes records.

    python studies/embeddings.py                # trains what is missing, then writes the record embeddings-cardiac
    python studies/embeddings.py --method mona  # trains this one alone
    python studies/embeddings.py --updates 2000 --folder runs/long  # the budget of the other records

Each method is trained on the generated hearts with three labeled patients, at the demo preset for 1,000 updates, in the
field of view of these three. The four papers' methods add their terms to the base after two stages that pre-train, each
a quarter of the updates, as the papers have them. At six moments the student reads the same 400 pixels of the ten
validation patients, 10 of each class in each patient. `runs/embeddings` keeps their decoder vectors, their
representations if the method has them, and the Dice of its predictions on all validation slices. The record holds t-SNE
maps, each initialized from the one before and aligned to it, and their quality, with the range over maps with random
starts. A record per method, embeddings-cardiac-<method>, has the values per patient by which claims are judged.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cohorts import COHORTS
from recording import Clock

from anatolab import records
from anatolab.analysis.embeddings import Points, aligned_maps, hits, measure, read_features
from anatolab.data import Rows, find_field_of_view, prepare, split_sha256
from anatolab.methods import METHODS
from anatolab.nn import NETWORKS
from anatolab.presets import SIZES
from anatolab.training import Settings, train
from anatolab.types import Size

UPDATES, SHARES = 1_000, (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # of which the moments are
METHODS_SHOWN = ("supervised", "base", "action", "actionpp", "mona", "arco")
STAGES = (0.25, 0.25)  # shares of the two stages of pre-training
PER_CLASS, SEED, STARTS = 100, 0, 5  # pixels; of the training and of the choice; random starts of a map
PERPLEXITY, NEIGHBORS = 30.0, 15


@torch.no_grad()
def dice_of(method: Any, rows: Any, classes: int) -> float:
    """Returns the mean over organs and patients, the slices of a patient pooled, at the size of the training."""
    patients = np.asarray(rows.patients)
    overlap, total = np.zeros((2, classes, len(patients)))
    method.eval()
    for start in range(0, len(rows), 16):
        index = torch.arange(start, min(start + 16, len(rows)))
        image, label = rows.take(index)
        predicted = method.predict(image).argmax(1)
        for c in range(1, classes):
            p, t = predicted == c, label == c
            overlap[c, index] = (p & t).sum((1, 2))
            total[c, index] = p.sum((1, 2)) + t.sum((1, 2))
    scores = [2 * overlap[1:, patients == p].sum(1) / total[1:, patients == p].sum(1) for p in np.unique(patients)]
    return float(np.mean(scores))


def follow(name: str, size: Size, updates: int, folder: Path) -> None:
    """Trains one method, and saves what was read at each moment in ``folder/<name>.pt``."""
    clock = Clock()
    cohort, split_of = COHORTS["cardiac"]()
    split = split_of(3)
    config: Any = replace(METHODS[name].Config().for_size(size), updates=updates)
    if hasattr(config, "pretraining"):
        config = replace(config, pretraining=replace(config.pretraining, shares=STAGES))
    view = find_field_of_view(cohort, split.labeled_patients)
    rows = prepare(cohort, split.train, size=size.image, field_of_view=view)
    held_out = prepare(cohort, split.validation, size=size.image, field_of_view=replace(view, margin=1.0))
    assert isinstance(held_out, Rows)
    torch.manual_seed(SEED)
    method: Any = METHODS[name](NETWORKS[size.network](1, len(cohort.classes)), config)
    moments = [round(share * updates) for share in SHARES]
    read: dict[str, Any] = {"decoder": [], "representation": [], "dice": []}

    def look() -> None:
        for of in ("decoder", "representation") if hasattr(method.student, "pixel") else ("decoder",):
            points = read_features(method, held_out, cohort.classes, of, per_class=PER_CLASS, seed=SEED)
            read[of].append(torch.from_numpy(points.features))
            read["points"] = {k: v.tolist() for k, v in vars(points).items() if k not in ("features", "classes")}
        read["dice"].append(dice_of(method, held_out, len(cohort.classes)))
        method.train()

    look()
    after, count = method.after_step, 0

    def after_step() -> None:
        nonlocal count
        after()
        count += 1
        if count in moments:
            state = torch.get_rng_state()
            look()
            torch.set_rng_state(state)

    method.after_step = after_step
    settings = Settings(seed=SEED, accelerator="cpu")
    run = train(method, rows, split, settings, progress=False)
    if not run.finished:
        raise KeyboardInterrupt  # a stopped training leaves nothing
    read |= {
        "moments": moments,
        "stages": [[stage.name, stage.updates] for stage in method.stages()],
        "fields": records.plain(asdict(config)),
        "settings": records.plain(asdict(settings)),
        "classes": list(cohort.classes),
        "split": split_sha256(split),
        "code": records.code_of(METHODS[name].__module__),
        "made": clock.provenance(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.{os.getpid()}.tmp"
    torch.save(read, partial)
    partial.replace(folder / f"{name}.pt")
    print(name, f"{run.wall_s:.0f} s", [round(d, 3) for d in read["dice"]], flush=True)


def points_of(read: dict[str, Any], of: str, moment: int) -> Points:
    known = {k: np.asarray(v) for k, v in read["points"].items()}
    return Points(features=read[of][moment].numpy(), classes=tuple(read["classes"]), **known)


def mapped(read: dict[str, Any]) -> dict[str, Any]:
    """Computes maps and quality of one method."""
    values: dict[str, Any] = {"dice": np.round(read["dice"], 4), "moments": read["moments"], "stages": read["stages"]}
    for of in ("decoder", "representation"):
        points = [points_of(read, of, i) for i in range(len(read[of]))]
        if points:
            rows = [measure(p, p.features, NEIGHBORS) for p in points]
            values[of] = {key: [round(row[key], 4) for row in rows] for key in rows[0]}  # of the features themselves
    points = [points_of(read, "decoder", i) for i in range(len(read["decoder"]))]
    features = [p.features for p in points]
    maps = aligned_maps(features, PERPLEXITY)
    values["x"], values["y"] = (np.round([m[:, axis] for m in maps], 2) for axis in (0, 1))
    rows = [measure(p, m, NEIGHBORS) for p, m in zip(points, maps, strict=True)]
    others = [
        [measure(p, m, NEIGHBORS) for p, m in zip(points, course, strict=True)]
        for course in (aligned_maps(features, PERPLEXITY, init="random", seed=seed) for seed in range(STARTS))
    ]
    values["map"] = {
        key: {
            "value": [round(row[key], 4) for row in rows],
            "low": [round(min(course[i][key] for course in others), 4) for i in range(len(rows))],
            "high": [round(max(course[i][key] for course in others), 4) for i in range(len(rows))],
        }
        for key in rows[0]
    }
    return values


def by_patient(read: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Returns for each patient the share of neighbors in other patients with the same class, at the last moment."""
    points = points_of(read, "decoder", len(read["decoder"]) - 1)
    hit = hits(points.features, points.label, NEIGHBORS, apart=points.patient)
    return {"class_hit": {p: round(float(hit[points.patient == p].mean()), 4) for p in sorted(set(points.patient))}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=METHODS_SHOWN, help="train this one alone, and write no record")
    parser.add_argument("--size", choices=("tiny", "demo"), default="demo")
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--folder", type=Path, default=Path("runs/embeddings"))
    args = parser.parse_args()
    size = SIZES[args.size]
    for name in (args.method,) if args.method else METHODS_SHOWN:
        if not (args.folder / f"{name}.pt").exists():
            follow(name, size, args.updates, args.folder)
    if args.method:
        return
    clock = Clock()
    reads = {name: torch.load(args.folder / f"{name}.pt", weights_only=True) for name in METHODS_SHOWN}
    one = reads["action"]
    values: dict[str, Any] = {name: mapped(read) for name, read in reads.items()}
    known = one["points"]
    assert all(read["points"] == known for read in reads.values()), "the methods were read at different pixels"
    patients = sorted(set(known["patient"]))
    values["points"] = {
        "label": known["label"],
        "patient": [patients.index(p) for p in known["patient"]],
        "patients": patients,
        "phase": known["phase"],
        "classes": one["classes"],
    }
    config = records.plain(
        {
            "size": asdict(size),
            "settings": one["settings"],
            "updates": args.updates,
            "labeled_patients": 3,
            "pixels": len(known["label"]),
            "perplexity": PERPLEXITY,
            "neighbors": NEIGHBORS,
            "random_starts": STARTS,
            "fields": {name: read["fields"] for name, read in reads.items()},
            "trainings": {name: read["made"] | {"code": read["code"]} for name, read in reads.items()},
        }
    )
    titles = {"": "maps of validation pixels along six trainings"}
    parts = {"": values}
    for name, read in reads.items():
        parts[f"-{name.replace('_', '-')}"] = {"per_patient": by_patient(read), "dice": read["dice"][-1]}
        titles[f"-{name.replace('_', '-')}"] = f"pixels of the same class in other patients, {name}"
    for end, part in parts.items():
        record = records.Record(
            experiment=f"embeddings-cardiac{end}",
            seed=SEED,
            kind="embeddings",
            title=titles[end],
            config=config,
            values=records.plain(part),
            provenance=clock.provenance(),
            code=records.code_of("anatolab.analysis.embeddings"),
            split_sha256=one["split"],
        )
        print(records.write(record).name, record.run_id, flush=True)


if __name__ == "__main__":
    main()
