"""What one training step pays for beside its networks: loader and augmentation, losses, teacher update.

At the ``demo`` preset, for every method, in 2-D and 3-D with 4 and with 14 classes, against a limit each:

* loader, weak and strong augmentation and mix, as a share of a whole step: at most 30 % on a CPU, 10 % on a GPU;
* a whole step over its networks alone: at most 60 % more on a CPU, 25 % on a GPU. The networks alone are what the step
  reads: a first step notes each batch that a backbone is given, and whether with gradient; these are read again, and
  the outputs that had gradient are differentiated. MORSE is timed without a limit: its renderer is no backbone
  (``bench_morse.py``).
* a whole step of ARCO and of MONA over the networks of mean teacher, which reads no image twice: at most 1.4 and 1.8
  times.

Memory is kept between updates and networks have channels last, as in the training loop. Parts are interleaved in one
process; each ratio is that of the fastest rounds. Exits with 1 above a limit; ``--report`` prints the same and exits
with 0.

    python benchmarks/bench_step.py [--report] [--repeats 15] [--only arco] [--case 3d-4] [--json FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timing import conclude, flags, interleaved, milliseconds, ratio
from torch import Tensor, nn

from anatolab.data import Rows, TwoStreamSampler, Volumes
from anatolab.methods import METHODS
from anatolab.nn import NETWORKS
from anatolab.presets import SIZES, SIZES_3D
from anatolab.training.loop import Feed
from anatolab.training.settings import keep_memory
from anatolab.transforms import cut_mask, mix, strong_view, weak_view
from anatolab.types import Size

LIMITS = {"cpu": {"loader": 0.30, "overhead": 0.60}, "cuda": {"loader": 0.10, "overhead": 0.25}}
CASES = {f"{dims}d-{n}": (sizes["demo"], n) for dims, sizes in ((2, SIZES), (3, SIZES_3D)) for n in (4, 14)}
UNJUDGED = ("morse",)
OVER_MEAN_TEACHER = {"arco": 0.4, "mona": 0.8}  # what a step may take more, in 2-D with 4 classes


def rows(size: Size, classes: int, n: int = 40) -> Rows | Volumes:
    """Returns noise in the shape of a cohort; content does not matter here."""
    generator = np.random.default_rng(0)
    images = generator.random((n, 1, *size.image), dtype=np.float32)
    labels = generator.integers(0, classes, (n, *size.image), dtype=np.uint8)
    names = [f"p{i // 4}" for i in range(n)]
    if len(size.image) == 2:
        return Rows.from_arrays(images, labels, names)
    return Volumes.from_arrays(list(images), list(labels), names, size=size.image)


Call = tuple[nn.Module, torch.Size, bool]  # of a network: which, the shape of its batch, whether with gradient


def readings(method: nn.Module, backbone: type[nn.Module], step: Callable[[], Any]) -> list[Call]:
    """Returns what a step reads: each call of a backbone, the shape of its batch, and whether it needs gradient."""
    calls: list[Call] = []

    def note(net: nn.Module, given: tuple[Tensor, ...]) -> None:
        calls.append((net, given[0].shape, torch.is_grad_enabled()))

    hooks = [m.register_forward_pre_hook(note) for m in method.modules() if type(m) is backbone]
    step()
    for hook in hooks:
        hook.remove()
    assert calls, "no backbone was called"
    return calls


def parts(name: str, device: torch.device, size: Size, classes: int) -> dict[str, Callable[[], None]]:
    """Returns a whole step, its networks alone, and its loader with augmentation alone."""
    torch.manual_seed(0)
    kind, dims = METHODS[name], len(size.image)
    network = NETWORKS[size.network](1, classes, spatial_dims=dims)
    method = kind(network, kind.Config().for_size(size)).to(device).train()
    if dims == 2:
        method.to(memory_format=torch.channels_last)
    stage = method.stages()[-1]  # of staged profiles the last one, which has all networks and terms
    labeled, unlabeled = stage.batch
    augmentation = method.config.augmentation
    feed = Feed(rows(size, classes), device)
    sampler = TwoStreamSampler(range(20), range(20, 40), labeled, unlabeled, seed=0)
    parameters = list(stage.trainable.parameters() if isinstance(stage.trainable, nn.Module) else stage.trainable)
    optimizer: Any = torch.optim.AdamW(parameters, 1e-4, fused=True)

    def loader() -> None:
        batch = feed(sampler.sample(), labeled)
        moved, _ = weak_view(batch.image, batch.label, augmentation, batch.view)
        if unlabeled:
            weak = moved[labeled:]
            mixed, _ = mix(cut_mask(weak), weak, weak.expand(-1, 4, *[-1] * dims))
            moved = torch.cat([moved[:labeled], mixed])
        strong_view(moved, augmentation)

    def step() -> None:
        losses = stage.step(feed(sampler.sample(), labeled), 0.5)
        optimizer.zero_grad()
        losses.total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()
        method.after_step()

    step()  # something for the banks
    calls = readings(method, type(network), step)
    layout = {"memory_format": torch.channels_last} if dims == 2 else {}
    images = {shape: torch.rand(shape, device=device).contiguous(**layout) for _, shape, _ in calls}

    def networks() -> None:
        method.zero_grad()
        total: Any = 0.0
        for net, shape, gradient in calls:
            with torch.set_grad_enabled(gradient):
                logits = net(images[shape])
                total = total + (logits.square().mean() if gradient else 0.0)
        total.backward()

    return {"loader": loader, "networks": networks, "step": step}


def measured(case: str, name: str, device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """Times one method in one case; returns a row for each part."""
    size, classes = CASES[case]
    limits = LIMITS[device.type]
    work = parts(name, device, size, classes)
    shares = [
        ("loader", "loader + augmentation of step", "loader", "step", 0.0, limits["loader"]),
        ("overhead", "step over its networks", "step", "networks", 1.0, limits["overhead"]),
    ]
    if case == "2d-4" and name in OVER_MEAN_TEACHER:
        work["mean teacher"] = parts("mean_teacher", device, size, classes)["networks"]
        more = OVER_MEAN_TEACHER[name]
        shares.append(("over mean teacher", "step over mean teacher's nets", "step", "mean teacher", 1.0, more))
    rounds = interleaved(work, device, repeats if len(size.image) == 2 else -(-repeats // 3))
    return [
        {
            "case": case,
            "method": name,
            "part": part,
            "label": label,
            "ours_ms": milliseconds(rounds, ours),
            "of_ms": milliseconds(rounds, against),
            "ratio": ratio(rounds, ours, against) - less,
            "floor": None if name in UNJUDGED and part == "overhead" else limit,
        }
        for part, label, ours, against, less, limit in shares
    ]


def main() -> int:
    parser = flags(__doc__, 15, "interleaved rounds; in 3-D a third of them")
    parser.add_argument("--only", choices=list(METHODS), action="append", help="only this method; may be repeated")
    parser.add_argument("--case", choices=list(CASES), action="append", help="only this case; may be repeated")
    args = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    table: list[dict[str, Any]] = []
    keep_memory()
    print(f"{device.type}, {torch.get_num_threads()} threads")
    print(f"{'case':<8}{'method':<14}{'part':<30}{'ours ms':>9}{'of ms':>9}{'ratio':>8}{'limit':>8}")
    for case in args.case or CASES:
        for name in args.only or METHODS:
            for row in measured(case, name, device, args.repeats):
                table.append(row)
                limit = "-" if row["floor"] is None else format(row["floor"], ".2f")
                print(
                    f"{case:<8}{name:<14}{row['label']:<30}{row['ours_ms']:>9.1f}{row['of_ms']:>9.1f}"
                    f"{row['ratio']:>8.2f}{limit:>8}",
                    flush=True,
                )
    passed = all(row["floor"] is None or row["ratio"] <= row["floor"] for row in table)
    return conclude(args, "step", passed, "a ratio is above its limit", rows=table)


if __name__ == "__main__":
    sys.exit(main())
