"""Measures whether a generated cohort is hard enough, and compares it with real data; writes one record.

    python studies/gate.py                          # the cardiac cohort: about half an hour on one core
    python studies/gate.py abdomen                  # another one
    python studies/gate.py atrium                   # one of volumes: a 3-D network, shortcuts for each voxel
    python studies/gate.py cardiac --only likeness  # the table of shares and extents alone; the rest is kept

The gate (recorded as `gate-<cohort>`), in mean Dice over held-out patients, at size demo: supervision with all labels
reaches at least .85; the base with three labeled patients, a classifier of each pixel's intensity and position, and an
atlas of mean shapes stay at least .10, .20 and .20 below that. A failed gate is repaired in the generator, never here.
If ANATOLAB_DATA has real data of the same anatomy, the record also holds the Dice on real training patients of a
network trained on generated patients alone, in the field of view of three real ones, and compares the two cohorts.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recording import Clock
from shortcuts import SIDE, PerPixel, PerVoxel
from torch import nn

from anatolab import records
from anatolab.data import cache_root, find_field_of_view, open_cohort, prepare, split_patients, split_sha256
from anatolab.data.cache import scaled
from anatolab.data.phantoms import abdomen_cohort, atrium_cohort, cardiac_cohort
from anatolab.inference import evaluate
from anatolab.methods import METHODS
from anatolab.metrics import summarize
from anatolab.nn import NETWORKS
from anatolab.presets import SIZES, SIZES_3D
from anatolab.training import Settings, train
from anatolab.types import Cohort, Size, Split

TARGETS = {"full": 0.85, "three_under": 0.10, "pixel_under": 0.20, "atlas_under": 0.20}
PARTS = ("likeness", "full", "three", "shortcuts")


@dataclass(frozen=True)
class Gate:
    """The gate's settings for one generated cohort."""

    cohort: Callable[[], Cohort]
    split: dict[str, int]  # patients: labeled, validation, test
    title: str
    shape: str  # name of the foreground's center and extent in the record
    dims: int = 2  # 3: the cohort is used as volumes
    tail: float = 0.0  # least ratio of voxels of the largest organ to the smallest; 0: no target
    real: str = ""  # folder of real data of the same anatomy, under ANATOLAB_DATA
    config: dict[str, Any] = field(default_factory=dict)  # further configuration for the record

    @property
    def size(self) -> Size:
        """Returns the size at which its networks are trained."""
        return (SIZES if self.dims == 2 else SIZES_3D)["demo"]


GATES = {
    "cardiac": Gate(
        cohort=lambda: cardiac_cohort(100, seed=0),
        split={"labeled": 70, "validation": 10, "test": 20},
        title="Is the generated cardiac cohort like ACDC, and hard enough?",
        shape="heart",
        real="ACDC",
    ),
    "abdomen": Gate(
        cohort=lambda: abdomen_cohort(64, seed=0),
        split={"labeled": 40, "validation": 10, "test": 14},
        title="Is the generated abdomen hard enough?",
        shape="organs",
        tail=100.0,
        config={"calibrated_on": "cohorts of seeds 101 and 102, up to 1500 updates; nothing was chosen on this one"},
    ),
    "atrium": Gate(
        cohort=lambda: atrium_cohort(60, seed=0),
        split={"labeled": 40, "validation": 8, "test": 12},
        title="Is the generated left atrium hard enough?",
        shape="atrium",
        dims=3,
        config={"calibrated_on": "cohorts of seeds 100 and 101, and version 1 of this one: other patients"},
    ),
}


def generator_of(name: str) -> str:
    """Returns the module that draws a cohort; its ``VERSION`` is part of every seed."""
    return f"anatolab.data.phantoms.{name}"


def method_config(gate: Gate, method: str) -> Any:
    """Returns the recommended settings; with all patients labeled, the batch has as many images as otherwise."""
    config = METHODS[method].Config().for_size(gate.size)
    return replace(config, labeled=config.labeled + config.unlabeled) if method == "supervised" else config


def config_of(gate: Gate, provenance: dict[str, Any]) -> dict[str, Any]:
    """Returns the configuration of a gate; a record of another configuration is started anew."""
    return {
        "cohort": provenance,
        "size": asdict(gate.size),
        **{name: asdict(method_config(gate, name)) for name in ("supervised", "base")},
        **gate.config,
    }


