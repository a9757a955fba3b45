"""Wrong input: one sentence that names the file and the remedy, before any training."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import trees

from anatolab.cli import main
from anatolab.data import check_folder, describe, open_cohort, scaled
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
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


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
    "complex": (
        lambda r: trees.save_nifti(r / ED, image().astype(np.complex64)),
        str(ED),
        "of numbers is expected",
    ),
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
    "ES not a number": (lambda r: edit(r / P1 / "Info.cfg", "12", "late"), str(P1 / "Info.cfg"), "(it has 'late')"),
    "height not a number": (lambda r: edit(r / P1 / "Info.cfg", "184.0", "tall"), str(P1 / "Info.cfg"), "'Height:'"),
    "ED equals ES": (lambda r: edit(r / P1 / "Info.cfg", "12", "1"), str(P1 / "Info.cfg"), "both ED and ES"),
    "a third frame": (
        lambda r: trees.save_nifti(r / P1 / "patient001_frame05.nii.gz", image()),
        "patient001_frame05.nii.gz",
        "neither ED (1) nor ES (12)",
    ),
    "a frame twice": (lambda r: trees.save_nifti(r / str(ED)[:-3], image()), "patient001_frame01.nii", "exists twice"),
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
        "2-D slice is expected",
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


TRAINING = Path("Training Set")
NRRD, NRRD_GT = (TRAINING / trees.LA_IDS[1] / name for name in ("lgemri.nrrd", "laendo.nrrd"))


def cavity(value: int = 255) -> np.ndarray:
    return np.where(label() > 1, value, 0).astype(np.uint8)


def moved_nrrd(path: Path) -> None:
    content = path.read_bytes()
    assert b"(10.0,-20.0,30.0)" in content
    path.write_bytes(content.replace(b"(10.0,-20.0,30.0)", b"(10.0,-25.0,30.0)"))


def flat_nrrd(path: Path) -> None:
    path.write_bytes(b"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 2 2\nencoding: raw\n\n\x00\x01\x02\x03")


LA_NRRD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "image empty": (lambda r: (r / NRRD).write_bytes(b""), str(NRRD), "zero bytes"),
    "label empty": (lambda r: (r / NRRD_GT).write_bytes(b""), str(NRRD_GT), "zero bytes"),
    "truncated": (lambda r: truncate(r / NRRD, 0.7), str(NRRD), "cannot be read as .nrrd"),
    "truncated in its header": (lambda r: truncate(r / NRRD, 0.1), str(NRRD), "cannot be read as .nrrd"),
    "text named .nrrd": (lambda r: (r / NRRD).write_text("see the cloud"), str(NRRD), "cannot be read as .nrrd"),
    "a picture named .nrrd": (lambda r: flat_nrrd(r / NRRD), str(NRRD), "one 3-D volume"),
    "NaN": (lambda r: trees.save_nrrd(r / NRRD, with_value(image(), np.nan)), str(NRRD), "1 of 168 intensities"),
    "constant": (
        lambda r: trees.save_nrrd(r / NRRD, np.ones(trees.SHAPE, np.uint8)),
        str(NRRD),
        "every intensity is 1",
    ),
    "label 3": (lambda r: trees.save_nrrd(r / NRRD_GT, cavity(3)), str(NRRD_GT), "label 3 ("),
    "label of another shape": (lambda r: trees.save_nrrd(r / NRRD_GT, cavity()[1:]), str(NRRD_GT), "(4, 6, 6)"),
    "label moved": (lambda r: moved_nrrd(r / NRRD_GT), str(NRRD_GT), "5 mm away"),
    "label missing": (lambda r: (r / NRRD_GT).unlink(), str(NRRD), "has no annotation"),
    "image missing": (lambda r: (r / NRRD).unlink(), str(NRRD_GT), "no image that it was drawn on"),
    "a patient twice": (
        lambda r: trees.la_challenge(r, trees.LA_IDS[:1], "Testing Set"),
        trees.LA_IDS[0],
        "also in another folder",
    ),
}

LA = Path("2018LA_Seg_Training Set") / trees.LA_IDS[0] / "mri_norm2.h5"


def la_h5(root: Path, **changed: np.ndarray) -> None:
    trees.save_h5(root / LA, **{"image": image().astype(np.float32), "label": cavity(1), **changed})


LA_H5: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "empty": (lambda r: (r / LA).write_bytes(b""), str(LA), "zero bytes"),
    "truncated": (lambda r: truncate(r / LA), str(LA), "cannot be read as HDF5"),
    "no label": (lambda r: trees.save_h5(r / LA, image=h5_image()), str(LA), "no array named 'label'"),
    "a slice": (lambda r: la_h5(r, image=h5_image(), label=h5_label()), str(LA), "(x, y, z) is expected"),
    "shapes differ": (lambda r: la_h5(r, label=cavity(1)[1:]), str(LA), "(6, 6, 4)"),
    "label 2": (lambda r: la_h5(r, label=cavity(2)), str(LA), "label 2 ("),
    "label 0.5": (lambda r: la_h5(r, label=with_value(cavity(1), 0.5)), str(LA), "label 0.5 (1 vox"),
    "label of text": (
        lambda r: la_h5(r, label=np.full(trees.SHAPE, b"x")),
        str(LA),
        "where numbers are expected",
    ),
    "infinite": (lambda r: la_h5(r, image=with_value(image(), np.inf)), str(LA), "1 of 168 intensities"),
    "constant": (lambda r: la_h5(r, image=cavity(0)), str(LA), "every intensity is 0"),
    "empty list": (lambda r: (r / "test.list").write_text("\n"), "test.list", "names no case"),
    "zero-byte list": (lambda r: (r / "train.list").write_bytes(b""), "train.list", "zero bytes"),
    "a patient twice": (
        lambda r: (r / "test.list").write_text(f"{trees.LA_IDS[2]}\n" * 2),
        "test.list",
        "twice",
    ),
    "a patient on both lists": (
        lambda r: (r / "test.list").write_text(f"{trees.LA_IDS[0]}\n"),
        "train.list",
        "which test.list names too",
    ),
    "another data set's lists": (
        lambda r: [(r / file).write_text(f"patient001_{file}\n") for file in ("train.list", "test.list")],
        "train.list",
        "restore the published lists",
    ),
    "a sentence on a list": (lambda r: (r / "test.list").write_text("to do later\n"), "test.list", "'to do later'"),
}

CT, CT_GT = Path("volume-2.nii"), Path("segmentation-2.nii")


def linked_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


LITS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "image empty": (lambda r: (r / CT).write_bytes(b""), str(CT), "zero bytes"),
    "truncated": (lambda r: truncate(r / CT, 0.9), str(CT), "cannot be read as NIfTI"),
    "linked to itself": (lambda r: linked_to_itself(r / CT), str(CT), "cannot be read|this file is missing"),
    "linked to nothing": (
        lambda r: ((r / CT).unlink(), (r / CT).symlink_to(r / "gone.nii")),
        str(CT),
        "this file is missing",
    ),
    "a folder": (lambda r: a_folder(r / CT), str(CT), "is a folder where a file is expected"),
    "label missing": (lambda r: (r / CT_GT).unlink(), str(CT_GT), "has no annotation"),
    "label in capitals": (
        lambda r: (r / CT_GT).rename(r / "Segmentation-2.nii"),
        str(CT_GT),
        "Segmentation-2.nii differs in upper and lower case",
    ),
    "image missing": (lambda r: (r / CT).unlink(), str(CT_GT), "no image that it was drawn on (volume-2)"),
    "there twice": (lambda r: trees.save_nifti(r / "volume-2.nii.gz", image()), "volume-2.nii", "exists twice"),
    "there twice in batches": (lambda r: trees.lits(r, (2,), "Training Batch 2"), "Training Batch 2", "exists twice"),
    "label 3": (lambda r: trees.save_nifti(r / CT_GT, label()), str(CT_GT), "label 3 ("),
    "label moved": (lambda r: trees.save_nifti(r / CT_GT, label() % 3, shifted(9)), str(CT_GT), "9 mm away"),
    "4-D": (lambda r: trees.save_nifti(r / CT, np.stack([image()] * 2, -1)), str(CT), "one 3-D volume"),
    "nothing in the window": (
        lambda r: trees.save_nifti(r / CT, trees.hounsfield(0) + 5000),
        str(CT),
        "constant inside the window -200 to 250",
    ),
}

MR, MR_GT = (Path("mr_train") / f"mr_train_1001_{kind}.nii.gz" for kind in ("image", "label"))


def heart(value: float, kind: type = np.int16) -> np.ndarray:
    return with_value(np.full(trees.SHAPE, 500), value, kind)


MMWHS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "text named .nii.gz": (lambda r: (r / MR).write_text("moved"), str(MR), "cannot be read as NIfTI"),
    "label 7": (lambda r: trees.save_nifti(r / MR_GT, heart(7)), str(MR_GT), "label 7 (1 voxels)"),
    "label 500.5": (lambda r: trees.save_nifti(r / MR_GT, heart(500.5, np.float32)), str(MR_GT), "label 500.5 ("),
    "label NaN": (lambda r: trees.save_nifti(r / MR_GT, heart(np.nan, np.float32)), str(MR_GT), "label nan ("),
    "label -500": (lambda r: trees.save_nifti(r / MR_GT, heart(-500)), str(MR_GT), "label -500 ("),
    "label missing": (lambda r: (r / MR_GT).unlink(), str(MR_GT), "has no annotation"),
    "image missing": (lambda r: (r / MR).unlink(), str(MR_GT), "no image that it was drawn on"),
    "constant": (lambda r: trees.save_nifti(r / MR, heart(500)), str(MR), "every intensity is 500"),
}

IMG, IMG_GT = Path("RawData/Training/img/img0002.nii.gz"), Path("RawData/Training/label/label0002.nii.gz")


def zero_spacing(path: Path) -> None:
    """Zero at the header's pixdim[3], with the affine left whole: slices of no thickness."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[88:92] = bytes(4)
    path.write_bytes(gzip.compress(bytes(raw)))


