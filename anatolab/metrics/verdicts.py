"""Verdicts: the difference of two methods over seeds and patients, whether it decides a claim, and in which setting.

A verdict has two parts. The *outcome* says what was measured here: agrees, opposite, undecided, no power, not run. The
*scope* says how far the measurement is from what the claim is about. The words "reproduced" and "contradicted" are used
only in the claim's own setting, or for mathematics.

The rule is symmetric: swapping the methods and reversing the claim gives the same outcome.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from anatolab.metrics.ranks import holm
from anatolab.types import InputError

Direction = Literal["higher", "lower"]
Outcome = Literal["agrees", "opposite", "undecided", "no power", "not run"]
Scope = Literal["own setting", "stronger base", "reduced", "stand-in data", "mathematics"]
SeedValues = Mapping[Any, Mapping[str, float]]  # seed -> patient -> value
LEVEL = 0.05  # of false decisions, over all claims of one paper
SEEDS = 3  # common seeds below which nothing is decided
NEAR = 0.005  # of a limit: what prints as 0.00 or 1.00
TOLERANCE = 0.05  # Dice by which a bound may miss the printed one


@dataclass(frozen=True)
class Comparison:
    """The difference ``a - b`` of two methods over the same seeds and patients, with its uncertainty."""

    difference: float  # mean over seeds and patients of a - b, frames averaged first
    interval: tuple[float, float]  # of that mean, over seeds and patients
    p_value: float  # two-sided
    per_seed: dict[Hashable, float]  # mean difference of each seed
    patients: int
    seeds: int
    level: float = 0.95  # of the interval
    left_out: tuple[str, ...] = field(default=())  # patients with a NaN (missed organ) in any run of either method
    smallest_p: float = 0.0  # that this many seeds and patients can attain
    saturated: bool = False  # one side lies at a floor or a ceiling in every unit
    sampled: bool = True  # False: computed or counted, without sampling error


def compare(
    a: SeedValues,
    b: SeedValues,
    *,
    level: float = 0.95,
    limits: tuple[float, float] | None = None,
    margin: float = 0.0,
) -> Comparison:
    """Compares two methods over the seeds and patients of both: seeds and patients are crossed random effects.

    The squared standard error of the mean difference is the sum of two parts: that of the seed means over seeds, and
    that of the patient means over patients. It is the closed form of a bootstrap over seeds plus a bootstrap over
    patients, each times n / (n - 1). Residual variance is counted twice, as in the multiway bootstrap. The quantile
    lies between those of t with (seeds - 1) and (patients - 1) degrees of freedom, weighted by the two parts (Cochran
    and Cox). See :func:`crossed_test`.

    With a single seed only patients count, with a single patient only seeds: the other effect is then unknown.

    Args:
        a: Seed to patient to value (frames already averaged, e.g. ``summarize(...)["per_patient"]["dice"]``).
        b: The same for the other method, with the same seeds and patients.
        level: Coverage of the interval.
        limits: Smallest and largest possible value, such as (0, 1) of Dice; None where there is none.
        margin: Added to the difference: "at most 0.01 worse" is "higher" with a margin of 0.01.

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
        raise InputError(
            f"Seeds {list(a)} and {list(b)} must be the same, at least one; compare runs of the same seeds."
        )
    patients = list(a[next(iter(a))])
    for side, runs in (("a", a), ("b", b)):
        for run, values in runs.items():
            if values.keys() != set(patients):
                odd = sorted(values.keys() ^ set(patients))
                raise InputError(
                    f"Run {side}, seed {run}: patients {odd[:3]} are not in every run; compare the same patients."
                )
    table = np.array([[[runs[run][p] for p in patients] for run in a] for runs in (a, b)], dtype=float)
    known = np.isfinite(table).all((0, 1))  # table: side seed patient
    if not known.any():
        raise InputError("No patient has a value in every run of both methods, so there is nothing to compare.")
    if not 0 < level < 1:
        raise InputError(f"level must lie in (0, 1), such as 0.95, not {level}.")
    table = table[:, :, known]
    difference = table[0] - table[1] + margin
    seeds, units = difference.shape
    mean, p_value, quantile = crossed_test(difference, 1 - level)
    near = [np.abs(table - limit) <= NEAR for limit in limits or () if np.isfinite(limit)]
    return Comparison(
        difference=float(mean),
        interval=(float(mean - quantile), float(mean + quantile)),
        p_value=float(p_value),
        per_seed=dict(zip(a, difference.mean(1).tolist(), strict=True)),
        patients=units,
        seeds=seeds,
        level=level,
        left_out=tuple(p for p, ok in zip(patients, known, strict=True) if not ok),
        smallest_p=smallest_p(seeds, units),
        saturated=any(bool(n.all((1, 2)).any()) for n in near),
    )


