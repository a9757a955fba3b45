"""Small patient folders in the exact public layouts, written here and by nothing of the package."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np

SHAPE = (7, 6, 4)  # x, y, z as NIfTI stores them
# Oblique, its axes at right angles: -1.5 * 1.6 / 1.5 + 0.2 * 8 = 0.
AFFINE = np.array([[0.0, -1.5, 1.6 / 1.5, 40.0], [1.25, 0.0, 0.0, -30.0], [0.0, 0.2, 8.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


def volume(seed: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """An image of int16 intensities and a label map with all four classes, in the axis order of ``shape``."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 4, shape).astype(np.uint8)
    label.flat[:4] = range(4)
    return rng.integers(0, 1000, shape).astype(np.int16), label


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.nifti1.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    nib.nifti1.save(image, path)


def save_h5(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array, compression="gzip")


def info(ed: object = 1, es: object = 12, group: str = "DCM") -> str:
    return f"ED: {ed}\nES: {es}\nGroup: {group}\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n"


def official(root: Path, patients: tuple[int, ...] = (1, 2, 3), *, labels: bool = True, base: str = "") -> Path:
    """The official release: ED at frame 1, ES at frame 12, and the 4-D series that nobody reads."""
    for number in patients:
        name = f"patient{number:03d}"
        folder = root / base / name
        folder.mkdir(parents=True)
        (folder / "Info.cfg").write_text(info())
        (folder / f"{name}_4d.nii.gz").write_bytes(b"not read")
        for frame in (1, 12):
            image, label = volume(100 * number + frame)
            save_nifti(folder / f"{name}_frame{frame:02d}.nii.gz", image)
            if labels:
                save_nifti(folder / f"{name}_frame{frame:02d}_gt.nii.gz", label)
    return root


def ssl4mis(root: Path, slices: int = 11) -> Path:
    """SSL4MIS: slices of patients 3 and 1, volumes of patient 2, and a test list whose patient 9 is not there."""
    lists: dict[str, list[str]] = {"train.list": [], "train_slices.list": [], "val.list": [], "test.list": []}
    for number in (3, 1):
        for frame in (1, 2):
            case = f"patient{number:03d}_frame{frame:02d}"
            lists["train.list"].append(case)
            image, label = volume(10 * number + frame, (slices, 6, 5))
            for i in range(slices):
                name = f"{case}_slice_{i + 1}"
                lists["train_slices.list"].append(name)
                save_h5(root / "data" / "slices" / f"{name}.h5", image=image[i] / np.float32(1000), label=label[i])
    for frame in (1, 2):
        case = f"patient002_frame{frame:02d}"
        lists["val.list"].append(case)
        lists["test.list"].append(f"patient009_frame{frame:02d}")
        image, label = volume(20 + frame, (5, 6, 5))
        save_h5(root / "data" / f"{case}.h5", image=image / np.float32(1000), label=label)
    for file, names in lists.items():
        (root / file).write_text("\n".join(names) + "\n")
    return root


# --- left atrium, liver, whole heart, abdomen, anyone's own -------------------------------------------------------

LA_IDS = ("06SR5RBREL16DQ6M8LWS", "0RZDK210BSMWAA6467LU", "1D7CUD1955YZPGK8XHJX")
NRRD_DIRECTIONS = ((0.0, 0.6, 0.0), (-0.7, 0.0, 0.0), (0.0, 0.0, 2.5))  # LPS mm a step of x, y, z
NRRD_ORIGIN = (10.0, -20.0, 30.0)  # LPS mm


