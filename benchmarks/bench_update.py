"""One update of the published U-Net at 256 x 256 as the training loop makes it, against fp32 without its settings.

The student reads 8 images and learns, the teacher reads 4, the optimizer steps. The loop keeps freed memory, stores
images with channels last and computes in bfloat16 where the processor has it. Each form runs in a process of its own,
since memory that is kept cannot be given back; rounds are interleaved over the processes, and CPU time is that of each.

At least 3 times as fast in bfloat16 (where the processor has it) and 2 times in fp32, with fewer than 1,000 page faults
an update. Exits with 1 below a floor; ``--report`` prints the same and exits with 0.

    python benchmarks/bench_update.py [--report] [--repeats 5] [--json FILE]
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import timing
import torch

from anatolab.nn import NETWORKS, Teacher
from anatolab.training.settings import keep_memory, resolve_precision

FORMS = {  # memory kept, channels last, bfloat16
    "as it was": (False, False, False),
    "fp32": (True, True, False),
    "bf16": (True, True, True),
}
FLOORS = {"fp32": 2.0, "bf16": 3.0}
FAULTS = 1000


def update(*, keep: bool, channels_last: bool, bf16: bool, side: int) -> Callable[[], None]:
    """Returns a call of one update in the given form."""
    if keep:
        keep_memory()
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    student = NETWORKS["basic_unet"](1, 4).to(memory_format=layout).train()
    teacher = Teacher(student).train()
    optimizer = torch.optim.AdamW(student.parameters(), 1e-3, fused=True)
    image = torch.rand(8, 1, side, side).contiguous(memory_format=layout)
    label = torch.randint(4, (8, side, side))

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                teacher(image[4:])
            logits = student(image)
        loss = torch.nn.functional.cross_entropy(logits.float(), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        teacher.update(student)

    return work


def child(pipe: Connection, form: tuple[bool, bool, bool], side: int) -> None:
    """Makes an update whenever it is asked, and answers with CPU seconds and page faults."""
    keep, channels_last, bf16 = form
    work = update(keep=keep, channels_last=channels_last, bf16=bf16, side=side)
    while pipe.recv():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        took = timing.seconds(work, torch.device("cpu"))
        pipe.send((took, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))


def measure(repeats: int, side: int) -> dict[str, list[tuple[float, int]]]:
    """Returns CPU seconds and page faults of each round of each form, after two rounds that warm up."""
    NETWORKS["basic_unet"](1, 4)  # what it imports, once for all
    context = multiprocessing.get_context("fork")
    pipes, processes = {}, []
    for name, form in FORMS.items():
        pipes[name], other = context.Pipe()
        processes.append(context.Process(target=child, args=(other, form, side), daemon=True))
        processes[-1].start()
        other.close()  # so that a child that fails ends the wait for it
    rounds: dict[str, list[tuple[float, int]]] = {name: [] for name in FORMS}
    for _ in range(repeats + 2):
        for name, pipe in pipes.items():
            pipe.send(True)
            rounds[name].append(pipe.recv())
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()
    return {name: taken[2:] for name, taken in rounds.items()}


def main() -> int:
    parser = timing.flags(__doc__, 5)
    parser.add_argument("--side", type=int, default=256, help="of an image, in pixels")
    args = parser.parse_args()

    native = resolve_precision("auto", "cpu", 2) != "32-true"
    rounds, table = measure(args.repeats, args.side), []
    print(f"one update of BasicUNet, {args.side} x {args.side}, bfloat16 {'native' if native else 'emulated'}")
    print(f"{'form':<12}{'ms':>9}{'ratio':>8}{'floor':>7}{'page faults':>13}")
    for name, taken in rounds.items():
        fastest = min(seconds for seconds, _ in taken)
        row: dict[str, Any] = {
            "form": name,
            "ms": 1e3 * fastest,
            "ratio": min(was for was, _ in rounds["as it was"]) / fastest,
            "faults": statistics.median(faults for _, faults in taken),
            "floor": FLOORS.get(name) if native or name != "bf16" else None,
        }
        table.append(row)
        floor = "-" if row["floor"] is None else row["floor"]
        print(f"{name:<12}{row['ms']:>9.0f}{row['ratio']:>8.2f}{floor:>7}{row['faults']:>13,.0f}")
    judged = [row for row in table if row["floor"] is not None]
    passed = all(row["ratio"] >= row["floor"] and row["faults"] < FAULTS for row in judged)
    return timing.conclude(
        args, "update", passed, f"a ratio below its floor, or {FAULTS:,} page faults and more", rows=table
    )


if __name__ == "__main__":
    sys.exit(main())
