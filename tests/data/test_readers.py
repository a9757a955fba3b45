"""LA, LiTS, MM-WHS, Synapse and anyone's own folder, read back from small trees of known content."""

from __future__ import annotations

import hashlib
import json
import pickle
import unicodedata
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import trees

from anatolab.data import check_folder, open_cohort, prepare, published_lists, split_patients
from anatolab.data.pairs import by_channel
from anatolab.types import InputError

X, Y, Z = trees.SHAPE
EVERY: dict[str, Callable[[Path], Path]] = {
    "official ACDC": trees.official,
    "SSL4MIS ACDC": trees.ssl4mis,
    "UA-MT LA": trees.la_uamt,
    "LA challenge": trees.la_challenge,
    "LiTS": trees.lits,
    "MM-WHS": trees.mmwhs,
    "BTCV": trees.btcv,
    "TransUNet": trees.transunet,
    "Decathlon": trees.own,
    "nnU-Net": lambda root: trees.own(root, nnunet=True),
    "nnU-Net, 2 channels": lambda root: trees.own(root, nnunet=True, channels=2),
    "Decathlon, 2 channels": lambda root: trees.own(root, channels=2),
}


@pytest.mark.parametrize("layout", EVERY)
def test_every_layout_is_recognized_lazy_and_consistent(layout: str, tmp_path: Path) -> None:
    cohort = open_cohort(EVERY[layout](tmp_path / "cohort"))
    assert len(cohort) > 1
    assert cohort.provenance["license"]
    assert cohort.provenance["ignored"] == ()
    for ref in pickle.loads(pickle.dumps(cohort.refs)):  # travels to other processes
        case = ref.load()
        assert (case.patient, case.phase, case.window) == (ref.patient, ref.phase, cohort.window)
        assert (case.image.dtype, case.image.ndim) == (np.float32, 4)
        assert ref.labeled == (case.label is not None)
        if case.label is not None:
            assert (case.label.dtype, case.label.shape) == (np.uint8, case.image.shape[1:])
            assert case.label.max() < len(cohort.classes)
        assert all(path.is_file() for path in ref.files)
    rows = prepare(cohort, cohort.patients[:1], size=(4, 4), cache=tmp_path / "cache")
    assert rows.images.min() >= 0
    assert rows.images.max() <= 1


@pytest.mark.parametrize("layout", [layout for layout in EVERY if layout != "SSL4MIS ACDC"])
def test_a_generated_folder_says_so(layout: str, tmp_path: Path) -> None:
    root = EVERY[layout](tmp_path)
    (root / "generated.json").write_text(json.dumps({"name": "phantom", "generator": "someone 1", "seed": 3}))
    cohort = open_cohort(root)
    assert (cohort.name, cohort.published, cohort.provenance["seed"]) == ("phantom", {}, 3)
    assert "license" not in cohort.provenance


# --- published lists ---------------------------------------------------------------------------------------------

LISTS = {
    "la": ("93219bf6a6f712cd786d18ae2febccc08f04563bb78d431c13271d85c8f3c9d7", 80, 20),
    "lits": ("cd3df8d100b0670b510bdf75bc899c38881d96d191e03c17763450260c42a83f", 100, 31),
    "synapse": ("b65d5d441e033d26e87c4aaf37e0cc4a968bf1886ee9f51975f85c6b04846bc6", 18, 12),
}


