import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from anatolab.training import train
from anatolab.types import InputError
from tests.training import toy
from tests.training.ddp import SETTINGS, Plain

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ddp")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tests.training.ddp"]
    subprocess.run([sys.executable, *launch, str(folder)], cwd=ROOT, check=True, timeout=280)
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


@pytest.mark.parametrize("name", ["plain", "whole", "resumed", *toy.SMALL])
def test_both_processes_hold_the_same_weights(states: dict[str, dict[str, Any]], name: str) -> None:
    one, two = states[f"{name}0"], states[f"{name}1"]
    assert one.keys() == two.keys()
    trained = [k for k in one if k.endswith(("weight", "bias"))]
    assert trained
    assert [k for k in trained if not torch.equal(one[k], two[k])] == []


@pytest.mark.parametrize("name", toy.CONTRASTIVE)
def test_a_bank_holds_the_rows_of_both_processes_in_both(states: dict[str, dict[str, Any]], name: str) -> None:
    one, two = (states[f"{name}{rank}"] for rank in (0, 1))
    for bank in ("images", "patches"):
        assert torch.equal(one[f"distiller.{bank}.buffer"], two[f"distiller.{bank}.buffer"])
        updates = {"images": 6, "patches": 3}[bank]  # of 12, half in the two distillations; 2 + 4 images each
        assert one[f"distiller.{bank}._extra_state"].tolist() == [min(36, 6 * updates), 6 * updates % 36]


@pytest.mark.parametrize("name", ["mona", "arco"])
def test_a_bank_of_classes_holds_the_rows_of_both_processes_in_both(states: dict[str, Any], name: str) -> None:
    one, two = (states[f"{name}{rank}"] for rank in (0, 1))
    for key in ("rows", "fill", "pointer"):
        assert torch.equal(one[f"miner.bank.{key}"], two[f"miner.bank.{key}"])
    assert one["miner.bank.fill"].tolist() == [100, 100]
    assert torch.equal(one["miner.images.buffer"], two["miner.images.buffer"])


def test_two_processes_on_half_batches_equal_one_on_the_whole(states: dict[str, dict[str, Any]]) -> None:
    alone = Plain()
    train(alone, toy.rows(), toy.SPLIT, replace(SETTINGS, devices=1))
    assert states["plain0"]["images"] == states["plain1"]["images"] == alone.images / 2
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(states["plain0"][key], value, rtol=1e-5, atol=1e-6)


def test_a_stopped_run_of_two_processes_resumes_bitwise(states: dict[str, dict[str, Any]]) -> None:
    whole, resumed = states["whole0"], states["resumed0"]
    assert [k for k in whole if not torch.equal(whole[k], resumed[k])] == []


def test_a_batch_that_does_not_divide_is_refused() -> None:
    from anatolab.data import shard

    with pytest.raises(InputError, match="do not divide over 3 processes"):
        shard(torch.arange(6), 2, 0, 3)
