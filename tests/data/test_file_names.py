"""Names of files and classes: upper case, other encodings, control characters, folders that are called as files are."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trees

from anatolab.cli import main
from anatolab.data import check_folder, open_cohort
from anatolab.data.files import case_name, ending, stem
from anatolab.types import InputError, check_classes

NAMES = ("liver_1", "liver_2", "liver_3")


def describe(root: Path, **keys: Any) -> None:
    file = root / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def rename(root: Path, old: str, new: str) -> None:
    for path in list(root.glob(f"*/{old}*")):
        path.rename(path.with_name(path.name.replace(old, new)))


@pytest.mark.parametrize(("name", "end"), [("A.NII.GZ", ".nii.gz"), ("a.Nii", ".nii"), ("a.b.NRRD", ".nrrd")])
def test_endings_in_upper_case_are_those_in_lower_case(name: str, end: str) -> None:
    assert ending(Path(name)) == end
    assert stem(Path(name)) == name[: -len(end)]


@pytest.mark.parametrize("new", [".NII.GZ", ".Nii.gz"])
def test_no_patient_vanishes_because_of_upper_case(new: str, tmp_path: Path) -> None:
    root = trees.own(tmp_path, NAMES)
    expected = open_cohort(root).of(["liver_2"])[0].load()
    rename(root, "liver_2.nii.gz", f"liver_2{new}")
    assert check_folder(root, progress=False).ok
    cohort = open_cohort(root)
    case = cohort.of(["liver_2"])[0].load()
    assert cohort.patients == (*NAMES, "liver_99")
    np.testing.assert_array_equal(case.image, expected.image)
    assert case.label is not None
    np.testing.assert_array_equal(case.label, expected.label)
    np.testing.assert_array_equal(case.affine, expected.affine)


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_a_name_that_is_no_utf_8_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = trees.own(tmp_path, NAMES, nnunet=True)
    for path in list(root.glob("*/liver_2*")):
        path.rename(os.fsdecode(os.fsencode(path).replace(b"liver_2", b"caf\xe9")))
    report = check_folder(root, progress=False)
    assert len(report.problems) == 1
    assert "is not in UTF-8, as names from old archives are; rename it" in report.problems[0]
    assert main(["check", str(root)]) == 1
    assert "caf\\udce9" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a\0b", "\x1b[31mred", "\ud800"])
def test_class_names_hold_no_control_characters(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the name of class 1 holds control characters .* rename it"):
        check_classes(("background", name))
    root = trees.own(tmp_path, NAMES)
    describe(root, labels={"0": "background", "1": name, "2": "tumor"})
    with pytest.raises(InputError, match=r"dataset.json: its \"labels\": the name of class 1 holds control"):
        open_cohort(root)


def test_class_names_of_any_script_are_fine() -> None:
    check_classes(
        ("background", "心臓", "Füße", "ریه\u200cها")
    )  # the last with a zero-width non-joiner, as Persian has


@pytest.mark.parametrize("window", ["12", {"1": 0, "2": 0}, [1, 2, 3], ["a", "b"], [2, 1]])
def test_a_window_is_a_list_of_two_numbers(window: Any, tmp_path: Path) -> None:
    root = trees.own(tmp_path, NAMES)
    describe(root, window=window)
    with pytest.raises(InputError, match=r'its "window" is .*; give two numbers, low and high'):
        open_cohort(root)


def test_a_folder_that_is_called_as_a_file_is_named_as_such(tmp_path: Path) -> None:
    root = trees.own(tmp_path, NAMES)
    image = root / "imagesTr" / "liver_2.nii.gz"
    image.unlink()
    image.mkdir()
    assert case_name(image) == "liver_2"
    assert case_name(root / "imagesTr") == "imagesTr"
    problems = check_folder(root, progress=False).problems
    assert problems == (f"{image}: is a folder where a file is expected; copy the file there, or rename the folder.",)


def test_a_file_where_a_folder_is_expected_is_named(tmp_path: Path) -> None:
    root = trees.own(tmp_path, NAMES)
    (root / "labelsTs").write_text("x")
    problems = check_folder(root, progress=False).problems
    assert problems == (f"{root / 'labelsTs'}: is a file where a folder is expected; rename or remove it.",)


def test_a_terminal_without_the_letters_of_a_name_gets_escapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = trees.own(tmp_path / "data", NAMES)
    describe(root, labels={"0": "background", "1": "心臓", "2": "tumor"})
    with (tmp_path / "printed").open("w", encoding="cp1252") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        assert main(["check", str(root)]) == 0
    assert "\\u5fc3\\u81d3" in (tmp_path / "printed").read_text(encoding="cp1252")
