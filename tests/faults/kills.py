"""SIGKILL at random instants of the training of every method, and at every call that reaches the disk.

Right is: what lies there can be read, the same command continues, the weights at the end are those of a run that nobody
killed, to the last bit, and no file is left over.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from anatolab.methods import METHODS
from anatolab.training import RunInfo, Settings, checkpoint, train
from tests.faults.calls import Calls, die
from tests.faults.child import fork
from tests.faults.tally import Tally
from tests.training import toy

KIND, AT_CALLS = "kills", "kills at calls"
UPDATES = 5
SETTINGS = Settings(optimizer="sgd", precision="32-true", accelerator="cpu", checkpoint_every=2, log_every=2, lr=0.05)
LEFT = ["last.pt", "log.jsonl", "previous.pt", "run.json"]
STEP = ("take", "forward", "backward", "step", "update")  # calls of one update, in their order
Run = tuple[str, int]  # method and dimensions
RUNS: tuple[Run, ...] = (*((name, 2) for name in METHODS), *((name, 3) for name in ("mean_teacher", "mona", "morse")))


def fit(run: Run, out: Path) -> str:
    """Trains, or continues, and returns a hash of all that the method holds."""
    import torch

    name, dims = run
    torch.set_num_threads(1)
    # A process that continues has other weights until it reads its checkpoint.
    method = toy.method(name, updates=UPDATES, seed=7 if checkpoint.exists(out) else 0, dims=dims)
    config = {"updates": UPDATES}
    info = RunInfo(name, config, "light_unet", 1, ("background", "a"), 16, toy.SPLIT)
    rows = toy.rows() if dims == 2 else toy.volumes()
    train(method, rows, toy.SPLIT, SETTINGS, out=out, info=info, progress=False)
    digest = hashlib.sha256()
    for key, value in method.state_dict().items():
        content = value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()
        digest.update(key.encode() + content)
    return digest.hexdigest()


class Reference:
    """What an undisturbed run of a method ends with, and how long it takes; one run a method."""

    def __init__(self) -> None:
        self._known: dict[Run, tuple[str, float]] = {}

    def of(self, run: Run) -> tuple[str, float]:
        """Returns hash and seconds."""
        if run not in self._known:
            with tempfile.TemporaryDirectory() as folder:
                begin = time.monotonic()
                ended = fork(partial(fit, run, Path(folder) / "run"))
                if ended.code:
                    raise RuntimeError(f"{run}: {ended.text}")
                self._known[run] = ended.result, time.monotonic() - begin
        return self._known[run]


def judged(run: Run, out: Path, reference: Reference) -> str | None:
    """Returns what is wrong after a kill, once the run was continued to its end."""
    for path in sorted(out.glob("*.pt")):
        ended = fork(lambda path=path: int(not checkpoint.load(path)["step"]))  # type: ignore[misc]
        if ended.code:
            return f"{path.name} cannot be read: {ended.text.splitlines()[-1:]}"
    ended = fork(partial(fit, run, out))
    if ended.code:
        return f"cannot be continued: {ended.text.splitlines()[-1:]}"
    if ended.result != reference.of(run)[0]:
        return "ends with other weights"
    names = sorted(path.name for path in out.iterdir())
    return None if names == LEFT else f"leaves {names}"


def at_random(tally: Tally, draw: random.Random, count: int, reference: Reference, runs: Sequence[Run] = RUNS) -> None:
    """Kills ``count`` runs, each at an instant that is uniform over its duration; one that ends before is no kill."""
    order = draw.sample(runs, len(runs))
    with tally.timed(KIND), tempfile.TemporaryDirectory() as folder:
        done = 0
        while done < count:
            run = order[done % len(order)]
            out = Path(folder) / f"{done}"
            ended = fork(partial(fit, run, out), kill_after=draw.uniform(0, reference.of(run)[1]))
            if ended.code != -9:
                if ended.code:
                    tally.count(KIND, run[0], f"ends by itself: {ended.text.splitlines()[-1:]}")
                    done += 1
                continue
            out.mkdir(exist_ok=True)
            tally.count(KIND, run[0], judged(run, out, reference))
            done += 1


def armed(run: Run, out: Path, place: str, number: int, before: bool) -> str:
    """Trains with a kill at the k-th call of a place."""
    calls = _watching(run, out, (place,), number, before)
    digest = fit(run, out)
    return f"{digest} {calls.counted}"


def _watching(run: Run, out: Path, places: tuple[str, ...], number: int = 0, before: bool = False) -> Calls:
    import torch

    from anatolab.data import Rows, Volumes
    from anatolab.nn import Teacher

    calls = Calls(out.parent, places, number, **{"before" if before else "after": die})  # type: ignore[arg-type]
    calls.watch_system()
    norm: Any = torch.nn.BatchNorm2d if run[1] == 2 else torch.nn.BatchNorm3d
    owners = (Rows if run[1] == 2 else Volumes, norm, torch.Tensor, torch.optim.SGD, Teacher)
    for owner, name in zip(owners, STEP, strict=True):
        if name in places:
            calls.watch(owner, name)
    return calls


def at_calls(
    tally: Tally,
    draw: random.Random,
    reference: Reference,
    count: int | None = None,
    run: Run = ("mean_teacher", 2),
    places: tuple[str, ...] = ("open", "write", "fsync", "rename", "link", "mkdir", "unlink", *STEP),
) -> None:
    """Kills before, within and after every call that reaches the disk, and around the calls of an update.

    Args:
        tally: Counts.
        draw: Chooses where not all are tried.
        reference: The undisturbed run.
        count: How many of them; all where None.
        run: Which training.
        places: Of which calls.
    """
    with tally.timed(AT_CALLS), tempfile.TemporaryDirectory() as folder:
        todo = []
        for place in places:
            ended = fork(partial(armed, run, Path(folder) / f"count-{place}" / "run", place, 0, False))
            if ended.code:
                raise RuntimeError(ended.text)
            calls = int(ended.result.split()[1])
            if not calls and place not in STEP:
                raise RuntimeError(f"no call of {place} is counted")
            todo += [(place, k, before) for k in range(1, calls + 1) for before in (True, False)]
        if count is not None:
            todo = draw.sample(todo, count)
        for number, (place, k, before) in enumerate(todo):
            out = Path(folder) / str(number) / "run"
            ended = fork(partial(armed, run, out, place, k, before))
            out.mkdir(parents=True, exist_ok=True)
            wrong = f"is not killed: {ended.code} {ended.text[-200:]}" if ended.code != -9 else None
            tally.count(AT_CALLS, place, wrong or judged(run, out, reference))
