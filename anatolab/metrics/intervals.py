"""Uncertainty of a mean over patients: the bootstrap interval, the exact sign-flip test, the spread over seeds.

Frames (ED, ES) and seeds of a patient are averaged first: they are not independent, and treating them as independent
makes every interval too narrow. Everything is deterministic in its ``seed``. :mod:`anatolab.metrics.verdicts` compares
two methods over seeds and patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from anatolab.types import InputError

_EXACT_UP_TO = 40  # 2 * 2**20 half sums: below a second


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, level: float = 0.95, seed: int = 0, draws: int = 10_000
) -> tuple[float, float]:
    """Returns the interval of the mean of independent units by the bias-corrected and accelerated (BCa) bootstrap.

    BCa rather than the plain percentile interval: Dice is bounded and skewed to the left (a few failed patients),
    which BCa follows to second order, at no cost for a mean, whose acceleration has a closed form. The interval of
    ``-values`` is the mirrored interval. Like every bootstrap it is somewhat narrow for few units: with 20 units a
    95 % interval covers about 93 % on normal and 90 % on exponential data (percentile interval: 93 % and 88 %).

    Args:
        values: One number per patient, ``(n,)``, finite.
        level: Wanted coverage, in (0, 1).
        seed: Seed of the resampling.
        draws: Number of resamples.

    Returns:
        Lower and upper end; both NaN for a single unit, both the mean if all units are equal.

    Raises:
        InputError: No values, a value that is not finite, or a level outside (0, 1).

    Reference:
        Efron, Better bootstrap confidence intervals, JASA 1987.

    Example:
        >>> low, high = bootstrap_interval([0.81, 0.85, 0.88, 0.79, 0.90, 0.86, 0.84, 0.87])
        >>> bool(0.80 < low < 0.85 < high < 0.89)
        True
    """
    x = _units(values)
    if not 0 < level < 1 or draws < 1:
        raise InputError(f"level={level}, draws={draws}: give a level in (0, 1), e.g. 0.95, and at least one draw.")
    if len(x) < 2:
        return float("nan"), float("nan")
    center = x - x.mean()
    if np.ptp(x) == 0:
        return float(x[0]), float(x[0])
    generator = np.random.default_rng(seed)
    rows = max(1, 2**22 // len(x))  # bounds memory
    means = np.concatenate(
        [
            center[generator.integers(len(x), size=(min(rows, draws - start), len(x)))].mean(1)
            for start in range(0, draws, rows)
        ]
    )
    tie = 1e-9 * np.ptp(x)  # ties count half: mirrored data, mirrored interval
    below = ((means < -tie).mean() + (means <= tie).mean()) / 2
    bias = ndtri(np.clip(below, 0.5 / draws, 1 - 0.5 / draws))
    acceleration = (center**3).sum() / (6 * (center**2).sum() ** 1.5)
    z = bias + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(means, ndtr(bias + z / (1 - acceleration * z))) + x.mean()
    return float(low), float(high)


def sign_flip_test(differences: Sequence[float] | np.ndarray, *, draws: int = 100_000, seed: int = 0) -> float:
    """Returns the two-sided p-value of a zero mean difference over all sign flips, one sign per patient.

    Exact up to 40 patients: the sums of all sign patterns of each half are sorted, and pairs that reach the observed
    sum are counted by binary search, so that the 2^n patterns are never enumerated. Beyond that, Monte Carlo, with the
    observed pattern included: ``(hits + 1) / (draws + 1)``.

    Args:
        differences: One number per patient, ``(n,)``, finite.
        draws: Monte Carlo draws beyond 40 patients.
        seed: Seed of these draws.

    Returns:
        p in (0, 1].

    Raises:
        InputError: No differences, or one that is not finite.

    Reference:
        Fisher, The Design of Experiments, 1935, section 21; Phipson and Smyth, SAGMB 2010, for the +1.

    Example:
        >>> sign_flip_test([0.1, 0.2, 0.3, 0.4, 0.5])  # 2 of 32 patterns
        0.0625
    """
    d = _units(differences)
    reach = abs(d.sum()) - 1e-10 * np.abs(d).sum()  # a tie by another order of summation is a tie
    if len(d) <= _EXACT_UP_TO:
        left, right = _signed_sums(d[::2]), np.sort(_signed_sums(d[1::2]))
        above = len(right) - np.searchsorted(right, reach - left, side="left")
        below = np.searchsorted(right, -reach - left, side="right")
        hits = int(np.minimum(above + below, len(right)).sum())
        return hits / (len(left) * len(right))
    generator = np.random.default_rng(seed)
    rows = max(1, 2**22 // len(d))
    hits = 0
    for start in range(0, draws, rows):
        signs = generator.integers(2, size=(min(rows, draws - start), len(d)), dtype=np.int8) * 2 - 1
        hits += int((np.abs(signs @ d) >= reach).sum())
    return (hits + 1) / (draws + 1)


def seed_spread(values: Mapping[Any, float] | Sequence[float]) -> dict[str, float]:
    """Summarizes a number over seeds: mean, standard deviation (n - 1; NaN for one seed), minimum and maximum.

    It measures how much training varies, not how much patients do, and does not replace an interval over patients.

    Raises:
        InputError: No values, or one that is not finite.

    Example:
        >>> seed_spread({0: 0.8, 1: 0.9})["max"]
        0.9
    """
    x = _units(list(values.values()) if isinstance(values, Mapping) else values)
    std = float(x.std(ddof=1)) if len(x) > 1 else float("nan")
    return {"mean": float(x.mean()), "std": std, "min": float(x.min()), "max": float(x.max()), "seeds": float(len(x))}


def _units(values: Any) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise InputError(
            "Intervals and tests need at least one unit and finite numbers, one per patient; first leave out patients "
            "without a value, and report how many."
        )
    return x


def _signed_sums(values: np.ndarray) -> np.ndarray:
    """Returns the sums under all 2^n patterns of sign, ``(2**n,)``."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums
