"""The small networks that come with the package: what they predict, and that damage is noticed."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import numpy as np
import pytest
import torch

from anatolab import records
from anatolab.data import split_sha256
from anatolab.methods import METHODS, Supervised
from anatolab.training import load_checkpoint, train
from anatolab.training.shipped import CHECKPOINTS, WEIGHTS, file_of, read_checkpoint, write_checkpoint
from anatolab.training.start import backbone_of
from anatolab.types import InputError
from tests.scripts import script

ROOT = Path(__file__).resolve().parents[2]
exercises = script("book/_ext/anatolab_exercises.py")
PAGES = {
    "20_action": "action",
    "21_actionpp": "actionpp",
    "23_mona": "mona",
    "24_arco": "arco",
}


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return script("studies/checkpoints.py")


@pytest.fixture(scope="module")
def hearts(study: ModuleType) -> Any:
    return study.Hearts.drawn()


@pytest.fixture(scope="module")
def record() -> records.Record:
    return records.read(ROOT / "book" / "records" / "checkpoints-hearts" / "seed0.json")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_predicts_the_recorded_dice(name: str, hearts: Any, record: records.Record) -> None:
    network = load_checkpoint(name)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    dice = hearts.dice(Supervised(network))
    assert dice == pytest.approx(records.get(record, f"{name}.checkpoint.dice"), abs=2e-3)  # sums of other processors
    assert dice["mean"] >= record.config["targets"]["checkpoint"][name]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_record_names_the_file_and_its_recipe(name: str, study: ModuleType, record: records.Record) -> None:
    file, values = file_of(name), record.values[name]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == values["sha256"]
    assert file.stat().st_size <= 1e6
    card, tensors = read_checkpoint(file)
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float16}
    assert (
        card["config"]
        == record.config["methods"][name]
        == records.plain(study.config_of(name, study.UPDATES, **study.GO_ON))
    )
    assert (card["method"], card["first"]) == (name, 300)
    assert values["checkpoint"]["updates"] == 300 + study.UPDATES


def test_from_random_weights_the_base_reaches_its_target_in_300_updates(
    study: ModuleType, record: records.Record
) -> None:
    assert set(record.values) == set(CHECKPOINTS)
    assert record.config["targets"] == study.TARGETS
    assert study.missed(record.values) == []
    worse = json.loads(json.dumps(record.values))
    worse["base"]["random_start"]["dice"]["mean"] = 0.699
    assert study.missed(worse) == ["base, random_start: 0.699 < 0.70"]
    assert all(v["random_start"]["updates"] == 300 for v in record.values.values())


def names_of(page: str, until: str = "", start: str = "tiny") -> dict[str, Any]:
    """What the setup of a page defines and, with a name, the later cells about the cohort up to that of the name."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{page}.ipynb", as_version=4)
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    names: dict[str, Any] = {}
    setup = next(c for c in cells if "parameters" in c.metadata.get("tags", []))
    exec(setup.source.replace("from_checkpoint = tiny", f"from_checkpoint = {start}"), names)
    for cell in cells[cells.index(setup) + 1 :]:
        if not until or until in names:
            break
        if re.search(r"^(?:cohort|split) = ", cell.source, re.MULTILINE):
            statements = exercises.needed(exercises.statements(cell.source), exercises.statements("cohort, split"))
            exec(compile(ast.Module(statements, []), page, "exec"), names)  # and nothing that they do not need
    return names


