"""Costs that must not grow faster than their work, and what a start takes.

* The exponent in classes of each loss, of the sliding window and of augmentation: log of the ratio of their times with
  14 and with 2 classes over log(14 / 2); at most 1.2.
* A row of a cohort of 20,000 volumes over a row of one of 20: at most 2.
* Opening a cache of 1,000 volumes: at most 1 s.
* CPU seconds of a new interpreter up to the first step, the first prediction and the first cell: at most 3; ``--help``:
  at most .5. These seconds stretch on a busy machine: that of torch alone stands beside them.

The work is that of the tests of the same contracts. Exits with 1 above a limit; ``--report`` prints the same and exits
with 0.

    python benchmarks/bench_scaling.py [--report] [--repeats 5] [--json FILE]
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import conclude, flags, interleaved, ratio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from anatolab.data import Volumes, prepare
from anatolab.types import Case, CaseRef, Cohort
from tests import test_startup
from tests.losses.test_scaling import FEW, MANY, PARTS

CPU = torch.device("cpu")
Row = dict[str, Any]


def exponent(part: str, repeats: int) -> float:
    """Returns the exponent in classes of one part, from the least of interleaved rounds, as the test takes it."""
    rounds = interleaved({str(n): PARTS[part](n) for n in (FEW, MANY)}, CPU, 3 * repeats)
    few, many = (min(r[str(n)] for r in rounds) for n in (FEW, MANY))
    return math.log(many / few) / math.log(MANY / FEW)


def row_of_many_over_row_of_few(repeats: int) -> float:
    """Returns the time of the last row of a large cohort of volumes over that of a small one."""

    def take(count: int) -> Callable[[], None]:
        volume, truth = np.zeros((1, 2, 2, 2), np.float32), np.zeros((2, 2, 2), np.uint8)
        names = [f"p{k}" for k in range(count)]
        rows = Volumes.from_arrays([volume] * count, [truth] * count, names, size=(2, 2, 2))
        last = torch.tensor([count - 1])

        def work() -> None:
            for _ in range(300):
                rows.take(last)

        return work

    return ratio(interleaved({"many": take(20_000), "few": take(20)}, CPU, repeats), "many", "few")


def opening(folder: Path, repeats: int) -> float:
    """Returns the CPU seconds of opening a cache of 1,000 volumes that is there."""
    image, source = np.random.default_rng(0).random((1, 16, 16, 16), dtype=np.float32), folder / "a.h5"
    source.write_bytes(b"x")

    def load(k: int) -> Case:
        return Case(f"p{k}", "", image + k, np.zeros((16, 16, 16), np.uint8), None, None, source)

    refs = tuple(CaseRef(f"p{k}", "", source, lambda k=k: load(k), (source,)) for k in range(1000))
    cohort = Cohort("many", "none", ("background", "organ"), refs, folder)

    def work() -> None:
        prepare(cohort, cohort.patients, size=(8, 8, 8), cache=folder / "cache")

    return min(r["open"] for r in interleaved({"open": work}, CPU, repeats, warm_up=1))


def starts() -> dict[str, float]:
    """Returns the CPU seconds of a new interpreter until each first thing has been done, the lesser of two."""
    codes = {
        "import torch": "import torch",
        "--help": "from anatolab.cli import main\nmain(['--help'])",
        "first step": test_startup.STEP,
        "first prediction": test_startup.PREDICTION,
        "help of every command": test_startup.HELP,
    }
    return {name: min(test_startup.fresh(code)[0] for _ in range(2)) for name, code in codes.items()}


def main() -> int:
    args = flags(__doc__, 5).parse_args()

    table: list[Row] = []
    print(f"{'part':<34}{'what':<34}{'value':>8}{'limit':>7}")

    def note(part: str, what: str, value: float, limit: float | None) -> None:
        table.append({"part": part, "what": what, "value": value, "limit": limit})
        print(f"{part:<34}{what:<34}{value:>8.2f}{limit or '-':>7}", flush=True)

    for part in PARTS:
        note(part, "exponent in classes", exponent(part, args.repeats), 1.2)
    note("Volumes.take", "row of 20,000 over one of 20", row_of_many_over_row_of_few(args.repeats), 2.0)
    with tempfile.TemporaryDirectory() as folder:
        note("cache of 1,000 volumes", "CPU seconds to open", opening(Path(folder), args.repeats), 1.0)
    for name, seconds in starts().items():
        note(name, "CPU seconds of a start", seconds, {"--help": 0.5, "import torch": None}.get(name, 3.0))
    passed = all(row["limit"] is None or row["value"] <= row["limit"] for row in table)
    return conclude(args, "scaling", passed, "above a limit", rows=table)


if __name__ == "__main__":
    sys.exit(main())