def trained(name: str, cohort: Cohort, split: Split, seed: int) -> dict[str, Any]:
    """Trains or resumes a network with all labels (supervised) or few (base); returns arguments of :func:`dice_of`."""
    gate = GATES[name]
    kind = "supervised" if split.labeled == len(split.train) else "base"
    view = find_field_of_view(cohort, split.labeled_patients, dims=gate.dims)
    rows = prepare(cohort, split.train, size=gate.size.image, field_of_view=view)
    torch.manual_seed(seed)
    network = NETWORKS[gate.size.network](1, len(cohort.classes), spatial_dims=gate.dims)
    method = METHODS[kind](network, method_config(gate, kind))
    version = importlib.import_module(generator_of(name)).VERSION
    out = cache_root() / "gate" / f"{name}-v{version}-{kind}-{split.labeled}-seed{seed}-{gate.size.updates}"
    if not train(method, rows, split, Settings(seed=seed, checkpoint_every=100), out=out).finished:
        raise KeyboardInterrupt  # a half-trained network is not measured
    return {"method": method, "size": gate.size.image, "field_of_view": view, "largest_component": True}


def dice_of(
    method: nn.Module, cohort: Cohort, patients: tuple[str, ...], size: tuple[int, ...] = (SIDE, SIDE), **how: Any
) -> dict[str, float]:
    """Computes the mean Dice over patients per class on the native grid, and the mean over foreground classes."""
    refs = cohort.of(patients)
    values = evaluate(method, refs, cohort.classes, size, **how)
    return summarize(values, {ref.name: ref.patient for ref in refs})["dice"]


def likeness(cohort: Cohort, patients: tuple[str, ...], shape: str) -> dict[str, Any]:
    """Computes comparable statistics of a cohort: class shares, scaled intensities, extents, empty slices."""
    names, rows = cohort.classes, []
    histogram = np.zeros((len(names), 20))
    for ref in cohort.of(patients):
        case = ref.load()
        assert case.label is not None
        image, label = scaled(case)[0].numpy(), case.label
        inside = [label == c for c in range(len(names))]
        histogram += [np.histogram(image[m], 20, (0, 1))[0] for m in inside]
        y, x = np.nonzero((label > 0).any(0))
        sizes = np.array(label.shape[1:])
        rows.append(
            {
                "slices": len(label),
                "share": [m.mean() for m in inside],
                "empty": [1 - m.any((1, 2)).mean() for m in inside],
                "mean": [image[m].mean() if m.any() else np.nan for m in inside],
                "sd": [image[m].std() if m.any() else np.nan for m in inside],
                "quantiles": np.quantile(image, [0.05, 0.25, 0.5, 0.75, 0.95, 0.99]),
                "center": np.array([y.mean(), x.mean()]) / sizes,
                "extent": np.array([np.ptp(y) + 1, np.ptp(x) + 1]) / sizes,
                "first": [m[0].any() for m in inside],
                "last": [m[-1].any() for m in inside],
            }
        )

    def over(key: str, labels: tuple[str, ...]) -> dict[str, dict[str, float]]:
        values = np.array([r[key] for r in rows], float)
        return {
            name: {"mean": round(float(np.nanmean(v)), 4), "sd": round(float(np.nanstd(v)), 4)}
            for name, v in zip(labels, values.T, strict=True)
        }

    slices = np.array([r["slices"] for r in rows])
    return {
        "volumes": len(rows),
        "slices": {"mean": float(slices.mean()), "least": int(slices.min()), "most": int(slices.max())},
        "share": over("share", names),
        "empty_slices": over("empty", names),
        "in_first_slice": over("first", names),
        "in_last_slice": over("last", names),
        "intensity_mean": over("mean", names),
        "intensity_sd": over("sd", names),
        "intensity_quantiles": over("quantiles", ("05", "25", "50", "75", "95", "99")),
        f"{shape}_center": over("center", ("rows", "columns")),
        f"{shape}_extent": over("extent", ("rows", "columns")),
        "histogram": dict(zip(names, (histogram / histogram.sum(1, keepdims=True)).round(4).tolist(), strict=True)),
    }


def tail(cohort: Cohort) -> float:
    """Returns the ratio of voxels of the largest organ to those of the smallest."""
    counts = np.zeros(256, int)
    for case in cohort:
        assert case.label is not None
        counts += np.bincount(case.label.ravel(), minlength=256)
    organs = counts[1 : len(cohort.classes)]
    return round(float(organs.max() / organs.min()), 1)


