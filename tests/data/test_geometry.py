"""Orientation, spacing and their contradictions, on volumes whose every voxel is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import trees

from anatolab.data import check_folder, open_cohort, prepare
from anatolab.data.formats import cohort_orientation, read_header, read_volume
from anatolab.data.geometry import (
    agreed_spacing,
    axes_note,
    orientation_of,
    oriented,
    reoriented,
    restored,
    slices_last,
)
from anatolab.types import Case, InputError

CODES = ["".join(c) for axes in permutations(("LR", "PA", "IS")) for c in product(*axes)]


def case_of(affine: np.ndarray = trees.AFFINE, shape: tuple[int, int, int] = (4, 6, 7)) -> Case:
    """Two channels whose values tell each voxel's place, and a label map."""
    image = np.arange(2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)
    label = (np.arange(np.prod(shape)) % 5).astype(np.uint8).reshape(shape)
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    return Case("a", "", image, label, (edges[2], edges[1], edges[0]), affine, Path("a.nii"))


def world(case: Case) -> dict[float, tuple[float, ...]]:
    """Where each voxel of the first channel lies in the patient, by its value."""
    assert case.affine is not None
    z, y, x = np.indices(case.image.shape[1:]).reshape(3, -1)
    places = (case.affine @ np.stack([x, y, z, np.ones_like(x)]))[:3].T
    return {float(v): tuple(np.round(p, 6)) for v, p in zip(case.image[0].ravel(), places, strict=True)}


def test_there_are_48_orientations() -> None:
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("codes", CODES)
def test_every_voxel_stays_where_it_is_in_the_patient(codes: str) -> None:
    case = case_of()
    turned = reoriented(case, codes)
    assert turned.affine is not None
    assert turned.label is not None
    assert turned.spacing is not None
    assert orientation_of(turned.affine) == codes
    assert world(turned) == world(case)
    np.testing.assert_array_equal(turned.label, (turned.image[0] % 5).astype(np.uint8))
    np.testing.assert_array_equal(turned.image[1], turned.image[0] + 168)
    np.testing.assert_allclose(turned.spacing[::-1], np.linalg.norm(turned.affine[:3, :3], axis=0))
    assert turned.image.flags.c_contiguous
    back = reoriented(turned, orientation_of(trees.AFFINE))
    np.testing.assert_array_equal(back.image, case.image)
    np.testing.assert_array_equal(back.label, case.label)
    np.testing.assert_allclose(back.affine, case.affine, atol=1e-12)
    assert back.spacing == case.spacing
    np.testing.assert_array_equal(restored(turned.label, turned, case), case.label)


def test_codes_of_known_files() -> None:
    assert orientation_of(np.diag([1.0, 1, 1, 1])) == "RAS"
    assert orientation_of(np.diag([-1.0, -1, 1, 1])) == "LPS"
    assert orientation_of(trees.AFFINE) == "ALS"
    turned = reoriented(case_of(np.diag([1.0, 1, 1, 1])), "LAS")
    np.testing.assert_array_equal(turned.image, case_of().image[..., ::-1])


def test_what_has_no_affine_or_is_turned_already_is_left_alone() -> None:
    case = case_of()
    assert reoriented(case, "ALS") is case
    assert reoriented(case, None) is case
    bare = Case("a", "", case.image, None, None, None, Path("a.h5"))
    assert reoriented(bare, "RAS") is bare


@pytest.mark.parametrize("codes", ["", "RA", "RRS", "RLS", "XYZ", "RASS", "ras"])
def test_wrong_codes_are_refused(codes: str) -> None:
    with pytest.raises(InputError, match="does not name three directions"):
        reoriented(case_of(), codes)


def test_the_thickest_axis_becomes_the_last() -> None:
    assert slices_last(np.diag([1.0, 1.0, 8.0, 1.0])) == "RAS"
    assert slices_last(np.diag([8.0, 1.0, 1.0, 1.0])) == "ASR"
    assert slices_last(np.diag([-1.0, 8.0, 1.0, 1.0])) == "LSA"
    assert slices_last(np.diag([2.0, 1.0, 1.0, 1.0])) == "RAS"  # no slices


# --- spacing given twice -------------------------------------------------------------------------------------------


