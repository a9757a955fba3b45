"""Carrying a record over a refactoring: the short training tells a change of the method from a change of its text."""

import dataclasses
import shutil
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from anatolab import records
from anatolab.methods import METHODS
from tests import warm
from tests.scripts import script

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def carry() -> ModuleType:
    """The script; with fewer updates, which are enough for every stage and term, as the tests assert."""
    module = script("tools/carry.py")
    module.UPDATES = 8
    return module


@pytest.fixture
def warmed(carry: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts the checkouts' processes with torch imported; see tests/warm.py."""

    def run(command: list[str], *, cwd: Path, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        return warm.python(*command[1:], folder=cwd, path=Path(env["PYTHONPATH"]), env=env)

    monkeypatch.setattr(carry, "subprocess", SimpleNamespace(run=run))


def test_every_eased_setting_is_a_field_of_some_method(carry: ModuleType) -> None:
    fields = {field.name for method in METHODS.values() for field in dataclasses.fields(method.Config)}
    assert set(carry.EASY) <= fields


def test_equal_code_ends_in_equal_bits_and_a_changed_constant_does_not(
    carry: ModuleType, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shutil.copytree(ROOT / "anatolab", tmp_path / "anatolab", ignore=shutil.ignore_patterns("__pycache__"))
    here = carry.trained(ROOT, "acdc96-3-action")  # in a new process
    request.getfixturevalue("warmed")
    assert carry.trained(tmp_path, "acdc96-3-action") == here
    assert here["terms"]["anco"] > 0
    assert here["terms"]["unsup"] > 0
    method = tmp_path / "anatolab" / "losses" / "anatomical_contrast.py"
    text = method.read_text()
    assert text.count("/ temperature") == 1
    method.write_text(text.replace("/ temperature", "/ (1.0001 * temperature)"))
    assert carry.trained(tmp_path, "acdc96-3-action") != here


@pytest.mark.usefixtures("warmed")
def test_a_change_of_prediction_alone_is_seen_and_one_of_its_last_digit_is_not(
    carry: ModuleType, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "anatolab", tmp_path / "anatolab", ignore=shutil.ignore_patterns("__pycache__"))
    here = carry.trained(ROOT, "acdc96-all-morse")
    assert here["terms"]["render"] > 0
    module = tmp_path / "anatolab" / "nn" / "rendering.py"
    text, write = module.read_text(), "values.to(logits.dtype)"
    assert text.count(write) == 1
    module.write_text(text.replace(write, f"(1.000001 * {write})"))
    assert carry.trained(tmp_path, "acdc96-all-morse") == here
    module.write_text(text.replace(write, f"{write}.roll(1, 1)"))
    there = carry.trained(tmp_path, "acdc96-all-morse")
    assert there["state"] == here["state"]
    assert there["predicted"] != here["predicted"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git repository, so no commit to compare with")
def test_what_else_has_changed_beside_the_methods_is_seen(carry: ModuleType, tmp_path: Path) -> None:
    """Of a commit and other methods, another hash; of the commit itself, that of a committed tree."""
    methods, module = ROOT / "anatolab" / "methods", "anatolab.analysis.embeddings"
    assert carry.differs_in_methods_alone("HEAD", module, methods) or records.git_state()["dirty"]
    shutil.copytree(methods, tmp_path / "methods")
    changed = tmp_path / "methods" / "mona.py"
    changed.write_text(
        changed.read_text().replace("equivariance_weight: float = 1.0", "equivariance_weight: float = 2.0")
    )
    assert not carry.differs_in_methods_alone("HEAD", module, tmp_path / "methods")