@pytest.mark.parametrize("name", LISTS)
def test_published_lists_are_the_files_that_were_checked(name: str) -> None:
    sha256, train, test = LISTS[name]
    content = resources.files("anatolab.data.splits").joinpath(f"{name}.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == sha256
    assert json.loads(content)["origin"]
    lists = published_lists(name)
    assert (len(lists["train"]), len(lists["test"])) == (train, test)
    assert len(set(lists["train"] + lists["test"])) == train + test


def test_published_lists_of_known_ends() -> None:
    assert published_lists("la")["train"][:2] == ("06SR5RBREL16DQ6M8LWS", "0RZDK210BSMWAA6467LU")
    lits = published_lists("lits")
    assert (lits["train"][0], lits["train"][-1], lits["test"][0], lits["test"][-1]) == tuple(
        f"volume-{n}" for n in (0, 99, 100, 130)
    )
    synapse = published_lists("synapse")
    assert sorted(synapse["train"] + synapse["test"]) == [f"case{n:04d}" for n in (*range(1, 11), *range(21, 41))]
    assert "case0008" in synapse["test"]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("la", lambda root, ids: trees.la_challenge(root, ids)),
        ("lits", lambda root, ids: trees.lits(root, [int(i.rpartition("-")[2]) for i in ids])),
        ("synapse", lambda root, ids: trees.btcv(root, [int(i[4:]) for i in ids])),
    ],
)
def test_published_lists_come_with_the_whole_training_list(
    name: str, write: Callable[[Path, tuple[str, ...]], Path], tmp_path: Path
) -> None:
    ids = published_lists(name)["train"]
    assert open_cohort(write(tmp_path / "whole", ids)).published == published_lists(name)
    assert open_cohort(write(tmp_path / "short", ids[1:])).published == {}


# --- left atrium -------------------------------------------------------------------------------------------------


def test_la_nrrd_is_read_in_array_order_and_its_affine_is_in_ras(tmp_path: Path) -> None:
    cohort = open_cohort(trees.la_challenge(tmp_path))
    assert (cohort.name, cohort.layout, cohort.classes) == ("LA", "challenge", ("background", "LA"))
    assert cohort.patients == trees.LA_IDS
    case = cohort.of([trees.LA_IDS[1]])[0].load()
    image, label = trees.volume(1)[0], trees.codes(1, (0, 255))
    assert case.label is not None
    assert case.affine is not None
    assert case.image.shape == (1, Z, Y, X)
    assert case.spacing == pytest.approx((2.5, 0.7, 0.6))
    for x, y, z in [(0, 0, 0), (6, 0, 0), (0, 5, 0), (0, 0, 3), (5, 2, 1)]:
        assert case.image[0, z, y, x] == image[x, y, z]
        assert case.label[z, y, x] == label[x, y, z] // 255
        left, posterior, superior = trees.NRRD_ORIGIN + np.array([x, y, z]) @ np.array(trees.NRRD_DIRECTIONS)
        np.testing.assert_allclose((case.affine @ [x, y, z, 1])[:3], (-left, -posterior, superior), atol=1e-9)


def test_la_test_patients_may_be_bare(tmp_path: Path) -> None:
    trees.la_challenge(tmp_path, trees.LA_IDS[:2])
    trees.la_challenge(tmp_path, trees.LA_IDS[2:], base="Testing Set")
    (tmp_path / "Testing Set" / trees.LA_IDS[2] / "laendo.nrrd").unlink()
    (tmp_path / "Training Set" / trees.LA_IDS[0] / "lawall.nrrd").write_bytes(b"not read")
    cohort = open_cohort(tmp_path)
    assert [ref.labeled for ref in cohort.refs] == [True, True, False]
    assert cohort.refs[2].load().label is None
    assert cohort.provenance["ignored"] == (f"Training Set/{trees.LA_IDS[0]}/lawall.nrrd",)


