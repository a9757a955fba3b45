"""Left atrium, late gadolinium enhanced MR of the 2018 challenge, in its two common layouts.

Challenge files, also under ``Training Set`` and ``Testing Set``, in NRRD::

    06SR5RBREL16DQ6M8LWS/lgemri.nrrd    the image
    06SR5RBREL16DQ6M8LWS/laendo.nrrd    its annotation, the left atrium's cavity: 0 and 255

UA-MT files, cropped at the heart and scaled to mean 0 and variance 1::

    2018LA_Seg_Training Set/06SR5RBREL16DQ6M8LWS/mri_norm2.h5    3-D ``image`` and ``label``, stored (x, y, z)
    train.list, test.list                                        80 and 20 of these ids

Where both lie in one folder the UA-MT files are read, as training on them is what the papers do. They carry no
spacing unless an attribute ``spacing`` of the file (mm, three numbers along its axes) says so, as in files that were
resampled; the challenge gives 0.625 mm along each axis for all its volumes, and so does this reader. Distances in mm
are therefore 0.625 times the voxels of the papers' tables.

Reference:
    Xiong et al., A global benchmark of algorithms for segmenting the left atrium from late gadolinium-enhanced cardiac
    magnetic resonance imaging, Medical Image Analysis 2021. Yu et al., Uncertainty-aware self-ensembling model for
    semi-supervised 3D left atrium segmentation, MICCAI 2019.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from anatolab.data import checks, pairs
from anatolab.data.arrays import h5_arrays
from anatolab.data.files import collect, entries, read_list
from anatolab.data.splits import present, published_lists, test_part
from anatolab.types import Case, CaseRef, Cohort, InputError

CLASSES = ("background", "LA")
CODES = {0: 0, 1: 1, 255: 1}
SPACING = (0.625, 0.625, 0.625)
PROVENANCE = {
    "license": "none stated; not redistributed",
    "source": "LA 2018, Xiong et al., Medical Image Analysis 2021",
}

_BASES = (".", "Training Set", "Testing Set", "2018LA_Seg_Training Set")
_ID = re.compile(r"[0-9A-Z]{20}")  # a patient of the challenge
_LISTS = {"train": "train.list", "test": "test.list"}


def is_uamt(root: Path) -> bool:
    """Returns whether ``<id>/mri_norm2.h5`` lies in ``root``, or in its ``2018LA_Seg_Training Set``."""
    return bool(_folders(root, "mri_norm2.h5"))


def is_challenge(root: Path) -> bool:
    """Returns whether ``root`` or one of the challenge's folders holds ``<id>/lgemri.nrrd`` or ``laendo.nrrd``."""
    return bool(_folders(root, "lgemri.nrrd", "laendo.nrrd"))


def read_uamt(root: Path) -> Cohort:
    """Returns the cohort of UA-MT's LA files; listed patients without files are reported and left out."""
    problems: list[str] = []
    ignored: list[str] = []
    folders = _folders(root, "mri_norm2.h5")
    refs = tuple(
        CaseRef(name, "", path, partial(_load_h5, name, path), (path,))
        for name, path in ((folder.name, folder / "mri_norm2.h5") for folder in folders)
    )
    for base in _bases(root):
        _aside(base, root, folders, "mri_norm2.h5", problems, ignored)
    first: dict[str, Path] = {}
    problems += [
        f"{folder}: patient {folder.name} is also in {other}; keep one of the two."
        for folder in folders
        if (other := first.setdefault(folder.name, folder)) != folder
    ]
    published: dict[str, tuple[str, ...]] = {}
    for part, file in _LISTS.items():
        listed = [root / file] if (root / file).is_file() else []
        for names in collect(lambda p: read_list(p, r"\S+", "06SR5RBREL16DQ6M8LWS"), listed, problems):
            published[part] = tuple(names)
    here = {ref.patient for ref in refs}
    problems += [
        f"{root / 'train.list'}: names {name}, which test.list names too; take it off one of the two."
        for name in published.get("train", ())
        if name in published.get("test", ())
    ]
    absent = [name for names in published.values() for name in names if name not in here]
    if published and here.isdisjoint(name for names in published.values() for name in names):
        problems.append(f"{root / 'train.list'}: no patient of the lists has files here; restore the published lists.")
    lists = published_lists("la")
    if not published and set(lists["train"]) <= here:
        published = lists
    provenance = {**PROVENANCE, "absent": tuple(absent), "ignored": tuple(ignored)}
    cohort = Cohort("LA", "ua-mt", CLASSES, refs, root, published, provenance, problems=tuple(problems))
    return checks.generated(present(cohort))


