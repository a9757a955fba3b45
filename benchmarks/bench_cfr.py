"""CFR on cached features takes seconds, and extracting features little more than the bare forward pass.

* Extraction of the small ViT's and ResNet's features from images to a memory-mapped file, preprocessing included,
  against ``encode_image`` alone on tensors that are ready: at most 2 times as long.
* A whole fit of CFR on 4,800 cached features of the ViT: the ERM reference, and the calibration (no ratio; at most 60
  seconds of this process's time on a CPU).

Rounds are interleaved in one process, the ratio is that of the fastest rounds. Exits with 1 above a limit; ``--report``
prints the same and exits with 0.

    python benchmarks/bench_cfr.py [--report] [--repeats 5] [--json FILE]
"""

from __future__ import annotations

import sys
import tempfile
import time
from itertools import count
from pathlib import Path

import numpy as np
import torch
from timing import conclude, flags, interleaved, milliseconds, ratio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from anatolab.data.phantoms import finch_or_duck
from anatolab.robust import Cfr, ErmProjection, extract, load_clip, rows_of, start_of

LIMIT, SECONDS, BATCH = 2.0, 60.0, 256


def extraction(name: str, repeats: int, folder: Path) -> dict[str, float]:
    """Milliseconds of extraction and of the bare forward pass over the same images, and their ratio."""
    clip = load_clip(name)
    images = finch_or_duck((960, 40, 24))
    ready = [clip.preprocess(images.pixels[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    number = count()

    def bare() -> None:
        with torch.no_grad():
            for part in ready:
                clip.model.encode_image(part)

    def ours() -> None:
        extract(clip, images, cache=folder / f"{name}-{next(number)}")

    rounds = interleaved({"ours": ours, "bare": bare}, torch.device("cpu"), repeats, warm_up=1)
    return {
        "ours_ms": milliseconds(rounds, "ours"),
        "bare_ms": milliseconds(rounds, "bare"),
        "ratio": ratio(rounds, "ours", "bare"),
    }


def fits(folder: Path) -> dict[str, float]:
    """Seconds of this process for the reference and for a whole fit of CFR, on cached features."""
    clip = load_clip("scenes-vit")
    images = finch_or_duck()
    train, val = (rows_of(clip, images.of(split), cache=folder) for split in ("train", "val"))
    start, seconds = start_of(clip, images.classes), {}
    for name, method in (("erm", ErmProjection(start)), ("cfr", Cfr(start))):
        begin = time.process_time()
        method.fit(train.h, train.y, None, torch.Generator().manual_seed(0), val)
        seconds[name] = time.process_time() - begin
    return seconds


def main() -> int:
    args = flags(__doc__, 5).parse_args()

    print(f"cpu, {torch.get_num_threads()} threads, numpy {np.__version__}")
    rows, passed = [], True
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'part':<34}{'ours ms':>10}{'bare ms':>10}{'ratio':>8}{'limit':>8}")
        for name in ("scenes-vit", "scenes-rn"):
            row = extraction(name, args.repeats, Path(folder))
            rows.append({"part": f"extraction, {name}", **row, "limit": LIMIT})
            print(
                f"{rows[-1]['part']:<34}{row['ours_ms']:>10.0f}{row['bare_ms']:>10.0f}{row['ratio']:>8.2f}{LIMIT:>8.1f}"
            )
            passed &= row["ratio"] <= LIMIT
        took = fits(Path(folder))
    print(f"fit on 4,800 cached features: ERM {took['erm']:.1f} s, CFR {took['cfr']:.1f} s (at most {SECONDS:.0f} s)")
    passed &= took["cfr"] <= SECONDS
    return conclude(args, "cfr", passed, "a limit was missed", rows=rows, fit_seconds=took)


if __name__ == "__main__":
    sys.exit(main())