@pytest.mark.parametrize("page", ["12_baselines", *PAGES])
def test_the_patients_that_a_page_scores_are_in_no_training(
    page: str, record: records.Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANATOLAB_SIZE", "tiny")
    names = names_of(page, "split")
    split, trained = names["split"], set(record.config["train"])
    assert split_sha256(split) == record.split_sha256
    assert not trained & set(split.validation)
    assert list(split.validation) == record.config["held_out"]
    cohort = record.config["cohort"]
    assert (len(names["cohort"].patients), cohort["seed"]) == (cohort["patients"], 0)


@pytest.mark.parametrize(("page", "name"), PAGES.items())
def test_a_continuation_moves_the_weights_and_keeps_the_dice(
    page: str, name: str, hearts: Any, study: ModuleType, record: records.Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANATOLAB_SIZE", "tiny")
    setup = names_of(page)
    changes = setup["live"] | setup.get("go_on", {}) | {"updates": 15}
    torch.manual_seed(0)
    method = METHODS[name](load_checkpoint(name), replace(METHODS[name].Config().for_size(setup["size"]), **changes))
    train(method, hearts.rows, hearts.split, study.SETTINGS, progress=False)
    for network in (method.student.net, method.teacher.net):
        state, before = backbone_of(network).state_dict(), load_checkpoint(name).state_dict()
        assert not any(torch.equal(state[k], before[k]) for k in before if k.endswith(("weight", "bias", "mean")))
    assert hearts.dice(method)["mean"] > records.get(record, f"{name}.checkpoint.dice.mean") - 0.03


@pytest.mark.parametrize("page", PAGES)
def test_one_variable_brings_random_weights_and_all_updates_back(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANATOLAB_SIZE", "tiny")
    for start, changed in (("tiny", {"updates", "ramp", "ramp_updates", "ema_warm_up"}), ("False", set())):
        setup = names_of(page, start=start)
        assert set(setup["live"] | setup.get("go_on", {})) - {"labeled", "augmentation"} == changed
        assert bool(setup["before"]) == bool(setup["from_checkpoint"]) == bool(changed)


@pytest.mark.parametrize(("page", "name"), PAGES.items())
def test_a_page_loads_the_checkpoint_of_its_method(page: str, name: str) -> None:
    source = (ROOT / "notebooks" / f"{page}.ipynb").read_text(encoding="utf-8")
    assert f'load_checkpoint(\\"{name}\\")' in source
    assert "from_checkpoint = tiny  # False: " in source


def test_all_checkpoints_together_are_small_and_lie_in_the_wheel() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert WEIGHTS.relative_to(ROOT).parts[0] in wheel["wheel"]["only-include"]
    assert not [p for p in wheel["wheel"]["exclude"] if WEIGHTS.match(p)]
    ignored = ["git", "check-ignore", *map(str, WEIGHTS.iterdir())]  # what git ignores, the build leaves out
    assert not (ROOT / ".git").exists() or subprocess.run(ignored, cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 1
    assert {p.name for p in WEIGHTS.iterdir()} == {file_of(name).name for name in CHECKPOINTS}
    assert sum(p.stat().st_size for p in WEIGHTS.iterdir()) < 6e6


def test_every_flipped_bit_and_every_cut_is_one_sentence(tmp_path: Path) -> None:
    whole = file_of("base").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    path = file_of("base", tmp_path)
    draw = np.random.default_rng(0)
    for place in (*draw.integers(8, header, 20), *draw.integers(header, len(whole), 20)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"hearts-base\.safetensors: is missing or not as it was written; restore"):
            load_checkpoint("base", tmp_path)
    for length in (0, 7, header, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="not as it was written"):
            load_checkpoint("base", tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="is missing"):
        load_checkpoint("base", tmp_path)
    shutil.copy(file_of("base"), path)
    assert load_checkpoint("base", tmp_path)


def test_an_unknown_checkpoint_is_named() -> None:
    with pytest.raises(InputError, match=r"name must be one of base, action, .*, not 'unet'"):
        load_checkpoint("unet")


def test_what_is_written_is_read_back_within_the_rounding_of_float16(tmp_path: Path) -> None:
    network = load_checkpoint("base")
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1e-3)
    write_checkpoint(file_of("base", tmp_path), network, {"widths": [24, 48, 64, 96]})
    again = load_checkpoint("base", tmp_path).state_dict()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(again[key], value, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_student_and_teacher_both_start_from_the_checkpoint(name: str) -> None:
    image = torch.rand(1, 1, 64, 64)
    network = load_checkpoint(name).eval()
    method = METHODS[name](load_checkpoint(name), METHODS[name].Config()).eval()
    with torch.no_grad():
        torch.testing.assert_close(method.predict(image), network(image))
        torch.testing.assert_close(
            method.student(image)[0] if name != "base" else method.student(image), network(image)
        )
