"""Stratified sampling of pixels against a naive gather from the same candidates.

131,072 pixels from 16 cells of one class (256 anchors times 512 negatives in the released code's shapes), by
:func:`anatolab.sampling.bin_pixels` and :func:`anatolab.sampling.sample_pixels`, against ``torch.randint`` and
indexing. At most 3 times that on a CPU, both functions together; at most 150 microseconds on a GPU for the second,
since a step bins its pixels once for all classes. Exits with 1 above a limit; ``--report`` prints the same and exits
with 0.

    python benchmarks/bench_sampling.py [--report] [--repeats 30] [--json FILE]
"""

from __future__ import annotations

import sys

import torch
from timing import conclude, flags, interleaved, milliseconds, ratio

from anatolab.sampling import bin_pixels, sample_pixels

DRAWS = 131_072


def main() -> int:
    args = flags(__doc__, 30).parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    label = torch.zeros(1, 128, 128, dtype=torch.long, device=device)
    strata = bin_pixels(label, 1, grid=4)
    batch = torch.randint(-1, 4, (8, 64, 64), device=device)
    work = {
        "naive gathering": lambda: strata.order.index_select(
            0, torch.randint(len(strata.order), (DRAWS,), device=device)
        ),
        "binning and stratified": lambda: sample_pixels(bin_pixels(label, 1, grid=4), DRAWS, "stratified"),
        "stratified": lambda: sample_pixels(strata, DRAWS, "stratified"),
        "antithetic": lambda: sample_pixels(strata, DRAWS, "antithetic"),
        "binning, 8 x 64 x 64": lambda: bin_pixels(batch, 4, grid=4),
    }
    rounds = interleaved(work, device, args.repeats, warm_up=3)
    print(f"{device.type}, {torch.get_num_threads()} threads, {DRAWS:,} draws from 16 cells")
    print(f"{'part':<24}{'us':>9}{'ratio':>8}{'limit':>10}")
    results, passed = [], True
    for name in work:
        us, times = 1e3 * milliseconds(rounds, name), ratio(rounds, name, "naive gathering")
        cpu = device.type == "cpu"
        limited = name in ("stratified", "antithetic") or (cpu and name == "binning and stratified")
        floor = ("3.00" if cpu else "150 us") if limited else "-"
        passed &= not limited or (times <= 3 if cpu else us <= 150)
        results.append({"part": name, "us": us, "ratio": times, "floor": floor})
        print(f"{name:<24}{us:>9.0f}{times:>8.2f}{floor:>10}")
    return conclude(args, "sampling", passed, "above its limit", rows=results)


if __name__ == "__main__":
    sys.exit(main())
