"""What the benchmarks share: time (CPU time of one thread, interleaved rounds), flags, and their end.

Wall-clock time says what else the machine did, and several threads that wait for each other burn CPU time while they
do: so one thread, waits that sleep, and the two sides of a ratio in the same process, round after round.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
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
    """Returns those of the fastest round."""
    return 1e3 * min(r[part] for r in rounds)


def ratio(rounds: list[dict[str, float]], part: str, over: str) -> float:
    """Returns the ratio of the fastest rounds: what disturbs a round, as a neighbor in the caches, only adds to it.

    The median of the ratios of each round went from 1.6 to 4.1 for one part on a loaded machine, this from 1.4 to 1.7.
    """
    return min(r[part] for r in rounds) / min(r[over] for r in rounds)


def flags(doc: str, repeats: int, rounds: str = "interleaved rounds") -> argparse.ArgumentParser:
    """Returns a parser of the flags of every benchmark, to which a script may add its own."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="print, and exit with 0 whatever was measured")
    parser.add_argument("--repeats", type=int, default=repeats, help=rounds)
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    return parser


def conclude(args: argparse.Namespace, benchmark: str, passed: bool, missed: str, **report: Any) -> int:
    """Prints whether a benchmark passed or what it missed, writes its report, and returns the exit status."""
    print("passed" if passed else f"FAILED: {missed}")
    if args.json:
        text = json.dumps({"benchmark": benchmark, "passed": passed, **report}, indent=1)
        args.json.write_text(text + "\n", encoding="utf-8")
    return 0 if passed or args.report else 1