def hounsfield(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Intensities of a CT, air and bone among them."""
    image = np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)
    image.flat[:2] = (-1000, 1500)
    return image


def codes(seed: int, values: Sequence[int], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A label map that holds each of these values."""
    label = np.random.default_rng(seed).choice(np.array(values), shape)
    label.flat[: len(values)] = values
    return label.astype(np.int16)


def save_nrrd(path: Path, array: np.ndarray) -> None:
    """An NRRD file as the format's definition has it: a text header, an empty line, the values with x fastest."""
    kind = {"uint8": "unsigned char", "int16": "short", "float32": "float"}[array.dtype.name]
    path.parent.mkdir(parents=True, exist_ok=True)
    header = (
        f"NRRD0004\ntype: {kind}\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {' '.join(map(str, array.shape))}\n"
        f"space directions: {' '.join('(' + ','.join(map(str, step)) + ')' for step in NRRD_DIRECTIONS)}\n"
        "kinds: domain domain domain\nendian: little\nencoding: gzip\n"
        f"space origin: ({','.join(map(str, NRRD_ORIGIN))})\n\n"
    )
    path.write_bytes(header.encode() + gzip.compress(array.tobytes(order="F")))


def la_challenge(root: Path, ids: Sequence[str] = LA_IDS, base: str = "Training Set") -> Path:
    """The 2018 challenge: a folder a patient with image and cavity, the latter 0 and 255."""
    for number, name in enumerate(ids):
        save_nrrd(root / base / name / "lgemri.nrrd", volume(number)[0])
        save_nrrd(root / base / name / "laendo.nrrd", codes(number, (0, 255)).astype(np.uint8))
    return root


def la_uamt(root: Path, ids: Sequence[str] = LA_IDS) -> Path:
    """UA-MT: two patients to train on, one to test on, and one on each list that is not there."""
    for number, name in enumerate(ids):
        image = np.random.default_rng(number).normal(size=SHAPE).astype(np.float32)
        label = codes(number, (0, 1)).astype(np.uint8)
        save_h5(root / "2018LA_Seg_Training Set" / name / "mri_norm2.h5", image=image, label=label)
    (root / "train.list").write_text("\n".join([ids[1], ids[0], "1GU15S0GJ6PFNARO469W"]) + "\n")
    (root / "test.list").write_text("\n".join([ids[2], "ZQYVEK5SKC3GHD2QVB8K"]))
    return root


def lits(root: Path, numbers: Sequence[int] = (0, 2, 10), base: str = "", ending: str = ".nii") -> Path:
    """LiTS as released: pairs told by their number."""
    for number in numbers:
        save_nifti(root / base / f"volume-{number}{ending}", hounsfield(number))
        save_nifti(root / base / f"segmentation-{number}{ending}", codes(number, (0, 1, 2)).astype(np.uint8))
    return root


def mmwhs(root: Path, cases: Sequence[str] = ("ct_train_1001", "ct_train_1002", "mr_train_1001")) -> Path:
    """MM-WHS as released, a folder a modality and part; training cases with their codes, test cases bare."""
    for number, case in enumerate(cases):
        folder = root / case[:-5]
        save_nifti(folder / f"{case}_image.nii.gz", volume(number)[0])
        if "train" in case:
            label = codes(number, (0, 500, 600, 420, 550, 205, 820, 850))
            save_nifti(folder / f"{case}_label.nii.gz", label)
    return root


def btcv(root: Path, numbers: Sequence[int] = (1, 2, 5), base: str = "RawData/Training", labels: bool = True) -> Path:
    """The challenge's files: 13 organs."""
    for number in numbers:
        save_nifti(root / base / "img" / f"img{number:04d}.nii.gz", hounsfield(number))
        if labels:
            save_nifti(root / base / "label" / f"label{number:04d}.nii.gz", codes(number, range(14)))
    return root


def transunet(root: Path, slices: int = 11) -> Path:
    """TransUNet: slices of cases 5 and 6, the volume of case 1."""
    for number in (5, 6):
        image, label = volume(number, (slices, 6, 5))
        for i in range(slices):
            path = root / "train_npz" / f"case{number:04d}_slice{i:03d}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, image=image[i] / np.float32(999), label=label[i].astype(np.float32))
    image, label = volume(1, (5, 6, 5))
    save_h5(root / "test_vol_h5" / "case0001.npy.h5", image=image / np.float32(999), label=label.astype(np.float32))
    return root


def own(root: Path, names: Sequence[str] = ("liver_2", "liver_10"), *, nnunet: bool = False, channels: int = 1) -> Path:
    """A Decathlon folder, or an nnU-Net one; with one more image that has no annotation, in imagesTs."""
    for number, name in enumerate([*names, "liver_99"]):
        folder = root / ("imagesTs" if name == "liver_99" else "imagesTr")
        images = [hounsfield(10 * number + channel) for channel in range(channels)]
        if nnunet:
            for channel, image in enumerate(images):
                save_nifti(folder / f"{name}_{channel:04d}.nii.gz", image)
        else:
            save_nifti(folder / f"{name}.nii.gz", np.stack(images, -1) if channels > 1 else images[0])
        if name != "liver_99":
            save_nifti(root / "labelsTr" / f"{name}.nii.gz", codes(number, (0, 1, 2)).astype(np.uint8))
    about: dict[str, Any] = {"name": "Livers", "numTraining": len(names), "licence": "CC-BY-SA 4.0"}
    if nnunet:
        about |= {"channel_names": {str(k): f"sequence {k}" for k in range(channels)}, "file_ending": ".nii.gz"}
        about |= {"labels": {"background": 0, "liver": 1, "tumor": 2}}
    else:
        about |= {"modality": {str(k): f"sequence {k}" for k in range(channels)}, "reference": "someone, 2020"}
        about |= {"labels": {"0": "background", "1": "liver", "2": "tumor"}}
        paths = [(f"./imagesTr/{name}.nii.gz", f"./labelsTr/{name}.nii.gz") for name in names]
        about |= {"training": [{"image": image, "label": label} for image, label in paths]}
        about |= {"test": ["./imagesTs/liver_99.nii.gz"]}
    (root / "dataset.json").write_text(json.dumps(about))
    return root
