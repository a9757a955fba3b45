"""Small patient folders in the exact public layouts, written here and by nothing of the package."""

from __future__ import annotations

from pathlib import Path

import h5py
import nibabel as nib
import numpy as np

SHAPE = (7, 6, 4)  # x, y, z as NIfTI stores them
AFFINE = np.array([[0.0, -1.5, 0.1, 40.0], [1.25, 0.0, 0.0, -30.0], [0.0, 0.2, 8.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


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
