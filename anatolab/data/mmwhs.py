"""MM-WHS, whole hearts in CT and MR, as released in NIfTI.

Files, in the folder itself or in ``ct_train``, ``ct_test``, ``mr_train`` and ``mr_test``::

    ct_train_1001_image.nii.gz    the image
    ct_train_1001_label.nii.gz    its annotation, with the codes below
    mr_test_2001_image.nii.gz     a test image, without annotation

A folder that holds both modalities is one cohort of both; name ``ct_train`` or ``mr_train`` itself for one of them.
The papers scale each volume from its least to its greatest intensity, CT as well, so there is no window.

Reference:
    Zhuang and Shen, Multi-scale patch and multi-modality atlases for whole heart segmentation of MRI, Medical Image
    Analysis 2016; Zhuang et al., Evaluation of algorithms for multi-modality whole heart segmentation, 2019.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from anatolab.data import checks, pairs
from anatolab.data.splits import test_part
from anatolab.types import Case, Cohort

CLASSES = ("background", "LV", "RV", "LA", "RA", "Myo", "AO", "PA")
CODES = {0: 0, 500: 1, 600: 2, 420: 3, 421: 3, 550: 4, 205: 5, 820: 6, 850: 7}  # 421: an error in one released MR file
PROVENANCE = {
    "license": "on registration with the challenge; not redistributed",
    "source": "MM-WHS 2017, Zhuang and Shen, Medical Image Analysis 2016",
}

_BASES = (".", "ct_train", "ct_test", "mr_train", "mr_test")
_FILE = r"((ct|mr)_(train|test)_\d+)_(image|label)"


def is_mmwhs(root: Path) -> bool:
    """Returns whether ``root``, or one of the release's folders, holds files such as ``ct_train_1001_image.nii.gz``."""
    return bool(pairs.scan([root / base for base in _BASES], _FILE, root, [], []))


def read_mmwhs(root: Path) -> Cohort:
    """Returns the cohort of an MM-WHS folder; ``info["modality"]`` of each case is CT or MR."""
    ignored: list[str] = []
    problems: list[str] = []
    images: dict[str, tuple[Path, ...]] = {}
    labels: dict[str, Path] = {}
    for match, path in pairs.scan([root / base for base in _BASES], _FILE, root, ignored, problems).values():
        if match[4] == "image":
            images[match[1]] = (path,)
        else:
            labels[match[1]] = path

    def due(patient: str) -> Path | None:
        path = images[patient][0]
        return path.with_name(path.name.replace("_image", "_label")) if "_train_" in patient else None

    def load(patient: str, files: tuple[Path, ...], label: Path | None) -> partial[Case]:
        info = {"modality": patient[:2].upper()}
        return partial(pairs.load_case, patient, files, label, CLASSES, codes=CODES, info=info)

    refs = pairs.refs_of(images, labels, load, due, problems)
    published = test_part(refs, lambda ref: "_test_" in ref.patient)
    count = {kind.upper(): sum(patient.startswith(kind) for patient in images) for kind in ("ct", "mr")}
    notes: tuple[str, ...] = ()
    if all(count.values()):
        notes = (f"{count['CT']} CT and {count['MR']} MR lie here; name one modality's folder to train on that alone.",)
    provenance = {**PROVENANCE, "ignored": tuple(ignored), "notes": notes}
    return checks.generated(
        Cohort("MM-WHS", "official", CLASSES, refs, root, published, provenance, problems=tuple(problems))
    )
