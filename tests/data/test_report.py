"""What `anatolab check` says of folders whose content is known."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import trees

from anatolab.cli import main
from anatolab.data import check_folder, describe, open_cohort, prepare
from anatolab.types import InputError


def box(count: int, value: int) -> np.ndarray:
    """A label map whose first ``count`` voxels have this value."""
    label = np.zeros(trees.SHAPE, np.uint8)
    label.flat[:count] = value
    return label


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two annotated livers, one with 42 of 168 voxels liver, one with 21 tumor; a third image without annotation."""
    root = trees.own(tmp_path / "livers")
    trees.save_nifti(root / "labelsTr" / "liver_2.nii.gz", box(42, 1))
    trees.save_nifti(root / "labelsTr" / "liver_10.nii.gz", box(21, 2))
    return root


def test_counts_shares_and_geometry(folder: Path) -> None:
    report = check_folder(folder, progress=False)
    assert report.ok
    assert (report.name, report.layout) == ("Livers", "Decathlon")
    assert (report.patients, report.cases, report.annotated, report.read) == (3, 3, 2, 3)
    assert report.shares == pytest.approx({"background": 273 / 336, "liver": 42 / 336, "tumor": 21 / 336})
    assert report.present == {"background": 2, "liver": 1, "tumor": 1}
    assert report.size == ((4, 6, 7),) * 3
    assert report.spacing is not None
    edges = np.linalg.norm(trees.AFFINE[:3, :3], axis=0)[::-1]
    for row in report.spacing:
        np.testing.assert_allclose(row, edges, rtol=1e-6)
    assert report.orientations == {"ALS": 3}  # x runs to +y, y to -x, z to +z
    assert report.intensity == (-1000, 1500)
    assert (report.channels, report.dims) == (1, 2)  # 8 mm slices of 1.25 mm pixels
    assert (report.license, report.source) == ("CC-BY-SA 4.0", "someone, 2020")


def test_ranges_and_the_advice_follow_the_median_case(folder: Path) -> None:
    for name, depth, thickness in (("liver_2", 2, 1.0), ("liver_10", 9, 2.0)):
        shape, affine = (7, 6, depth), np.diag([1.0, 1.0, thickness, 1.0])
        trees.save_nifti(folder / "imagesTr" / f"{name}.nii.gz", trees.hounsfield(0, shape), affine)
        trees.save_nifti(folder / "labelsTr" / f"{name}.nii.gz", np.zeros(shape, np.uint8), affine)
    report = check_folder(folder, progress=False)
    assert report.size is not None
    assert report.spacing is not None
    assert [row[0] for row in report.size] == [2, 4, 9]
    assert [row[0] for row in report.spacing] == pytest.approx([1, 2, np.linalg.norm(trees.AFFINE[:3, 2])])
    assert report.dims == 3
    assert report.orientations == {"RAS": 2, "ALS": 1}
    assert [note for note in report.notes if "orientations are mixed" in note]
    assert "liver_2 has an annotation that marks nothing (2 such)." in report.notes
    assert {note for note in report.notes if "no annotated case holds" in note} == {
        "no annotated case holds 'liver'.",
        "no annotated case holds 'tumor'.",
    }


def test_one_slice_is_no_volume_for_patches(folder: Path) -> None:
    for path in folder.glob("*/*.nii.gz"):
        trees.save_nifti(path, trees.codes(0, (0, 1, 2), (7, 6, 1)), np.eye(4))
    assert check_folder(folder, progress=False).dims == 2


def test_the_same_image_under_two_names_is_noted_and_is_no_fault(folder: Path) -> None:
    image = trees.hounsfield(5)
    for name in ("imagesTr/liver_10", "imagesTs/liver_99"):
        trees.save_nifti(folder / f"{name}.nii.gz", image)
    report = check_folder(folder, progress=False)
    assert report.ok
    assert report.notes == ("liver_99 holds the same image as liver_10; a split may put it on both sides.",)


def test_names_that_differ_in_case_only_are_noted(tmp_path: Path) -> None:
    report = check_folder(trees.own(tmp_path, ("Liver_1", "liver_1")), progress=False)
    assert [note for note in report.notes if note.startswith("liver_1 and Liver_1 differ in upper and lower case")]


def test_cases_of_other_channels_are_a_problem(tmp_path: Path) -> None:
    """Only Python can make such a cohort from a layout, whose channels are counted: the check counts them as well."""
    from dataclasses import replace

    import anatolab.data.report as module
    from anatolab.data import open_cohort

    cohort = open_cohort(trees.own(tmp_path))
    case = cohort.refs[1].load()
    two = replace(cohort.refs[1], load=lambda: replace(case, image=np.concatenate([case.image, case.image + 1])))
    survey = module.survey
    module.survey = lambda path: replace(cohort, refs=(cohort.refs[0], two))  # type: ignore[assignment]
    try:
        report = check_folder(tmp_path, progress=False)
    finally:
        module.survey = survey
    assert len(report.problems) == 1
    assert "liver_10.nii.gz: has 2 channels, the cases before it 1;" in report.problems[0]