BTCV: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "label empty": (lambda r: (r / IMG_GT).write_bytes(b""), str(IMG_GT), "zero bytes"),
    "truncated gzip": (lambda r: truncate(r / IMG), str(IMG), "cannot be read as NIfTI"),
    "spacing zero": (lambda r: zero_spacing(r / IMG), str(IMG), "spacing (0.0, 1.5132745504379272, 1.25)"),
    "label 14": (lambda r: trees.save_nifti(r / IMG_GT, heart(14) % 500), str(IMG_GT), "label 14 (1 voxels)"),
    "label of another shape": (lambda r: trees.save_nifti(r / IMG_GT, label()[1:]), str(IMG_GT), "(4, 6, 6)"),
    "label missing": (lambda r: (r / IMG_GT).unlink(), str(IMG_GT), "has no annotation"),
    "image missing": (lambda r: (r / IMG).unlink(), str(IMG_GT), "no image that it was drawn on (case0002)"),
}

NPZ, NPZ_VOLUME = Path("train_npz/case0005_slice002.npz"), Path("test_vol_h5/case0001.npy.h5")


def npz(path: Path, **arrays: np.ndarray) -> None:
    np.savez(path, **{"image": h5_image(), "label": h5_label(kind=np.float32), **arrays})


TRANSUNET: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "slice empty": (lambda r: (r / NPZ).write_bytes(b""), str(NPZ), "zero bytes"),
    "slice truncated": (lambda r: truncate(r / NPZ), str(NPZ), "cannot be read as .npz"),
    "text named .npz": (lambda r: (r / NPZ).write_text("moved"), str(NPZ), "cannot be read as .npz"),
    "an .npy named .npz": (lambda r: np.save((r / NPZ).open("wb"), h5_image()), str(NPZ), "cannot be read as .npz"),
    "pickled": (lambda r: npz(r / NPZ, image=np.array([None, {}])), str(NPZ), "cannot be read as .npz"),
    "no label": (lambda r: np.savez(r / NPZ, image=h5_image()), str(NPZ), "no array named 'label' (it has: image)"),
    "slice is 3-D": (lambda r: npz(r / NPZ, image=h5_image((2, 6, 5))), str(NPZ), "2-D slice is expected"),
    "shapes differ": (lambda r: npz(r / NPZ, label=h5_label((5, 6))), str(NPZ), "(5, 6)"),
    "another size": (lambda r: npz(r / NPZ, image=h5_image((5, 6)), label=h5_label((5, 6))), str(NPZ), "(6, 5)"),
    "label 9": (lambda r: npz(r / NPZ, label=h5_label(value=9)), str(NPZ), "label 9 (30"),
    "Hounsfield units": (lambda r: npz(r / NPZ, image=h5_image() * 300), str(NPZ), "run from 0 to 300"),
    "NaN": (lambda r: npz(r / NPZ, image=h5_image() * np.nan), str(NPZ), "30 of 30 intensities"),
    "a gap": (lambda r: (r / NPZ).unlink(), str(NPZ), "missing (1 of 11"),
    "volume truncated": (lambda r: truncate(r / NPZ_VOLUME), str(NPZ_VOLUME), "cannot be read as HDF5"),
    "volume is 2-D": (
        lambda r: trees.save_h5(r / NPZ_VOLUME, image=h5_image(), label=h5_label()),
        str(NPZ_VOLUME),
        "3-D volume is expected",
    ),
    "a case twice": (
        lambda r: (r / NPZ_VOLUME).rename(r / "test_vol_h5" / "case0005.npy.h5"),
        "case0005.npy.h5",
        "also in train_npz",
    ),
}