def test_la_h5_is_turned_to_slices_first_and_lists_keep_their_order(tmp_path: Path) -> None:
    cohort = open_cohort(trees.la_uamt(tmp_path))
    assert (cohort.layout, cohort.patients) == ("ua-mt", trees.LA_IDS)
    assert cohort.published == {"train": (trees.LA_IDS[1], trees.LA_IDS[0]), "test": (trees.LA_IDS[2],)}
    assert cohort.provenance["absent"] == ("1GU15S0GJ6PFNARO469W", "ZQYVEK5SKC3GHD2QVB8K")
    image = np.random.default_rng(2).normal(size=trees.SHAPE).astype(np.float32)
    case = cohort.of([trees.LA_IDS[2]])[0].load()
    assert case.label is not None
    assert case.label[1, 2, 5] == trees.codes(2, (0, 1))[5, 2, 1]
    np.testing.assert_array_equal(case.image[0], image.transpose(2, 1, 0))
    assert (case.spacing, case.affine) == ((0.625, 0.625, 0.625), None)
    assert cohort.provenance["notes"] == (
        "2 of the 5 patients of the published lists have no files here and are left out, first 1GU15S0GJ6PFNARO469W.",
    )
    split = split_patients(cohort, 1)
    assert (split.train, split.test) == ((trees.LA_IDS[1], trees.LA_IDS[0]), (trees.LA_IDS[2],))


def test_la_h5_beside_nrrd_is_what_is_read(tmp_path: Path) -> None:
    trees.la_challenge(tmp_path, base="2018LA_Seg_Training Set")
    assert open_cohort(trees.la_uamt(tmp_path)).layout == "ua-mt"


@pytest.mark.real
def test_real_la(real_data: Path) -> None:
    cohort = open_cohort(real_data / "LA")
    lists = published_lists("la")
    assert cohort.published == {"train": lists["train"][:12], "test": lists["test"][:4]}
    assert (len(cohort), len(cohort.provenance["absent"])) == (16, 84)
    case = cohort.of(["0RZDK210BSMWAA6467LU"])[0].load()
    assert case.label is not None
    assert case.image.shape == (1, 88, 143, 199)
    assert case.label.mean() == pytest.approx(0.100775652, abs=1e-9)


@pytest.mark.real
def test_real_la_at_half_the_resolution_says_its_spacing(real_data: Path) -> None:
    cohort = open_cohort(real_data / "LA-1.25mm")
    lists = published_lists("la")
    assert cohort.published == {"train": lists["train"], "test": lists["test"][:10]}
    assert (len(cohort), len(cohort.provenance["absent"])) == (90, 10)
    case = cohort.of(["06SR5RBREL16DQ6M8LWS"])[0].load()
    assert (case.image.shape, case.image.dtype, case.spacing) == ((1, 44, 70, 91), np.float32, (1.25, 1.25, 1.25))


def test_la_h5_takes_the_spacing_that_a_file_names(tmp_path: Path) -> None:
    import h5py

    cohort = open_cohort(trees.la_uamt(tmp_path))
    with h5py.File(cohort.refs[0].source, "a") as file:
        file.attrs["spacing"] = [0.5, 0.75, 2.0]  # along the axes as they are stored, x y z
    assert [ref.load().spacing for ref in cohort.refs[:2]] == [(2.0, 0.75, 0.5), (0.625, 0.625, 0.625)]
    with h5py.File(cohort.refs[0].source, "a") as file:
        file.attrs["spacing"] = [0.5, 0.75, -2.0]
    with pytest.raises(InputError, match="its attribute 'spacing' is"):
        cohort.refs[0].load()


@pytest.mark.parametrize("harm", ["a broken link", "a folder", "nothing"])
def test_la_patients_without_their_file_are_named(harm: str, tmp_path: Path) -> None:
    path = trees.la_uamt(tmp_path) / "2018LA_Seg_Training Set" / trees.LA_IDS[1] / "mri_norm2.h5"
    path.unlink()
    if harm == "a broken link":
        path.symlink_to(tmp_path / "disk that is not mounted" / "mri_norm2.h5")
    elif harm == "a folder":
        path.mkdir()
    report = check_folder(tmp_path, progress=False)
    assert [problem for problem in report.problems if str(path) in problem]
    assert not report.ok


# --- what no reader looks at ---------------------------------------------------------------------------------------

