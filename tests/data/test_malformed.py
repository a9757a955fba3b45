"""Wrong input: one sentence that names the file and the remedy, before any training."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import trees

from anatolab.data import open_cohort
from anatolab.types import InputError

P1 = Path("patient001")
ED, ED_GT = P1 / "patient001_frame01.nii.gz", P1 / "patient001_frame01_gt.nii.gz"
ES, ES_GT = P1 / "patient001_frame12.nii.gz", P1 / "patient001_frame12_gt.nii.gz"
SLICE = Path("data/slices/patient001_frame01_slice_2.h5")
VOLUME = Path("data/patient002_frame01.h5")


def image() -> np.ndarray:
    return trees.volume(101)[0]


def label() -> np.ndarray:
    return trees.volume(101)[1]


def with_value(array: np.ndarray, value: float, kind: type = np.float32) -> np.ndarray:
    array = array.astype(kind)
    array[3, 2, 1] = value
    return array


def truncate(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def unzip_truncated(path: Path) -> None:
    plain = path.with_suffix("")
    plain.write_bytes(gzip.decompress(path.read_bytes())[:-40])
    path.unlink()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def save_in_meters(path: Path) -> None:
    picture = nib.nifti1.Nifti1Image(image(), trees.AFFINE)
    picture.header.set_xyzt_units("meter")
    nib.nifti1.save(picture, path)


def without_spacing(path: Path) -> None:
    """Zero bytes at the header's sform rows and at pixdim[1:4]: a geometry that cannot be."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[280:328] = bytes(48)
    path.write_bytes(gzip.compress(bytes(raw)))


def shifted(millimeters: float) -> np.ndarray:
    affine = trees.AFFINE.copy()
    affine[0, 3] += millimeters
    return affine


