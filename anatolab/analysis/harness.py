"""All methods under one budget: every pair compared over the same patients, p values adjusted, and ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from anatolab import records
from anatolab.metrics import Comparison, Ranking, compare, holm, rank_methods

SeedValues = dict[int, dict[str, float]]  # seed -> patient -> value


@dataclass(frozen=True)
class Pair:
    """Two methods over the same patients and seeds."""

    first: str
    second: str
    comparison: Comparison  # first minus second
    adjusted: float  # p value of the sign-flip test, by Holm over all pairs of the table


def per_patient(experiment: str, metric: str = "dice") -> SeedValues:
    """Seed to patient to value; empty where the experiment was not run, NaN where a patient has no value.

    Example:
        >>> per_patient("no-such-experiment")
        {}
    """
    runs = records.load(experiment) if records.exists(experiment) else []
    return {r.seed: records.measured(records.get(r, f"per_patient.{metric}")) for r in runs}


def between(ours: str, against: str, metric: str = "dice") -> Comparison | None:
    """The difference of two experiments over the seeds that both have; None where there is none."""
    a, b = per_patient(ours, metric), per_patient(against, metric)
    shared = sorted(a.keys() & b.keys())
    return compare({s: a[s] for s in shared}, {s: b[s] for s in shared}) if shared else None


def pairwise(experiments: Mapping[str, str], metric: str = "dice") -> list[Pair]:
    """All pairs of the methods that were run, with p values adjusted for their number.

    Args:
        experiments: Name of a method to its experiment, all of one cohort and budget.
        metric: A key of ``per_patient``.
    """
    there = [name for name, e in experiments.items() if records.exists(e)]
    comparisons = [
        (a, b, c) for a, b in combinations(there, 2) if (c := between(experiments[a], experiments[b], metric))
    ]
    adjusted = holm([c.p_value for *_, c in comparisons])
    return [Pair(a, b, c, float(p)) for (a, b, c), p in zip(comparisons, adjusted, strict=True)]


def ranking(experiments: Mapping[str, str], metric: str = "dice", *, higher: bool = True) -> Ranking | None:
    """Ranks of the methods that were run within each patient, seeds averaged; None with fewer than three methods.

    A patient without a value in any run of any method is left out of all.
    """
    runs = {name: values for name, e in experiments.items() if (values := per_patient(e, metric))}
    if len(runs) < 3:
        return None
    patients = list(next(iter(next(iter(runs.values())).values())))
    means = {n: {p: math.fsum(v[p] for v in r.values()) / len(r) for p in patients} for n, r in runs.items()}
    whole = [p for p in patients if all(math.isfinite(m[p]) for m in means.values())]
    return rank_methods({n: {p: m[p] for p in whole} for n, m in means.items()}, higher=higher)
