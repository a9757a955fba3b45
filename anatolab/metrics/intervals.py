"""How sure a difference is: intervals, exact tests and verdicts, with the patient as the unit.

Frames (ED, ES) and seeds of a patient are averaged before anything is counted: they are not independent, and counting
them as if they were makes every interval too narrow. Everything is deterministic in its ``seed``.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy.special import ndtr, ndtri

from anatolab.types import InputError

Verdict = Literal["reproduced", "direction only", "inconclusive", "contradicted", "not attempted"]
SeedValues = Mapping[Any, Mapping[str, float]]  # seed -> patient -> value
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
        values: One number a patient, ``(n,)``, finite.
        level: Wanted coverage, in (0, 1).
        seed: Of the resampling.
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
    sum are counted by search, so that no pattern is drawn and 2^n is never laid out. Beyond that, Monte Carlo with the
    observed pattern counted in, ``(hits + 1) / (draws + 1)``.

    Args:
        differences: One number a patient, ``(n,)``, finite.
        draws: Monte Carlo draws beyond 40 patients.
        seed: Of these draws.

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

    It says how much training varies, not how much patients do; it stands beside an interval and does not replace it.

    Raises:
        InputError: No values, or one that is not finite.

    Example:
        >>> seed_spread({0: 0.8, 1: 0.9})["max"]
        0.9
    """
    x = _units(list(values.values()) if isinstance(values, Mapping) else values)
    std = float(x.std(ddof=1)) if len(x) > 1 else float("nan")
    return {"mean": float(x.mean()), "std": std, "min": float(x.min()), "max": float(x.max()), "seeds": float(len(x))}


@dataclass(frozen=True)
class Comparison:
    """The difference ``a - b`` of two methods over the same patients, and how sure it is."""

    difference: float  # mean over patients of a - b, frames and seeds averaged first
    interval: tuple[float, float]  # of that mean, over patients
    p_value: float  # sign-flip test over patients, two-sided
    per_seed: dict[Hashable, float]  # mean difference of each seed: the spread to show beside the interval
    patients: int
    seeds: int
    level: float = 0.95
    left_out: tuple[str, ...] = field(default=())  # patients with a NaN (missed organ) in any run of either method


def compare(a: SeedValues, b: SeedValues, *, level: float = 0.95, seed: int = 0, draws: int = 10_000) -> Comparison:
    """Returns the mean difference ``a - b``, its interval and p-value over patients, with seeds averaged per patient.

    A patient for whom any run of either method has NaN is left out of both and named in ``left_out``: look at that list
    before trusting a difference of distances.

    Args:
        a: Seed to patient to value (frames already averaged, e.g. ``summarize(...)["per_patient"]["dice"]``).
        b: The same for the other method, with the same seeds and patients.
        level: Coverage of the interval.
        seed: Of the resampling.
        draws: Number of resamples.

    Raises:
        InputError: Seeds or patients that differ, or no patient with values on both sides.

    Example:
        >>> a = {0: {"p1": 0.9, "p2": 0.8}, 1: {"p1": 0.8, "p2": 0.9}}
        >>> b = {0: {"p1": 0.7, "p2": 0.7}, 1: {"p1": 0.7, "p2": 0.7}}
        >>> result = compare(a, b)
        >>> round(result.difference, 3), result.patients, result.seeds
        (0.15, 2, 2)
    """
    if not a or a.keys() != b.keys():
        raise InputError(f"Seeds {list(a)} and {list(b)} must be equal and not empty; compare runs of the same seeds.")
    patients = list(a[next(iter(a))])
    for side, runs in (("a", a), ("b", b)):
        for run, values in runs.items():
            if values.keys() != set(patients):
                odd = sorted(values.keys() ^ set(patients))
                raise InputError(
                    f"Run {side}, seed {run}: patients {odd[:3]} are not in every run; compare the same patients."
                )
    table = np.array(
        [[[runs[run][p] for p in patients] for run in a] for runs in (a, b)], dtype=float
    )  # side seed patient
    known = np.isfinite(table).all((0, 1))
    if not known.any():
        raise InputError("No patient has a value in every run of both methods, so there is nothing to compare.")
    difference = (table[0] - table[1])[:, known]  # seed patient
    over_seeds = difference.mean(0)
    return Comparison(
        difference=float(over_seeds.mean()),
        interval=bootstrap_interval(over_seeds, level, seed, draws),
        p_value=sign_flip_test(over_seeds, seed=seed),
        per_seed=dict(zip(a, difference.mean(1).tolist(), strict=True)),
        patients=int(known.sum()),
        seeds=len(a),
        level=level,
        left_out=tuple(p for p, ok in zip(patients, known, strict=True) if not ok),
    )


