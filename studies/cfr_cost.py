"""Measures what CFR costs, beside ERM on the projection and the whole image tower; writes `cfr-cost`.

    python studies/cfr_cost.py     # some minutes on one core

Each part runs in a child process three times; the medians of its seconds of a processor and of its memory are kept.
Beside an epoch of each training stand the extraction of features and the bare forward pass that it should cost little
more than; and, once, the calibration of 100,000 rows in twelve epochs, on features that are there.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from recording import Clock
from robust import OnReference, Task, keep

from anatolab import records
from anatolab.robust import Best, Cfr, Clip, ErmProjection, ProjectionHead, Sgd, calibration_set, extract
from anatolab.robust._fit import batches, train_projection

MANY = 100_000  # rows of the large fit


def forked(work: Callable[[], Any]) -> dict[str, Any]:
    """Runs work in a child process; returns its CPU seconds and the rise of its memory."""
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
    """Returns a memory statistic of this process from the kernel, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024 / 1e6


def many(task: Task, erm: ProjectionHead) -> None:
    """Calibrates 100,000 rows: those of the task again and again, each a little different."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(len(task.train.y), (MANY,), generator=generator)
    h = task.train.h[rows] + 0.01 * torch.randn(MANY, task.train.h.shape[1], generator=generator)
    method = OnReference(task.start, Cfr.Config(), erm, task.generator().get_state())
    method.fit(h, task.train.y[rows], None, task.generator(), task.val)


def cost() -> records.Record:
    """Measures an epoch of CFR and of ERM on cached features, of the whole image tower, and feature extraction."""
    clock = Clock()
    values: dict[str, Any] = {}
    for name in ("vit", "rn"):
        task = Task(name, 0)
        images, start, clip = task.images.of("train"), task.start, task.clip
        erm = train_projection(start, task.train.h, task.train.y, Sgd(epochs=3), Best("last", None), task.generator())

        def whole(clip: Clip = clip, images: Any = images, text: Any = start.text, scale: float = start.scale) -> None:
            model: Any = copy.deepcopy(clip.model).train()
            trained = list(model.visual.requires_grad_().parameters())
            optimizer = torch.optim.SGD(trained, 1e-3, 0.9)
            pictures, y = images.pixels, torch.from_numpy(images.y)
            for rows in batches(len(y), 128, torch.Generator().manual_seed(0)):
                z = model.encode_image(clip.preprocess(pictures[rows.numpy()]), normalize=True)
                optimizer.zero_grad()
                F.cross_entropy(scale * z @ text, y[rows]).backward()
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

        @torch.no_grad()
        def bare(clip: Clip = clip, images: Any = images) -> None:
            for start in range(0, len(images), 256):
                clip.trunk(clip.preprocess(images.pixels[start : start + 256]))

        visual: Any = clip.model.visual
        parts = (("whole", whole), ("erm", frozen), ("cfr", cfr), ("extraction", extraction), ("bare", bare))
        values[name] = {
            "parameters": {
                "trained": sum(p.numel() for p in start.projection.parameters()),
                "tower": sum(p.numel() for p in visual.parameters()),
            },
            "anchors": len(calibration_set(erm, task.train.h, task.train.y).anchors),
            **{
                key: {k: float(np.median([run[k] for run in runs])) for k in runs[0]}
                for key, work in parts
                for runs in [[forked(work) for _ in range(3)]]
            },
        }
        values[name]["extraction_over_bare"] = values[name]["extraction"]["cpu_s"] / values[name]["bare"]["cpu_s"]
        if name == "vit":
            values[name]["many"] = forked(partial(many, task, erm)) | {"rows": MANY}
        print(name, values[name], flush=True)
    config = {"rows": len(task.train.y), "batch": 128, "epochs": 1, "rounds": 3}
    return keep("cfr-cost", 0, "cost of an epoch of CFR and of whole fine-tuning", config, values, clock)


if __name__ == "__main__":
    torch.set_num_threads(1)
    cost()
