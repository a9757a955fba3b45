"""An error of the system at every call of everything that writes.

Right is: the command either succeeds with the result of an undisturbed one, or ends with one sentence and exit code 1;
every file that lies there then is an old one, unchanged, or a whole new one; no temporary file is left; and the same
command succeeds once the fault is gone, with the result of an undisturbed one.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.calls import FAULTS, SYSTEM, Calls, Fault
from tests.faults.child import fork, refused
from tests.faults.tally import Tally
from tests.faults.worlds import World, hashed, worlds

KIND = "errors of the system"


def faulty(work: Callable[[], int], folder: Path, fault: Fault | None, number: int, note: Path) -> Callable[[], int]:
    """Returns work during which the k-th call that a fault can come from fails; it notes how many there were."""

    def run() -> int:
        places = fault.places if fault is not None else SYSTEM
        calls = Calls(
            folder,
            places,
            number,
            before=fault.act if fault is not None else None,
            lasting=bool(fault and fault.lasting),
        )
        calls.watch_system()
        try:
            return work()
        finally:
            note.write_text(str(calls.counted), encoding="utf-8")

    return run


def judged(world: World, folder: Path, before: dict[str, str], ended: Any, due: Any) -> str | None:
    """Returns what is wrong after a fault."""
    after = hashed(folder / "out")
    temporary = [name for name in after if ".part" in name or ".tmp" in name or name.endswith(".lock")]
    if temporary:
        return f"leaves {temporary[0]}"
    if folders := [p.name for p in (folder / "out").rglob("*.part-*")]:
        return f"leaves {folders[0]}"
    if lost := sorted(before.keys() - after.keys()):
        return f"loses {lost[0]}"
    if ended.code:
        if wrong := refused(ended):
            return wrong
        for name in (name for name in after if after[name] != before.get(name)):
            try:
                whole = world.whole(folder / "out" / name)
            except Exception as error:
                return f"leaves a part of {name} ({error})"
            if not whole:
                return f"leaves a part of {name}"
    elif world.result(folder) != due:
        return "succeeds with another result"
    again = fork(world.work(folder))
    if again.code:
        return f"is not done again: {again.text[-200:]}"
    return None if world.result(folder) == due else "ends with another result when it is done again"


def run(
    tally: Tally,
    draw: random.Random,
    count: int | None = None,
    only: tuple[str, ...] | None = None,
    each: int | None = None,
) -> None:
    """Tries every error at every call.

    Args:
        tally: Counts.
        draw: Chooses where not all are tried.
        count: How many in all; all where None.
        only: Names of worlds; all where None.
        each: At most so many calls of a world and a fault.
    """
    with tally.timed(KIND), tempfile.TemporaryDirectory() as root:
        made = worlds()
        todo, results = [], {}
        for world in made.values():
            if only is not None and world.name not in only:
                continue
            note, folder = Path(root) / "calls", world.copy(Path(root) / "work" / "w")
            ended = fork(world.work(folder))
            if ended.code:
                raise RuntimeError(f"{world.name}: {ended.text}")
            results[world.name] = world.result(folder)
            for fault in FAULTS:
                folder = world.copy(Path(root) / "work" / "w")
                ended = fork(faulty(world.work(folder), folder, fault, 0, note))
                if ended.code:
                    raise RuntimeError(f"{world.name}: {ended.text}")
                numbers = list(range(1, int(note.read_text()) + 1))
                if each is not None and len(numbers) > each:
                    numbers = sorted(draw.sample(numbers, each))
                todo += [(world, fault, number) for number in numbers]
        if count is not None:
            todo = draw.sample(todo, min(count, len(todo)))
        for world, fault, number in todo:
            folder = world.copy(Path(root) / "work" / "w")
            before = hashed(folder / "out")
            ended = fork(faulty(world.work(folder), folder, fault, number, Path(root) / "calls"))
            wrong = judged(world, folder, before, ended, results[world.name])
            tally.count(KIND, f"{world.name}, {fault.name}", wrong and f"call {number}: {wrong}")
        shutil.rmtree(Path(root) / "work", ignore_errors=True)
