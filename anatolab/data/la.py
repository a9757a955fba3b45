"""Left atrium, late gadolinium enhanced MR of the 2018 challenge, in the two layouts in which people have it on disk.

Challenge files, also under ``Training Set`` and ``Testing Set``, in NRRD::

    06SR5RBREL16DQ6M8LWS/lgemri.nrrd    the image
    06SR5RBREL16DQ6M8LWS/laendo.nrrd    its annotation, the left atrium's cavity: 0 and 255

UA-MT files, cropped at the heart and scaled to mean 0 and variance 1::

    2018LA_Seg_Training Set/06SR5RBREL16DQ6M8LWS/mri_norm2.h5    3-D ``image`` and ``label``, stored (x, y, z)
    train.list, test.list                                        80 and 20 of these ids

Where both lie in one folder the UA-MT files are read, as training on them is what the papers do. They carry no
spacing; the challenge gives 0.625 mm along each axis for all its volumes, and so does this reader. Distances in mm are
therefore 0.625 times the voxels of the papers' tables.

Reference:
    Xiong et al., A global benchmark of algorithms for segmenting the left atrium from late gadolinium-enhanced cardiac
    magnetic resonance imaging, Medical Image Analysis 2021. Yu et al., Uncertainty-aware self-ensembling model for
    semi-supervised 3D left atrium segmentation, MICCAI 2019.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from anatolab.data import checks, pairs
from anatolab.data.splits import published_lists
from anatolab.types import Case, CaseRef, Cohort, InputError

CLASSES = ("background", "LA")
CODES = {0: 0, 1: 1, 255: 1}
SPACING = (0.625, 0.625, 0.625)
PROVENANCE = {
    "license": "none stated; not redistributed",
    "source": "LA 2018, Xiong et al., Medical Image Analysis 2021",
}

_BASES = (".", "Training Set", "Testing Set", "2018LA_Seg_Training Set")
_LISTS = {"train": "train.list", "test": "test.list"}


def is_uamt(root: Path) -> bool:
    """Whether ``<id>/mri_norm2.h5`` lies in ``root``, or in its ``2018LA_Seg_Training Set``."""
    return bool(_folders(root, "mri_norm2.h5"))


def is_challenge(root: Path) -> bool:
    """Whether ``<id>/lgemri.nrrd`` or ``<id>/laendo.nrrd`` lies in ``root``, or in one of the challenge's folders."""
    return bool(_folders(root, "lgemri.nrrd", "laendo.nrrd"))


def read_uamt(root: Path) -> Cohort:
    """The cohort of UA-MT's LA files; patients on a list whose files are not here are named as absent."""
    folders = _folders(root, "mri_norm2.h5")
    refs = tuple(
        CaseRef(name, "", path, partial(_load_h5, name, path), (path,))
        for name, path in ((folder.name, folder / "mri_norm2.h5") for folder in folders)
    )
    problems: list[str] = []
    published: dict[str, tuple[str, ...]] = {}
    for part, file in _LISTS.items():
        listed = [root / file] if (root / file).is_file() else []
        for names in checks.collect(lambda p: checks.read_list(p, r"\S+", "06SR5RBREL16DQ6M8LWS"), listed, problems):
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
    provenance = {**PROVENANCE, "absent": tuple(absent), "ignored": ()}
    return checks.generated(Cohort("LA", "ua-mt", CLASSES, refs, root, published, provenance, problems=tuple(problems)))


def read_challenge(root: Path) -> Cohort:
    """The cohort of the challenge's NRRD files; patients of ``Testing Set`` may be without annotation."""
    problems: list[str] = []
    images: dict[str, tuple[Path, ...]] = {}
    labels: dict[str, Path] = {}
    ignored = []
    for folder in _folders(root, "lgemri.nrrd", "laendo.nrrd"):
        if folder.name in images or folder.name in labels:
            problems.append(f"{folder}: patient {folder.name} is also in another folder; keep one of the two.")
            continue
        for path in sorted(folder.iterdir()):
            if path.name == "lgemri.nrrd":
                images[folder.name] = (path,)
            elif path.name == "laendo.nrrd":
                labels[folder.name] = path
            else:
                ignored.append(str(path.relative_to(root)))

    def due(patient: str) -> Path | None:
        folder = images[patient][0].parent
        return None if folder.parent.name == "Testing Set" else folder / "laendo.nrrd"

    def load(patient: str, files: tuple[Path, ...], label: Path | None) -> partial[Case]:
        return partial(pairs.load_case, patient, files, label, CLASSES, codes=CODES)

    refs = pairs.refs_of(images, labels, load, due, problems)
    lists = published_lists("la")
    published = lists if set(lists["train"]) <= images.keys() else {}
    provenance = {**PROVENANCE, "ignored": tuple(ignored)}
    return checks.generated(
        Cohort("LA", "challenge", CLASSES, refs, root, published, provenance, problems=tuple(problems))
    )


def _folders(root: Path, *files: str) -> list[Path]:
    """The patient folders that hold one of these files, by name."""
    bases = [root / base for base in _BASES if (root / base).is_dir()]
    return sorted(
        (p for base in bases for p in base.iterdir() if any((p / file).is_file() for file in files)),
        key=lambda p: p.name,
    )


def _load_h5(patient: str, path: Path) -> Case:
    image, label = checks.read_h5(path, "image", "label")
    if image.ndim != 3:
        raise InputError(f"{path}: its image has shape {image.shape} where (x, y, z) is due; write the file again.")
    checks.check_pair(image, label, path, path)
    image, label = (np.ascontiguousarray(array.T) for array in (image, label))
    mask = checks.map_label(label, path, CODES, CLASSES)
    return Case(patient, "", checks.check_image(image, path)[None], mask, SPACING, None, path)
