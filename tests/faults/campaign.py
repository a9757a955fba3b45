"""All kinds of faults, in a short and a long form."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable
from functools import partial

import lightning_fabric  # noqa: F401  # before the first fork: every child would import these anew
import monai.networks.nets  # noqa: F401
import torch
import torch._dynamo
import tyro  # noqa: F401

import anatolab.cli.evaluate
import anatolab.cli.predict
import anatolab.cli.train  # noqa: F401
from tests.faults import injected, kills
from tests.faults.tally import Tally

IN_MEMORY = "/dev/shm"  # where flushing to a disk costs nothing
LONG = {kills.KIND: 1_000, kills.AT_CALLS: 500, injected.KIND: 1_000}  # how many of each kind a campaign tries


class Campaign:
    """One tally, one generator, and what undisturbed runs end with."""

    def __init__(self, tally: Tally | None = None, seed: int = 0) -> None:
        torch.set_num_threads(1)
        if os.access(IN_MEMORY, os.W_OK):
            tempfile.tempdir = IN_MEMORY
        self.tally, self.draw, self.reference = tally or Tally(), random.Random(seed), kills.Reference()

    def some(self, kind: str, share: float = 1.0) -> None:
        """Tries a part of a kind, some minutes of it; ``share`` of that part."""
        count = partial(lambda most: max(1, round(share * most)))
        runs = self.draw.choice(kills.RUNS)
        parts: dict[str, Callable[[], None]] = {
            kills.KIND: lambda: kills.at_random(self.tally, self.draw, count(32), self.reference),
            kills.AT_CALLS: lambda: kills.at_calls(self.tally, self.draw, self.reference, count(50), runs),
            injected.KIND: lambda: injected.run(self.tally, self.draw, count(60)),
        }
        parts[kind]()

    def short(self) -> None:
        """Tries some of every kind, in about half a minute."""
        kills.at_random(self.tally, self.draw, 16, self.reference)
        kills.at_calls(self.tally, self.draw, self.reference, 14)
        injected.run(self.tally, self.draw, 10, only=("a cache", "a record", "a prediction"))