OWN_IMAGE, OWN_GT = Path("imagesTr/liver_2.nii.gz"), Path("labelsTr/liver_2.nii.gz")
ABOUT = Path("dataset.json")


def rewrite(root: Path, **changed: object) -> None:
    said = {**json.loads((root / ABOUT).read_text()), **changed}
    (root / ABOUT).write_text(json.dumps({key: value for key, value in said.items() if value is not None}))


def without_images(root: Path) -> None:
    for folder in ("imagesTr", "imagesTs", "labelsTr"):
        shutil.rmtree(root / folder)
    rewrite(root, training=[], test=[], numTraining=0)


OWN: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no dataset.json": (lambda r: (r / ABOUT).unlink(), "dataset.json", "is missing; write one such as"),
    "empty dataset.json": (lambda r: (r / ABOUT).write_bytes(b""), "dataset.json", "zero bytes"),
    "broken dataset.json": (lambda r: truncate(r / ABOUT), "dataset.json", "is not valid JSON"),
    "dataset.json in UTF-16": (
        lambda r: (r / ABOUT).write_bytes((r / ABOUT).read_text().encode("utf-16")),
        "dataset.json",
        "is not valid JSON",
    ),
    "dataset.json a list": (lambda r: (r / ABOUT).write_text("[1]"), "dataset.json", "JSON object"),
    "no labels": (lambda r: rewrite(r, labels=None), "dataset.json", 'no table "labels"'),
    "labels with a gap": (
        lambda r: rewrite(r, labels={"0": "background", "2": "liver"}),
        "dataset.json",
        "number the classes 0, 2",
    ),
    "one class": (lambda r: rewrite(r, labels={"0": "background"}), "dataset.json", "at least two"),
    "a number twice": (lambda r: rewrite(r, labels={"a": 0, "b": 1, "c": 1}), "dataset.json", "give 'c' no class"),
    "a region": (lambda r: rewrite(r, labels={"background": 0, "all": [1, 2]}), "dataset.json", "give 'all' no class"),
    "two classes of one name": (
        lambda r: rewrite(r, labels={"0": "background", "1": "kidney", "2": "Kidney "}),
        "dataset.json",
        "class 1 and class 2 are both named 'Kidney'",
    ),
    "a class without name": (
        lambda r: rewrite(r, labels={"0": "background", "1": " ", "2": "b"}),
        "dataset.json",
        "class 1 has an empty name",
    ),
    "a class named mean": (
        lambda r: rewrite(r, labels={"background": 0, "liver": 1, "Mean": 2}),
        "dataset.json",
        "class 2 is named 'Mean', a name that summaries use",
    ),
    "background twice": (
        lambda r: rewrite(r, labels={"air": 0, "background": 1, "tumor": 2}),
        "dataset.json",
        "class 1 is named 'background'",
    ),
    "a key twice": (
        lambda r: (r / ABOUT).write_text('{"labels": {"background": 0, "liver": 1, "liver": 2}}'),
        "dataset.json",
        "names 'liver' twice",
    ),
    "a path out of the folder": (
        lambda r: rewrite(r, training=["../other/imagesTr/liver_2.nii.gz"]),
        "dataset.json",
        "is not a file inside",
    ),
    "a truth value": (lambda r: rewrite(r, labels={"background": 0, "a": True}), "dataset.json", "give 'a' no class"),
    "no channels": (lambda r: rewrite(r, modality=None), "dataset.json", "no table of channels"),
    "channels from 1": (lambda r: rewrite(r, modality={"1": "CT"}), "dataset.json", "no table of channels"),
    "a window of one number": (lambda r: rewrite(r, window=[250]), "dataset.json", '"window" is [250]'),
    "a window upside down": (lambda r: rewrite(r, window=[250, -200]), "dataset.json", "low and high"),
    "training no list": (lambda r: rewrite(r, training=7), "dataset.json", "'training' is not a list"),
    "training without images": (
        lambda r: rewrite(r, training=[{"label": "a"}]),
        "dataset.json",
        "'training' is not a list",
    ),
    "a case listed twice": (
        lambda r: rewrite(r, training=["imagesTr/liver_2.nii.gz"] * 2),
        "dataset.json",
        "lists liver_2 twice",
    ),
    "a listed case missing": (
        lambda r: ((r / OWN_IMAGE).unlink(), (r / OWN_GT).unlink()),
        "dataset.json",
        "lists liver_2 under 'training'",
    ),
    "numTraining": (lambda r: rewrite(r, numTraining=3), "dataset.json", "numTraining 3, and imagesTr holds 2"),
    "image empty": (lambda r: (r / OWN_IMAGE).write_bytes(b""), str(OWN_IMAGE), "zero bytes"),
    "label missing": (lambda r: (r / OWN_GT).unlink(), str(OWN_GT), "has no annotation"),
    "label in capitals": (
        lambda r: (r / OWN_GT).rename(r / "labelsTr" / "Liver_2.nii.gz"),
        str(OWN_GT),
        "Liver_2.nii.gz differs in upper and lower case",
    ),
    "label without image": (
        lambda r: trees.save_nifti(r / "labelsTr" / "liver_3.nii.gz", label()),
        "liver_3.nii.gz",
        "no image that it was drawn on",
    ),
    "label 7 of 4": (lambda r: trees.save_nifti(r / OWN_GT, heart(7) % 500), str(OWN_GT), "label 7 (1 vox"),
    "image there twice": (
        lambda r: trees.save_nifti(r / "imagesTr" / "liver_2.nii", image()),
        "liver_2",
        "exists twice",
    ),
    "a case in both folders": (
        lambda r: shutil.copy(r / OWN_IMAGE, r / "imagesTs" / OWN_IMAGE.name),
        str(Path("imagesTs") / OWN_IMAGE.name),
        "is in imagesTr too",
    ),
    "4-D of one channel": (
        lambda r: trees.save_nifti(r / OWN_IMAGE, np.stack([image()] * 2, -1)),
        str(OWN_IMAGE),
        "one 3-D volume",
    ),
    "no images": (without_images, "imagesTr", "holds no .nii"),
    "imagesTr a file": (
        lambda r: (shutil.rmtree(r / "imagesTr"), (r / "imagesTr").write_text("moved")),
        "imagesTr",
        "is a file where a folder is expected",
    ),
    "non-ASCII name, truncated": (
        lambda r: (
            without_images(r),
            trees.own(r, ("Größe_1",)),
            truncate(r / "imagesTr" / "Größe_1.nii.gz"),
        ),
        "Größe_1.nii.gz",
        "cannot be read as NIfTI",
    ),
}

