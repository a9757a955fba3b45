"""Both ACDC layouts, read back from small trees of known content."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import trees

from anatolab.data import open_cohort, published_lists
from anatolab.types import InputError

CLASSES = ("background", "RV", "Myo", "LV")


def test_official_is_recognized_and_read_in_array_order(tmp_path: Path) -> None:
    cohort = open_cohort(str(trees.official(tmp_path)))
    assert (cohort.name, cohort.layout, cohort.classes) == ("ACDC", "official", CLASSES)
    assert cohort.patients == ("patient001", "patient002", "patient003")
    assert [ref.phase for ref in cohort.refs] == ["ED", "ES"] * 3
    assert cohort.provenance["license"] == "CC BY-NC-SA 4.0"
    image, label = trees.volume(212)  # patient 2, frame 12, stored (x, y, z)
    case = cohort.of(["patient002"])[1].load()
    assert case.name == "patient002_ES"
    assert (case.image.dtype, case.image.shape) == (np.float32, (1, 4, 6, 7))
    assert case.label is not None
    assert case.label.dtype == np.uint8
    for x, y, z in [(0, 0, 0), (6, 0, 0), (0, 5, 0), (0, 0, 3), (5, 2, 1)]:
        assert case.image[0, z, y, x] == image[x, y, z]
        assert case.label[z, y, x] == label[x, y, z]
    assert case.info == {"ED": 1, "ES": 12, "Group": "DCM", "Height": 184.0, "NbFrame": 30, "Weight": 95.0, "frame": 12}


def test_an_odd_orientation_is_kept_with_its_geometry(tmp_path: Path) -> None:
    case = open_cohort(trees.official(tmp_path)).refs[0].load()
    assert case.affine is not None
    assert case.spacing is not None
    np.testing.assert_allclose(case.affine, trees.AFFINE, atol=1e-6)
    edges = np.linalg.norm(trees.AFFINE[:3, :3], axis=0)  # of x, y, z: oblique, and x runs along world y
    np.testing.assert_allclose(case.spacing, edges[::-1], rtol=1e-6)
    z, y, x = 3, 5, 6
    np.testing.assert_allclose((case.affine @ [x, y, z, 1])[:3], (trees.AFFINE @ [x, y, z, 1])[:3], atol=1e-5)


def test_scale_and_intercept_of_the_header_are_applied(tmp_path: Path) -> None:
    import nibabel as nib

    trees.official(tmp_path)
    path = tmp_path / "patient001" / "patient001_frame01.nii.gz"
    image = nib.nifti1.Nifti1Image(np.arange(168, dtype=np.float32).reshape(trees.SHAPE) * 0.5 - 3, trees.AFFINE)
    image.header.set_data_dtype(np.int16)
    image.header.set_slope_inter(0.5, -3)
    nib.nifti1.save(image, path)
    assert open_cohort(tmp_path).refs[0].load().image[0, 3, 5, 6] == 167 * 0.5 - 3


def test_training_and_testing_folders_are_one_cohort(tmp_path: Path) -> None:
    trees.official(tmp_path, (1, 2), base="training")
    trees.official(tmp_path, (101,), base="testing", labels=False)
    cohort = open_cohort(tmp_path)
    assert cohort.patients == ("patient001", "patient002", "patient101")
    assert [ref.labeled for ref in cohort.refs] == [True] * 4 + [False] * 2
    assert cohort.refs[-1].load().label is None
    assert len(cohort.refs[0].files) == 2
    assert len(cohort.refs[-1].files) == 1


def test_uncompressed_files_and_four_digit_patients_sort_by_number(tmp_path: Path) -> None:
    trees.official(tmp_path, (1000, 999))
    for path in list(tmp_path.glob("*/*_frame*.nii.gz")):
        array = __import__("nibabel").load(path).dataobj
        trees.save_nifti(path.with_name(path.name.removesuffix(".gz")), np.asarray(array))
        path.unlink()
    cohort = open_cohort(tmp_path)
    assert cohort.patients == ("patient999", "patient1000")
    assert cohort.refs[0].load().image.shape == (1, 4, 6, 7)


def test_what_is_left_aside_is_named(tmp_path: Path) -> None:
    trees.official(tmp_path)
    (tmp_path / "patient002" / "notes.txt").write_text("x")
    assert open_cohort(tmp_path).provenance["ignored"] == ("patient002/notes.txt",)


def test_published_lists_only_where_the_training_patients_are_and_are_real(tmp_path: Path) -> None:
    assert open_cohort(trees.official(tmp_path / "few")).published == {}
    numbers = tuple(int(p[7:]) for p in published_lists("acdc")["train"])
    cohort = open_cohort(trees.official(tmp_path / "all", numbers))
    assert cohort.published == published_lists("acdc")
    (tmp_path / "all" / "generated.json").write_text(json.dumps({"generator": "someone", "seed": 3}))
    cohort = open_cohort(tmp_path / "all")
    assert (cohort.name, cohort.published, cohort.provenance["seed"]) == ("generated", {}, 3)


def test_ssl4mis_stacks_slices_by_number_and_not_by_name(tmp_path: Path) -> None:
    cohort = open_cohort(trees.ssl4mis(tmp_path, slices=11))  # _slice_10 sorts before _slice_2 as text
    assert (cohort.layout, cohort.classes) == ("ssl4mis", CLASSES)
    assert [ref.name for ref in cohort.refs] == [f"patient00{p}_frame0{f}" for p in (1, 2, 3) for f in (1, 2)]
    image, label = trees.volume(31, (11, 6, 5))  # patient 3, frame 1
    case = cohort.of(["patient003"])[0].load()
    assert case.label is not None
    np.testing.assert_array_equal(case.image[0], image / np.float32(1000))
    np.testing.assert_array_equal(case.label, label)
    assert (case.phase, case.spacing, case.affine) == ("frame01", None, None)
    image, _ = trees.volume(22, (5, 6, 5))
    np.testing.assert_array_equal(cohort.of(["patient002"])[1].load().image[0], image / np.float32(1000))


def test_ssl4mis_lists_are_published_in_their_order_and_absent_patients_are_named(tmp_path: Path) -> None:
    cohort = open_cohort(trees.ssl4mis(tmp_path))
    assert cohort.published == {
        "train": ("patient003", "patient001"),
        "validation": ("patient002",),
        "test": ("patient009",),
    }
    assert cohort.provenance["absent"] == ("patient009",)
    with pytest.raises(InputError, match=r"patient009.*published test list.*files are not here"):
        cohort.of(["patient002", "patient009"])


def test_references_are_lazy_and_travel_to_other_processes(tmp_path: Path) -> None:
    cohort = open_cohort(trees.ssl4mis(tmp_path))
    case = pickle.loads(pickle.dumps(cohort.refs[0])).load()
    assert case.patient == "patient001"
    cohort.refs[0].files[0].write_bytes(b"")
    open_cohort(tmp_path)  # opening reads no image
    with pytest.raises(InputError, match="zero bytes"):
        cohort.refs[0].load()


@pytest.mark.real
def test_real_acdc_counts(real_data: Path) -> None:
    cohort = open_cohort(real_data / "ACDC")
    train, validation, test = (cohort.published[part] for part in ("train", "validation", "test"))
    assert cohort.published == published_lists("acdc")
    assert (len(train), len(validation), len(test)) == (70, 10, 20)
    assert cohort.provenance["absent"] == test
    assert sum(len(ref.files) for ref in cohort.of(train)) == 1312
    assert len(cohort.of(train)) == 140
    assert len(cohort.of(validation)) == 20
    with pytest.raises(InputError, match="published test list"):
        cohort.of(test)


@pytest.mark.real
def test_real_acdc_class_shares_and_scale(real_data: Path) -> None:
    cohort = open_cohort(real_data / "ACDC")
    count, slices = np.zeros(4, np.int64), 0
    for ref in cohort.of(cohort.published["train"]):
        case = ref.load()
        assert case.label is not None
        assert (case.image.min(), case.image.max()) == (0, 1)  # scaled per volume, not per slice
        count += np.bincount(case.label.ravel(), minlength=4)
        slices += len(case.label)
    assert slices == 1312
    assert count.tolist() == [69406955, 850234, 960049, 932202]


@pytest.mark.real
def test_real_acdc_volume_is_its_slice_files_in_the_order_of_numbers(real_data: Path) -> None:
    import h5py

    case = open_cohort(real_data / "ACDC").of(["patient099"])[0].load()
    assert case.image.shape[:2] == (1, 16)
    assert case.label is not None
    for i in range(16):
        with h5py.File(real_data / "ACDC" / "data" / "slices" / f"patient099_frame01_slice_{i + 1}.h5") as file:
            np.testing.assert_array_equal(case.image[0, i], file["image"][()])
            np.testing.assert_array_equal(case.label[i], file["label"][()])
