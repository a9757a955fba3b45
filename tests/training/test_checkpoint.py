"""A checkpoint is whole, older and whole, or refused with the reason; whatever happened to its file."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anatolab.errors import Notice
from anatolab.training import checkpoint
from anatolab.types import InputError


def write(folder: Path, *steps: int) -> Path:
    """One checkpoint after the other; the path of the last."""
    for step in steps:
        payload = {"method": {"step": torch.full((500,), float(step))}, "step": step}
        checkpoint.save(payload, folder / checkpoint.LAST)
    return folder / checkpoint.LAST


def step_of(payload: dict[str, Any]) -> int:
    assert (payload["method"]["step"] == payload["step"]).all()
    return int(payload["step"])


def test_random_states_are_restored_bitwise_through_a_file(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()]  # noqa: NPY002

    draw()
    checkpoint.save({"method": {}, "rng": checkpoint.rng_state()}, tmp_path / "a.pt")
    expected = [draw(), draw()]
    checkpoint.set_rng_state(checkpoint.load(tmp_path / "a.pt")["rng"])
    assert [draw(), draw()] == expected


def test_a_failed_write_keeps_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 1)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"last.pt: could not be written \(No space left on device\); free space"):
        write(tmp_path, 2)
    assert step_of(checkpoint.load(path)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_one_previous_generation_is_kept(tmp_path: Path) -> None:
    write(tmp_path, 1, 2, 3)
    assert step_of(checkpoint.newest(tmp_path)) == 3
    assert step_of(checkpoint.load(tmp_path / "previous.pt")) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def test_every_flipped_bit_and_every_cut_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    whole = path.read_bytes()
    draw = random.Random(0)
    for place in [0, len(whole) // 2, len(whole) - 2, *(draw.randrange(len(whole)) for _ in range(60))]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"last.pt: "):
            checkpoint.load(path)
    for length in [0, 1, 96, len(whole) // 2, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(20))]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"last.pt: not a readable checkpoint, as it is cut short"):
            checkpoint.load(path)
    path.write_bytes(whole + b"\n")
    with pytest.raises(InputError, match=r"last.pt: "):
        checkpoint.load(path)


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "text"])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before_it_and_said(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path, 1, 2)
    whole = path.read_bytes()
    flipped = whole[:300] + bytes([whole[300] ^ 4]) + whole[301:]
    path.unlink() if damage == "missing" else path.write_bytes(
        {"flip": flipped, "cut": whole[:-10], "text": b"text"}[damage]
    )
    with pytest.warns(Notice, match=r"last.pt: .*; previous.pt is used in its place, which ends at step 1\."):
        payload = checkpoint.newest(tmp_path, repair=True)
    assert step_of(payload) == 1
    assert not path.exists()
    write(tmp_path, 3)  # a run that goes on does not displace the whole one by the damaged one
    assert step_of(checkpoint.newest(tmp_path)) == 3
    assert step_of(checkpoint.load(tmp_path / "previous.pt")) == 1


def test_two_damaged_checkpoints_are_one_sentence(tmp_path: Path) -> None:
    write(tmp_path, 1, 2).write_bytes(b"x")
    (tmp_path / "previous.pt").write_bytes(b"y")
    with pytest.raises(InputError, match=r"previous.pt: not a readable checkpoint"):
        checkpoint.newest(tmp_path)


def test_missing_foreign_and_older_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.pt: no such checkpoint"):
        checkpoint.load(tmp_path / "none.pt")
    checkpoint.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other.pt: not a checkpoint of anatolab \(no entry 'method'\)"):
        checkpoint.load(tmp_path / "other.pt")
    torch.save({"method": {}}, tmp_path / "old.pt")
    with pytest.raises(InputError, match=r"old.pt: .* an older version of anatolab; train into a new folder, or"):
        checkpoint.load(tmp_path / "old.pt")


def test_another_format_is_named_and_no_older_checkpoint_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    write(tmp_path, 2)
    monkeypatch.undo()
    with pytest.raises(
        InputError, match=r"last.pt: is a checkpoint of format 3, and this version of anatolab reads fo"
    ):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied"), r"cannot be opened \(Permission denied\); check its permissions"),
        (OSError(24, "Too many open files"), r"cannot be opened \(Too many open files\)"),
        (OSError(5, "Input/output error"), r"cannot be opened \(Input/output error\)"),
    ],
)
def test_what_the_system_refuses_is_not_called_damage(
    tmp_path: Path, error: OSError, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1, 2)

    def fails(*args: object, **kwargs: object) -> None:
        raise error

    for name in ("torch.load", "pathlib.Path.open"):
        with monkeypatch.context() as patched:
            patched.setattr(name, fails)
            with pytest.raises(InputError, match=said):
                checkpoint.newest(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("torch.load", lambda *a, **k: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            checkpoint.newest(tmp_path)


def test_no_code_in_a_file_is_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    checkpoint.save({"method": {}, "x": Code()}, tmp_path / "last.pt")
    with pytest.raises(InputError, match=r"last.pt: cannot be read \("):
        checkpoint.load(tmp_path / "last.pt")
    assert not (tmp_path / "ran").exists()


def test_a_copy_elsewhere_is_the_same_checkpoint(tmp_path: Path) -> None:
    path = write(tmp_path, 5)
    shutil.copy(path, tmp_path / "copy.pt")
    assert step_of(checkpoint.load(tmp_path / "copy.pt")) == 5
