import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from anatolab.data import Rows
from anatolab.training import NonFiniteError, Settings, checkpoint, train
from anatolab.training.loop import Feed
from anatolab.types import IGNORE, Batch, InputError, Losses, Split, Stage
from tests.training import toy

CPU = Settings(optimizer="sgd", precision="32-true", accelerator="cpu", checkpoint_every=4, log_every=5, lr=0.05)


def weights(method: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in method.state_dict().items()}


def assert_bitwise_equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    different = [k for k in one if not torch.equal(one[k], two[k])]
    assert not different


@pytest.mark.parametrize("name", ["supervised", "mean_teacher", "ua_mt"])
def test_training_learns(name: str) -> None:
    method = toy.method(name, updates=200)
    run = train(method, toy.rows(), toy.SPLIT, replace(CPU, lr=0.1, log_every=1))
    assert run.finished
    assert run.step == len(run.log) == 200
    supervised = [line["ce"] + line["dice"] for line in run.log]
    assert np.mean(supervised[-10:]) < 0.5 * np.mean(supervised[:3])


@pytest.mark.parametrize("name", ["supervised", "mean_teacher", "ua_mt"])
def test_training_learns_on_patches_of_volumes(name: str) -> None:
    method = toy.method(name, updates=120, dims=3)
    run = train(method, toy.volumes(foreground=1.0), toy.SPLIT, replace(CPU, lr=0.2, log_every=1))
    assert run.finished
    supervised = [line["ce"] + line["dice"] for line in run.log]
    assert np.mean(supervised[-10:]) < 0.7 * np.mean(supervised[:3])


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    results = []
    for seed in (0, 0, 1):
        method = toy.method(seed=0)
        train(method, toy.rows(), toy.SPLIT, replace(CPU, seed=seed))
        results.append(weights(method))
    assert_bitwise_equal(results[0], results[1])
    assert any(not torch.equal(results[0][k], results[2][k]) for k in results[0])


def test_labels_of_unlabeled_rows_reach_no_method() -> None:
    world = toy.rows()
    poisoned = world.labels.copy()
    poisoned[world.index_of(toy.SPLIT.unlabeled_patients)] = 7  # no such class: any read would fail
    results = []
    for labels in (world.labels, poisoned):
        method = toy.method()
        train(method, Rows.from_arrays(world.images, labels, world.patients), toy.SPLIT, CPU)
        results.append(weights(method))
    assert_bitwise_equal(*results)
    batch = Feed(world, torch.device("cpu"))(torch.tensor([0, 1, 20]), 2)
    assert (batch.label[2] == IGNORE).all()
    assert (batch.label[:2] >= 0).all()


def test_labels_of_unlabeled_volumes_place_no_patch_and_reach_no_method() -> None:
    world, results = toy.volumes(foreground=1.0), []
    starts = np.cumsum([0, *(int(np.prod(shape)) for shape in world.shapes)])
    poisoned = world.labels.copy()
    for row in world.index_of(toy.SPLIT.unlabeled_patients).tolist():
        poisoned[starts[row] : starts[row + 1]] = 7  # no such class: any read would fail, any look would move a patch
    for labels in (world.labels, poisoned):
        method = toy.method(dims=3)
        train(method, replace(world, labels=labels), toy.SPLIT, CPU)
        results.append(weights(method))
    assert_bitwise_equal(*results)
    batch = Feed(world, torch.device("cpu"))(torch.tensor([0, 1, 6]), 2)
    assert (batch.label[2] == IGNORE).all()
    assert (batch.label[:2] == 1).flatten(1).any(1).all()