FIRST, SECOND = (Path(f"imagesTr/liver_2_000{channel}.nii.gz") for channel in (0, 1))
NNUNET: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "first channel missing": (lambda r: (r / FIRST).unlink(), str(FIRST), "this channel is missing, as 2 are expected"),
    "second channel missing": (
        lambda r: (r / SECOND).unlink(),
        str(SECOND),
        "this channel is missing, as 2 are expected",
    ),
    "a third channel": (
        lambda r: trees.save_nifti(r / "imagesTr" / "liver_2_0002.nii.gz", image()),
        "liver_2_0002.nii.gz",
        "is one too many",
    ),
    "no channel number": (
        lambda r: (r / SECOND).rename(r / "imagesTr" / "liver_2.nii.gz"),
        "liver_2",
        "liver_2.nii.gz: this channel is one too many",
    ),
    "another shape": (lambda r: trees.save_nifti(r / SECOND, image()[1:]), str(SECOND), "(4, 6, 6)"),
    "one channel twice": (
        lambda r: shutil.copy(r / FIRST, r / SECOND),
        str(SECOND),
        "channel 1 holds the same values as channel 0",
    ),
    "moved": (lambda r: trees.save_nifti(r / SECOND, image(), shifted(4)), str(SECOND), "puts the channel up to 4 mm"),
    "constant channel": (lambda r: trees.save_nifti(r / SECOND, heart(500)), str(SECOND), "every intensity is 500"),
    "NaN channel": (lambda r: trees.save_nifti(r / SECOND, with_value(image(), np.nan)), str(SECOND), "1 of 168"),
    "a label in both folders": (
        lambda r: trees.save_nifti(r / "labelsTs" / OWN_GT.name, label()),
        str(Path("labelsTs") / OWN_GT.name),
        "is in labelsTr too",
    ),
}

