"""Measures the methods on frozen features on generated images, and writes records.

    python studies/robust.py choose --seeds 100 101        # robust-choice: each method's three settings, on two draws
    python studies/robust.py report --on vit               # robust-fair-vit: chosen settings on ten fresh draws
    python studies/robust.py report --on stripes size two-cues none    # other worlds
    python studies/robust.py sweep                         # robust-sweep: from a cue that means nothing to a strong one
    python studies/robust.py cells                         # cfr-cells: CFR with one setting changed at a time

A seed draws the data (training, validation, test, counterfactual sets) and everything in training; the pre-trained
weights stay. A method chooses among its three settings (:data:`anatolab.robust.catalog.METHODS`) by its own rule, by
the mean over draws that are never reported; where it sees groups in selection, it chooses a second time by its worst
class, which needs none. DFR, which is fitted on validation rows, chooses in its fit, one half against the other.
Worlds and sweep take the settings chosen on finch or duck. Nothing is chosen on test rows.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from recording import Clock, rounded

from anatolab import records
from anatolab.data import LabeledImages
from anatolab.data.phantoms import counterfactual_scenes, finch_or_duck
from anatolab.data.phantoms.worlds import generated_world
from anatolab.metrics import counterfactual_scores, group_accuracy
from anatolab.robust import (
    Best,
    Cfr,
    Clip,
    FeatureSet,
    Head,
    ProjectionHead,
    Sgd,
    Start,
    ZeroShot,
    calibration_set,
    load_clip,
    predict,
    rows_of,
    start_of,
)
from anatolab.robust._fit import Select, in_chunks, train_projection
from anatolab.robust.catalog import METHODS, selection_score
from anatolab.types import InputError

SIZES = (2400, 600, 1200)  # training, validation and test rows
MAKERS: dict[str, Callable[[int], LabeledImages]] = {
    "vit": lambda seed: finch_or_duck(SIZES, seed=seed),
    "rn": lambda seed: finch_or_duck(SIZES, seed=seed),
    **{
        kind: partial(lambda kind, seed: generated_world(kind, SIZES, seed=seed), kind)
        for kind in ("stripes", "size", "two-cues", "none")
    },
}
STRENGTHS = (0.5, 0.75, 0.9, 0.98)  # of the sweep: share of aligned training rows; 0.95 is the report
# Name in a record: name in the catalog, and a rule of selection in place of its own. The contrastive adapter is left
# out: it is no projection, and costs more than all others together.
RUNS: dict[str, tuple[str, Select | None]] = {
    **{name: (name, None) for name in METHODS if name != "adapter"},
    **{f"{name}_no_groups": (name, "val_worst_class") for name in ("jtt", "afr", "cnc")},
    "cfr_with_groups": ("cfr", "val_worst_group"),
}
TERM_REMOVED = "cfr_term_removed"  # CFR at the settings that it chose with its calibration term, but without the term
FEW = ("zero_shot", "erm", "jtt_no_groups", "afr_no_groups", "cfr", "cfr_no_calibration", "groupdro", "dfr")


@dataclass
class Task:
    """One draw of a world with the features of a frozen model."""

    name: str
    seed: int
    aligned: float | None = None  # of finch or duck, in place of 0.95
    clip: Clip = field(init=False)

    def __post_init__(self) -> None:
        self.clip = load_clip("scenes-rn" if self.name == "rn" else "scenes-vit")
        images = MAKERS[self.name](self.seed)
        if self.aligned is not None:
            images = finch_or_duck(SIZES, aligned=self.aligned, seed=self.seed)
        self.images = images
        self.config = {"world": images.provenance, "model": self.clip.name, "weights": self.clip.record["sha256"]}
        self.start = start_of(self.clip, images.classes)
        self.train, self.val, self.test = (rows_of(self.clip, images.of(split)) for split in ("train", "val", "test"))
        self.counts = images.of("train").counts
        self.shared: tuple[ProjectionHead, torch.Tensor] | None = None

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def fit(self, method: Any) -> Any:
        with warnings.catch_warnings():  # of few anchors: their number is recorded
            warnings.simplefilter("ignore", UserWarning)
            return method.fit(self.train.h, self.train.y, self.train.groups, self.generator(), self.val)

    def made(self, run: str, config: Any) -> Any:
        """Makes a method; CFR reuses the ERM that was trained once, if that is its reference."""
        method = METHODS[RUNS[run][0]].make(self.start, config, RUNS[run][1])
        if not (isinstance(method, Cfr) and method.config.reference == "erm_last" and method.config.erm == Sgd()):
            return method
        if self.shared is None:
            generator = self.generator()
            erm = train_projection(self.start, self.train.h, self.train.y, Sgd(), Best("last", None), generator)
            self.shared = erm, generator.get_state()
        return OnReference(method.start, method.config, *self.shared)

    def accuracy(self, head: Head) -> dict[str, Any]:
        """Computes accuracies on test rows; `gap` is the weighted mean minus the worst group."""
        rows = self.test
        assert rows.groups is not None
        pred = predict(head, rows.h).numpy()
        scores = group_accuracy(pred, rows.y.numpy(), rows.groups.numpy(), train_counts=self.counts)
        return scores | {"gap": scores["train_weighted"] - scores["worst"]}

    @cached_property
    def sets(self) -> torch.Tensor:
        """Returns the features of 200 counterfactual sets of four scenes."""
        sets = counterfactual_scenes(200, self.seed).images
        return self.clip.trunk(self.clip.preprocess(sets.reshape(-1, *sets.shape[3:])))

    def reliance(self, head: Head) -> dict[str, Any]:
        """Computes counterfactual scores, with intervals over sets."""
        logits = in_chunks(head.logits, self.sets)
        return counterfactual_scores((logits[:, 1] - logits[:, 0]).view(-1, 2, 2).numpy(), seed=self.seed)


class OnReference(Cfr):
    """CFR with a pre-trained reference, and the generator in the state after that training: the same weights."""

    def __init__(self, start: Start, config: Cfr.Config, trained: ProjectionHead, state: torch.Tensor) -> None:
        super().__init__(start, config)
        self.trained, self.state = trained, state

    def reference(self, features: Any, y: Any, generator: Any, validation: Any) -> ProjectionHead:
        generator.set_state(self.state)
        return self.trained


def choose(seed: int) -> records.Record:
    """Scores every setting of every run by its rule, on validation rows of one draw."""
    clock, task = Clock(), Task("vit", seed)
    scores, settings = {}, {}
    for run, (name, _) in RUNS.items():
        made = [task.made(run, config) for config in METHODS[name].settings]
        settings[run] = [asdict(method.config) for method in made]
        scores[run] = [selection_score(method, task.fit(method), task.val) for method in made]
        print(f"choice seed {seed} {run}: {[round(s, 3) for s in scores[run]]}", flush=True)
    title = "settings of every method, scored by its rule on draws that are not reported"
    return keep("robust-choice", seed, title, task.config | {"settings": settings}, {"scores": scores}, clock)


def chosen() -> dict[str, int]:
    """Returns the setting of each run with the best mean score over the draws of `choose`, the first of equals."""
    runs = [record.values["scores"] for record in records.load("robust-choice")]
    return {run: int(np.mean([scores[run] for scores in runs], 0).argmax()) for run in RUNS}


def report(name: str, seed: int) -> records.Record:
    """Runs every method at its chosen setting; on worlds other than finch or duck, only some of them."""
    clock, task, numbers = Clock(), Task(name, seed), chosen()
    scenes = name in ("vit", "rn")
    values: dict[str, Any] = {}
    for run in (*RUNS, TERM_REMOVED) if name == "vit" else (*FEW, TERM_REMOVED):
        values[run] = one(task, run, numbers, reliance=scenes)
        print(f"{name} seed {seed} {run}: {values[run].get('worst')} {values[run].get('mean')}", flush=True)
    if scenes:
        prompts = [f"{c} on {a}" for c in task.images.classes for a in task.images.attributes]
        start = replace(task.start, text=task.clip.text_head(prompts))
        values["group_prompts"] = measured(task, ZeroShot(start, ZeroShot.Config(2)), reliance=True)
    anchors: dict[str, Any] = {}
    if task.shared is not None and "refused" not in values["cfr"]:
        of_anchor = task.train.groups[calibration_set(task.shared[0], task.train.h, task.train.y).anchors]  # type: ignore[index]
        groups = torch.bincount(of_anchor, minlength=len(task.counts))
        anchors = {"groups": groups.tolist(), "minority": float(groups[1:3].sum() / groups.sum()) if scenes else None}
    record = {"methods": values, "anchors": anchors, "train_counts": task.counts}
    return keep(
        f"robust-fair-{name}", seed, f"methods at settings chosen elsewhere: {name}", task.config, record, clock
    )


def one(task: Task, run: str, numbers: dict[str, int], *, reliance: bool) -> dict[str, Any]:
    """Fits and measures one run at its chosen setting."""
    as_chosen = "cfr" if run == TERM_REMOVED else run
    name, select = RUNS[as_chosen]
    config = METHODS[name].settings[numbers[as_chosen]]
    method = task.made(as_chosen, replace(config, cal_weight=0.0) if run == TERM_REMOVED else config)
    sees = {part: list(labels) for part, labels in METHODS[name].sees(select, choosing=True).items()}
    return measured(task, method, reliance=reliance) | {"sees": sees, "setting": numbers[as_chosen]}


def measured(task: Task, method: Any, *, reliance: bool, keep: dict[str, Any] | None = None) -> dict[str, Any]:
    """Fits and measures a method, and keeps its head; one that refuses, for want of errors, says so."""
    begin = time.process_time()
    try:
        head = task.fit(method)
    except InputError as error:
        return {"refused": str(error)}
    seconds = time.process_time() - begin
    if keep is not None:
        keep["head"] = head
    scores = task.accuracy(head)
    return {**scores, **({"reliance": task.reliance(head)} if reliance else {}), "cpu_s": seconds}


def sweep(seed: int) -> records.Record:
    """Runs some methods over increasing strengths of the cue in the training rows."""
    clock, numbers = Clock(), chosen()
    values: dict[str, Any] = {}
    for aligned in STRENGTHS:
        task = Task("vit", seed, aligned)
        for run in FEW:
            scores = one(task, run, numbers, reliance=False)
            kept = {k: scores.get(k) for k in ("worst", "mean", "train_weighted", "refused") if k in scores}
            values.setdefault(run, {})[f"{1000 * aligned:.0f}"] = kept
        print(
            f"sweep seed {seed} {aligned}: {[values[r][f'{1000 * aligned:.0f}'].get('worst') for r in FEW]}", flush=True
        )
    config = {"strengths": STRENGTHS, "settings": numbers}
    return keep("robust-sweep", seed, "worst group while the cue grows stronger", config, values, clock)


ALIGNED = "worst class, on rows aligned as training"  # of validation: what is left without balanced groups there
# Keys without a dot, which separates the parts of a key of a record.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {"as recommended": {}},
    "learning rate": {f"{lr:.0e}": {"sgd": Sgd(epochs=12, lr=lr)} for lr in (1e-5, 1e-3, 1e-2)},
    "temperature": {f"{tau:.0e}": {"temperature": tau} for tau in (3e-2, 3e-1, 1.0)},
    "anchors": {f"at most {n}": {"max_anchors": n} for n in (8, 16, 32)},
    "reference": {
        "ERM by worst group": {"reference": "erm_best"},
        "ERM, 20 epochs": {"erm": Sgd(epochs=20)},
        "zero-shot": {"reference": "zero_shot"},
    },
    "holistic term": {kind: {"holistic": kind} for kind in ("cosine", "targeted", "none")},
    "positive": {"centroid": {"positive": "centroid"}},
    "negatives": {"random": {"negative": "random"}, "own class (released)": {"negative": "same_class_as_released"}},
    "terms": {
        "without anchors' cross-entropy": {"ce_weight": 0.0},
        "without calibration": {"cal_weight": 0.0},
        "contrast alone": {"ce_weight": 0.0, "holistic": "none"},
        "contrast alone, own class": {"ce_weight": 0.0, "holistic": "none", "negative": "same_class_as_released"},
    },
    "released": {  # 20 epochs in place of 100, as in the catalog
        "ViT": vars(Cfr.Config.official("vit", sgd=Sgd(epochs=20, lr=1e-4))),
        "ResNet": vars(Cfr.Config.official("rn", sgd=Sgd(epochs=20, lr=1e-4))),
    },
    "selection": {
        "last": {"select": "last"},
        "average": {"select": "val_average"},
        "worst group": {"select": "val_worst_group"},
        ALIGNED: {},
    },
}


def cells(seed: int) -> records.Record:
    """Runs CFR with one setting changed at a time."""
    clock = Clock()
    task = Task("vit", seed)
    generator = task.generator()
    erm = train_projection(task.start, task.train.h, task.train.y, Sgd(), Best("last", None), generator)

    balanced = task.val

    def cell(value: str, changed: dict[str, Any]) -> dict[str, Any]:
        task.val = aligned_part(balanced) if value == ALIGNED else balanced
        config = Cfr.Config(**changed)
        shared = config.reference == "erm_last" and config.erm == Sgd()
        method = OnReference(task.start, config, erm, generator.get_state()) if shared else Cfr(task.start, config)
        head = task.fit(method)
        assert method.best is not None
        assert method.calibration is not None
        scores = task.accuracy(head)
        return {
            **{k: scores[k] for k in ("worst", "train_weighted", "mean", "per_group")},
            "srr": task.reliance(head)["srr"],
            "epoch": method.best.epoch,
            "anchors": len(method.calibration.anchors),
        }

    parts = {
        part: {value: cell(value, changed) for value, changed in cells.items()} for part, cells in SETTINGS.items()
    }
    values = {"cells": parts, "erm": task.accuracy(erm)}
    return keep("cfr-cells", seed, "CFR with one setting changed at a time", task.config, values, clock)


def aligned_part(rows: FeatureSet) -> FeatureSet:
    """Returns the rows in which finches are on land and ducks on water, with a nineteenth as many of the others."""
    assert rows.groups is not None
    parts = [torch.nonzero(rows.groups == g).flatten() for g in range(4)]
    parts[1], parts[2] = (parts[few][: round(len(parts[many]) / 19)] for few, many in ((1, 0), (2, 3)))
    index = torch.cat(parts)
    return FeatureSet(rows.h[index], rows.y[index], rows.groups[index])


def keep(name: str, seed: int, title: str, config: Any, values: Any, clock: Clock) -> records.Record:
    """Writes a record of what was measured."""
    record = records.Record(
        experiment=name,
        seed=seed,
        kind="robust",
        title=title,
        config=records.plain(config),
        values=rounded(records.plain(values)),
        provenance=clock.provenance(),
        code=records.code_of("anatolab.robust.catalog"),
    )
    records.write(record)
    print(record.run_id, f"{record.provenance['wall_s']:.0f} s", flush=True)
    return record


def todo(name: str, seeds: list[int]) -> Iterator[int]:
    """Yields the seeds whose record is missing or stale."""
    for seed in seeds:
        path = records.path_of(name, seed)
        if not path.exists() or records.is_stale(records.read(path)):
            yield seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["choose", "report", "sweep", "cells"])
    parser.add_argument("--on", choices=list(MAKERS), nargs="+", default=["vit"], help="worlds of a report")
    parser.add_argument("--seeds", type=int, nargs="+", help="10 to 19, or 100 and 101 for choose, where not given")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seeds = args.seeds or ([100, 101] if args.what == "choose" else list(range(10, 20)))
    for name in args.on if args.what == "report" else []:
        for seed in todo(f"robust-fair-{name}", seeds):
            report(name, seed)
    makers = {"choose": ("robust-choice", choose), "sweep": ("robust-sweep", sweep), "cells": ("cfr-cells", cells)}
    if args.what in makers:
        experiment, make = makers[args.what]
        for seed in todo(experiment, seeds):
            make(seed)


if __name__ == "__main__":
    main()