def test_a_run_stopped_by_a_signal_saves_and_continues_bitwise(tmp_path: Path) -> None:
    whole = toy.method()
    train(whole, toy.rows(), toy.SPLIT, CPU, out=tmp_path / "whole")
    for number in (signal.SIGTERM, signal.SIGINT):
        method, steps = toy.method(), 0

        def after_step(method: Any = method, number: int = number) -> None:
            nonlocal steps
            steps += 1
            type(method).after_step(method)
            if steps == 6:
                signal.raise_signal(number)

        method.after_step = after_step  # type: ignore[assignment]
        before = signal.getsignal(number)
        out = tmp_path / number.name
        run = train(method, toy.rows(), toy.SPLIT, CPU, out=out)
        assert not run.finished
        assert run.step == 6
        assert signal.getsignal(number) is before
        resumed = toy.method(seed=99)  # other weights at first: all come from the checkpoint
        run = train(resumed, toy.rows(), toy.SPLIT, CPU, out=out)
        assert run.finished
        assert run.step == 12
        assert_bitwise_equal(weights(resumed), weights(whole))
        assert (out / "log.jsonl").read_text() == (tmp_path / "whole" / "log.jsonl").read_text()


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    method = toy.method()
    train(method, toy.rows(), toy.SPLIT, CPU, out=tmp_path)
    again = toy.method(seed=5)
    run = train(again, toy.rows(), toy.SPLIT, CPU, out=tmp_path)
    assert run.finished
    assert run.step == 12
    assert_bitwise_equal(weights(method), weights(again))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 0.5}, "settings"),
        ({"labeled": 2}, "split"),
        ({"updates": 13}, "config"),
        ({"rows": 1}, "rows"),
        ({"method": "supervised"}, "method"),
    ],
)
def test_another_configuration_does_not_continue_a_run(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    train(toy.method(), toy.rows(), toy.SPLIT, CPU, out=tmp_path)
    method = toy.method(change.get("method", "mean_teacher"), updates=change.get("updates", 12))
    split = replace(toy.SPLIT, labeled=change.get("labeled", 3))
    settings = replace(CPU, lr=change.get("lr", CPU.lr))
    with pytest.raises(InputError, match=rf"last.pt: this run was started with another .*{named}.*output folder"):
        train(method, toy.rows(change.get("rows", 0)), split, settings, out=tmp_path)


class TwoStages(nn.Module):
    """First the first layer, then the second: stages with their own parameters, rows and optimizers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.seen: list[tuple[str, float, int]] = []

    def stages(self) -> list[Stage]:
        return [
            Stage("first", 5, self.one, (2, 2), lambda b, d: self.step("first", b, d)),
            Stage("second", 7, list(self.two.parameters()), (2, 0), lambda b, d: self.step("second", b, d)),
        ]

    def step(self, name: str, batch: Batch, progress: float) -> Losses:
        self.seen.append((name, progress, len(batch.image)))
        return Losses({"square": self.predict(batch.image + 0.01 * torch.randn_like(batch.image)).square().mean()})

    def after_step(self) -> None: ...

    def predict(self, image: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(image)))


def test_stages_train_their_own_parameters_on_their_own_rows() -> None:
    method = TwoStages()
    start = weights(method)
    run = train(method, toy.rows(), toy.SPLIT, replace(CPU, log_every=1))
    assert [s[0] for s in method.seen] == ["first"] * 5 + ["second"] * 7
    assert [s[1] for s in method.seen[:5]] == [0, 0.2, 0.4, 0.6, 0.8]
    assert {s[2] for s in method.seen[:5]} == {4}
    assert {s[2] for s in method.seen[5:]} == {2}
    assert not torch.equal(start["one.weight"], method.one.weight)
    assert [line["stage"] for line in run.log] == ["first"] * 5 + ["second"] * 7
    assert run.log[0]["lr"] == run.log[5]["lr"] == CPU.lr


@pytest.mark.parametrize("stop", [3, 5, 8])
def test_a_run_of_several_stages_resumes_inside_and_between_them(tmp_path: Path, stop: int) -> None:
    whole = TwoStages()
    train(whole, toy.rows(), toy.SPLIT, CPU)
    halted = TwoStages()
    count = 0

    def after_step() -> None:
        nonlocal count
        count += 1
        if count == stop:
            signal.raise_signal(signal.SIGTERM)

    halted.after_step = after_step  # type: ignore[method-assign]
    assert train(halted, toy.rows(), toy.SPLIT, CPU, out=tmp_path).step == stop
    resumed = TwoStages()
    assert train(resumed, toy.rows(), toy.SPLIT, CPU, out=tmp_path).finished
    assert_bitwise_equal(weights(whole), weights(resumed))


def test_a_non_finite_loss_skips_the_update_keeps_the_checkpoint_and_names_the_images(tmp_path: Path) -> None:
    world = toy.rows()
    images = world.images.copy()
    bad = world.index_of([toy.SPLIT.labeled_patients[1]])[2].item()
    images[bad, 0, 3, 3] = np.nan
    broken = Rows.from_arrays(images, world.labels, world.patients)
    method = toy.method("supervised", updates=40)
    with pytest.raises(NonFiniteError, match=rf"step \d+: .*last checkpoint .*last.pt is kept.*{world.names[bad]}"):
        train(method, broken, toy.SPLIT, replace(CPU, checkpoint_every=1, log_every=10), out=tmp_path)
    assert all(torch.isfinite(p).all() for p in method.parameters())  # the update itself was skipped
    if (tmp_path / "last.pt").exists():
        saved = checkpoint.load(tmp_path / "last.pt")["method"]
        assert all(torch.isfinite(v).all() for v in saved.values() if v.is_floating_point())


def test_split_and_settings_that_cannot_work_say_so(tmp_path: Path) -> None:
    everyone = Split(train=tuple(toy.PATIENTS), labeled=8)
    with pytest.raises(InputError, match=r"stage 'train' needs unlabeled patients"):
        train(toy.method(), toy.rows(), everyone, CPU)
    train(toy.method("supervised"), toy.rows(), everyone, CPU)
    with pytest.raises(InputError, match=r"precision must be 'auto', '32-true' or 'bf16-mixed', not '16-mixed'"):
        train(toy.method(), toy.rows(), toy.SPLIT, replace(CPU, precision="16-mixed"))


def test_bf16_keeps_losses_in_single_precision() -> None:
    method = toy.method(updates=3)
    run = train(method, toy.rows(), toy.SPLIT, replace(CPU, precision="bf16-mixed", log_every=1))
    assert np.isfinite([line["loss"] for line in run.log]).all()
    assert all(p.dtype == torch.float32 for p in method.parameters())


def test_compiled_training_agrees_with_plain_training(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_module(self, backend="eager"))
    results = []
    for compiled in (False, True):
        method = toy.method(updates=4)
        train(method, toy.rows(), toy.SPLIT, replace(CPU, compile=compiled))
        results.append(weights(method))
    assert results[0].keys() == results[1].keys()
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, msg=key)


class Reads(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: scalar reads, nonzero, boolean indexing."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        mask = name in ("aten::index", "aten::index_put_", "aten::index_put") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if mask or name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["supervised", "mean_teacher", "ua_mt"])
def test_nothing_waits_for_the_device_inside_a_step(name: str) -> None:
    method = toy.method(name)
    (stage,) = method.stages()
    world = toy.rows()
    parameters = list(method.student.parameters())
    optimizer: Any = torch.optim.SGD(parameters, 0.1, 0.9, fused=True)
    batch = Feed(world, torch.device("cpu"))(torch.arange(sum(stage.batch)), stage.batch[0])
    with Reads() as reads:
        losses = stage.step(batch, 0.5)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 10.0, foreach=True)
        optimizer.found_inf = (~torch.isfinite(norm)).float()
        optimizer.step()
        method.after_step()
    assert reads.found == []


def test_the_tracer_sees_scalar_reads_and_boolean_indexing() -> None:
    x = torch.rand(4)
    with Reads() as reads:
        x[x > 0.5]
        float(x.sum())
        x.nonzero()
    assert reads.found == ["aten::index", "aten::_local_scalar_dense", "aten::nonzero"]


def test_a_log_line_holds_every_term(tmp_path: Path) -> None:
    train(toy.method(), toy.rows(), toy.SPLIT, CPU, out=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 12]
    assert {"loss", "ce", "dice", "consistency", "teacher_confidence", "grad_norm", "lr", "stage"} <= lines[0].keys()
    weighted = 0.5 * lines[0]["ce"] + 0.5 * lines[0]["dice"]
    assert lines[0]["loss"] >= weighted - 1e-6