LAYOUTS: dict[str, tuple[Callable[[Path], Path], dict[str, tuple[Callable[[Path], object], str, str]]]] = {
    "official": (lambda r: trees.official(r, (1, 2)), OFFICIAL),
    "ssl4mis": (trees.ssl4mis, SSL4MIS),
    "la-nrrd": (trees.la_challenge, LA_NRRD),
    "la-h5": (trees.la_uamt, LA_H5),
    "lits": (trees.lits, LITS),
    "mmwhs": (trees.mmwhs, MMWHS),
    "btcv": (trees.btcv, BTCV),
    "transunet": (trees.transunet, TRANSUNET),
    "own": (trees.own, OWN),
    "nnunet": (lambda r: trees.own(r, nnunet=True, channels=2), NNUNET),
}
FAULTS = [(layout, fault) for layout, (_, faults) in LAYOUTS.items() for fault in faults]


def one_sentence(message: str) -> bool:
    """Ends with a stop, has none inside that ends a sentence, and says after a semicolon what to do."""
    return message.endswith(".") and ". " not in message and ";" in message and "\n" not in message


def load_all(root: Path) -> None:
    for case in open_cohort(root):
        assert scaled(case).shape == case.image.shape


@pytest.mark.parametrize(("layout", "fault"), FAULTS, ids=[f"{layout}: {fault}" for layout, fault in FAULTS])
def test_one_sentence_and_the_check_lists_it(
    layout: str, fault: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write, faults = LAYOUTS[layout]
    spoil, named, words = faults[fault]
    load_all(write(tmp_path))
    spoil(tmp_path)
    with pytest.raises(InputError) as error:
        load_all(tmp_path)
    message = str(error.value)
    assert str(tmp_path) in message
    assert named in message
    assert any(word in message for word in words.split("|"))
    assert one_sentence(message), message
    assert capfd.readouterr().err == ""  # no library says more beside it
    report = check_folder(tmp_path, progress=False)
    assert message in report.problems
    assert all(map(one_sentence, report.problems)), report.problems
    assert f"  - {message}" in describe(report).splitlines()


def test_there_are_a_hundred_of_them() -> None:
    assert len(FAULTS) >= 100


@pytest.mark.parametrize(
    ("layout", "fault"),
    [
        ("official", "NaN"),
        ("ssl4mis", "a gap"),
        ("la-nrrd", "truncated"),
        ("la-h5", "a patient on both lists"),
        ("lits", "label 3"),
        ("mmwhs", "label 7"),
        ("btcv", "label missing"),
        ("transunet", "Hounsfield units"),
        ("own", "broken dataset.json"),
        ("nnunet", "first channel missing"),
    ],
)
def test_the_commands_end_before_any_training(
    layout: str, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, faults = LAYOUTS[layout]
    spoil, named, _ = faults[fault]
    data, out = write(tmp_path / "data"), tmp_path / "out"
    spoil(data)
    seeded = ["--split-seed", "0", "--held-out", "0", "--labeled-patients", "1"]
    command = ["train", "--data", str(data), "--out", str(out), "--side", "16", "--accelerator", "cpu", *seeded]
    assert main([*command, "supervised", "--updates", "1"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("anatolab: ")
    assert named in said
    assert one_sentence(said.strip())
    assert not out.exists()
    assert main(["check", str(data)]) == 1
    assert f"  - {said.removeprefix('anatolab: ')}" in capsys.readouterr().out


def test_everything_wrong_is_listed_at_once(tmp_path: Path) -> None:
    trees.lits(tmp_path, (0, 1, 2, 3, 4))
    (tmp_path / "volume-0.nii").write_bytes(b"")
    (tmp_path / "segmentation-1.nii").unlink()
    trees.save_nifti(tmp_path / CT_GT, label())
    (tmp_path / "volume-3.nii").unlink()
    report = check_folder(tmp_path, progress=False)
    assert len(report.problems) == 4
    for number, name in enumerate(("volume-0", "segmentation-1", "segmentation-2", "segmentation-3")):
        assert sum(name in problem for problem in report.problems) == 1, number
    assert (report.cases, report.read) == (4, 2)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads what nobody may read")
def test_an_unreadable_folder(tmp_path: Path) -> None:
    (trees.lits(tmp_path / "data") / "volume-2.nii").chmod(0)
    with pytest.raises(InputError, match=r"volume-2\.nii: cannot be read") as error:
        load_all(tmp_path / "data")
    assert one_sentence(str(error.value))


def test_a_path_that_no_disk_can_hold(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read") as error:
        open_cohort(tmp_path / ("x" * 300))
    assert one_sentence(str(error.value))


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


@pytest.mark.parametrize("layout", ["official", "ssl4mis", "la-nrrd", "lits", "mmwhs", "btcv", "own", "nnunet"])
def test_a_stray_255_is_no_class_where_nothing_declares_it(layout: str, tmp_path: Path) -> None:
    """In LA's NRRD files 255 is the cavity; so 254 is stray there."""
    write, _ = LAYOUTS[layout]
    ref = next(ref for ref in open_cohort(write(tmp_path)).refs if ref.labeled)
    path, stray = ref.files[-1], 254 if layout == "la-nrrd" else 255
    if path.suffix == ".h5":
        trees.save_h5(path, image=h5_image(), label=h5_label(value=stray))
    elif path.suffix == ".nrrd":
        trees.save_nrrd(path, with_value(cavity(), stray, np.uint8))
    else:
        trees.save_nifti(path, with_value(np.asarray(nib.nifti1.load(path).dataobj), stray, np.int16))
    with pytest.raises(InputError, match=rf"label {stray} \(\d+ voxels\) is not one of"):
        open_cohort(tmp_path).of([ref.patient])[0].load()
    assert not check_folder(tmp_path, progress=False).ok


def test_declared_unknown_voxels_are_unknown(tmp_path: Path) -> None:
    trees.own(tmp_path)
    rewrite(tmp_path, labels={"0": "background", "1": "liver", "2": "tumor", "255": "ignore"})
    trees.save_nifti(tmp_path / OWN_GT, with_value(label() % 3, 255, np.uint8))
    case = open_cohort(tmp_path).refs[0].load()
    assert case.label is not None
    assert (case.label[1, 2, 3], (case.label == 255).sum()) == (255, 1)
