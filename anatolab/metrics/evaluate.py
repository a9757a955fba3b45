"""Evaluates a volume, and summarizes many volumes; defines the rules for empty masks.

``mode="strict"`` (the default):

================================== ============= ================= =============== ============
organ                              Dice, Jaccard NSD, boundary IoU HD95, ASSD, ASD counted as
================================== ============= ================= =============== ============
in both                            value         value             value           (nothing)
missed (only in the reference)     0             0                 NaN             ``missed``
invented (only in the prediction)  0             0                 NaN             ``invented``
in neither                         NaN           NaN               NaN             ``absent``
================================== ============= ================= =============== ============

A missed or invented organ has overlap 0. Its distance is undefined, so it is NaN and counted, and a mean distance is
reported with that count. An organ that is correctly absent is left out of every mean and counted, because a Dice of 1
would reward rare organs.

``mode="official"`` repeats the scripts that ACTION and ARCO released, for comparison with printed tables only: an
invented organ gets Dice 1, Jaccard 1 and all distances 0 (as if perfect), an empty prediction gets 0 for everything
(distances as if perfect), also where the reference is empty too. They measure in voxels: pass ``spacing=None``. Their
ASD is directed, ``asd`` here. They have no NSD and no boundary IoU, which stay as in ``strict``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from anatolab.metrics import overlap, surface
from anatolab.types import InputError, check_classes

FLAGS = ("missed", "invented", "absent")
CaseValues = Mapping[str, Mapping[str, float]]  # class -> metric -> value, as evaluate_volume returns it


def evaluate_volume(
    pred: np.ndarray,
    ref: np.ndarray,
    classes: Sequence[str],
    spacing: surface.Spacing,
    *,
    hd95: surface.HausdorffDefinition = "pooled",
    mode: Literal["strict", "official"] = "strict",
    tolerance: float = 2.0,
    case: str = "volume",
) -> dict[str, dict[str, float]]:
    """Returns every metric of every foreground class of one volume or slice, with this module's rule for empty masks.

    Args:
        pred: Class numbers, 2-D or 3-D, integer.
        ref: Class numbers of the same shape; voxels that are 255 or -1 are unknown and left out on both sides.
        classes: Class names by number, background first.
        spacing: Voxel size along each axis in mm, in array order; None measures in voxels.
        hd95: Definition of HD95: ``"pooled"`` (medpy) or ``"max"`` (MONAI).
        mode: Rule for empty masks, ``"strict"`` or ``"official"``.
        tolerance: Tolerance of ``"nsd"``, in mm (voxels if ``spacing`` is None); ``"nsd_1"`` has a tolerance of 1.
        case: Name of the volume in messages.

    Returns:
        ``{class: {"dice", "jaccard", "hd95", "assd", "asd", "nsd", "nsd_1", "boundary_iou", "missed", "invented",
        "absent"}}``, all floats; the last three are 0 or 1. ``asd`` runs from the prediction to the reference.
        ``boundary_iou`` uses rims of 2 pixels within each slice, because slices are often thick, and an organ's first
        and last slice would otherwise be all rim.

    Raises:
        InputError: Two classes have one name, shapes differ, labels outside the class table, a spacing that does not
            fit, an unknown mode.

    Example:
        >>> ref = np.zeros((4, 6, 6), int)
        >>> ref[1:3, 1:4, 1:4], ref[1:3, 4:, 4:] = 1, 2
        >>> pred = np.where(ref == 1, 1, 0)
        >>> values = evaluate_volume(pred, ref, ("background", "LV", "RV"), spacing=(10.0, 1.5, 1.5))
        >>> values["LV"]["dice"], values["RV"]["dice"], values["RV"]["hd95"], values["RV"]["missed"]
        (1.0, 0.0, nan, 1.0)
    """
    check_classes(classes, case)
    if mode not in ("strict", "official"):
        raise InputError(f"mode={mode!r} is unknown; use 'strict' or 'official'.")
    pred, ref = overlap.clean_labels(pred, ref, len(classes), case=case)
    counts = overlap.overlap_counts(pred, ref, len(classes))
    dice, jaccard = overlap.dice(counts), overlap.jaccard(counts)
    rim = (0,) * (pred.ndim - 2) + (2, 2)
    values: dict[str, dict[str, float]] = {}
    for k, name in enumerate(classes[1:], start=1):
        predicted, truth = pred == k, ref == k
        distances = surface.surface_distances(predicted, truth, spacing)
        has_pred, has_ref = counts.pred[k] > 0, counts.ref[k] > 0
        row = {
            "dice": float(dice[k]),
            "jaccard": float(jaccard[k]),
            "hd95": surface.hd95(distances, hd95),
            "assd": surface.assd(distances),
            "asd": surface.asd(distances),
            "nsd": surface.nsd(distances, tolerance),
            "nsd_1": surface.nsd(distances, 1.0),
            "boundary_iou": surface.boundary_iou(predicted, truth, rim),
        }
        if mode == "official" and not (has_pred and has_ref):
            perfect = 1.0 if has_pred else 0.0
            row |= {"dice": perfect, "jaccard": perfect, "hd95": 0.0, "assd": 0.0, "asd": 0.0}
        row |= {
            "missed": float(has_ref and not has_pred),
            "invented": float(has_pred and not has_ref),
            "absent": float(not has_pred and not has_ref),
        }
        values[name] = row
    return values


def summarize(per_case: Mapping[str, CaseValues], patient_of: Mapping[str, str]) -> dict[str, Any]:
    """Computes means over volumes and over patients, per class and over classes, and counts every NaN.

    A mean over classes is the mean of the class means. A NaN (missed, invented or absent organ) is left out of the
    mean of its class and counted in ``counts``. "Over patients" averages the volumes of a patient (ED and ES) first;
    patients are the unit of every interval and test. The mean of no values is NaN.

    Args:
        per_case: Case name to the result of :func:`evaluate_volume`; all cases have the same classes and metrics.
        patient_of: Case name to patient.

    Returns:
        ``{metric: {class: mean over volumes, "mean": over classes}}`` for each metric, and ``"patients"``: the same
        over patients; ``"per_patient"``: ``{metric: {patient: mean over classes}}``, where a missed or invented organ
        makes the patient's distances NaN (a mean over the organs that were found would reward losing a difficult one);
        ``"counts"``: ``"volumes"``, ``"patients"``, ``"missed"``, ``"invented"`` and ``"absent"`` (each ``{class:
        number, "total": number}``) and ``"nan"`` (``{metric: {class: number, "total": number}}``).

    Raises:
        InputError: No cases, cases that differ in classes or metrics, a case without a patient, or a class named
            ``mean`` or ``total``.

    Example:
        >>> row = {"hd95": 2.0, "missed": 0.0, "invented": 0.0, "absent": 0.0}
        >>> dice = {"a_ED": 0.5, "a_ES": 0.7, "b": 0.9}
        >>> cases = {name: {"LV": {"dice": value} | row} for name, value in dice.items()}
        >>> summary = summarize(cases, {"a_ED": "a", "a_ES": "a", "b": "b"})
        >>> round(summary["dice"]["mean"], 3), round(summary["patients"]["dice"]["mean"], 3)
        (0.7, 0.75)
    """
    if not per_case:
        raise InputError("per_case is empty, so there is nothing to summarize; check the split list.")
    first = next(iter(per_case.values()))
    classes = list(first)
    keys = list(first[classes[0]]) if classes else []
    if not classes or {"mean", "total"} & set(classes):
        raise InputError(
            f"summarize needs foreground classes named neither 'mean' nor 'total', not {classes}; rename them."
        )
    for name, values in per_case.items():
        if list(values) != classes or any(set(row) != set(keys) for row in values.values()):
            raise InputError(
                f"{name}: classes or metrics differ from those of the first case; evaluate all cases alike."
            )
        if name not in patient_of:
            raise InputError(f"{name}: patient_of names no patient for this case; add it.")

    metrics = [key for key in keys if key not in FLAGS]
    table = np.array(
        [[[row[m] for m in metrics] for row in v.values()] for v in per_case.values()]
    )  # volume class metric
    owner = np.array([patient_of[name] for name in per_case])
    patients = list(dict.fromkeys(owner.tolist()))
    by_patient = np.stack([_mean(table[owner == p], 0) for p in patients])  # patient class metric

    def means(values: np.ndarray) -> dict[str, dict[str, float]]:
        per_class = _mean(values, 0)
        over = _mean(per_class, 0)
        return {
            m: {c: float(per_class[j, i]) for j, c in enumerate(classes)} | {"mean": float(over[i])}
            for i, m in enumerate(metrics)
        }

    def counted(hits: np.ndarray) -> dict[str, int]:
        return {c: int(n) for c, n in zip(classes, hits.sum(0), strict=True)} | {"total": int(hits.sum())}

    flags = {f: np.array([[row[f] for row in v.values()] for v in per_case.values()]) for f in FLAGS if f in keys}
    lost = np.isnan(table) & ~(flags["absent"] > 0)[:, :, None] if "absent" in flags else np.isnan(table)
    per_patient = _mean(by_patient, 1)
    per_patient[np.stack([lost[owner == p].any((0, 1)) for p in patients])] = np.nan
    return {
        **means(table),
        "patients": means(by_patient),
        "per_patient": {m: dict(zip(patients, per_patient[:, i].tolist(), strict=True)) for i, m in enumerate(metrics)},
        "counts": {
            "volumes": len(per_case),
            "patients": len(patients),
            **{f: counted(hits) for f, hits in flags.items()},
            "nan": {m: counted(np.isnan(table[:, :, i])) for i, m in enumerate(metrics)},
        },
    }


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Returns the mean without NaN entries; NaN, without a warning, if there are no others."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis) / np.maximum(count, 1), np.nan)
