"""Many methods over the same patients: ranks, the Friedman test, Nemenyi's critical difference, Holm's correction.

Comparing nine methods in pairs takes 36 tests, of which one in twenty is "significant" by chance. Two remedies are
here: p-values adjusted for the number of tests, and one test of all methods, by their ranks in each patient, with the
smallest significant difference of mean ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anatolab.types import InputError


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Returns Holm-adjusted p-values, which control the family-wise error rate without assuming independent tests.

    The smallest p-value is multiplied by the number of tests, the next by one less, and so on; an adjusted value is
    never smaller than that of a smaller p-value.

    Args:
        p_values: ``(n,)``, each in [0, 1].

    Returns:
        ``(n,)`` in the order given, at most 1.

    Raises:
        InputError: A value lies outside [0, 1].

    Reference:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise InputError("Holm's correction takes a list of p-values, each between 0 and 1.")
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(raised, 1)
    return adjusted


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of methods over units, best first, and the smallest significant difference."""

    ranks: dict[str, float]  # 1 is best; ties share their ranks
    p_value: float  # Friedman test of "all methods rank alike"
    critical_difference: float  # Nemenyi: smaller differences of mean ranks are not significant
    units: int
    level: float = 0.95

    def groups(self) -> list[tuple[str, ...]]:
        """Returns the maximal groups of methods whose mean ranks differ by less than the critical difference.

        Example:
            >>> Ranking({"a": 1.0, "b": 1.8, "c": 3.2}, 0.01, 1.5, 20).groups()
            [('a', 'b'), ('b', 'c')]
        """
        names = list(self.ranks)
        maximal: list[tuple[str, ...]] = []
        for i, first in enumerate(names):
            run = [n for n in names[i:] if self.ranks[n] - self.ranks[first] <= self.critical_difference]
            if len(run) > 1 and not (maximal and set(run) <= set(maximal[-1])):
                maximal.append(tuple(run))
        return maximal


def rank_methods(values: Mapping[str, Mapping[str, float]], *, higher: bool = True, level: float = 0.95) -> Ranking:
    r"""Ranks methods within each unit, tests whether any differ, and computes Nemenyi's critical difference.

    The critical difference is :math:`q\sqrt{k(k+1)/(6n)}` with the quantile of the studentized range over
    :math:`\sqrt2` for *k* methods and *n* units. Mean ranks do not say by how much a method is better, and the
    difference of two methods depends on the others in the comparison.

    Args:
        values: Method to patient to value, seeds averaged first; the same patients everywhere, all finite.
        higher: Whether larger is better.
        level: Level of the critical difference.

    Raises:
        InputError: Fewer than three methods or two units, units that differ, or a value that is not finite.

    Reference:
        Demsar, Statistical comparisons of classifiers over multiple data sets, JMLR 2006.

    Example:
        >>> patients = {f"p{i}": i / 10 for i in range(8)}
        >>> shifted = {m: {p: v + s for p, v in patients.items()} for m, s in {"a": 0.2, "b": 0.1, "c": 0.0}.items()}
        >>> ranking = rank_methods(shifted)
        >>> ranking.ranks, round(ranking.critical_difference, 3), ranking.groups()
        ({'a': 1.0, 'b': 2.0, 'c': 3.0}, 1.172, [('a', 'b'), ('b', 'c')])
    """
    from scipy import stats

    units = list(next(iter(values.values()), {}))
    if len(values) < 3 or len(units) < 2 or any(v.keys() != set(units) for v in values.values()):
        raise InputError("Ranks need three methods or more over the same two or more patients.")
    table = np.array([[v[u] for v in values.values()] for u in units], dtype=np.float64)  # unit method
    if not np.isfinite(table).all():
        raise InputError("Ranks need finite values; first leave out patients without a value, and report how many.")
    ranks = stats.rankdata(-table if higher else table, axis=1).mean(0)
    k = len(values)
    quantile = stats.studentized_range.ppf(level, k, np.inf) / np.sqrt(2)
    alike = bool((table == table[:, :1]).all())
    order = np.argsort(ranks, kind="stable")
    names = list(values)
    return Ranking(
        ranks={names[i]: float(ranks[i]) for i in order},
        p_value=1.0 if alike else float(stats.friedmanchisquare(*table.T).pvalue),
        critical_difference=float(quantile * np.sqrt(k * (k + 1) / (6 * len(units)))),
        units=len(units),
        level=level,
    )