# What is done to a good folder, what of it the message names, and words of the message.
OFFICIAL: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "image empty": (lambda r: (r / ED).write_bytes(b""), str(ED), "zero bytes"),
    "label empty": (lambda r: (r / ED_GT).write_bytes(b""), str(ED_GT), "zero bytes"),
    "truncated gzip": (lambda r: truncate(r / ED), str(ED), "cannot be read as NIfTI"),
    "truncated in its last byte": (lambda r: truncate(r / ED, 0.97), str(ED), "cannot be read as NIfTI"),
    "truncated without gzip": (lambda r: unzip_truncated(r / ED), str(ED)[:-3], "cannot be read as NIfTI"),
    "text named .nii.gz": (lambda r: (r / ED).write_text("see the cloud folder"), str(ED), "cannot be read as NIfTI"),
    "gzip of text": (lambda r: (r / ED).write_bytes(gzip.compress(b"x" * 999)), str(ED), "cannot be read as NIfTI"),
    "4-D image": (lambda r: trees.save_nifti(r / ED, np.stack([image()] * 3, -1)), str(ED), "one 3-D volume"),
    "2-D image": (lambda r: trees.save_nifti(r / ED, image()[..., 0]), str(ED), "one 3-D volume"),
    "color image": (
        lambda r: trees.save_nifti(r / ED, np.zeros(trees.SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        str(ED),
        "one 3-D volume",
    ),
    "NaN": (lambda r: trees.save_nifti(r / ED, with_value(image(), np.nan)), str(ED), "1 of 168 intensities"),
    "infinite": (lambda r: trees.save_nifti(r / ED, with_value(image(), -np.inf)), str(ED), "1 of 168 intensities"),
    "constant": (
        lambda r: trees.save_nifti(r / ED, np.full(trees.SHAPE, 7, np.int16)),
        str(ED),
        "every intensity is 7",
    ),
    "complex": (lambda r: trees.save_nifti(r / ED, image().astype(np.complex64)), str(ED), "where an image is due"),
    "meters": (lambda r: save_in_meters(r / ED), str(ED), "in meter"),
    "no geometry": (lambda r: without_spacing(r / ED), str(ED), "affine"),
    "label of another shape": (lambda r: trees.save_nifti(r / ED_GT, label()[1:]), str(ED_GT), "(4, 6, 6)"),
    "label shifted": (lambda r: trees.save_nifti(r / ED_GT, label(), shifted(2)), str(ED_GT), "2 mm away"),
    "label flipped": (
        lambda r: trees.save_nifti(r / ED_GT, label(), trees.AFFINE @ np.diag([-1, 1, 1, 1])),
        str(ED_GT),
        "mm away",
    ),
    "label 7": (lambda r: trees.save_nifti(r / ED_GT, with_value(label(), 7, np.uint8)), str(ED_GT), "label 7 (1 vox"),
    "label -1": (lambda r: trees.save_nifti(r / ED_GT, with_value(label(), -1, np.int16)), str(ED_GT), "label -1"),
    "label 1.5": (
        lambda r: trees.save_nifti(r / ED_GT, with_value(label(), 1.5)),
        str(ED_GT),
        "label 1.5 is not a whole",
    ),
    "label NaN": (lambda r: trees.save_nifti(r / ED_GT, with_value(label(), np.nan)), str(ED_GT), "label nan is not"),
    "label missing": (
        lambda r: (r / ES_GT).unlink(),
        str(ES),
        "no annotation beside it (patient001_frame12_gt.nii.gz)",
    ),
    "image missing": (lambda r: (r / ED).unlink(), str(ED), "Info.cfg names frame 1 as ED"),
    "both missing": (lambda r: ((r / ES).unlink(), (r / ES_GT).unlink()), str(ES), "Info.cfg names frame 12 as ES"),
    "no Info.cfg": (lambda r: (r / P1 / "Info.cfg").unlink(), str(P1 / "Info.cfg"), "missing"),
    "empty Info.cfg": (lambda r: (r / P1 / "Info.cfg").write_text(""), str(P1 / "Info.cfg"), "zero bytes"),
    "no ED entry": (lambda r: edit(r / P1 / "Info.cfg", "ED: 1\n", ""), str(P1 / "Info.cfg"), "no number at 'ED:'"),
    "ES not a number": (lambda r: edit(r / P1 / "Info.cfg", "12", "late"), str(P1 / "Info.cfg"), "(found 'late')"),
    "height not a number": (lambda r: edit(r / P1 / "Info.cfg", "184.0", "tall"), str(P1 / "Info.cfg"), "'Height:'"),
    "ED equals ES": (lambda r: edit(r / P1 / "Info.cfg", "12", "1"), str(P1 / "Info.cfg"), "both ED and ES"),
    "a third frame": (
        lambda r: trees.save_nifti(r / P1 / "patient001_frame05.nii.gz", image()),
        "patient001_frame05.nii.gz",
        "neither ED (1) nor ES (12)",
    ),
    "a frame twice": (lambda r: trees.save_nifti(r / str(ED)[:-3], image()), "patient001_frame01.nii", "there twice"),
    "a patient twice": (lambda r: trees.official(r, (1,), base="training"), "patient001", "keep one of the two"),
    "broken generated.json": (lambda r: (r / "generated.json").write_text("{"), "generated.json", "not valid JSON"),
    "generated.json a list": (lambda r: (r / "generated.json").write_text("[]"), "generated.json", "JSON object"),
}


def h5_image(shape: tuple[int, ...] = (6, 5)) -> np.ndarray:
    return np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def h5_label(shape: tuple[int, ...] = (6, 5), value: float = 0, kind: type = np.uint8) -> np.ndarray:
    return np.full(shape, value, kind)


def all_slices_constant(root: Path) -> None:
    for path in (root / "data" / "slices").glob("patient001_frame01_slice_*.h5"):
        trees.save_h5(path, image=h5_label(kind=np.float32), label=h5_label())


SSL4MIS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "slice empty": (lambda r: (r / SLICE).write_bytes(b""), str(SLICE), "zero bytes"),
    "slice truncated": (lambda r: truncate(r / SLICE), str(SLICE), "cannot be read as HDF5"),
    "volume truncated": (lambda r: truncate(r / VOLUME), str(VOLUME), "cannot be read as HDF5"),
    "text named .h5": (lambda r: (r / VOLUME).write_text("moved"), str(VOLUME), "cannot be read as HDF5"),
    "no label": (
        lambda r: trees.save_h5(r / SLICE, image=h5_image()),
        str(SLICE),
        "no array named 'label' (it has: image)",
    ),
    "nothing inside": (lambda r: trees.save_h5(r / SLICE), str(SLICE), "no array named 'image' (it has: nothing)"),
    "slice is 3-D": (
        lambda r: trees.save_h5(r / SLICE, image=h5_image((2, 6, 5)), label=h5_label((2, 6, 5))),
        str(SLICE),
        "2-D slice is due",
    ),
    "volume is 2-D": (
        lambda r: trees.save_h5(r / VOLUME, image=h5_image(), label=h5_label()),
        str(VOLUME),
        "3-D volume",
    ),
    "shapes differ": (
        lambda r: trees.save_h5(r / SLICE, image=h5_image(), label=h5_label((5, 6))),
        str(SLICE),
        "(5, 6)",
    ),
    "a slice of another size": (
        lambda r: trees.save_h5(r / SLICE, image=h5_image((5, 6)), label=h5_label((5, 6))),
        str(SLICE),
        "the first of its volume (6, 5)",
    ),
    "label 4": (
        lambda r: trees.save_h5(r / SLICE, image=h5_image(), label=h5_label(value=4)),
        str(SLICE),
        "label 4 (30",
    ),
    "label 0.5": (
        lambda r: trees.save_h5(r / SLICE, image=h5_image(), label=h5_label(value=0.5, kind=np.float32)),
        str(SLICE),
        "label 0.5 is not a whole number",
    ),
    "NaN in a slice": (
        lambda r: trees.save_h5(r / SLICE, image=h5_image() * np.nan, label=h5_label()),
        str(SLICE),
        "30 of 30 intensities",
    ),
    "constant volume": (all_slices_constant, "patient001_frame01_slice_*.h5", "every intensity is 0"),
    "a gap": (lambda r: (r / SLICE).unlink(), str(SLICE), "missing (1 of 11"),
    "the last slice missing": (
        lambda r: (r / "data/slices/patient001_frame01_slice_11.h5").unlink(),
        "patient001_frame01_slice_11.h5",
        "missing (1 of 11",
    ),
    "slice 0": (
        lambda r: trees.save_h5(r / "data/slices/patient001_frame01_slice_0.h5", image=h5_image(), label=h5_label()),
        "patient001_frame01_slice_0.h5",
        "no slice of its volume",
    ),
    "a slice too many": (
        lambda r: trees.save_h5(r / "data/slices/patient001_frame01_slice_12.h5", image=h5_image(), label=h5_label()),
        "patient001_frame01_slice_12.h5",
        "1 to 11",
    ),
    "empty list": (lambda r: (r / "val.list").write_text("\n\n"), "val.list", "names no case"),
    "zero-byte list": (lambda r: (r / "train.list").write_bytes(b""), "train.list", "zero bytes"),
    "another data set's list": (
        lambda r: (r / "train.list").write_text("0RZDK210BSMWAA6467LU\n"),
        "train.list",
        "0RZDK",
    ),
    "a case twice on a list": (
        lambda r: (r / "val.list").write_text("patient002_frame01\n" * 2),
        "val.list",
        "names patient002_frame01 twice",
    ),
    "one of two frames": (lambda r: (r / VOLUME).unlink(), "val.list", "patient002_frame01, which has no file"),
}


