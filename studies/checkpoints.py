"""Trains the small networks that come with the package, on generated hearts; writes them and `checkpoints-hearts`.

    python studies/checkpoints.py            # all methods: about ten minutes on one core
    python studies/checkpoints.py --jobs 2   # two methods at a time

Cohort, split and field of view are those of the pages that load them: the six patients whose Dice a page prints are
held out here, too. A method trains from random weights for the 300 updates of size tiny (`random_start`). Then it goes
on for 700 with new heads, as the pages do with the file (`checkpoint`, measured with the float16 weights of the file).
The Dice of both has a least mean, `TARGETS`. Where one is missed, everything is written all the same, and the exit
status is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from recording import Clock, rounded
from torch import nn

from anatolab import records
from anatolab.data import Rows, Volumes, find_field_of_view, prepare, split_sha256
from anatolab.data.phantoms import cardiac, cardiac_cohort
from anatolab.inference import evaluate
from anatolab.methods import METHODS, Supervised
from anatolab.metrics import summarize
from anatolab.nn import stem_unet
from anatolab.presets import SIZES
from anatolab.training import Settings, load_checkpoint, train
from anatolab.training.exported import network_of
from anatolab.training.shipped import CHECKPOINTS, CLASSES, WEIGHTS, file_of, write_checkpoint
from anatolab.training.start import backbone_of
from anatolab.transforms import Augmentation
from anatolab.types import Cohort, Split

SIZE = SIZES["tiny"]
WIDTHS = (24, 48, 64, 96)  # those of the network of size tiny down to stride 4, then narrower: 1 MB in float16
UPDATES = 700  # after the first 300
BATCH = {"labeled": 8, "augmentation": Augmentation(contrast=0.5, brightness=0.3, gamma=0.5, strong_probability=0.8)}
# What the pages change to continue: a good teacher counts at once, and has no random start to forget.
GO_ON: dict[str, Any] = {"ramp": 0.0, "ramp_updates": 0, "ema_warm_up": False}
SETTINGS = Settings(seed=0, precision="32-true", accelerator="cpu")
# Least mean Dice. From random weights: .70 for the base, and what the contract cells of the pages held for the others.
TARGETS = {
    "random_start": {"base": 0.70, "action": 0.65, "actionpp": 0.65, "mona": 0.55, "arco": 0.55},
    "checkpoint": dict.fromkeys(CHECKPOINTS, 0.75),
}


@dataclass(frozen=True)
class Hearts:
    """The generated patients of the pages, prepared."""

    cohort: Cohort
    split: Split
    view: Any  # the field of view, from the labels of the three patients
    rows: Rows | Volumes

    @classmethod
    def drawn(cls) -> Hearts:
        """Draws the cohort, holds a quarter of the patients out and prepares the slices of the others."""
        cohort = cardiac_cohort(SIZE.patients, seed=0, size=2 * SIZE.side)
        held_out = cohort.patients[-(SIZE.patients // 4) :]
        split = Split(train=cohort.patients[: -len(held_out)], labeled=3, validation=held_out)
        view = find_field_of_view(cohort, split.labeled_patients, slack=0.15)
        return cls(cohort, split, view, prepare(cohort, split.train, size=SIZE.image, field_of_view=view))

    def dice(self, method: nn.Module) -> dict[str, float]:
        """Measures the mean Dice of each class on the held-out patients, and the mean of these."""
        refs = self.cohort.of(self.split.validation)
        where = {"field_of_view": self.view, "largest_component": True}
        cases = evaluate(method, refs, self.cohort.classes, SIZE.image, **where)
        return summarize(cases, {ref.name: ref.patient for ref in refs})["dice"]


def config_of(name: str, updates: int, **changed: Any) -> Any:
    """Returns the settings of a method: its recommended ones at size tiny, with the batch of the pages."""
    return replace(METHODS[name].Config().for_size(SIZE), updates=updates, **BATCH, **changed)


def trained(name: str, network: nn.Module, config: Any, hearts: Hearts) -> tuple[nn.Module, dict[str, Any]]:
    """Trains a method around a network; returns the network that it predicts with, and what the record says of it."""
    torch.manual_seed(SETTINGS.seed)
    method = METHODS[name](network, config)
    run = train(method, hearts.rows, hearts.split, SETTINGS, progress=False)
    about = {"updates": config.updates, "cpu_s": run.cpu_s, "dice": hearts.dice(method)}
    return backbone_of(network_of(method)), about


def measured(name: str, folder: Path, updates: int = UPDATES) -> dict[str, Any]:
    """Trains a method, writes its checkpoint and returns what the record says of it."""
    torch.set_num_threads(1)
    hearts = Hearts.drawn()
    torch.manual_seed(SETTINGS.seed)
    network, start = trained(name, stem_unet(1, len(CLASSES), widths=WIDTHS), config_of(name, SIZE.updates), hearts)
    config = config_of(name, updates, **GO_ON)
    network, end = trained(name, network.requires_grad_(True), config, hearts)
    code = records.code_of(METHODS[name].__module__)
    recipe = {
        "method": name,
        "code": code,
        "widths": WIDTHS,
        "first": SIZE.updates,
        "config": config,
        "settings": SETTINGS,
    }
    path = file_of(name, folder)
    write_checkpoint(path, network, records.plain(recipe))
    end |= {"dice": hearts.dice(Supervised(load_checkpoint(name, folder))), "updates": SIZE.updates + updates}
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"random_start": start, "checkpoint": end, "sha256": sha256, "megabytes": path.stat().st_size / 1e6}


def missed(values: dict[str, Any]) -> list[str]:
    """Lists the trainings whose mean Dice is below its target."""
    return [
        f"{name}, {part}: {dice:.3f} < {least:.2f}"
        for name, of_method in values.items()
        for part, targets in TARGETS.items()
        if not (dice := of_method[part]["dice"]["mean"]) >= (least := targets[name])
    ]


def recorded(values: dict[str, Any], clock: Clock, updates: int) -> records.Record:
    """Returns the record of all checkpoints."""
    hearts = Hearts.drawn()
    return records.Record(
        experiment="checkpoints-hearts",
        seed=SETTINGS.seed,
        values=rounded(values),
        title="small networks trained on generated hearts, three labeled patients",
        kind="checkpoints",
        code=records.code_of(METHODS["arco"].__module__),  # with what all five share
        config=records.plain(
            {
                "cohort": cardiac.provenance(SIZE.patients, 0, 2 * SIZE.side),
                "size": asdict(SIZE),
                "widths": WIDTHS,
                "settings": asdict(SETTINGS),
                "methods": {name: asdict(config_of(name, updates, **GO_ON)) for name in values},
                "targets": TARGETS,
                "train": hearts.split.train,
                "held_out": hearts.split.validation,
            }
        ),
        provenance=clock.provenance(),
        split_sha256=split_sha256(hearts.split),
    )


def main() -> int:
    """Makes all checkpoints and their record; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="methods at a time")
    parser.add_argument("--updates", type=int, default=UPDATES, help="updates after the first 300")
    parser.add_argument("--folder", type=Path, default=WEIGHTS, help="where the weights go")
    args = parser.parse_args()
    clock, began = Clock(), time.monotonic()
    values: dict[str, Any] = {}
    with TemporaryDirectory() as folder, ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        runs = {name: pool.submit(measured, name, Path(folder), args.updates) for name in CHECKPOINTS}
        for name, run in runs.items():
            values[name] = run.result()
            dice = {part: round(values[name][part]["dice"]["mean"], 3) for part in TARGETS}
            print(f"{name}: {dice}, {time.monotonic() - began:.0f} s", flush=True)
        record = recorded(values, clock, args.updates)  # before the new files change the checkout
        args.folder.mkdir(parents=True, exist_ok=True)
        for name in values:
            shutil.move(file_of(name, Path(folder)), file_of(name, args.folder))
    print(records.write(record))
    for line in missed(values):
        print(f"missed: {line}")
    return 1 if missed(values) else 0


if __name__ == "__main__":
    sys.exit(main())
