"""All kinds of faults, in a short and a long form."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable

import lightning_fabric  # noqa: F401  # before the first fork: every child would import these anew
import monai.networks.nets  # noqa: F401
import open_clip  # noqa: F401
import SimpleITK  # noqa: F401
import torch
import torch._dynamo
import tyro  # noqa: F401

import anatolab.cli.evaluate
import anatolab.cli.predict
import anatolab.cli.train
import anatolab.robust  # noqa: F401
from tests.faults import claims, injected, kills, mutations, rot, writers
from tests.faults.tally import Tally
from tests.faults.worlds import WORLDS

IN_MEMORY = "/dev/shm"  # where flushing to a disk costs nothing
LONG = {  # how many of each kind a whole campaign tries, at least
    kills.KIND: 1_000,
    kills.AT_CALLS: 500,
    injected.KIND: 1_000,
    rot.KIND: 1_100,
    writers.KIND: 80,
    mutations.KIND: 3_000,
    claims.KIND: len(claims.FILES) + len(claims.RECORDS) + len(claims.FOLDERS),
}


class Campaign:
    """One tally, one generator, and what undisturbed runs end with."""

    def __init__(self, tally: Tally | None = None, seed: int = 0) -> None:
        torch.set_num_threads(1)
        if os.access(IN_MEMORY, os.W_OK):
            tempfile.tempdir = IN_MEMORY
        self.tally, self.draw, self.reference = tally or Tally(), random.Random(seed), kills.Reference()

    def some(self, kind: str) -> None:
        """Tries a part of a kind, about a minute of it."""
        tally, draw = self.tally, self.draw
        parts: dict[str, Callable[[], None]] = {
            kills.KIND: lambda: kills.at_random(tally, draw, 32, self.reference),
            kills.AT_CALLS: lambda: kills.at_calls(tally, draw, self.reference, 16, draw.choice(kills.RUNS)),
            injected.KIND: lambda: injected.run(tally, draw, 20, only=tuple(draw.sample(WORLDS, 2))),
            rot.KIND: lambda: rot.run(tally, draw, 3),
            writers.KIND: lambda: writers.run(tally, draw, 1),
            mutations.KIND: lambda: mutations.run(tally, draw, 5),
            claims.KIND: lambda: claims.run(tally),
        }
        parts[kind]()

    def short(self) -> None:
        """Tries some of every kind, in about half a minute of a processor."""
        tally, draw = self.tally, self.draw
        kills.at_random(tally, draw, 18, self.reference, [("mean_teacher", 2), ("actionpp", 2), ("cps", 2)])
        kills.at_calls(tally, draw, self.reference, 12, places=("write", "fsync", "rename"))
        injected.run(tally, draw, 8, only=("a cache", "a record"))
        rot.run(tally, draw, 2, only=("a run with a damaged last checkpoint", "images of a cache", "a record"))
        writers.run(tally, draw, 1, only=("a training", "a cache"))
        mutations.run(tally, draw, 1)
        claims.run(tally, only=claims.QUICK)