def exactly(difference: float, units: int = 1) -> Comparison:
    """Returns the comparison of two computed or counted numbers, whose interval is the difference itself."""
    return Comparison(difference, (difference, difference), 0.0, {0: difference}, units, 1, sampled=False)


def crossed_test(differences: np.ndarray, alpha: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tests the mean of tables of differences, seeds by patients, against 0.

    Its rate of false decisions was measured on 20,000 simulated tables for each number of seeds (3 to 10) and patients
    (6 to 20); ``studies/verdicts.py`` repeats it with the variance components of the records. It is at most 5.0 % at
    alpha = .05 and 1.1 % at alpha = .01, whichever effect is larger. With residuals as large as in the records of three
    labeled patients it is 1 to 3 %, because residuals are counted twice. The plain two-way percentile bootstrap decides
    6 to 24 % with three seeds; Satterthwaite's degrees of freedom up to 7 % (3 % at alpha = .01, which Holm's
    correction needs). If patients are strongly skewed (exponential) and seeds do not differ, it decides up to 9 %, like
    every test of a mean.

    Args:
        differences: ``(..., seeds, patients)``, finite; one of the two may be 1.
        alpha: Level of the quantile that is returned.

    Returns:
        Mean ``(...)``, two-sided p value ``(...)``, and half the width of the interval of level 1 - alpha ``(...)``;
        p is 1 and the width NaN for a table of one cell.

    Reference:
        Cochran and Cox, Experimental Designs, 1957, section 4.14; Owen, The pigeonhole bootstrap, Annals of Applied
        Statistics 2007.

    Example:
        >>> mean, p, half = crossed_test(np.array([[0.1, 0.2, 0.3]]))  # one seed: the t test over patients
        >>> round(float(p), 4)
        0.0742
    """
    d = np.asarray(differences, dtype=np.float64)
    seeds, patients = d.shape[-2:]
    mean = d.mean((-2, -1))
    parts = [(axis, n) for axis, n in ((-1, seeds), (-2, patients)) if n > 1]
    if not parts:
        return mean, np.ones_like(mean), np.full_like(mean, np.nan)
    variances = np.stack([d.mean(axis).var(-1, ddof=1) / n for axis, n in parts])  # part ...
    freedom = np.array([n - 1.0 for _, n in parts]).reshape(-1, *[1] * mean.ndim)
    total = variances.sum(0)
    error = np.sqrt(total)
    weights = variances / np.where(total > 0, total, 1)

    def quantile(tail: np.ndarray | float) -> np.ndarray:
        return (weights * -stdtrit(freedom, np.asarray(tail) / 2)).sum(0)

    constant = error <= 1e-12 * np.abs(mean)  # every unit differs by the same
    t = np.abs(mean) / np.where(constant, 1, error)
    low, high = np.full_like(mean, np.log(1e-100)), np.zeros_like(mean)
    for _ in range(60):  # bisection of log p
        middle = (low + high) / 2
        above = quantile(np.exp(middle)) > t
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    p = np.where(constant, np.where(mean == 0, 1.0, 0.0), np.exp(high))
    return mean, np.clip(p, smallest_p(seeds, patients), 1.0), quantile(alpha) * error


def smallest_p(seeds: int, patients: int) -> float:
    """Returns the smallest two-sided p value that resampling this many seeds and patients can attain.

    It is twice the probability of the most extreme resample, in which every draw is the same seed and patient.

    Example:
        >>> round(smallest_p(3, 1), 3), smallest_p(1, 1)
        (0.074, 1.0)
    """
    return min(1.0, 2.0 * float(seeds) ** -seeds * float(patients) ** -patients)


def components(differences: np.ndarray) -> tuple[float, float, float]:
    """Returns the standard deviations between seeds, between patients, and of what neither explains.

    Args:
        differences: ``(seeds, patients)``, at least two of each; in the unit of the values. A negative estimate is 0.

    Example:
        >>> [round(c, 3) for c in components(np.array([[0.0, 1.0], [2.0, 3.0]]))]
        [1.414, 0.707, 0.0]
    """
    d = np.asarray(differences, dtype=np.float64)
    seeds, patients = d.shape
    residual = d - d.mean(1, keepdims=True) - d.mean(0) + d.mean()
    rest = (residual**2).sum() / ((seeds - 1) * (patients - 1))
    between = (d.mean(1).var(ddof=1) - rest / patients, d.mean(0).var(ddof=1) - rest / seeds)
    return (*(float(max(0.0, v) ** 0.5) for v in between), float(rest**0.5))  # type: ignore[return-value]


@dataclass(frozen=True)
class Decision:
    """The outcome of one claim among those of its paper, and the reason where nothing is decided."""

    outcome: Outcome
    adjusted: float | None  # p value by Holm over the claims of the paper; None where nothing is tested
    reason: str = ""


def decide(claims: Sequence[tuple[Comparison | None, Direction]], *, level: float = LEVEL) -> list[Decision]:
    """Decides the claims of one paper, one primary comparison per claim, with Holm's correction over them.

    In this order, a claim is *not run* without a comparison; *agrees* or *opposite* by its sign if the comparison is
    not sampled; *undecided* below three common seeds; *no power* if one side lies at a floor or ceiling in every unit,
    or if even the smallest attainable p-value would not pass the correction; *agrees* or *opposite* if the 95 %
    interval excludes 0 and the adjusted p-value is at most ``level``; else *undecided*. Claims that are not run count
    in the correction, with p = 1, because the claims were named before the runs.

    Args:
        claims: For each claim the comparison ``a - b`` and the claimed sign.
        level: Family-wise error rate over the claims.

    Example:
        >>> far = Comparison(0.03, (0.01, 0.05), 0.001, {}, patients=20, seeds=3)
        >>> [d.outcome for d in decide([(far, "higher"), (far, "lower"), (None, "higher")])]
        ['agrees', 'opposite', 'not run']
    """
    for _, direction in claims:
        if direction not in ("higher", "lower"):
            raise InputError(f"direction must be 'higher' or 'lower', not {direction!r}.")
    testable = [c is not None and c.sampled and c.seeds >= SEEDS and not c.saturated for c, _ in claims]
    p = [c.p_value if ok and c else 1.0 for (c, _), ok in zip(claims, testable, strict=True) if not _exact(c)]
    places = np.cumsum([not _exact(c) for c, _ in claims]) - 1  # of a claim among the sampled ones
    adjusted = holm(p) if p else np.empty(0)
    made = []
    for (comparison, direction), place, ok in zip(claims, places, testable, strict=True):
        if comparison is None:
            made.append(Decision("not run", None))
        elif not comparison.sampled:
            made.append(Decision(_side(comparison, direction), None))
        elif comparison.seeds < SEEDS:
            count = ("one seed", "two seeds")[comparison.seeds - 1]
            made.append(Decision("undecided", None, count))
        elif not ok:
            made.append(Decision("no power", None, "at a floor or a ceiling"))
        else:
            best = holm([comparison.smallest_p if i == place else v for i, v in enumerate(p)])[place]
            low, high = comparison.interval
            if best > level:
                made.append(Decision("no power", float(adjusted[place]), "too few units"))
            elif adjusted[place] <= level and (low > 0 or high < 0):
                made.append(Decision(_side(comparison, direction), float(adjusted[place])))
            else:
                made.append(Decision("undecided", float(adjusted[place])))
    return made


def _exact(comparison: Comparison | None) -> bool:
    return comparison is not None and not comparison.sampled


def _side(comparison: Comparison, direction: Direction) -> Outcome:
    if comparison.difference == 0:
        return "opposite"  # claimed: strictly more or less
    return "agrees" if (comparison.difference > 0) == (direction == "higher") else "opposite"


@dataclass(frozen=True)
class Setting:
    """The setting of a run or of a claim; None stands for what a claim does not specify."""

    data: str  # name of the data set
    labeled: int | None = None  # patients; 0: all
    side: int | None = None  # pixels
    updates: int | None = None
    network: str | None = None
    profile: str | None = None  # of the method's settings


@dataclass(frozen=True)
class Control:
    """The positive control: Dice of plain supervision with all labels and with the claim's, here and as printed."""

    all_labels: float | None  # None: not run
    printed_all: float | None  # None: not known first-hand
    supervised: float | None  # with as many labels as the claim
    printed_supervised: float | None