@dataclass(frozen=True)
class Claim:
    """What a paper says of ``a - b``: which way, and by how much where it prints a number.

    Same metric and unit as the comparison: 0.025, not 2.5, where Dice is a fraction.
    """

    direction: Literal["higher", "lower"]  # a is higher than b, or lower
    size: float | None = None  # printed difference, without sign; None where the paper only says which way
    tolerance: float = 0.0  # by how much our interval may fall short of the printed size and still reach it

    def __post_init__(self) -> None:
        if self.direction not in ("higher", "lower"):
            raise InputError(f"direction must be 'higher' or 'lower', not {self.direction!r}.")
        if not (self.size is None or 0 <= self.size < np.inf) or not 0 <= self.tolerance < np.inf:
            raise InputError(
                f"size={self.size}, tolerance={self.tolerance}: both count without sign; put the sign into direction."
            )


def verdict(comparison: Comparison | None, claim: Claim) -> Verdict:
    """Turns a comparison and a paper's claim into exactly one of five words, by rule.

    In this order:

    1. ``"not attempted"``: there is no comparison.
    2. ``"inconclusive"``: the interval holds 0 (ends included), or there are too few patients to exclude it: with n
       patients the smallest exact p value is 2^(1 - n), so that 5 patients cannot decide at 95 % and 6 can.
    3. ``"contradicted"``: the interval lies on the other side of 0.
    4. ``"reproduced"``: the interval lies on the claimed side, and the printed size lies inside it or is smaller than
       all of it; that is, ``size <= far end + tolerance``. A claim without a size needs the side only.
    5. ``"direction only"``: the interval lies on the claimed side, and all of it falls short of the printed size.

    Swapping the two methods and turning the claim round gives the same word.

    Args:
        comparison: From :func:`compare`; None where a run is missing.
        claim: The paper's claim on the same difference.

    Example:
        >>> ours = Comparison(0.03, (0.01, 0.05), 0.001, {0: 0.03}, patients=20, seeds=1)
        >>> [verdict(ours, Claim("higher", size)) for size in (0.04, 0.08)]
        ['reproduced', 'direction only']
        >>> verdict(ours, Claim("lower")), verdict(None, Claim("lower"))
        ('contradicted', 'not attempted')
    """
    if comparison is None:
        return "not attempted"
    low, high = comparison.interval
    near, far = (low, high) if claim.direction == "higher" else (-high, -low)
    excludes_zero = near > 0 or far < 0  # False for NaN
    if not excludes_zero or 2.0 ** (1 - comparison.patients) > 1 - comparison.level:
        return "inconclusive"
    if far < 0:
        return "contradicted"
    if claim.size is None or claim.size <= far + claim.tolerance:
        return "reproduced"
    return "direction only"


def _units(values: Any) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise InputError(
            "Intervals and tests need at least one unit and finite numbers, one a patient; leave out patients without "
            "a value first, and say how many."
        )
    return x


def _signed_sums(values: np.ndarray) -> np.ndarray:
    """Returns the sums under all 2^n patterns of sign, ``(2**n,)``."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums
