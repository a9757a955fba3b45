"""Measures the methods on frozen features of CLIP on generated scenes, and writes records.

    python studies/robust.py methods --on vit --seeds 0 1 2 3 4 5    # robust-vit: every method, every rule of selection
    python studies/robust.py cells                                   # cfr-cells: CFR with one setting changed at a time
    python studies/robust.py cost                                    # cfr-cost: against fine-tuning the image tower

A seed draws the data downstream (training, validation, test, counterfactual sets) and everything in training; the
pre-trained weights stay. Difficulties: `vit` has the shipped weights and 95 % aligned training rows, `vit-aligned-90`
and `-99` other shares, `vit-rho-95` other weights, pre-trained with a stronger cue (they must lie under the cache:
`studies/weights.py scenes-vit --rho 0.95 --folder $ANATOLAB_CACHE/weights-rho-95`), `rn` the ResNet. Settings are the
defaults of each method: none is chosen here, and nothing is chosen on test rows.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from recording import Clock, rounded

from anatolab import records
from anatolab.data import cache_root
from anatolab.data.phantoms import counterfactual_scenes, finch_or_duck
from anatolab.metrics import counterfactual_scores, group_accuracy
from anatolab.robust import (
    Afr,
    Best,
    Cfr,
    Clip,
    Cnc,
    ContrastiveAdapter,
    Dfr,
    ErmLinearProbe,
    ErmProjection,
    FeatureSet,
    GroupDro,
    Head,
    Jtt,
    ProjectionHead,
    Sgd,
    Start,
    WiseFt,
    ZeroShot,
    calibration_set,
    extract,
    load_clip,
    predict,
    rows_of,
    start_of,
)
from anatolab.robust._fit import Select, batches, in_chunks, train_projection
from anatolab.robust.clip import load_small

RULES: tuple[Select, ...] = get_args(Select)
DIFFICULTIES: dict[str, dict[str, Any]] = {
    "vit": {},
    "vit-aligned-90": {"aligned": 0.90},
    "vit-aligned-99": {"aligned": 0.99},
    "vit-rho-95": {"weights": "weights-rho-95"},
    "rn": {"model": "scenes-rn"},
}


@dataclass
class Task:
    """Data and pre-trained model of one difficulty and seed, with features extracted."""

    name: str
    seed: int
    clip: Clip = field(init=False)

    def __post_init__(self) -> None:
        settings = {"model": "scenes-vit", "weights": None, "aligned": 0.95} | DIFFICULTIES[self.name]
        self.clip = (
            load_small(settings["model"], cache_root() / settings["weights"])
            if settings["weights"]
            else load_clip(settings["model"])
        )
        self.config = settings | {"weights": self.clip.record["sha256"], "rho": self.clip.record["recipe"]["rho"]}
        images = self.images = finch_or_duck(aligned=settings["aligned"], seed=self.seed)
        self.start = start_of(self.clip, images.classes)
        self.train, self.val, self.test = (rows_of(self.clip, images.of(split)) for split in ("train", "val", "test"))
        self.counts = images.of("train").counts
        sets = counterfactual_scenes(200, self.seed).images
        self.sets = self.clip.trunk(self.clip.preprocess(sets.reshape(-1, *sets.shape[3:])))

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def fit(self, method: Any) -> Any:
        with warnings.catch_warnings():  # of few anchors: their number is recorded
            warnings.simplefilter("ignore", UserWarning)
            return method.fit(self.train.h, self.train.y, self.train.groups, self.generator(), self.val)

    def accuracy(self, head: Head, rows: FeatureSet | None = None) -> dict[str, Any]:
        """Accuracies on test rows, or on those given; `gap` is that of the weighted mean over the worst group."""
        rows = rows or self.test
        assert rows.groups is not None
        pred = predict(head, rows.h).numpy()
        accuracies = group_accuracy(pred, rows.y.numpy(), rows.groups.numpy(), train_counts=self.counts)
        return accuracies | {"gap": accuracies["train_weighted"] - accuracies["worst"]}

    def reliance(self, head: Head) -> dict[str, Any]:
        """Counterfactual scores, with intervals over sets."""
        logits = in_chunks(head.logits, self.sets)
        return counterfactual_scores((logits[:, 1] - logits[:, 0]).view(-1, 2, 2).numpy(), seed=self.seed)


class AllRules:
    """Every rule of selection along one training, which they do not change."""

    def __init__(self, validation: FeatureSet) -> None:
        self.rules = {rule: Best(rule, validation) for rule in RULES}

    def offer(self, head: Any) -> None:
        for best in self.rules.values():
            best.offer(head)

    def restore(self, head: Any) -> None:
        self.rules["last"].restore(head)


class OnReference(Cfr):
    """CFR on a reference that is trained already, with the generator where that training left it: the same weights."""

    def __init__(self, start: Start, config: Cfr.Config, trained: ProjectionHead, state: torch.Tensor) -> None:
        super().__init__(start, config)
        self.trained, self.state = trained, state

    def reference(self, features: Any, y: Any, generator: Any, validation: Any) -> ProjectionHead:
        generator.set_state(self.state)
        return self.trained


def methods_on(task: Task) -> dict[str, Any]:
    """Every method at its defaults, but ERM, which is trained once for all rules."""
    start, names = task.start, task.images
    prompts = [f"{c} on {a}" for c in names.classes for a in names.attributes]
    return {
        "zero_shot": ZeroShot(start),
        "group_prompts": ZeroShot(replace(start, text=task.clip.text_head(prompts)), attributes=2),
        "linear_probe": ErmLinearProbe(start),
        "wise_ft": WiseFt(start),
        "jtt": Jtt(start),
        "afr": Afr(start),
        "cnc": Cnc(start),
        "adapter": ContrastiveAdapter(start),
        "groupdro": GroupDro(start),
        "dfr": Dfr(start),
        "dfr_train": Dfr(start, Dfr.Config(on="training", refits=10)),
        "cfr": Cfr(start),
    }


def methods(name: str, seed: int, without: list[str]) -> records.Record:
    """Every method once but those left out, and every rule of selection for ERM and CFR."""
    clock = Clock()
    task, results = Task(name, seed), {}
    rules: dict[str, Any] = {"erm": {}, "cfr": {}}

    def measured(head: Head, method: Any, seconds: float) -> dict[str, Any]:
        sees = {"training": list(method.sees_in_training), "selection": list(method.sees_in_selection)}
        return {**task.accuracy(head), "reliance": task.reliance(head), "sees": sees, "cpu_s": seconds}

    generator, every, clock_cpu = task.generator(), AllRules(task.val), time.process_time()
    erm = train_projection(task.start, task.train.h, task.train.y, Sgd(), every, generator)  # type: ignore[arg-type]
    results["erm"] = measured(erm, ErmProjection(task.start), time.process_time() - clock_cpu)
    for rule, best in every.rules.items():
        head = task.start.head()
        best.restore(head)
        rules["erm"][rule] = task.accuracy(head) | {"epoch": best.epoch}
        method = OnReference(task.start, Cfr.Config(select=rule), erm, generator.get_state())
        if rule != Cfr.Config().select:
            rules["cfr"][rule] = task.accuracy(task.fit(method)) | {"epoch": method.best.epoch}  # type: ignore[union-attr]
    for key, method in methods_on(task).items():
        if key in without:
            continue
        clock_cpu = time.process_time()
        head = task.fit(method)
        results[key] = measured(head, method, time.process_time() - clock_cpu)
        print(f"{name} seed {seed} {key}: {results[key]['worst']:.3f} {results[key]['train_weighted']:.3f}", flush=True)
        if key == "cfr":
            rules["cfr"][method.config.select] = task.accuracy(head) | {"epoch": method.best.epoch}
            groups = torch.bincount(task.train.groups[method.calibration.anchors], minlength=4)  # type: ignore[index]
    values = {
        "methods": results,
        "rules": rules,
        "anchors": {"groups": groups.tolist(), "minority": float(groups[1:3].sum() / groups.sum())},
        "train_counts": task.counts,
    }
    return keep(f"robust-{name}", seed, "every method on frozen features", task.config, values, clock)


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
    },
    "released": {"all settings": vars(Cfr.Config.official())},
    "selection": {"last": {"select": "last"}},
}
LONG = Sgd(epochs=20, lr=1e-2)
# Why negatives of the own class do or do not hurt: the contrast alone, beside cosine separation, beside cross-entropy.
# The last epoch counts, since selection with epoch 0 in it hides a collapse.
WHY: dict[str, dict[str, Any]] = {
    "recommended": {},
    "recommended, no cross-entropy of anchors": {"ce_weight": 0.0},
    "contrast alone": {"ce_weight": 0.0, "holistic": "none"},
    "cross-entropy, lr 1e-2, 20 epochs": {"sgd": LONG},
    "cosine, lr 1e-2, 20 epochs": {"sgd": LONG, "holistic": "cosine"},
}


def cells(seed: int) -> records.Record:
    """CFR with one setting changed at a time, and its contrast with negatives of other classes and of the own."""
    clock = Clock()
    task = Task("vit", seed)
    generator = task.generator()
    erm = train_projection(task.start, task.train.h, task.train.y, Sgd(), Best("last", None), generator)

    def measured(overrides: dict[str, Any]) -> dict[str, Any]:
        config = Cfr.Config(**overrides)
        shared = config.reference == "erm_last" and config.erm == Sgd()
        method = OnReference(task.start, config, erm, generator.get_state()) if shared else Cfr(task.start, config)
        head = task.fit(method)
        assert method.best is not None
        assert method.calibration is not None
        accuracies = task.accuracy(head)
        return {
            **{k: accuracies[k] for k in ("worst", "train_weighted", "mean", "per_group")},
            "selection": max(method.best.scores) if config.select != "last" else None,  # what the rule saw, validation
            "srr": task.reliance(head)["srr"],
            "epoch": method.best.epoch,
            "anchors": len(method.calibration.anchors),
        }

    results = {
        part: {value: measured(overrides) for value, overrides in settings.items()}
        for part, settings in SETTINGS.items()
    }
    why = {
        name: {
            kind: measured({**overrides, "negative": kind, "select": "last"})
            for kind in ("nearest", "random", "same_class_as_released")[::2]
        }
        for name, overrides in WHY.items()
    }
    values = {"cells": results, "negatives": why, "erm": task.accuracy(erm)}
    return keep("cfr-cells", seed, "CFR with one setting changed at a time", task.config, values, clock)


def forked(work: Callable[[], Any]) -> dict[str, Any]:
    """Runs work in a child process: seconds of a processor, and how far its memory rose over where it began."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            before, clock = memory("VmRSS"), time.process_time()
            work()
            os.write(write, f"{time.process_time() - clock} {memory('VmHWM') - before}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        seconds, megabytes = map(float, answer.read().split())
    os.waitpid(child, 0)
    return {"cpu_s": seconds, "peak_mb": megabytes}


def memory(key: str) -> float:
    """Megabytes of this process by the kernel's count."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024 / 1e6


def cost() -> records.Record:
    """An epoch of CFR on features that are there, of ERM on them, of the whole image tower; and extraction once."""
    clock = Clock()
    costs: dict[str, Any] = {}
    for name in ("vit", "rn"):
        task = Task(name, 0)
        images, start, clip = task.images.of("train"), task.start, task.clip
        erm = train_projection(start, task.train.h, task.train.y, Sgd(epochs=3), Best("last", None), task.generator())

        def whole(clip: Clip = clip, images: Any = images, text: Any = start.text, scale: float = start.scale) -> None:
            model: Any = copy.deepcopy(clip.model).train()
            trained = list(model.visual.requires_grad_().parameters())
            optimizer = torch.optim.SGD(trained, 1e-3, 0.9)
            pictures, y = images.pixels, torch.from_numpy(images.y)
            for index in batches(len(y), 128, torch.Generator().manual_seed(0)):
                z = model.encode_image(clip.preprocess(pictures[index.numpy()]), normalize=True)
                optimizer.zero_grad()
                F.cross_entropy(scale * z @ text, y[index]).backward()
                optimizer.step()

        def frozen(task: Task = task) -> None:
            task.fit(ErmProjection(task.start, ErmProjection.Config(Sgd(epochs=1))))

        def cfr(task: Task = task, erm: ProjectionHead = erm) -> None:
            config = Cfr.Config(sgd=Sgd(epochs=1, lr=1e-4), select="last")
            task.fit(OnReference(task.start, config, erm, task.generator().get_state()))

        def extraction(clip: Clip = clip, images: Any = images) -> None:
            import tempfile

            with tempfile.TemporaryDirectory() as folder:
                extract(clip, images, cache=folder)

        visual: Any = clip.model.visual
        costs[name] = {
            "parameters": {
                "trained": sum(p.numel() for p in start.projection.parameters()),
                "tower": sum(p.numel() for p in visual.parameters()),
            },
            "anchors": len(calibration_set(erm, task.train.h, task.train.y).anchors),
            **{
                key: {k: float(np.median([run[k] for run in runs])) for k in runs[0]}
                for key, work in (("whole", whole), ("erm", frozen), ("cfr", cfr), ("extraction", extraction))
                for runs in [[forked(work) for _ in range(3)]]
            },
        }
        print(name, costs[name], flush=True)
    config = {"rows": 4800, "batch": 128, "epochs": 1, "rounds": 3}
    return keep("cfr-cost", 0, "cost of an epoch of CFR and of whole fine-tuning", config, costs, clock)


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
        code=records.code_of("anatolab.robust"),
    )
    records.write(record)
    print(record.run_id, f"{record.provenance['wall_s']:.0f} s", flush=True)
    return record


def todo(name: str, seeds: list[int]) -> Iterator[int]:
    """The seeds whose record is missing or stale."""
    for seed in seeds:
        path = records.path_of(name, seed)
        if not path.exists() or records.is_stale(records.read(path)):
            yield seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["methods", "cells", "cost"])
    parser.add_argument("--on", choices=list(DIFFICULTIES), nargs="+", default=["vit"])
    parser.add_argument("--without", nargs="+", default=[], help="methods to leave out, such as the slow adapter")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5])
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "cost":
        cost()
    for name in args.on if args.what == "methods" else []:
        for seed in todo(f"robust-{name}", args.seeds):
            methods(name, seed, args.without)
    for seed in todo("cfr-cells", args.seeds) if args.what == "cells" else []:
        cells(seed)


if __name__ == "__main__":
    main()
