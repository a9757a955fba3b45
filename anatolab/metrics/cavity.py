"""Volumes of a heart chamber and its ejection fraction, from a segmentation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np


def volume(mask: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """Returns the volume of a mask in ml, or in voxels where its spacing is not known.

    Args:
        mask: Any shape; nonzero inside.
        spacing: Voxel size along each axis in mm.

    Example:
        >>> volume(np.ones((10, 10, 10)), (1.0, 1.0, 2.0))
        2.0
    """
    return int(np.count_nonzero(mask)) * (math.prod(spacing) / 1000 if spacing else 1.0)


def ejection_fraction(end_diastolic: float, end_systolic: float) -> float:
    """Returns the share of the blood in a chamber that a beat ejects, from its volumes before and after; NaN if empty.

    Args:
        end_diastolic: Volume of the filled chamber, in any unit.
        end_systolic: Volume after contraction, in the same unit.

    Example:
        >>> ejection_fraction(120.0, 48.0)
        0.6
    """
    return 1 - end_systolic / end_diastolic if end_diastolic else math.nan


def beats(
    predicted: Mapping[str, float], reference: Mapping[str, float], patient_of: Mapping[str, str]
) -> dict[str, dict[str, list[float]]]:
    """Returns end-diastolic and end-systolic volume and ejection fraction of each patient with two scans.

    End-diastole is the scan with the larger reference volume, for prediction and reference alike.

    Args:
        predicted: Scan to volume of the predicted chamber.
        reference: The same of the annotated one.
        patient_of: Scan to patient.

    Returns:
        ``{patient: {"edv", "esv", "ef": [predicted, reference]}}``; patients with one scan are left out.

    Example:
        >>> scans = {"a_1": "a", "a_2": "a", "b_1": "b"}
        >>> beats({"a_1": 60.0, "a_2": 20.0, "b_1": 1.0}, {"a_1": 50.0, "a_2": 25.0, "b_1": 1.0}, scans)["a"]["edv"]
        [60.0, 50.0]
    """
    by_patient: dict[str, list[str]] = {}
    for scan in predicted:
        by_patient.setdefault(patient_of[scan], []).append(scan)
    result = {}
    for patient, scans in by_patient.items():
        if len(scans) != 2:
            continue
        systole, diastole = sorted(scans, key=lambda scan: reference[scan])
        pairs = [(side[diastole], side[systole]) for side in (predicted, reference)]
        result[patient] = {
            "edv": [filled for filled, _ in pairs],
            "esv": [empty for _, empty in pairs],
            "ef": [ejection_fraction(*pair) for pair in pairs],
        }
    return result