ASIDE: dict[str, tuple[str, ...]] = {  # files that lie beside those of a layout, and folders
    "official ACDC": ("patient004.zip", "Patient005/notes.txt", "patient001/notes.txt"),
    "SSL4MIS ACDC": ("readme.txt", "data/slices/patient4_frame01_slice_1.hdf5", "data/old/patient005_frame01.h5"),
    "UA-MT LA": ("readme.txt", "2018LA_Seg_Training Set/notes.txt"),
    "LA challenge": ("readme.txt", "Training Set/notes.txt"),
    "LiTS": ("volume-99.nii.bz2", "Training Batch 3/volume-7.nii"),
    "MM-WHS": ("ct_train_1009.nii.gz", "ct_train/old/ct_train_1001_image.nii.gz"),
    "BTCV": ("RawData/Extra/img/img0061.nii.gz", "RawData/Training/img/0007.nii.gz"),
    "TransUNet": ("lists_Synapse/train.txt", "train_npz/case0007_slice001.npy"),
    "Decathlon": ("imagesVal/a.nii.gz", "imagesTr/batch_2/b.nii.gz", "imagesTr/c.dcm"),
}


@pytest.mark.parametrize("layout", ASIDE)
def test_what_is_left_aside_is_named(layout: str, tmp_path: Path) -> None:
    root = EVERY[layout](tmp_path)
    before = open_cohort(root)
    for name in ASIDE[layout]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    cohort = open_cohort(root)
    assert cohort.patients == before.patients
    for name in ASIDE[layout]:
        assert any(name == ignored or name.startswith(f"{ignored}/") for ignored in cohort.provenance["ignored"]), name


def test_test_patients_of_releases_without_lists_are_held_out_of_every_seed(tmp_path: Path) -> None:
    trees.official(tmp_path / "acdc", (1, 2, 3), base="training")
    trees.official(tmp_path / "acdc", (101,), base="testing")
    trees.la_challenge(tmp_path / "la", trees.LA_IDS[:2])
    trees.la_challenge(tmp_path / "la", trees.LA_IDS[2:], base="Testing Set")
    trees.transunet(tmp_path / "synapse")
    trees.own(tmp_path / "own", ("liver_1", "liver_2", "liver_3"))
    trees.save_nifti(tmp_path / "own" / "labelsTs" / "liver_99.nii.gz", trees.codes(0, (0, 1, 2)))
    held = {"acdc": "patient101", "la": trees.LA_IDS[2], "synapse": "case0001", "own": "liver_99"}
    for name, patient in held.items():
        cohort = open_cohort(tmp_path / name)
        assert cohort.published["test"] == (patient,)
        for seed in range(20):
            split = split_patients(cohort, 1, validation=1, seed=seed)
            assert patient not in split.train + split.validation
            assert split.test == (patient,)


# --- liver -------------------------------------------------------------------------------------------------------


def test_lits_pairs_by_number_and_sorts_by_it(tmp_path: Path) -> None:
    trees.lits(tmp_path, (0, 10), "Training Batch 1")
    trees.lits(tmp_path, (2,), "Training Batch 2", ".nii.gz")
    trees.save_nifti(tmp_path / "Test Data" / "test-volume-0.nii", trees.hounsfield(70))
    cohort = open_cohort(tmp_path)
    assert (cohort.name, cohort.classes) == ("LiTS", ("background", "liver", "tumor"))
    assert sorted(cohort.patients) == ["test-volume-0", "volume-0", "volume-10", "volume-2"]
    assert [p for p in cohort.patients if p[0] == "v"] == ["volume-0", "volume-2", "volume-10"]
    assert [ref.patient for ref in cohort.refs if not ref.labeled] == ["test-volume-0"]
    case = cohort.of(["volume-10"])[0].load()
    assert case.label is not None
    assert case.image[0, 1, 2, 5] == trees.hounsfield(10)[5, 2, 1]  # Hounsfield units, not yet clipped
    assert case.label[1, 2, 5] == trees.codes(10, (0, 1, 2))[5, 2, 1]
    np.testing.assert_allclose(case.affine, trees.AFFINE, atol=1e-6)
    assert case.window == cohort.window == (-200, 250)


