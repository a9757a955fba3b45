"""Accuracy per group, and of the worst group."""

from __future__ import annotations

from typing import Any

import numpy as np

from anatolab.types import InputError


def group_accuracy(
    pred: np.ndarray, target: np.ndarray, group: np.ndarray, *, train_counts: np.ndarray | None = None
) -> dict[str, Any]:
    """Returns the accuracy over samples, over groups, weighted as in training, and of the worst group; all in [0, 1].

    Args:
        pred: Predicted class, ``(n,)``.
        target: True class, ``(n,)``.
        group: Group number of each sample, ``(n,)`` integer from 0.
        train_counts: Training samples of each group, ``(groups,)``; None leaves ``train_weighted`` out.

    Returns:
        ``mean`` over samples, ``group_mean`` over the groups present, ``worst`` and ``worst_group`` (its number, the
            first of equals), ``train_weighted`` (the mean for a test set with the group shares of training; NaN if a
            group of training has no sample here), ``per_group`` (list, NaN for a group without samples) and ``counts``.

    Raises:
        InputError: No samples, lengths that differ, negative groups, or ``train_counts`` that do not cover the groups.

    Reference:
        Sagawa et al., Distributionally robust neural networks for group shifts, ICLR 2020 (worst group and adjusted
        mean).

    Example:
        >>> result = group_accuracy(np.array([1, 1, 0, 0]), np.array([1, 1, 1, 0]), np.array([0, 0, 1, 1]),
        ...                         train_counts=np.array([9, 1]))
        >>> result["mean"], result["worst"], result["train_weighted"]
        (0.75, 0.5, 0.95)
    """
    pred, target, group = np.asarray(pred), np.asarray(target), np.asarray(group)
    if not (pred.shape == target.shape == group.shape and pred.ndim == 1 and pred.size):
        raise InputError(
            f"pred {pred.shape}, target {target.shape} and group {group.shape} must be three "
            "arrays of one length (n,), n > 0."
        )
    if group.dtype.kind not in "iu" or group.min() < 0:
        raise InputError("group must hold group numbers from 0; encode group names as integers first.")
    groups = int(group.max()) + 1
    if train_counts is not None:
        weight = np.asarray(train_counts, float)
        if weight.ndim != 1 or len(weight) < groups or (weight < 0).any() or not weight.sum() > 0:
            raise InputError(f"train_counts must hold a count for each of the {groups} groups, not {train_counts}.")
        groups = len(weight)
    correct = pred == target
    counts = np.bincount(group, minlength=groups)
    per_group = np.where(counts > 0, np.bincount(group, correct, groups) / np.maximum(counts, 1), np.nan)
    worst = int(np.nanargmin(per_group))
    result: dict[str, Any] = {
        "mean": float(correct.mean()),
        "group_mean": float(np.nanmean(per_group)),
        "worst": float(per_group[worst]),
        "worst_group": worst,
        "per_group": per_group.tolist(),
        "counts": counts.tolist(),
    }
    if train_counts is not None:
        used = weight > 0
        result["train_weighted"] = float((per_group[used] * weight[used]).sum() / weight.sum())
    return result
