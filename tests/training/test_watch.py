"""Watching a run changes no bit of it: validation while training, curves, TensorBoard."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anatolab.training import Settings, Validation, train
from anatolab.training.watch import untouched
from anatolab.types import Case, CaseRef, InputError
from anatolab.viz import curves, read_log
from tests.training import toy

CPU = Settings(optimizer="sgd", precision="32-true", accelerator="cpu", lr=0.05, log_every=2, checkpoint_every=4)


def held_out(dims: int) -> Validation:
    shape, size = ((3, 20, 18), (16, 16)) if dims == 2 else ((12, 20, 18), (8, 12, 12))
    refs = []
    for number in range(2):
        image = np.random.default_rng(number).random((1, *shape), np.float32)
        label = (image[0] > 0.5).astype(np.uint8)
        case = Case(f"h{number}", "", image, label, None, None, Path("h"))
        refs.append(CaseRef(case.patient, "", case.source, lambda case=case: case))  # type: ignore[misc]
    return Validation(refs, ("background", "square"), size, {"largest_component": True})


@pytest.mark.parametrize(("name", "dims"), [("mean_teacher", 2), ("supervised", 3), ("morse", 2), ("mona", 2)])
def test_a_validated_run_ends_in_the_same_weights_to_the_bit(name: str, dims: int, tmp_path: Path) -> None:
    states = []
    for every in (0, 3):
        method = toy.method(name, dims=dims)  # batch norm and, of baselines, dropout: every state matters
        rows = toy.rows() if dims == 2 else toy.volumes()
        settings = replace(CPU, validate_every=every)
        run = train(
            method, rows, toy.SPLIT, settings, out=tmp_path / str(every), validation=held_out(dims), progress=False
        )
        states.append(method.state_dict())
    assert [k for k, v in states[0].items() if isinstance(v, torch.Tensor) and not torch.equal(v, states[1][k])] == []
    measured = [line for line in run.log if "validation" in line]
    assert [line["step"] for line in measured] == [3, 6, 9, 12]
    assert all(0 <= line["validation"]["mean"] <= 1 for line in measured)
    assert measured[0]["validation"].keys() == {"square", "mean"}


def test_the_last_measurement_is_that_of_the_trained_method(tmp_path: Path) -> None:
    method, validation = toy.method(), held_out(2)
    train(method, toy.rows(), toy.SPLIT, replace(CPU, validate_every=12), out=tmp_path, validation=validation)
    line = read_log(tmp_path)[-1]
    assert line["validation"] == validation.measure(method, torch.device("cpu"), "32-true")


def test_a_stopped_and_validated_run_continues_as_if_it_had_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    settings, whole, halted = replace(CPU, validate_every=3), toy.method(), toy.method()
    train(whole, toy.rows(), toy.SPLIT, settings, out=tmp_path / "a", validation=held_out(2))
    steps, after = 0, type(halted).after_step

    def stop(self: object) -> None:
        nonlocal steps
        steps += 1
        after(self)  # type: ignore[arg-type]
        if steps == 5:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(type(halted), "after_step", stop)
    assert not train(halted, toy.rows(), toy.SPLIT, settings, out=tmp_path / "b", validation=held_out(2)).finished
    resumed = toy.method(seed=3)
    assert train(resumed, toy.rows(), toy.SPLIT, settings, out=tmp_path / "b", validation=held_out(2)).finished
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())
    steps_of = [[line["step"] for line in read_log(tmp_path / f) if "validation" in line] for f in "ab"]
    assert steps_of[0] == steps_of[1] == [3, 6, 9, 12]


def test_states_and_modes_are_given_back_after_an_error() -> None:
    net = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.BatchNorm1d(2)).train()
    net[0].eval()
    before = torch.get_rng_state()

    def disturb() -> None:
        with untouched(net):
            net.eval()
            torch.rand(3)
            np.random.rand()  # noqa: NPY002
            raise RuntimeError

    with pytest.raises(RuntimeError):
        disturb()
    assert torch.equal(torch.get_rng_state(), before)
    assert [net.training, net[0].training, net[1].training] == [True, False, True]


def test_tensorboard_is_an_option_and_says_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lightning_fabric.loggers

    written: list[tuple[dict[str, float], int]] = []

    class Board:
        def __init__(self, folder: Path, name: str, version: str) -> None:
            assert folder == tmp_path / "a"

        def log_metrics(self, metrics: dict[str, float], step: int) -> None:
            written.append((metrics, step))

        def finalize(self, status: str) -> None:
            written.append(({}, -1))

    monkeypatch.setattr(lightning_fabric.loggers, "TensorBoardLogger", Board)
    settings = replace(CPU, logger="tensorboard", validate_every=6)
    train(toy.method(), toy.rows(), toy.SPLIT, settings, out=tmp_path / "a", validation=held_out(2))
    assert [step for _, step in written] == [2, 4, 6, 6, 8, 10, 12, 12, -1]
    assert written[0][0]["loss"] == read_log(tmp_path / "a")[0]["loss"]
    assert "validation/mean" in written[3][0]

    def missing(*args: object, **kwargs: object) -> None:
        raise ModuleNotFoundError("Neither `tensorboard` nor `tensorboardX` is available.")

    monkeypatch.setattr(lightning_fabric.loggers, "TensorBoardLogger", missing)
    with pytest.raises(InputError, match="logger: TensorBoard is not installed; install the package tensorboard"):
        train(toy.method(), toy.rows(), toy.SPLIT, settings, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(toy.method(), toy.rows(), toy.SPLIT, replace(CPU, logger="tensorboard"), out=tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [2, 4, 6, 8, 10, 12]


# --- curves ---------------------------------------------------------------------------------------------------------


def write_log(folder: Path, steps: int, finished: bool = True, tail: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    lines = [{"step": s, "stage": "train", "loss": 1 / s, "ce": 2 / s} for s in range(1, steps + 1)]
    lines.append({"step": steps, "stage": "train", "validation": {"LV": 0.5, "mean": None}})  # type: ignore[dict-item]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    (folder / "run.json").write_text(json.dumps({"finished": finished}))
    return folder


def test_curves_show_a_term_and_the_dice_of_held_out_patients(tmp_path: Path) -> None:
    run = write_log(tmp_path / "one", 4, tail='{"step": 5, "lo')  # a line that is being written
    figure = curves(run, term="ce")
    assert [(trace.name, list(trace.x), list(trace.y)) for trace in figure.data] == [
        ("one", [1, 2, 3, 4], [2, 1, 2 / 3, 0.5]),
        ("Dice, LV", [4], [0.5]),
        ("Dice, mean", [4], [None]),
    ]
    both = curves(run, write_log(tmp_path / "two", 2))
    assert [trace.name for trace in both.data] == ["one", "one, Dice", "two", "two, Dice"]
    for call, message in (
        (lambda: curves(), "names no run"),
        (lambda: curves(tmp_path), "log.jsonl: cannot be read"),
        (lambda: curves(run, term="kl"), "its log has no 'kl'; it has ce, loss"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_curves_are_drawn_again_until_the_run_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.display

    from anatolab.viz import curves as _  # noqa: F401

    run, shown = write_log(tmp_path / "r", 2, finished=False), []

    class Handle:
        def update(self, figure: object) -> None:
            shown.append(figure)

    def display(figure: object, display_id: bool) -> Handle:
        shown.append(figure)
        return Handle()

    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr("time.sleep", lambda seconds: write_log(run, 2 + len(shown), finished=len(shown) == 3))
    last = curves(run, every=0.1)
    assert [len(figure.data[0].x) for figure in shown] == [2, 3, 4, 5]
    assert last is shown[-1]
