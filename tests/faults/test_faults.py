"""The short form of the fault campaign; and that a fault which nobody mended is counted as one."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from anatolab.errors import InputError
from tests import warm
from tests.faults import claims, injected, kills, mutations, rot, writers
from tests.faults.child import Ended, command, fork, is_sentence, refused, refusing
from tests.faults.tally import Tally

LINUX = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="children are ended through pidfd, as on Linux")
LEAST = {
    kills.KIND: 18,
    kills.AT_CALLS: 12,
    injected.KIND: 8,
    rot.KIND: 6,
    writers.KIND: 2,
    mutations.KIND: 15,
    claims.KIND: 50,
}


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the short form counts, in a process of its own: children are forks of one that has computed nothing."""
    out = tmp_path_factory.mktemp("faults") / "counts.json"
    done = warm.python("-m", "tests.faults", str(out), timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text())


@LINUX
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", LEAST)
def test_everything_survives(kind: str, counts: dict[str, Any]) -> None:
    assert [wrong for wrong in counts["failures"] if wrong.startswith(f"{kind},")] == []
    assert counts[kind]["survived"] == counts[kind]["tried"] >= LEAST[kind]


# --- the campaign sees what it looks for --------------------------------------------------------------------------


def test_counts_add_up_and_go_on_from_a_record() -> None:
    tally = Tally()
    with tally.timed("kills"):
        for member, wrong in (("a", None), ("a", "differs"), ("b", None)):
            tally.count("kills", member, wrong)
    values = tally.values()
    assert values["kills"]["members"] == {"a": [2, 1], "b": [1, 1]}
    assert values["total"] == {"tried": 3, "survived": 2, "seconds": values["kills"]["seconds"]}
    again = Tally.from_values(json.loads(json.dumps(values)))
    assert again.values() == values
    again.count("kills", "b", None)
    assert (again.of("kills"), again.failures) == (4, ["kills, a: differs"])
    again.count("kills at calls", "write", None)
    again.forget(["kills"])
    assert (again.of("kills"), again.of("kills at calls"), again.failures) == (0, 1, [])


@pytest.mark.parametrize(
    ("code", "text", "wrong"),
    [
        (1, "anatolab: a.nii: is damaged; copy it again.\n", None),
        (1, "anatolab: note: x\nanatolab: a.nii: is damaged; copy it again.\n", None),
        (0, "", "exit code 0"),
        (1, "Traceback (most recent call last):\n  x\nValueError: y\n", "3 lines"),
        (1, "anatolab: a.nii: is damaged.\n", "no sentence with a remedy"),
        (1, "anatolab: a.nii: is damaged. Sorry; x.\n", "no sentence with a remedy"),
        (1, "anatolab: b.nii: is damaged; copy it again.\n", "does not name a.nii"),
        (124, "", "hangs"),
        (-11, "", "exit code -11"),
    ],
)
def test_a_refusal_is_one_sentence_that_names_the_file(code: int, text: str, wrong: str | None) -> None:
    given = refused(Ended(code, text, None), "a.nii")
    assert given is None if wrong is None else given is not None and wrong in given


def test_sentences() -> None:
    assert is_sentence("a.nii.gz: has 3. 5 voxels; crop it.")
    assert not is_sentence("a: is wrong; copy it.\nor not.")


@LINUX
def test_children_end_as_they_are_made_to() -> None:
    assert fork(lambda: 3).code == 3
    assert fork(lambda: {"a": 1}).result == {"a": 1}
    assert fork(lambda: {}["x"]).text.endswith("KeyError: 'x'\n")
    assert fork(lambda: __import__("time").sleep(60), kill_after=0.1).code == -9
    assert fork(lambda: __import__("time").sleep(60), limit=0.1).code == 124
    assert fork(command("--version")).code == 0
    assert fork(refusing(lambda: (_ for _ in ()).throw(InputError("a; b.")))).text == "anatolab: a; b.\n"
    assert fork(lambda: len(bytearray(1 << 30)), memory=1 << 28).text.endswith("MemoryError\n")


@LINUX
@pytest.mark.parametrize(
    ("write", "places"),
    [
        (lambda path: path.write_text("x" * 20_000), {"open": 1, "write": 1}),
        (lambda path: path.open("wb", buffering=0).close(), {"open": 1}),
        (lambda path: (path.mkdir(), path.rmdir()), {"mkdir": 1, "unlink": 1}),
        (lambda path: (path.write_bytes(b"x"), path.replace(path.with_name("b"))), {"rename": 1}),
        (lambda path: (path.write_bytes(b"x"), path.read_bytes(), path.unlink()), {"read": 1, "unlink": 1}),
    ],
)
def test_calls_are_counted_and_fail_where_they_are_made_to(
    write: Callable[[Path], Any], places: dict[str, int], tmp_path: Path
) -> None:
    from tests.faults.calls import Calls

    def counted(place: str, number: int) -> int:
        def fails() -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        calls = Calls(tmp_path, (place,), number, before=fails)
        calls.watch_system()
        write(tmp_path / "a")
        return calls.counted

    for place, count in places.items():
        for path in tmp_path.iterdir():
            path.unlink()
        assert fork(partial(counted, place, 0)).code == count
        for path in tmp_path.iterdir():
            path.unlink()
        assert "No space left" in fork(partial(counted, place, count)).text


@LINUX
def test_a_writer_that_writes_in_place_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the project's writer is for: without it the same campaign fails."""

    def in_place(path: Path, write: Any, *, overwrite: bool, previous: Path | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(write, encoding="utf-8")

    monkeypatch.setattr("anatolab.records.write_atomically", in_place)
    monkeypatch.setattr("tests.faults.injected.worlds", lambda: only_record(tmp_path / "record"))
    tally = Tally()
    injected.run(tally, random.Random(0), 8)
    assert tally.failures


def only_record(root: Path) -> Any:
    from tests.faults import worlds

    (root / "start").mkdir(parents=True)
    worlds._write_record(root / "start" / "out", 1)
    whole = lambda path: bool(worlds._read_record(path))  # noqa: E731
    result = lambda f: worlds.hashed(f / "out")  # noqa: E731
    return {"a record": worlds.World("a record", root / "start", worlds._record, result, whole)}
