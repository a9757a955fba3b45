"""What the benchmarks measure time with: CPU time of one thread, in interleaved rounds, of which the median counts.

Wall-clock time says what else the machine did, and several threads that wait for each other burn CPU time while they
do: so one thread, waits that sleep, and the two sides of a ratio in the same process, round after round.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # of use where torch is not imported yet

import torch

if not torch.cuda.is_available():  # the host of a GPU keeps its threads
    torch.set_num_threads(1)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Returns the CPU time of one call, which other processes do not stretch; on a GPU, the time until it has run."""
    if device.type != "cuda":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(
    work: Mapping[str, Callable[[], Any]], device: torch.device, rounds: int, *, warm_up: int = 2
) -> list[dict[str, float]]:
    """Returns seconds of each part in each round; every second round runs backward."""
    measured = []
    for i in range(rounds + warm_up):
        order = list(work)[:: 1 if i % 2 else -1]
        taken = {name: seconds(work[name], device) for name in order}
        measured.append({name: taken[name] for name in work})
    return measured[warm_up:]


def milliseconds(rounds: list[dict[str, float]], part: str) -> float:
    """Returns the median over rounds."""
    return 1e3 * statistics.median(r[part] for r in rounds)


def ratio(rounds: list[dict[str, float]], part: str, over: str) -> float:
    """Returns the median of the ratios of each round, which neither the best nor the worst round decides."""
    return statistics.median(r[part] / r[over] for r in rounds)
