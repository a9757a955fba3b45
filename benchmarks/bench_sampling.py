"""Drawing stratified pixels against naive gathering from the same candidates.

131,072 draws from 16 cells of one class (256 anchors times 512 negatives in the released code's shapes), as
:func:`anatolab.sampling.sample_pixels` does them, against ``torch.randint`` and indexing. At most 3 times that on a
CPU; at most 150 microseconds on a GPU. Binning, which a step does once for all classes, is timed
apart, without a target. Exits with 1 above a floor; ``--report`` prints the same and exits with 0.

    python benchmarks/bench_sampling.py [--report] [--repeats 30] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

import torch
from timing import seconds

from anatolab.sampling import bin_pixels, sample_pixels

DRAWS = 131_072


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="print, and exit with 0 whatever was measured")
    parser.add_argument("--repeats", type=int, default=30, help="interleaved rounds")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    args = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    label = torch.zeros(1, 128, 128, dtype=torch.long, device=device)
    strata = bin_pixels(label, 1, grid=4)
    batch = torch.randint(-1, 4, (8, 64, 64), device=device)
    work = {
        "naive gathering": lambda: strata.order.index_select(
            0, torch.randint(len(strata.order), (DRAWS,), device=device)
        ),
        "stratified": lambda: sample_pixels(strata, DRAWS, "stratified"),
        "antithetic": lambda: sample_pixels(strata, DRAWS, "antithetic"),
        "binning, 8 x 64 x 64": lambda: bin_pixels(batch, 4, grid=4),
    }
    rounds = [{name: seconds(part, device) for name, part in work.items()} for _ in range(args.repeats + 3)][3:]
    print(f"{device.type}, {torch.get_num_threads()} threads, {DRAWS:,} draws from 16 cells")
    print(f"{'part':<24}{'us':>9}{'ratio':>8}{'floor':>10}")
    found, passed = [], True
    for name in work:
        us = 1e6 * statistics.median(r[name] for r in rounds)
        ratio = statistics.median(r[name] / r["naive gathering"] for r in rounds)
        drawn = name in ("stratified", "antithetic")
        floor = ("3.00" if device.type == "cpu" else "150 us") if drawn else "-"
        passed &= not drawn or (ratio <= 3 if device.type == "cpu" else us <= 150)
        found.append({"part": name, "us": us, "ratio": ratio, "floor": floor})
        print(f"{name:<24}{us:>9.0f}{ratio:>8.2f}{floor:>10}")
    print("passed" if passed else "FAILED: above its floor")
    if args.json:
        args.json.write_text(json.dumps({"benchmark": "sampling", "passed": passed, "rows": found}, indent=1) + "\n")
    return 0 if passed or args.report else 1


if __name__ == "__main__":
    sys.exit(main())