def test_lists_absent_patients_and_ignored_files(tmp_path: Path) -> None:
    trees.la_uamt(tmp_path)
    report = check_folder(tmp_path, progress=False)
    assert report.published == {"train": 2, "test": 1}
    assert report.absent == ("1GU15S0GJ6PFNARO469W", "ZQYVEK5SKC3GHD2QVB8K")
    trees.lits(tmp_path / "ct")
    (tmp_path / "ct" / "notes.txt").write_text("x")
    report = check_folder(tmp_path / "ct", progress=False)
    assert report.ignored == ("notes.txt",)
    assert report.window == (-200, 250)


@pytest.mark.parametrize("background", [0, -1024])
def test_what_training_in_3_d_refuses_is_a_problem(background: int, tmp_path: Path) -> None:
    """Of 8000 voxels 27 are not background: the percentiles that patches are scaled by are equal."""
    root = trees.own(tmp_path, ("liver_1",))
    image = np.full((20, 20, 20), background, np.int16)
    image[9:12, 9:12, 9:12] = np.arange(27).reshape(3, 3, 3) + 100
    for path in root.glob("images*/*.nii.gz"):
        trees.save_nifti(path, image, np.eye(4))
    trees.save_nifti(root / "labelsTr" / "liver_1.nii.gz", (image > 110).astype(np.uint8), np.eye(4))
    report = check_folder(root, progress=False)
    refused = prepare_refuses(root)
    assert report.ok != refused
    for path in root.glob("*/*.nii.gz"):
        trees.save_nifti(path, np.asarray(nib.nifti1.load(path).dataobj), np.diag([1.0, 1.0, 4.0, 1.0]))
    assert check_folder(root, progress=False).ok  # slices are scaled from the least to the greatest


def prepare_refuses(root: Path) -> bool:
    cohort = open_cohort(root)
    try:
        prepare(cohort, cohort.patients, size=(8, 8, 8))
    except InputError:
        return True
    return False


def test_classes_that_differ_by_side_are_noted(tmp_path: Path) -> None:
    report = check_folder(trees.btcv(tmp_path), progress=False)
    assert report.ok
    assert [note for note in report.notes if note.startswith("'left kidney' and 'right kidney' differ by side alone")]


TEXT = """\
{folder}: Livers (Decathlon), 3 patients, 2 of 3 cases annotated
  classes      background 81.2 %
               liver 12.5 %, in 1 of 2 cases
               tumor 6.2 %, in 1 of 2 cases
  size         4 x 6 x 7 voxels (z, y, x)
  spacing      8.071 x 1.513 x 1.25 mm
  orientation  ALS in 3
  intensities  -1000 to 1500 in 1 channel; each volume and channel scaled from its least to its greatest
  advice       2-D slices (slices over 3 times thicker than pixels are wide)
  license      CC-BY-SA 4.0
  source       someone, 2020
  ignored      1: imagesTr/readme.txt
  nothing is wrong"""


def test_the_text_is_this(folder: Path) -> None:
    (folder / "imagesTr" / "readme.txt").write_text("x")
    assert describe(check_folder(folder, progress=False)) == TEXT.format(folder=folder)


def test_the_command_prints_text_or_json_and_its_exit_code_says_whether_all_is_well(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("  nothing is wrong\n")
    assert main(["check", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["patients"], said["problems"], said["shares"]["liver"]) == (3, [], 0.125)
    (folder / "imagesTr" / "liver_2.nii.gz").write_bytes(b"")
    assert main(["check", str(folder)]) == 1
    assert "  1 problem:\n  - " in capsys.readouterr().out
    assert main(["check", str(folder / "none"), "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem.endswith("none: there is no such folder; check the path.")


def test_a_broken_folder_is_described_as_far_as_it_goes(tmp_path: Path) -> None:
    report = check_folder(trees.official(tmp_path, (1, 2)), progress=False)
    assert (report.cases, report.read) == (4, 4)
    (tmp_path / "patient002" / "Info.cfg").unlink()
    (tmp_path / "patient001" / "patient001_frame01_gt.nii.gz").write_bytes(b"")
    report = check_folder(tmp_path, progress=False)
    assert (report.cases, report.read, len(report.problems)) == (2, 1, 2)
    assert report.shares  # of the one case that can be read


@pytest.mark.real
def test_real_acdc_holds_one_image_under_two_names(real_data: Path) -> None:
    """A fact of the data set: the images of patients 74 and 76 are the same, and their annotations are not."""
    report = check_folder(real_data / "ACDC", progress=False)
    assert report.ok
    assert (report.patients, report.cases, len(report.absent)) == (80, 160, 20)
    assert report.notes == tuple(
        f"patient076_frame0{n} holds the same image as patient074_frame0{n}; a split may put it on both sides."
        for n in (1, 2)
    )