def read_challenge(root: Path) -> Cohort:
    """Returns the cohort of the challenge's NRRD files; patients of ``Testing Set`` may be without annotation."""
    problems: list[str] = []
    images: dict[str, tuple[Path, ...]] = {}
    labels: dict[str, Path] = {}
    ignored: list[str] = []
    for folder in _folders(root, "lgemri.nrrd", "laendo.nrrd"):
        if folder.name in images or folder.name in labels:
            problems.append(f"{folder}: patient {folder.name} is also in another folder; keep one of the two.")
            continue
        for path in entries(folder):
            if path.name == "lgemri.nrrd":
                images[folder.name] = (path,)
            elif path.name == "laendo.nrrd":
                labels[folder.name] = path
            else:
                ignored.append(str(path.relative_to(root)))

    for base in _bases(root):
        _aside(base, root, _folders(root, "lgemri.nrrd", "laendo.nrrd"), "lgemri.nrrd", problems, ignored)

    def due(patient: str) -> Path | None:
        folder = images[patient][0].parent
        return None if folder.parent.name == "Testing Set" else folder / "laendo.nrrd"

    def load(patient: str, files: tuple[Path, ...], label: Path | None) -> partial[Case]:
        return partial(pairs.load_case, patient, files, label, CLASSES, codes=CODES)

    refs = pairs.refs_of(images, labels, load, due, problems)
    lists = published_lists("la")
    whole = set(lists["train"]) <= images.keys()
    published = lists if whole else test_part(refs, lambda ref: ref.source.parents[1].name == "Testing Set")
    provenance = {**PROVENANCE, "ignored": tuple(ignored)}
    return checks.generated(
        Cohort("LA", "challenge", CLASSES, refs, root, published, provenance, problems=tuple(problems))
    )


def _bases(root: Path) -> list[Path]:
    return [root / base for base in _BASES if (root / base).is_dir()]


def _folders(root: Path, *files: str) -> list[Path]:
    """Returns the patient folders that hold one of these files, by name; a link that leads nowhere is such a file."""
    return sorted(
        (
            path
            for base in _bases(root)
            for path in entries(base)
            if path.is_dir() and any((path / file).exists() or (path / file).is_symlink() for file in files)
        ),
        key=lambda p: p.name,
    )


def _aside(base: Path, root: Path, folders: list[Path], file: str, problems: list[str], ignored: list[str]) -> None:
    """Lists what is not read: a patient's folder without its file is a problem, all else is ignored."""
    for name in pairs.left_aside(base, root, [*_BASES, *_LISTS.values()]):
        path = root / name
        if path in folders:
            continue
        if path.is_dir() and (base != root or _ID.fullmatch(path.name)):
            problems.append(
                f"{path / file}: this file is missing; copy it there, or remove the folder of this patient."
            )
        else:
            ignored.append(name)


def _load_h5(patient: str, path: Path) -> Case:
    (image, label), spacing = h5_arrays(path, "image", "label")
    if image.ndim != 3:
        raise InputError(
            f"{path}: its image has shape {image.shape} where (x, y, z) is expected; write the file again."
        )
    checks.check_pair(image, label, path, path)
    image, label = (np.ascontiguousarray(array.T) for array in (image, label))
    mask = checks.map_label(label, path, CODES, CLASSES)
    z_y_x = SPACING if spacing is None else spacing[::-1]
    return Case(patient, "", checks.check_image(image, path)[None], mask, z_y_x, None, path)