def one_sentence(message: str) -> bool:
    """Ends with a stop, has none inside that ends a sentence, and says after a semicolon what to do."""
    return message.endswith(".") and ". " not in message and ";" in message and "\n" not in message


def load_all(root: Path) -> None:
    for case in open_cohort(root):
        assert case.image.ndim == 4


@pytest.mark.parametrize("fault", OFFICIAL)
def test_official(fault: str, tmp_path: Path) -> None:
    spoil, named, words = OFFICIAL[fault]
    load_all(trees.official(tmp_path, (1, 2)))
    spoil(tmp_path)
    with pytest.raises(InputError) as error:
        load_all(tmp_path)
    message = str(error.value)
    assert str(tmp_path) in message
    assert named in message
    assert words in message
    assert one_sentence(message), message


@pytest.mark.parametrize("fault", SSL4MIS)
def test_ssl4mis(fault: str, tmp_path: Path) -> None:
    spoil, named, words = SSL4MIS[fault]
    load_all(trees.ssl4mis(tmp_path))
    spoil(tmp_path)
    with pytest.raises(InputError) as error:
        load_all(tmp_path)
    message = str(error.value)
    assert str(tmp_path) in message
    assert named in message
    assert words in message
    assert one_sentence(message), message


def test_a_gap_is_found_without_a_slice_list(tmp_path: Path) -> None:
    trees.ssl4mis(tmp_path)
    (tmp_path / "train_slices.list").unlink()
    load_all(tmp_path)
    (tmp_path / SLICE).unlink()
    with pytest.raises(InputError, match=r"slice_2\.h5: is missing \(1 of 11"):
        open_cohort(tmp_path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "there is no such folder"),
        (lambda p: p.mkdir(), "this folder is empty"),
        (lambda p: p.write_text("x"), "is a file where a folder"),
        (lambda p: trees.save_nifti(p / "liver" / "img_1.nii.gz", image()), "no known layout"),
        (lambda p: (p / "data" / "slices").mkdir(parents=True), "no known layout"),
        (lambda p: trees.ssl4mis(p / "ACDC"), "no known layout"),
        (lambda p: p.symlink_to(p), "cannot be read|there is no such folder"),
    ],
    ids=["missing", "empty", "file", "unknown", "empty slices", "parent folder", "link to itself"],
)
def test_folder(make: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    make(tmp_path / "cohort")
    with pytest.raises(InputError, match=words) as error:
        open_cohort(tmp_path / "cohort")
    assert one_sentence(str(error.value))
    assert str(tmp_path / "cohort") in str(error.value)


def test_an_unknown_layout_is_told_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(InputError, match=r"patient001/Info\.cfg.*data/slices"):
        open_cohort(tmp_path)


@pytest.mark.parametrize("off", [0.0, 0.4])
def test_an_affine_off_by_rounding_or_less_than_half_a_voxel_is_no_fault(off: float, tmp_path: Path) -> None:
    trees.official(tmp_path, (1, 2))
    trees.save_nifti(tmp_path / ED_GT, label(), shifted(off).astype(np.float32))
    load_all(tmp_path)


def test_unknown_voxels_may_be_255(tmp_path: Path) -> None:
    trees.official(tmp_path, (1, 2))
    trees.save_nifti(tmp_path / ED_GT, with_value(label(), 255, np.uint8))
    case = open_cohort(tmp_path).refs[0].load()
    assert case.label is not None
    assert case.label[1, 2, 3] == 255