def scope_of(claim: Setting, run: Setting, control: Control | None = None) -> Scope:
    """Returns how far a run is from what a claim is about.

    *Stand-in data*: the data set differs. *Reduced*: a supervised bound is more than 0.05 Dice below the printed one,
    whatever the other bound is. *Stronger base*: one is more than 0.05 above it, so the claim is tested on a better
    baseline than the paper's. *Own setting*: labels, network and profile are the claim's, images and updates are at
    least as many, and both bounds are known. Else *reduced*.

    Example:
        >>> claim = Setting("acdc", 3)
        >>> scope_of(claim, Setting("hearts", 3)), scope_of(claim, Setting("acdc", 3))
        ('stand-in data', 'reduced')
        >>> scope_of(claim, Setting("acdc", 3), Control(0.90, 0.915, 0.79, 0.517))
        'stronger base'
    """
    if run.data != claim.data:
        return "stand-in data"
    over = _gap(control.all_labels, control.printed_all) if control else None
    beside = _gap(control.supervised, control.printed_supervised) if control else None
    gaps = [gap for gap in (over, beside) if gap is not None]
    if any(gap < -TOLERANCE for gap in gaps):
        return "reduced"
    if any(gap > TOLERANCE for gap in gaps):
        return "stronger base"
    same = all(
        wanted is None or wanted == made
        for wanted, made in (
            (claim.labeled, run.labeled),
            (claim.network, run.network),
            (claim.profile, run.profile),
        )
    )
    enough = all(
        wanted is None or (made or 0) >= wanted
        for wanted, made in ((claim.side, run.side), (claim.updates, run.updates))
    )
    return "own setting" if len(gaps) == 2 and same and enough else "reduced"


def _gap(measured: float | None, printed: float | None) -> float | None:
    return None if measured is None or printed is None else round(measured - printed, 6)


def phrase(decision: Decision, scope: Scope) -> str:
    """Returns the words that a page prints: outcome and scope, or "reproduced" and "contradicted" where they apply.

    Example:
        >>> phrase(Decision("agrees", 0.01), "stronger base"), phrase(Decision("opposite", 0.01), "mathematics")
        ('agrees on a stronger base', 'contradicted')
        >>> phrase(Decision("undecided", 1.0, "one seed"), "reduced")
        'undecided (one seed)'
    """
    if decision.outcome not in ("agrees", "opposite"):
        return decision.outcome + (f" ({decision.reason})" if decision.reason else "")
    if scope in ("own setting", "mathematics"):
        return "reproduced" if decision.outcome == "agrees" else "contradicted"
    return f"{decision.outcome} {WHERE[scope]}"


WHERE: dict[str, str] = {
    "stronger base": "on a stronger base",
    "reduced": "at reduced scope",
    "stand-in data": "on stand-in data",
}