def show(table: dict[str, dict[str, Any]]) -> None:
    """Prints the comparison, one line a quantity."""
    for key, parts in next(iter(table.values())).items():
        if key not in ("volumes", "slices", "histogram"):
            for part in parts:
                values = [f"{kind} {t[key][part]['mean']:.4f} ({t[key][part]['sd']:.4f})" for kind, t in table.items()]
                print(f"{key} {part}".ljust(30), *values)


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Merges nested dictionaries; new values replace old ones."""
    both = {k: merged(old[k], v) if isinstance(v, dict) and k in old else v for k, v in new.items()}
    return {**old, **both}


def judged(values: dict[str, Any]) -> dict[str, bool]:
    """Returns which of the measured parts of the gate are passed."""
    dice, targets = values.get("dice", {}), values["targets"]
    held = {"tail": values["tail"] >= targets["tail"]} if "tail" in values else {}
    if "full" not in dice:
        return held
    best = dice["full"]["mean"]
    under = {k: best - dice[k]["mean"] >= targets[f"{k}_under"] for k in ("three", "pixel", "atlas") if k in dice}
    return {**held, "full": best >= targets["full"], **under}


def keep(name: str, measured: dict[str, Any], config: dict[str, Any], split: Split, clock: Clock) -> records.Record:
    """Adds measured values to the record; a record of another generator version or configuration is started anew."""
    path = records.path_of(f"gate-{name}", 0)
    old = records.read(path) if path.exists() else None
    values = old.values if old is not None and old.config == records.plain(config) else {}
    targets = TARGETS | ({"tail": GATES[name].tail} if GATES[name].tail else {})
    values = merged(values, records.plain({**measured, "targets": targets}))
    dice = values.get("dice", {})
    if runs := list(dice.get("three_seeds", {}).values()):
        dice["three"] = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    values["passed"] = judged(values)
    values["passed_all"] = len(values["passed"]) == len(targets) and all(values["passed"].values())
    record = records.Record(
        experiment=f"gate-{name}",
        seed=0,
        kind="gate",
        title=GATES[name].title,
        config=records.plain(config),
        values=values,
        provenance=clock.provenance(),
        code=records.code_of(generator_of(name)),
        split_sha256=split_sha256(split),
    )
    records.write(record)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", nargs="?", choices=list(GATES), default="cardiac")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure; others are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1), help="runs with three labeled patients")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    clock = Clock()

    name, gate = args.cohort, GATES[args.cohort]
    cohort = gate.cohort()
    split = split_patients(cohort, **gate.split, seed=0)
    data = os.environ.get("ANATOLAB_DATA")
    real = open_cohort(Path(data) / gate.real) if data and gate.real else None
    config = config_of(gate, cohort.provenance)

    def done(measured: dict[str, Any]) -> None:
        record = keep(name, measured, config, split, clock)
        print(measured.get("dice", ""), "passed:", record.values["passed"], flush=True)

    if "likeness" in args.only:
        table = {"generated": likeness(cohort, cohort.patients, gate.shape)}
        if real is not None:
            table = {gate.real.lower(): likeness(real, real.published["train"], gate.shape), **table}
        show(table)
        done({"likeness": table, **({"tail": tail(cohort)} if gate.tail else {})})
    if "full" in args.only:
        network = trained(name, cohort, split, 0)
        done({"dice": {"full": dice_of(cohort=cohort, patients=split.test, **network)}})
        if real is not None:
            patients = real.published["train"]
            network["field_of_view"] = find_field_of_view(real, patients[:3])
            done({"dice": {f"on_{gate.real.lower()}": dice_of(cohort=real, patients=patients, **network)}})
    if "three" in args.only:
        for seed in args.seeds:
            network = trained(name, cohort, replace(split, labeled=3), seed)
            done({"dice": {"three_seeds": {str(seed): dice_of(cohort=cohort, patients=split.test, **network)}}})
    if "shortcuts" in args.only and gate.dims == 3:
        for kind in ("atlas", "pixel"):
            scores = PerVoxel(cohort, split.train, atlas=kind == "atlas").dice_of(cohort, split.test)
            done({"dice": {kind: scores}})
    elif "shortcuts" in args.only:
        rows = prepare(cohort, split.train, size=(SIDE, SIDE))
        images, labels = np.array(rows.images, np.float32), np.array(rows.labels)
        for kind in ("atlas", "pixel"):
            shortcut = PerPixel(images, labels, len(cohort.classes), atlas=kind == "atlas")
            done({"dice": {kind: dice_of(shortcut, cohort, split.test)}})


if __name__ == "__main__":
    main()