# --- whole heart -------------------------------------------------------------------------------------------------


def test_mmwhs_codes_become_classes(tmp_path: Path) -> None:
    trees.mmwhs(tmp_path, ("ct_train_1001", "mr_train_1001", "mr_test_2001"))
    cohort = open_cohort(tmp_path)
    assert cohort.classes == ("background", "LV", "RV", "LA", "RA", "Myo", "AO", "PA")
    assert [ref.labeled for ref in cohort.refs] == [True, False, True]
    assert cohort.patients == ("ct_train_1001", "mr_test_2001", "mr_train_1001")
    case = cohort.of(["mr_train_1001"])[0].load()
    assert case.label is not None
    stored = trees.codes(1, (0, 500, 600, 420, 550, 205, 820, 850)).transpose(2, 1, 0)
    expected = {0: "background", 500: "LV", 600: "RV", 420: "LA", 550: "RA", 205: "Myo", 820: "AO", 850: "PA"}
    for code, name in expected.items():
        assert set(case.label[stored == code]) == {cohort.classes.index(name)}
    assert case.info == {"modality": "MR"}
    assert "1 CT and 2 MR" in cohort.provenance["notes"][0]


def test_mmwhs_of_one_modality_alone_and_its_known_stray_code(tmp_path: Path) -> None:
    trees.mmwhs(tmp_path)
    path = tmp_path / "mr_train" / "mr_train_1001_label.nii.gz"
    label = np.zeros(trees.SHAPE, np.int16)
    label[3, 2, 1] = 421
    trees.save_nifti(path, label)
    cohort = open_cohort(tmp_path / "mr_train")
    assert (cohort.patients, cohort.provenance["notes"]) == (("mr_train_1001",), ())
    case = cohort.refs[0].load()
    assert case.label is not None
    assert case.label[1, 2, 3] == cohort.classes.index("LA")


# --- abdomen -----------------------------------------------------------------------------------------------------


def test_btcv_keeps_the_eight_organs_of_transunet(tmp_path: Path) -> None:
    trees.btcv(tmp_path, (1, 5))
    trees.btcv(tmp_path, (61,), "RawData/Testing", labels=False)
    cohort = open_cohort(tmp_path)
    assert cohort.patients == ("case0001", "case0005", "case0061")
    assert [ref.labeled for ref in cohort.refs] == [True, True, False]
    case = cohort.refs[1].load()
    assert case.label is not None
    stored = trees.codes(5, range(14)).transpose(2, 1, 0)
    names = [
        "spleen",
        "right kidney",
        "left kidney",
        "gallbladder",
        "",
        "liver",
        "stomach",
        "aorta",
        "",
        "",
        "pancreas",
    ]
    for code, name in enumerate([*names, "", ""], 1):
        assert {cohort.classes[k] for k in case.label[stored == code]} == {name or "background"}
    assert cohort.classes == (
        *("background", "aorta", "gallbladder", "left kidney", "right kidney"),
        *("liver", "pancreas", "spleen", "stomach"),
    )
    assert case.image[0, 3, 5, 6] == trees.hounsfield(5)[6, 5, 3]
    assert case.window == (-125, 275)


def test_btcv_is_found_where_img_and_label_lie(tmp_path: Path) -> None:
    assert len(open_cohort(trees.btcv(tmp_path, base=""))) == 3


def test_transunet_stacks_slices_by_number_and_gives_back_hounsfield_units(tmp_path: Path) -> None:
    cohort = open_cohort(trees.transunet(tmp_path))
    assert (cohort.layout, cohort.patients) == ("transunet", ("case0001", "case0005", "case0006"))
    for patient, seed, shape in (("case0006", 6, (11, 6, 5)), ("case0001", 1, (5, 6, 5))):
        case = cohort.of([patient])[0].load()
        image, label = trees.volume(seed, shape)
        assert case.label is not None
        np.testing.assert_allclose(case.image[0], image / 999 * 400 - 125, atol=1e-3)
        np.testing.assert_array_equal(case.label, label)
        assert (case.spacing, case.affine) == (None, None)


# --- anyone's own ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nnunet", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
def test_own_folder(nnunet: bool, channels: int, tmp_path: Path) -> None:
    cohort = open_cohort(trees.own(tmp_path, nnunet=nnunet, channels=channels))
    assert (cohort.name, cohort.layout) == ("Livers", "nnU-Net" if nnunet else "Decathlon")
    assert cohort.classes == ("background", "liver", "tumor")
    assert cohort.patients == ("liver_2", "liver_10", "liver_99")
    assert [ref.labeled for ref in cohort.refs] == [True, True, False]
    assert cohort.provenance["license"] == "CC-BY-SA 4.0"
    case = cohort.refs[1].load()
    assert case.label is not None
    assert case.affine is not None
    assert case.image.shape == (channels, Z, Y, X)
    for channel in range(channels):
        np.testing.assert_array_equal(case.image[channel], trees.hounsfield(10 + channel).transpose(2, 1, 0))
    assert case.label[1, 2, 5] == trees.codes(1, (0, 1, 2))[5, 2, 1]
    np.testing.assert_allclose(case.affine, trees.AFFINE, atol=1e-6)
    assert case.spacing == pytest.approx(tuple(np.linalg.norm(trees.AFFINE[:3, :3], axis=0)[::-1]))
    assert len(cohort.refs[1].files) == (channels if nnunet else 1) + 1
    split = split_patients(cohort, 1, validation=1, seed=0)
    assert split.train[-1] == "liver_99"  # never labeled, never held out


def rewrite(root: Path, **changed: object) -> None:
    path = root / "dataset.json"
    said = {**json.loads(path.read_text()), **changed}
    path.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))


def test_own_test_images_with_labels_are_the_published_test_list(tmp_path: Path) -> None:
    trees.own(tmp_path, nnunet=True)
    assert open_cohort(tmp_path).published == {}
    trees.save_nifti(tmp_path / "labelsTs" / "liver_99.nii.gz", trees.codes(0, (0, 1, 2)))
    assert open_cohort(tmp_path).published == {"train": ("liver_2", "liver_10"), "test": ("liver_99",)}
    trees.save_nifti(tmp_path / "imagesTs" / "liver_100_0000.nii.gz", trees.hounsfield(100))
    published = {"train": ("liver_2", "liver_10", "liver_100"), "test": ("liver_99",)}  # one of two is bare
    assert open_cohort(tmp_path).published == published


def test_own_names_of_four_digits_are_cases_where_labels_or_lists_say_so(tmp_path: Path) -> None:
    trees.own(tmp_path, ("liver_0001", "liver_0002"))
    assert open_cohort(tmp_path).patients == ("liver_0001", "liver_0002", "liver_99")
    rewrite(tmp_path, training=None, test=None)
    assert open_cohort(tmp_path).patients == ("liver_0001", "liver_0002", "liver_99")


def test_own_window_and_the_advice_to_give_one(tmp_path: Path) -> None:
    trees.own(tmp_path)
    rewrite(tmp_path, modality={"0": "CT"})
    cohort = open_cohort(tmp_path)
    assert cohort.window is None
    assert '"window"' in cohort.provenance["notes"][0]
    rewrite(tmp_path, window=[-200, 250])
    cohort = open_cohort(tmp_path)
    assert cohort.window == cohort.refs[0].load().window == (-200, 250)
    assert "notes" not in cohort.provenance


