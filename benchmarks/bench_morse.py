"""What rendering adds to a backbone at inference, and what fused features take as a map and at points alone.

* Refined over coarse prediction at the ``demo`` preset, slices of 128 x 128 and patches of 48 x 64 x 64: at most 1.5
  times the time of the backbone. Published widths are timed beside it, without a floor. "needed" is the time of the
  backbone and of nothing but the convolutions and matrix products that rendering adds, on inputs that are there, at the
  pixels of the first pass, over that of the backbone: no code that renders these pixels by these layers is faster.
  "new" is the share of the later passes' pixels that no earlier pass rendered; only these cost. It is 0 with the small
  start of a head, which leaves what it renders undecided, and was 0.07 to 0.21 after 300 updates on generated hearts;
  here the head has torch's start, so that nothing is won by an untrained network. With the light network on slices the
  floor is not reached. What stands between "needed" and the ratio is no product but memory: four maps read at points,
  means and interpolated maps for the gate, waves, margins and the choice of the largest. A fused gather of all maps
  (``embedding_bag``) was no faster; maps with channels last make the experts faster by a third, but change gates by
  more than 1e-6 of their value.
* Peak memory of fused features, of published widths: the full map with all experts at full size, as released; the full
  map in chunks; and at the points of one pass alone (no floor).

Parts are interleaved in one process; each ratio is that of the fastest rounds. Exits with 1 above the floor;
``--report`` prints the same and exits with 0.

    python benchmarks/bench_morse.py [--report] [--repeats 9] [--json FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timing import conclude, flags, interleaved, milliseconds, ratio
from torch import Tensor

from anatolab.methods import Morse
from anatolab.nn import NETWORKS, Experts, fused_map, pixel_centers, refine
from anatolab.presets import SIZES, SIZES_3D
from anatolab.types import Size

FLOOR = 1.5
CLASSES = 4


def cases() -> list[tuple[str, str, Size, Morse.Config, int, float | None]]:
    """Returns label, network, size, settings, images per call, floor."""
    flat, deep = SIZES["demo"], SIZES_3D["demo"]
    demo_2d, demo_3d = Morse.Config().for_size(flat), Morse.Config().for_size(deep)
    wide = Morse.Config(points=demo_2d.points, render_points=demo_2d.render_points)
    wide_3d = Morse.Config(points=demo_3d.points, render_points=demo_3d.render_points)
    return [
        ("demo, slices", flat.network, flat, demo_2d, 4, FLOOR),
        ("demo, slices", "basic_unet", flat, demo_2d, 4, FLOOR),
        ("demo, patches", deep.network, deep, demo_3d, 1, FLOOR),
        ("published widths, slices", "basic_unet", flat, wide, 1, None),
        ("published widths, patches", deep.network, deep, wide_3d, 1, None),
    ]


def needed(method: Morse, image: Tensor) -> Callable[[], Any]:
    """Returns a call of what rendering needs: backbone, experts, gate, and the layers at one pass's points."""
    fusion, head = method.student.fusion, method.student.head
    assert isinstance(fusion, Experts)
    logits, maps = method.student(image)
    gate = fusion(maps).gate
    assert gate is not None
    num = min(method.config.render_points, logits[0, 0].numel())
    features = torch.rand(
        len(image), fusion.experts[0][2].out_channels * len(maps), *gate.shape[2:], device=image.device
    )
    weights = [m.weight[:, :, 0] for m in (*fusion.head, *head.hidden, head.last) if isinstance(m, torch.nn.Conv1d)]
    inputs = [torch.rand(w.shape[1], num, device=image.device) for w in weights]

    def work() -> None:
        method.student(image)
        for expert, map_ in zip(fusion.experts, maps, strict=True):
            expert(map_)
        fusion.gate(features)
        for _ in image:
            for weight, x in zip(weights, inputs, strict=True):
                torch.mm(weight, x)

    return work


def new_share(method: Morse, image: Tensor) -> float:
    """Returns the share of pixels of later passes that no earlier pass rendered."""
    counts: list[int] = []
    logits, maps = method.student(image)
    render = method.student.renderer(logits, maps)

    def counted(points: Tensor) -> Tensor:
        counts.append(points.shape[1])
        return render(points)

    refine(logits, counted, method.config.render_points, passes=method.config.passes)
    return sum(counts[1:]) / (counts[0] * (method.config.passes - 1))


