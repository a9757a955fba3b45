"""Synapse (BTCV), abdominal CT, in its two common layouts.

Challenge files, also under ``RawData/Training`` and ``RawData/Testing``, in Hounsfield units::

    img/img0001.nii.gz        the image
    label/label0001.nii.gz    its annotation, 13 organs; the 8 of TransUNet are kept, the others become background

TransUNet files, clipped to [-125, 275] HU and scaled to [0, 1]::

    train_npz/case0005_slice000.npz    training slices, numbered from 0: 2-D ``image`` and ``label``
    test_vol_h5/case0001.npy.h5        test volumes: 3-D ``image`` and ``label``

Patients are ``case0001`` and so on in both. TransUNet's intensities are converted back to Hounsfield units, so that a
run trained on these files predicts raw CT; values outside the window stay clipped. Its files carry no spacing.

Reference:
    Landman et al., MICCAI multi-atlas labeling beyond the cranial vault, 2015. Chen et al., TransUNet, 2021.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from anatolab.data import checks, pairs
from anatolab.data.arrays import read_h5, read_npz
from anatolab.data.splits import published_lists, test_part
from anatolab.types import Case, CaseRef, Cohort, InputError

CLASSES = (
    "background", "aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach",
)  # fmt: skip
# BTCV: 1 spleen, 2 right kidney, 3 left kidney, 4 gallbladder, 5 esophagus, 6 liver, 7 stomach, 8 aorta, 9 inferior
# vena cava, 10 portal and splenic veins, 11 pancreas, 12 and 13 adrenal glands
CODES = {0: 0, 1: 7, 2: 4, 3: 3, 4: 2, 5: 0, 6: 5, 7: 8, 8: 1, 9: 0, 10: 0, 11: 6, 12: 0, 13: 0}
WINDOW = (-125.0, 275.0)  # Hounsfield units
PROVENANCE = {
    "license": "on registration with Synapse; not redistributed",
    "source": "BTCV, Landman et al., MICCAI 2015",
}

_BASES = (".", "RawData/Training", "RawData/Testing", "Training", "Testing")
_SLICE = re.compile(r"(case\d{4})_slice(\d+)\.npz")
_VOLUME = re.compile(r"(case\d{4})\.npy\.h5")


def is_official(root: Path) -> bool:
    """Returns whether ``img`` or ``label`` of ``root``, or of ``RawData/Training``, holds the challenge's files."""
    return bool(_scan(root, "img", [], []) or _scan(root, "label", [], []))


def read_official(root: Path) -> Cohort:
    """Returns the cohort of the challenge's NIfTI files; those under ``Testing`` may be without annotation."""
    ignored: list[str] = []
    problems: list[str] = []
    images = {f"case{match[1]}": (path,) for match, path in _scan(root, "img", ignored, problems).values()}
    labels = {f"case{match[1]}": path for match, path in _scan(root, "label", ignored, problems).values()}

    def due(patient: str) -> Path | None:
        path = images[patient][0]
        base = path.parents[1]
        return None if base.name == "Testing" else base / "label" / path.name.replace("img", "label")

    def load(patient: str, files: tuple[Path, ...], label: Path | None) -> partial[Case]:
        return partial(pairs.load_case, patient, files, label, CLASSES, codes=CODES, window=WINDOW)

    refs = pairs.refs_of(images, labels, load, due, problems)
    known = {part for base in _BASES for part in (*Path(base).parts, "img", "label")}
    for base in dict.fromkeys([root, *(root / base for base in _BASES), root / "RawData"]):
        ignored += pairs.left_aside(base, root, list(known))
    return _cohort("official", refs, root, ignored, problems)


def is_transunet(root: Path) -> bool:
    """Returns whether ``train_npz`` holds TransUNet's slices, or ``test_vol_h5`` its volumes."""
    folders = ((root / "train_npz", _SLICE), (root / "test_vol_h5", _VOLUME))
    return any(True for folder, pattern in folders for _ in pairs.matching(folder, pattern, root, []))


def read_transunet(root: Path) -> Cohort:
    """Returns the cohort of TransUNet's files; a training volume is the stack of its slices in numerical order."""
    ignored: list[str] = []
    problems: list[str] = []
    slices: dict[str, dict[int, Path]] = {}
    for match, path in pairs.matching(root / "train_npz", _SLICE, root, ignored):
        slices.setdefault(match[1], {})[int(match[2])] = path
    ignored += pairs.left_aside(root, root, ("train_npz", "test_vol_h5"))
    files = {patient: tuple(numbers[n] for n in sorted(numbers)) for patient, numbers in slices.items()}
    for patient, numbers in slices.items():
        if lost := sorted(set(range(max(numbers) + 1)) - numbers.keys()):
            problems.append(
                f"{root / 'train_npz' / f'{patient}_slice{lost[0]:03d}.npz'}: is missing ({len(lost)} of "
                f"{max(numbers) + 1} slices of this volume); copy it there, or remove the whole volume."
            )
    for match, path in pairs.matching(root / "test_vol_h5", _VOLUME, root, ignored):
        if match[1] in files:
            problems.append(f"{path}: patient {match[1]} is also in train_npz; keep one of the two.")
        files[match[1]] = (path,)
    refs = tuple(
        CaseRef(patient, "", paths[0], partial(_load_transunet, patient, paths), paths)
        for patient, paths in sorted(files.items())
    )
    return _cohort("transunet", refs, root, ignored, problems)


def _cohort(layout: str, refs: tuple[CaseRef, ...], root: Path, ignored: list[str], problems: list[str]) -> Cohort:
    lists = published_lists("synapse")
    whole = set(lists["train"]) <= {ref.patient for ref in refs}
    published = lists if whole else test_part(refs, _in_testing)
    provenance = {**PROVENANCE, "ignored": tuple(ignored)}
    return checks.generated(
        Cohort("Synapse", layout, CLASSES, refs, root, published, provenance, WINDOW, tuple(problems))
    )


def _in_testing(ref: CaseRef) -> bool:
    return ref.source.parent.name == "test_vol_h5" or ref.source.parents[1].name == "Testing"


def _scan(root: Path, kind: str, ignored: list[str], problems: list[str]) -> dict[str, tuple[re.Match[str], Path]]:
    return pairs.scan([root / base / kind for base in _BASES], rf"{kind}(\d{{4}})", root, ignored, problems)


def _load_transunet(patient: str, files: tuple[Path, ...]) -> Case:
    stacked, places = files[0].suffix == ".npz", ("train_npz", "test_vol_h5")
    volume, mask = pairs.load_slices(files, _read_scaled, CLASSES, stacked=stacked, places=places)
    low, high = WINDOW
    hounsfield = checks.check_image(volume, files[0]) * np.float32(high - low) + np.float32(low)
    return Case(patient, "", hounsfield[None], mask, None, None, files[0], window=WINDOW)


def _read_scaled(path: Path, *keys: str) -> tuple[np.ndarray, ...]:
    """Returns image and label of one of TransUNet's files, the image in [0, 1] as far as it is finite."""
    image, label = (read_npz if path.suffix == ".npz" else read_h5)(path, *keys)
    if image.size and np.isfinite(image).all() and not (image.min() >= -1e-3 and image.max() <= 1.001):
        raise InputError(
            f"{path}: its intensities run from {image.min():g} to {image.max():g} where TransUNet's files hold 0 "
            "to 1; clip to [-125, 275] HU and scale to [0, 1], or give the raw NIfTI files."
        )
    return image, label