def test_own_ignore_label_is_unknown(tmp_path: Path) -> None:
    trees.own(tmp_path, nnunet=True)
    rewrite(tmp_path, labels={"background": 0, "liver": 1, "ignore": 2})
    cohort = open_cohort(tmp_path)
    assert cohort.classes == ("background", "liver")
    case = cohort.refs[0].load()
    assert case.label is not None
    stored = trees.codes(0, (0, 1, 2)).transpose(2, 1, 0)
    np.testing.assert_array_equal(case.label, np.where(stored == 2, 255, stored))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_own_names_in_any_script_and_form_work(form: str, tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, name) for name in ("Größe_1", "患者_2")]
    trees.own(tmp_path, names)
    label = tmp_path / "labelsTr" / f"{names[0]}.nii.gz"  # in the other form, as an archive from a Mac has it
    label.rename(label.with_name(unicodedata.normalize("NFD" if form == "NFC" else "NFC", label.name)))
    cohort = open_cohort(tmp_path)
    assert cohort.patients[:2] == ("Größe_1", "患者_2")
    assert cohort.refs[0].labeled
    assert len(prepare(cohort, cohort.patients, size=(4, 4), cache=tmp_path / "cäche")) == 3 * Z


def test_own_nrrd_files_work_too(tmp_path: Path) -> None:
    trees.own(tmp_path, nnunet=True)
    for path in tmp_path.glob("*/*.nii.gz"):
        array = np.asarray(nib.load(path).dataobj)  # type: ignore[attr-defined]
        trees.save_nrrd(path.with_name(path.name.replace(".nii.gz", ".nrrd")), array)
        path.unlink()
    case = open_cohort(tmp_path).refs[0].load()
    np.testing.assert_array_equal(case.image[0], trees.hounsfield(0).transpose(2, 1, 0))


def test_own_one_slice_whole_float_labels_and_odd_orientation_work(tmp_path: Path) -> None:
    trees.own(tmp_path)
    affine = np.array([[0, 0, -3.0, 1], [0.8, 0, 0, 2], [0, -0.9, 0, 3], [0, 0, 0, 1]])
    image, label = trees.hounsfield(3, (7, 6, 1)), trees.codes(3, (0, 1, 2), (7, 6, 1)).astype(np.float64)
    trees.save_nifti(tmp_path / "imagesTr" / "liver_2.nii.gz", image, affine)
    trees.save_nifti(tmp_path / "labelsTr" / "liver_2.nii.gz", label, affine)
    case = open_cohort(tmp_path).refs[0].load()
    assert case.label is not None
    assert case.image.shape == (1, 1, 6, 7)
    assert case.label[0, 2, 5] == label[5, 2, 0]
    np.testing.assert_allclose(case.affine, affine, atol=1e-6)
    assert case.spacing == pytest.approx((3, 0.9, 0.8))


def test_files_of_a_mac_archive_are_left_aside(tmp_path: Path) -> None:
    trees.own(tmp_path)
    (tmp_path / "imagesTr" / "._liver_2.nii.gz").write_bytes(b"resource fork")
    cohort = open_cohort(tmp_path)
    assert (len(cohort), cohort.provenance["ignored"]) == (3, ("imagesTr/._liver_2.nii.gz",))


def test_channels_are_grouped_in_their_order() -> None:
    problems: list[str] = []
    paths = [Path(f"in/{name}.nii.gz") for name in ("b_0001", "a_0001", "a_0000", "b_0000", "c")]
    found = by_channel(paths, 2, problems)
    assert {case: [path.name[0:6] for path in files] for case, files in found.items()} == {
        "b": ["b_0000", "b_0001"],
        "a": ["a_0000", "a_0001"],
        "c": ["c.nii."],
    }
    assert problems == []
    assert by_channel([*paths[:2], *paths[3:]], 2, problems)["a"] == ()
    assert problems[0].startswith("in/a_0000.nii.gz: this channel is missing")
