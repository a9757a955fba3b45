from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from anatolab.training import train
from anatolab.types import InputError
from tests import warm
from tests.training import toy
from tests.training.ddp import SETTINGS, Plain

if TYPE_CHECKING:
    from subprocess import CompletedProcess


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What two processes end with, in the environment that torchrun gives; test_ddp_cli.py starts torchrun itself."""
    folder = tmp_path_factory.mktemp("ddp")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"}

    def started(rank: int) -> CompletedProcess[str]:
        env = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
        return warm.python("-m", "tests.training.ddp", str(folder), env=env, timeout=280)

    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(started, range(2)):
            assert done.returncode == 0, done.stderr
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
