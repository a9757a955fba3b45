"""LiTS, abdominal CT with the liver and its tumors, as released in NIfTI.

Files, in the folder itself or in ``Training Batch 1`` and ``Training Batch 2``, compressed or not::

    volume-0.nii          the image, in Hounsfield units
    segmentation-0.nii    its annotation: 0 background, 1 liver, 2 tumor
    test-volume-0.nii     a test image, without annotation

Reference:
    Bilic et al., The liver tumor segmentation benchmark (LiTS), Medical Image Analysis 2023. The window is the one
    that the papers of semi-supervised segmentation clip to.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from anatolab.data import checks, pairs
from anatolab.data.splits import published_lists, test_part
from anatolab.types import Case, Cohort

CLASSES = ("background", "liver", "tumor")
WINDOW = (-200.0, 250.0)  # Hounsfield units
PROVENANCE = {
    "license": "terms of the challenge; not redistributed",
    "source": "LiTS, Bilic et al., Medical Image Analysis 2023",
}

_BASES = (".", "Training Batch 1", "Training Batch 2", "Test Data")
_FILE = r"(test-)?(volume|segmentation)-(\d+)"


def is_lits(root: Path) -> bool:
    """Returns whether ``volume-N`` or ``segmentation-N`` lies in ``root``, or in one of the release's batches."""
    return bool(pairs.scan([root / base for base in _BASES], _FILE, root, [], []))


def read_lits(root: Path) -> Cohort:
    """Returns the cohort of a LiTS folder; test volumes have no annotation, the others have all or none."""
    ignored: list[str] = []
    problems: list[str] = []
    images: dict[str, tuple[Path, ...]] = {}
    labels: dict[str, Path] = {}
    for match, path in pairs.scan([root / base for base in _BASES], _FILE, root, ignored, problems).values():
        patient = f"{match[1] or ''}volume-{match[3]}"
        if match[2] == "volume":
            images[patient] = (path,)
        else:
            labels[patient] = path

    def due(patient: str) -> Path | None:
        path = images[patient][0]
        return path.with_name(path.name.replace("volume", "segmentation")) if patient[0] == "v" else None

    def load(patient: str, files: tuple[Path, ...], label: Path | None) -> partial[Case]:
        return partial(pairs.load_case, patient, files, label, CLASSES, window=WINDOW)

    refs = pairs.refs_of(images, labels, load, due, problems)
    lists = published_lists("lits")
    whole = set(lists["train"]) <= images.keys()
    published = lists if whole else test_part(refs, lambda ref: ref.patient.startswith("test-"))
    provenance = {**PROVENANCE, "ignored": tuple(ignored)}
    return checks.generated(
        Cohort("LiTS", "official", CLASSES, refs, root, published, provenance, WINDOW, tuple(problems))
    )