def released(fusion: Experts, maps: list[Tensor], sides: tuple[int, ...]) -> Tensor:
    """Computes the fused map as the released code does: every expert at full size, then gate, sum and head."""
    mode = "bilinear" if len(sides) == 2 else "trilinear"
    each = [
        F.interpolate(e(m), sides, mode=mode, align_corners=False) for e, m in zip(fusion.experts, maps, strict=True)
    ]
    gate = fusion.gate(torch.cat(each, 1)).softmax(1)
    mixed = (torch.stack(each, 1) * gate[:, :, None]).sum(1)
    return fusion.head(mixed.flatten(2)).unflatten(2, sides)


def chunked(fusion: Experts, maps: list[Tensor], sides: tuple[int, ...]) -> Tensor:
    """Computes the same map, 4,096 pixels at a time."""
    return fused_map(fusion, fusion(maps), sides, chunk=4096)


def at_points(fusion: Experts, maps: list[Tensor], points: Tensor) -> Tensor:
    """Computes the same features at some pixels."""
    return fusion.sample(fusion(maps), points)


def peak_mib(work: Callable[[], Any], device: torch.device) -> float:
    """Measures the additional peak memory of a call, in MiB."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    live = peak = 0
    for event in sorted(profiled.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak / 2**20


def main() -> int:
    args = flags(__doc__, 9).parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[dict[str, Any]] = []
    print(f"{device.type}, {torch.get_num_threads()} threads")
    print(
        f"{'preset':<28}{'network':<14}{'refined ms':>11}{'coarse ms':>11}{'ratio':>8}"
        f"{'floor':>8}{'needed':>8}{'new':>7}"
    )
    for label, name, size, config, images, floor in cases():
        torch.manual_seed(0)
        torch.set_grad_enabled(True)
        dims = len(size.image)
        config = replace(config, head_init="torch")
        method = Morse(NETWORKS[name](1, CLASSES, spatial_dims=dims), config).to(device).eval()
        image = torch.rand(images, 1, *size.image, device=device)
        torch.set_grad_enabled(False)  # building a method needs it
        work = {"refined": partial(method.predict, image), "coarse": partial(method.predict_coarse, image)}
        rounds = interleaved({**work, "needed": needed(method, image)}, device, args.repeats)
        row = {
            "preset": label,
            "network": name,
            "refined_ms": milliseconds(rounds, "refined"),
            "coarse_ms": milliseconds(rounds, "coarse"),
            "ratio": ratio(rounds, "refined", "coarse"),
            "floor": floor,
            "needed": ratio(rounds, "needed", "coarse"),
            "new": new_share(method, image),
        }
        rows.append(row)
        print(
            f"{label:<28}{name:<14}{row['refined_ms']:>11.1f}{row['coarse_ms']:>11.1f}{row['ratio']:>8.2f}"
            f"{floor if floor is not None else '-':>8}{row['needed']:>8.2f}{row['new']:>7.2f}"
        )

    memory: list[dict[str, Any]] = []
    print(f"\n{'fused features, MiB at peak':<28}{'grid':<14}{'full map':>11}{'in chunks':>11}{'at points':>11}")
    for label, sides, dim, out, num in (
        ("published widths, slice", (128, 128), 256, 256, 2048),
        ("published widths, patch", (48, 64, 64), 64, 64, 1820),
    ):
        channels, strides = (256, 128, 64, 32, 16)[-len(sides) - 1 :], (16, 8, 4, 2, 1)[-len(sides) - 1 :]
        fusion = Experts(channels, strides, dim, out, dims=len(sides), gate_stride=4).to(device).eval()
        maps = [
            torch.rand(1, c, *[n // s for n in sides], device=device) for c, s in zip(channels, strides, strict=True)
        ]
        points = pixel_centers(torch.randperm(num, device=device)[None], sides)
        row = {
            "case": label,
            "grid": " x ".join(map(str, sides)),
            "full_mib": peak_mib(partial(released, fusion, maps, sides), device),
            "chunks_mib": peak_mib(partial(chunked, fusion, maps, sides), device),
            "points_mib": peak_mib(partial(at_points, fusion, maps, points), device),
        }
        memory.append(row)
        print(
            f"{label:<28}{row['grid']:<14}{row['full_mib']:>11.0f}{row['chunks_mib']:>11.0f}{row['points_mib']:>11.0f}"
        )

    passed = all(row["ratio"] <= row["floor"] for row in rows if row["floor"] is not None)
    return conclude(args, "morse", passed, "a ratio is above its floor", rows=rows, memory=memory)


if __name__ == "__main__":
    sys.exit(main())
