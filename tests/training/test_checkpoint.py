import random
from pathlib import Path

import numpy as np
import pytest
import torch

from anatolab.training import checkpoint
from anatolab.types import InputError


def test_random_states_are_restored_bitwise_through_a_file(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()]  # noqa: NPY002

    draw()
    checkpoint.save({"method": {}, "rng": checkpoint.rng_state()}, tmp_path / "a.pt")
    expected = [draw(), draw()]
    checkpoint.set_rng_state(checkpoint.load(tmp_path / "a.pt")["rng"])
    assert [draw(), draw()] == expected


def test_a_failed_write_keeps_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save({"method": {"step": torch.tensor(1)}}, path)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"last.pt: the checkpoint could not be written \(No space left on device\)"):
        checkpoint.save({"method": {"step": torch.tensor(2)}}, path)
    assert checkpoint.load(path)["method"]["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 half a zip"])
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"last.pt: not a readable checkpoint"):
        checkpoint.load(path)


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.pt: no such checkpoint"):
        checkpoint.load(tmp_path / "none.pt")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other.pt: not a checkpoint of anatolab"):
        checkpoint.load(tmp_path / "other.pt")
