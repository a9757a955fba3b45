"""Fingerprints: what short reference runs end in, so that a change that no record's hash reaches is noticed.

    python studies/fingerprints.py                     # those of all wanted runs; what is up to date is kept

A record's hash covers what its method reaches by name. It does not reach what is handed to the method: training loop,
preparation of the data, network, prediction, metrics. So one run of every method, number of dimensions and network of a
wanted run is made: 20 updates in fp32, one thread, a generated cohort of four patients, seed 0. Its statistics are
stored in each record and, as of today, in ``fingerprints.json`` beside the records; `records.is_stale` compares them.

The file is keyed by a hash of all code that a reference run reaches, so that a run is made once for each meaning of
the code, and never in the book's build. Processors round differently, and AdamW turns the sign of a vanishing gradient
into a whole step: first weights that differ by 1e-7 move statistics of the trained network by up to 5e-3. Those may
differ by 2 %, all others (images, first update, learning rates, metrics) by one part in a thousand
(:func:`anatolab.records.agree`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from anatolab import records
from anatolab.data import prepare
from anatolab.data.phantoms import cardiac_cohort
from anatolab.experiments import EXPERIMENTS, Experiment
from anatolab.inference import evaluate
from anatolab.methods import METHODS
from anatolab.nn import NETWORKS
from anatolab.presets import SIZES, SIZES_3D
from anatolab.staleness import closure_sha256
from anatolab.training import Settings, train
from anatolab.types import Split

UPDATES = 20
SIDES = {2: (32, 32), 3: (16, 32, 32)}
REACHED = ("anatolab.training", "anatolab.inference", "anatolab.data.preparation", "anatolab.nn")
EASY = {"weak_threshold": 0.3, "confidence_threshold": 0.3, "ramp_updates": 0}  # every term has work to do at once


def key_of(experiment: Experiment) -> str:
    """Returns the name of the reference run that stands for an experiment."""
    return f"{experiment.method}-{experiment.dims}d-{experiment.budget.network}"


def code_sha256(method: str) -> str:
    """Returns the hash of all code that a reference run of a method reaches, and of this file."""
    modules = (METHODS[method].__module__, *REACHED)
    parts = [closure_sha256(module) for module in modules]
    return hashlib.sha256("\n".join([*parts, str((UPDATES, SIDES, EASY))]).encode()).hexdigest()


def measure(method_name: str, dims: int, network_name: str) -> dict[str, float]:
    """Trains a reference run, and returns sums over its weights, losses, predictions and metrics."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(method_name, dims, network_name)
    finally:
        torch.set_num_threads(threads)


def _measure(method_name: str, dims: int, network_name: str) -> dict[str, float]:
    cohort = cardiac_cohort(4, seed=0)
    *training, held_out = cohort.patients
    split, sides = Split(tuple(training), 2, (held_out,)), SIDES[dims]
    with tempfile.TemporaryDirectory() as cache:  # what was prepared by other code must not serve
        rows = prepare(cohort, split.train, size=sides, cache=cache)

    torch.manual_seed(0)
    kind, size = METHODS[method_name], (SIZES if dims == 2 else SIZES_3D)["tiny"]
    config = kind.Config().for_size(replace(size, updates=UPDATES, labeled=2, unlabeled=2))
    config = replace(config, **{k: v for k, v in EASY.items() if hasattr(config, k)})
    network = NETWORKS[network_name](rows.channels, len(cohort.classes), spatial_dims=dims)
    method = kind(network, config)
    start = {k: v.detach().clone() for k, v in method.named_parameters()}
    settings = Settings(seed=0, accelerator="cpu", precision="32-true", log_every=1)
    run = train(method, rows, split, settings, progress=False)

    moved = {k: v.detach() - start[k] for k, v in method.named_parameters() if k in start}
    statistics = {
        "trained.moved": math.sqrt(sum(float((d.double() ** 2).sum()) for d in moved.values())),
        "trained.loss": sum(line["loss"] for line in run.log),
        "first.loss": run.log[0]["loss"],
        "first.gradient": run.log[0]["grad_norm"],
        "lr": sum(line["lr"] for line in run.log),
        "images": float(np.asarray(rows.images, np.float64).sum()),
    }
    with torch.no_grad():
        image = torch.rand(2, rows.channels, *sides, generator=torch.Generator().manual_seed(0))
        probability = torch.softmax(method.predict(image).double(), 1)
    statistics |= {f"trained.prediction.{c}": float(p.sum()) for c, p in enumerate(probability.movedim(1, 0))}

    # Metrics and inference of a segmentation that is far from empty: gray values, cut into as many classes.
    centers = torch.linspace(0, 1, len(cohort.classes)).reshape(1, -1, *[1] * dims)
    method.predict = lambda x: -50 * (x[:, :1] - centers.to(x)) ** 2
    cases = evaluate(method, cohort.of(split.validation), cohort.classes, sides)
    for name in next(iter(next(iter(cases.values())).values())):
        values = [metrics[name] for case in cases.values() for metrics in case.values()]
        statistics[f"metrics.{name}"] = float(np.nansum(np.asarray(values, dtype=float)))
    return statistics


def refresh(experiments: Iterable[Experiment]) -> None:
    """Measures the reference runs of these experiments anew where the code that they reach has changed."""
    stored = records.fingerprints()
    for experiment in {key_of(e): e for e in experiments}.values():
        key, code = key_of(experiment), code_sha256(experiment.method)
        if stored.get(key, {}).get("code") == code:
            continue
        statistics = measure(experiment.method, experiment.dims, experiment.budget.network)
        stored[key] = {"code": code, "statistics": statistics, "made": _made()}
        records.write_fingerprints(stored)
        print(f"{key}: {json.dumps({k: float(f'{v:.4g}') for k, v in statistics.items()})}", flush=True)


def entry(experiment: Experiment) -> dict[str, Any]:
    """Returns what a record of an experiment stores of its reference run."""
    refresh([experiment])
    key = key_of(experiment)
    return {"fingerprint": key, "statistics": records.fingerprints()[key]["statistics"]}


def _made() -> dict[str, str]:
    return {"torch": torch.__version__, "numpy": np.__version__, "machine": platform.machine()}


def main() -> int:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    refresh(EXPERIMENTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
