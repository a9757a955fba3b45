"""Reference runs: the same code ends in the same statistics, other code that no hash reaches does not."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from anatolab import experiments, records
from anatolab.nn import NETWORKS
from anatolab.records import Record, agree
from anatolab.training import loop
from tests.scripts import script

tool = script("studies/fingerprints.py")


@pytest.fixture(scope="module")
def reference() -> dict[str, float]:
    return tool.measure("mean_teacher", 2, "light_unet")


def test_a_reference_run_is_the_same_to_the_last_bit(reference: dict[str, float]) -> None:
    assert tool.measure("mean_teacher", 2, "light_unet") == reference
    assert reference["metrics.dice"] > 0.1
    assert reference["lr"] > 0


def test_rounding_does_not_count(reference: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = NETWORKS["light_unet"]

    def rounded_otherwise(*args: int, **kwargs: int) -> torch.nn.Module:
        network = plain(*args, **kwargs)
        with torch.no_grad():
            for p in network.parameters():
                p *= 1 + 1e-7 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).sign()
        return network

    monkeypatch.setitem(NETWORKS, "light_unet", rounded_otherwise)
    measured = tool.measure("mean_teacher", 2, "light_unet")
    assert measured != reference
    assert agree(measured, reference)


def test_a_changed_learning_rate_schedule_counts(reference: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = loop.learning_rate
    monkeypatch.setattr(loop, "learning_rate", lambda *given: 0.995 * schedule(*given))
    assert not agree(tool.measure("mean_teacher", 2, "light_unet"), reference)


@pytest.mark.parametrize("module", ["anatolab.inference", "anatolab.data.cache"])
def test_a_changed_interpolation_counts(
    reference: dict[str, float], monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    def nearest(x: torch.Tensor, size: object, **kwargs: object) -> torch.Tensor:
        return torch.nn.functional.interpolate(x, size, mode="nearest")

    changed = SimpleNamespace(**{**vars(torch.nn.functional), "interpolate": nearest})
    monkeypatch.setattr(sys.modules[module], "F", changed)
    assert not agree(tool.measure("mean_teacher", 2, "light_unet"), reference)


def test_a_record_whose_reference_run_ends_elsewhere_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANATOLAB_RECORDS", str(tmp_path))
    monkeypatch.setattr(tool, "measure", lambda *run: {"loss": 1.0})
    experiment = experiments.EXPERIMENTS[0]
    record = Record("toy", 0, {}, code=tool.entry(experiment))
    key = tool.key_of(experiment)
    assert record.code == {"fingerprint": key, "statistics": {"loss": 1.0}}
    assert records.fingerprints()[key]["made"]["torch"] == torch.__version__
    assert not records.is_stale(record)

    monkeypatch.setattr(tool, "measure", lambda *run: {"loss": 2.0})
    tool.refresh([experiment])  # the same code is not measured again
    assert not records.is_stale(record)
    monkeypatch.setattr(tool, "code_sha256", lambda method: "other")
    tool.refresh([experiment])
    assert records.is_stale(record)
    assert not records.is_stale(replace(record, code={}))
