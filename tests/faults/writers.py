"""Two processes that write to one place at once.

Right is: at least one of them succeeds, with the result of one that was alone; the other succeeds with the same, or is
refused in one sentence; no temporary file is left.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from tests.faults.child import Ended, fork, refused
from tests.faults.tally import Tally
from tests.faults.worlds import World, hashed, worlds

KIND = "second writers"


def both(work: Callable[[], int], delay: float) -> list[Ended]:
    """Runs the same work in two children, the second a moment later."""

    def late() -> int:
        time.sleep(delay)
        return work()

    with ThreadPool(2) as pool:
        return pool.map(fork, [work, late])


def judged(world: World, folder: Path, ended: list[Ended], due: Any) -> str | None:
    """Returns what is wrong."""
    if all(one.code for one in ended):
        return f"none succeeds: {ended[0].text[-200:]}"
    for one in ended:
        if one.code and (wrong := refused(one)):
            return wrong
    temporary = [name for name in hashed(folder / "out") if ".part" in name or name.endswith(".lock")]
    if temporary:
        return f"leaves {temporary[0]}"
    return None if world.result(folder) == due else "ends with another result than one writer alone"


def run(tally: Tally, draw: random.Random, each: int, only: tuple[str, ...] | None = None) -> None:
    """Lets two writers meet ``each`` times in every world."""
    with tally.timed(KIND), tempfile.TemporaryDirectory() as root:
        for world in worlds().values():
            if only is not None and world.name not in only:
                continue
            folder = world.copy(Path(root) / "work" / "w")
            begin = time.monotonic()
            fork(world.work(folder))
            seconds, due = time.monotonic() - begin, world.result(folder)
            for _ in range(each):
                folder = world.copy(Path(root) / "work" / "w")
                ended = both(world.work(folder), draw.choice((0.0, draw.uniform(0, seconds))))
                tally.count(KIND, world.name, judged(world, folder, ended, due))
