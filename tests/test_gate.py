"""The gate of generated cohorts: what passes, what does not, and that the cardiac one is measured as it is recorded."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from anatolab import records, staleness
from anatolab.data.phantoms import abdomen, atrium, cardiac
from anatolab.types import Case, CaseRef, Cohort
from tests.scripts import script

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def gate() -> ModuleType:
    return script("studies/gate.py")


def test_the_cardiac_gate_is_measured_as_it_is_recorded(gate: ModuleType) -> None:
    recorded = records.read(ROOT / "book" / "records" / "gate-cardiac" / "seed0.json")
    spec = gate.GATES["cardiac"]
    about = {**cardiac.provenance(100, 0, cardiac.SIZE), "version": recorded.config["cohort"]["version"]}
    assert records.plain(gate.config_of(spec, about)) == recorded.config
    assert recorded.code["module"] == gate.generator_of("cardiac")
    assert recorded.title == spec.title


def test_a_changed_reader_leaves_the_record_of_the_abdomen_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()
    module = staleness._Source.module
    monkeypatch.setattr(staleness._Source, "module", lambda self, name: (read.add(name), module(self, name))[1])
    staleness._closure(staleness._Source(staleness.PACKAGE), "anatolab.data.phantoms.abdomen")
    assert {f"anatolab.data.phantoms.{name}" for name in ("abdomen", "trunk", "fields")} <= read
    assert not {f"anatolab.data.{name}" for name in ("layouts", "synapse", "cache")} & read


@pytest.mark.parametrize("name", ["cardiac", "abdomen", "atrium"])
def test_a_generator_has_a_version_and_its_split_uses_every_patient(gate: ModuleType, name: str) -> None:
    module = {"cardiac": cardiac, "abdomen": abdomen, "atrium": atrium}[name]
    assert gate.generator_of(name) == module.__name__
    assert isinstance(module.VERSION, int)
    assert sum(gate.GATES[name].split.values()) == {"cardiac": 100, "abdomen": 64, "atrium": 60}[name]


def test_what_is_too_close_under_full_supervision_fails(gate: ModuleType) -> None:
    targets = gate.TARGETS | {"tail": 100.0}
    dice = {k: {"mean": v} for k, v in {"full": 0.86, "three": 0.75, "pixel": 0.67, "atlas": 0.4}.items()}
    passed = {"tail": True, "full": True, "three": True, "pixel": False, "atlas": True}
    assert gate.judged({"dice": dice, "targets": targets, "tail": 100.0}) == passed
    assert gate.judged({"targets": targets, "tail": 99.9}) == {"tail": False}
    dice["full"]["mean"] = 0.84
    assert not gate.judged({"dice": dice, "targets": targets})["full"]


def test_the_tail_is_the_largest_organ_over_the_smallest(gate: ModuleType) -> None:
    label = np.zeros((2, 4, 4), np.uint8)
    label[0, :3, :2], label[1, 0, :2] = 1, 2
    case = Case("a", "", np.zeros((1, 2, 4, 4), np.float32), label, None, None, Path("a.nii"))
    ref = CaseRef("a", "", case.source, lambda: case)
    cohort = Cohort("toy", "none", ("background", "big", "small"), (ref, ref), Path("toy"))
    assert gate.tail(cohort) == 3.0


def volume(patient: str, bright: bool) -> CaseRef:
    """A box of foreground at the same place in every patient, bright or as dark as the rest."""
    label = np.zeros((12, 20, 20), np.uint8)
    label[3:9, 5:15, 5:15] = 1
    image = np.random.default_rng(len(patient)).random(label.shape).astype(np.float32) + 2 * bright * label
    case = Case(patient, "", image[None], label, (1.0, 1.0, 1.0), None, Path(patient))
    return CaseRef(patient, "", case.source, lambda: case)


@pytest.mark.parametrize("atlas", [True, False])
def test_shortcuts_in_3d_find_what_lies_at_one_place(gate: ModuleType, atlas: bool) -> None:
    patients = ("a", "bb", "ccc", "dddd")
    cohort = Cohort("toy", "toy", ("background", "LA"), tuple(volume(p, bright=True) for p in patients), Path())
    shortcut = gate.PerVoxel(cohort, patients, atlas=atlas)
    found = shortcut.dice_of(cohort, patients)
    assert found.keys() == {"LA", "mean"}
    assert found["mean"] > 0.93
    case = cohort.refs[0].load()
    assert gate.PerVoxel.dice(np.roll((case.label == 1) * 1.0, 10, 2), case, 0.5) == 0  # elsewhere
