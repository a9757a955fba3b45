"""What one training step pays for beside its networks: loader and augmentation, losses, teacher update.

At the ``demo`` preset (4 + 4 images of 128 x 128), on the device at hand, against a floor each:

* loader, weak and strong augmentation and mix, as a share of a whole step: at most 30 % on a CPU, 10 % on a GPU;
* a whole semi-supervised step over its networks alone (student forward and backward, teacher forward): at most 60 %
  more on a CPU, 25 % on a GPU.

Parts are interleaved in one process; each ratio is the median over rounds. Exits with 1 above a floor; ``--report``
prints the same and exits with 0.

    python benchmarks/bench_step.py [--report] [--repeats 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import seconds
from torch import nn

from anatolab.data import Rows, TwoStreamSampler
from anatolab.methods import UAMT, Action, ActionPP, Arco, MeanTeacher, Mona
from anatolab.nn import NETWORKS
from anatolab.presets import SIZES
from anatolab.training.loop import Feed
from anatolab.transforms import cut_mask, mix, strong_view, weak_view

SIZE = SIZES["demo"]
LIMITS = {"cpu": {"loader": 0.30, "overhead": 0.60}, "cuda": {"loader": 0.10, "overhead": 0.25}}


def rows(n: int = 200) -> Rows:
    """Returns noise in the shape of a cohort; content does not matter here."""
    generator = np.random.default_rng(0)
    images = generator.random((n, 1, SIZE.side, SIZE.side), dtype=np.float32)
    labels = generator.integers(0, 4, (n, SIZE.side, SIZE.side), dtype=np.uint8)
    return Rows.from_arrays(images, labels, [f"p{i // 10}" for i in range(n)])


def parts(kind: Any, device: torch.device) -> dict[str, Callable[[], None]]:
    """Returns a whole step, its networks alone, and its loader with augmentation alone."""
    torch.manual_seed(0)
    method = kind(NETWORKS[SIZE.network](1, 4), kind.Config().for_size(SIZE)).to(device).train()
    stage = method.stages()[-1]  # of ACTION and ACTION++ the last one, which has all networks and terms
    augmentation = method.config.augmentation
    feed, sampler = Feed(rows(), device), TwoStreamSampler(range(100), range(100, 200), 4, 4, seed=0)
    parameters = list(method.student.parameters())
    optimizer: Any = torch.optim.SGD(parameters, 0.01, 0.9, fused=True)
    image = torch.rand(8, 1, SIZE.side, SIZE.side, device=device)
    # What a step's teacher reads: UA-MT unlabeled images several times, ACTION++ labeled ones too, MONA and ARCO first
    # the unlabeled ones and then all. MONA's student reads unlabeled images once more, moved.
    taught = {ActionPP: [image], Mona: [image[4:], image], Arco: [image[4:], image]}.get(
        kind, [image[4:].repeat(getattr(method.config, "passes", 1), 1, 1, 1)]
    )
    learned = [image, image[4:]] if kind is Mona else [image]

    def loader() -> None:
        batch = feed(sampler.sample(), 4)
        moved, _ = weak_view(batch.image, batch.label, augmentation)
        mixed, _ = mix(cut_mask(moved[4:]), moved[4:], moved[4:].repeat(1, 4, 1, 1))
        strong_view(torch.cat([moved[:4], mixed]), augmentation)

    def networks() -> None:
        for images in taught:
            method.teacher(images)
        optimizer.zero_grad()
        sum(method.predict(images).square().mean() for images in learned).backward()

    def step() -> None:
        losses = stage.step(feed(sampler.sample(), 4), 0.5)
        optimizer.zero_grad()
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 10.0, foreach=True)
        optimizer.found_inf = (~torch.isfinite(norm)).float()
        optimizer.step()
        method.after_step()

    return {"loader": loader, "networks": networks, "step": step}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="print, and exit with 0 whatever was measured")
    parser.add_argument("--repeats", type=int, default=15, help="interleaved rounds")
    parser.add_argument("--json", type=Path, help="write the numbers to this file as well")
    args = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    limits = LIMITS[device.type]
    table = []
    print(
        f"{device.type}, {torch.get_num_threads()} threads, 4 + 4 images of {SIZE.side} x {SIZE.side}, {SIZE.network}"
    )
    print(f"{'method':<14}{'part':<30}{'ours ms':>9}{'of ms':>9}{'ratio':>8}{'floor':>8}")
    for kind in (MeanTeacher, UAMT, Action, ActionPP, Mona, Arco):
        work = parts(kind, device)
        rounds = [{name: seconds(part, device) for name, part in work.items()} for _ in range(args.repeats + 2)][2:]
        step = 1e3 * statistics.median(r["step"] for r in rounds)
        for part, label, against, ratio in (
            ("loader", "loader + augmentation of step", "step", lambda r: r["loader"] / r["step"]),
            ("overhead", "step over its networks", "networks", lambda r: r["step"] / r["networks"] - 1),
        ):
            row = {
                "method": kind.__name__,
                "part": part,
                "ours_ms": 1e3 * statistics.median(r["loader"] for r in rounds) if part == "loader" else step,
                "of_ms": 1e3 * statistics.median(r[against] for r in rounds),
                "ratio": statistics.median(map(ratio, rounds)),
                "floor": limits[part],
            }
            table.append(row)
            print(
                f"{row['method']:<14}{label:<30}{row['ours_ms']:>9.1f}{row['of_ms']:>9.1f}"
                f"{row['ratio']:>8.2f}{row['floor']:>8.2f}"
            )
    passed = all(row["ratio"] <= row["floor"] for row in table)
    print("passed" if passed else "FAILED: a ratio is above its floor")
    if args.json:
        args.json.write_text(
            json.dumps({"benchmark": "step", "passed": passed, "rows": table}, indent=1) + "\n", encoding="utf-8"
        )
    return 0 if passed or args.report else 1


if __name__ == "__main__":
    sys.exit(main())