def test_of_two_spacings_the_one_that_was_filled_in_counts() -> None:
    affine = np.diag([1.5, 1.5, 4.0, 1.0])
    assert agreed_spacing(affine, (4.0, 1.5, 1.51), "a") == ((4.0, 1.5, 1.51), ())
    spacing, notes = agreed_spacing(affine, (1.0, 1.0, 1.0), "a")
    assert spacing == (4.0, 1.5, 1.5)
    assert "1 x 1 x 1 mm" in notes[0]
    assert "4 x 1.5 x 1.5 mm" in notes[0]
    spacing, notes = agreed_spacing(np.eye(4), (10.0, 1.5, 1.5), "a")
    assert spacing == (10.0, 1.5, 1.5)
    assert "of the header is taken" in notes[0]
    with pytest.raises(
        InputError, match=r"a: its header gives a spacing of 3 x 1 x 1 mm .* 4 x 1\.5 x 1\.5 mm; repair"
    ):
        agreed_spacing(affine, (3.0, 1.0, 1.0), "a")


def header_of(path: Path, **fields: object) -> None:
    """Writes fields into the header of a NIfTI file, and nothing else."""
    image = nib.nifti1.load(path)
    values = np.asarray(image.dataobj)
    header = image.header.copy()
    for name, value in fields.items():
        header[name] = value
    with path.with_suffix("").open("wb") as file:
        header["vox_offset"] = 352
        header["magic"] = b"n+1"
        file.write(header.binaryblock + bytes(4) + values.tobytes(order="F"))
    path.with_suffix("").rename(path)  # not compressed, whatever its name says


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: header_of(p, pixdim=[1, 1, 1, 1, 0, 0, 0, 0]), "that of the affine is taken"),
        (
            lambda p: header_of(p, srow_x=[1, 0, 0, 0], srow_y=[0, 1, 0, 0], srow_z=[0, 0, 1, 0]),
            "that of the header is taken",
        ),
        (lambda p: header_of(p, sform_code=0, qform_code=0), "gives no orientation"),
        (
            lambda p: header_of(p, qform_code=1, quatern_b=0, quatern_c=0, quatern_d=0, qoffset_x=99),
            "qform and sform are up to",
        ),
        (lambda p: header_of(p, srow_x=[0, -1.5, 0.1, 40]), "two of its axes meet at 8"),
    ],
    ids=["no pixdim", "no sform", "neither", "two forms", "shear"],
)
def test_headers_that_leave_something_open_are_noted(
    change: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    root = trees.own(tmp_path, ("liver_1",))
    for path in root.glob("*/*.nii.gz"):
        change(path)
    report = check_folder(root, progress=False)
    assert report.ok, report.problems
    assert [note for note in report.notes if words in note], report.notes
    case = open_cohort(root).refs[0].load()
    assert any(words in note for note in case.notes)


def test_right_angles_are_no_fault() -> None:
    assert axes_note(trees.AFFINE) == ()
    sheared = np.diag([1.0, 1.0, 5.0, 1.0])
    sheared[1, 2] = 5.0  # the third axis lies 45 degrees towards the second
    assert axes_note(sheared) == ("two of its axes meet at 45 degrees, and distances are measured as if it were 90",)


# --- a folder of several orientations ------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """One scan under three names, stored in three orientations, with two patients of others."""
    root = tmp_path / "mixed"
    image, label = trees.hounsfield(3, (8, 6, 4)), trees.codes(3, (0, 1, 2), (8, 6, 4)).astype(np.uint8)
    for name, codes in (("a", "RAS"), ("b", "LPS"), ("c", "PIR")):
        for folder, array in (("imagesTr", image), ("labelsTr", label)):
            from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

            whole = nib.nifti1.Nifti1Image(array, np.diag([1.0, 1.2, 5.0, 1.0]))
            turn = ornt_transform(io_orientation(whole.affine), axcodes2ornt(tuple(codes)))
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.nifti1.save(whole.as_reoriented(turn), root / folder / f"{name}.nii.gz")
    (root / "dataset.json").write_text('{"modality": {"0": "MR"}, "labels": {"0": "background", "1": "x", "2": "y"}}')
    return root


def test_one_scan_in_three_orientations_gives_the_same_rows(mixed: Path, tmp_path: Path) -> None:
    cohort = open_cohort(mixed)
    assert cohort_orientation(cohort) == "RAS"
    rows = prepare(cohort, cohort.patients, size=(6, 8), cache=tmp_path / "cache")
    first = rows.index_of(["a"])
    for patient in ("b", "c"):
        for one, other in zip(rows.take(first), rows.take(rows.index_of([patient])), strict=True):
            np.testing.assert_array_equal(one, other)
    volumes = prepare(cohort, cohort.patients, size=(4, 6, 8), cache=tmp_path / "cache")
    images, labels = volumes.take(volumes.index_of(cohort.patients))
    for patient in (1, 2):
        np.testing.assert_array_equal(images[patient], images[0])
        np.testing.assert_array_equal(labels[patient], labels[0])


def test_a_part_of_the_patients_comes_in_the_orientation_of_the_cohort(mixed: Path, tmp_path: Path) -> None:
    cohort = open_cohort(mixed)
    alone = prepare(cohort, ["c"], size=(6, 8), cache=tmp_path / "cache")
    whole = prepare(cohort, ["a"], size=(6, 8), cache=tmp_path / "cache")
    np.testing.assert_array_equal(np.asarray(alone.images), np.asarray(whole.images))
    for case in oriented(cohort, "LPS"):
        assert case.affine is not None
        assert (orientation_of(case.affine), case.image.shape) == ("LPS", (1, 4, 6, 8))
        assert case.spacing == pytest.approx((5.0, 1.2, 1.0))


def test_cases_come_as_stored_where_that_is_asked_for(mixed: Path) -> None:
    stored, cohort = open_cohort(mixed, as_stored=True), open_cohort(mixed)
    assert (stored.orientation, cohort.orientation) == (None, "RAS")
    assert [orientation_of(case.affine) for case in stored if case.affine is not None] == ["RAS", "LPS", "PIR"]
    for source, case in zip(stored, cohort, strict=True):
        assert case.label is not None
        np.testing.assert_array_equal(restored(case.label, case, source), source.label)


def test_check_says_what_it_is_brought_to(mixed: Path) -> None:
    report = check_folder(mixed, progress=False)
    assert report.ok
    assert report.orientations == {"RAS": 1, "LPS": 1, "PIR": 1}
    assert report.trained_in == "RAS"
    (note,) = [note for note in report.notes if "orientations are mixed" in note]
    assert note.endswith("all cases are brought to RAS before training.")


def test_slices_are_cut_along_the_thickest_axis(tmp_path: Path) -> None:
    root = trees.own(tmp_path, ("liver_1",))
    affine = np.diag([8.0, 1.0, 1.0, 1.0])
    for path in root.glob("*/*.nii.gz"):
        trees.save_nifti(path, np.asarray(nib.nifti1.load(path).dataobj), affine)
    report = check_folder(root, progress=False)
    assert report.trained_in == "ASR"
    assert [note for note in report.notes if "not cut along the thickest axis" in note]
    assert (report.dims, report.size and report.size[0]) == (2, (7, 4, 6))
    rows = prepare(open_cohort(root), ["liver_1"], size=(4, 6), cache=tmp_path / "cache")
    assert len(rows) == 7


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_the_affine_of_a_header_is_that_of_the_volume(ending: str, tmp_path: Path) -> None:
    import SimpleITK as sitk

    path = tmp_path / f"a{ending}"
    image = sitk.GetImageFromArray(trees.hounsfield(0, (4, 6, 7)))
    image.SetSpacing((1.25, 1.5, 8.0))
    image.SetOrigin((3, 4, 5))
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
    sitk.WriteImage(image, str(path))
    values, affine, spacing, notes = read_volume(path)
    header, _ = read_header(path)
    assert header is not None
    np.testing.assert_allclose(header, affine, atol=1e-5)
    np.testing.assert_allclose(affine[:3, 3], (-3, -4, 5), atol=1e-5)
    assert (values.shape, spacing, notes) == ((4, 6, 7), pytest.approx((8.0, 1.5, 1.25)), ())
    assert orientation_of(affine) == "PLI"
