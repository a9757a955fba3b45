"""Compares recorded experiments: one pair, all pairs of a table with adjusted p-values, and ranks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from anatolab import records
from anatolab.metrics import Comparison, Ranking, compare, holm, rank_methods

SeedValues = dict[int, dict[str, float]]  # seed -> patient -> value


@dataclass(frozen=True)
class Pair:
    """Two methods over the same patients and seeds."""

    first: str
    second: str
    comparison: Comparison  # first minus second
    adjusted: float  # p value by Holm over all pairs of the table


def per_patient(experiment: str, metric: str = "dice") -> SeedValues:
    """Returns seed to patient to value; empty where the experiment was not run, NaN where a patient has no value.

    Example:
        >>> per_patient("no-such-experiment")
        {}
    """
    runs = records.load(experiment) if records.exists(experiment) else []
    return {r.seed: units(r, metric) for r in runs}


def between(
    ours: str | Sequence[str],
    against: str | Sequence[str] | float,
    metric: str = "dice",
    against_metric: str = "",
    *,
    margin: float = 0.0,
    average: bool = False,
) -> Comparison | None:
    """Compares two recorded experiments over the seeds and patients of both; used for every comparison in the book.

    Args:
        ours: An experiment, or two for the difference of the first minus the second.
        against: The same for the other side, or a number.
        metric: A metric of ``per_patient``, or a dotted key of the record's values (see :func:`units`). If the record
            has one number at the key, its seeds are the units.
        against_metric: The metric of the other side, if it differs.
        margin: Added to the difference, if a claim says "comparable".
        average: Average several experiments of a side within seed and unit instead of subtracting them: the mean gain
            over networks, for instance.

    Returns:
        ``ours`` minus ``against``; None if an experiment was not run, or if the two share no seed or no unit with a
        value in every run.

    Raises:
        RecordError: The records of an experiment lack the value.
    """
    a = _side(ours, metric, average=average)
    if isinstance(against, int | float):
        b = {s: dict.fromkeys(values, float(against)) for s, values in a.items()}
    else:
        b = _side(against, against_metric or metric, average=average)
    seeds = sorted(a.keys() & b.keys())
    common = [u for u in (a[seeds[0]] if seeds else ()) if all(_known(side[s], u) for side in (a, b) for s in seeds)]
    if not common:
        return None
    single = isinstance(ours, str) and isinstance(against, str)
    limits = limits_of(metric) if single and limits_of(metric) == limits_of(against_metric or metric) else None
    return compare({s: a[s] for s in seeds}, {s: b[s] for s in seeds}, limits=limits, margin=margin)


def units(record: records.Record, metric: str) -> dict[str, float]:
    """Returns a record's values of a metric by unit; a value that could not be measured is NaN.

    ``dice`` stands for ``per_patient.dice``. A key with ``*`` or ``|`` collects all matching values;
    ``cases.*.LV|RV.dice`` is averaged over the cases and organs of a patient. A key of one number gives one unnamed
    unit.

    Raises:
        RecordError: The record has no value at the key.
    """
    key = metric if "." in metric else f"per_patient.{metric}"
    if "*" not in key and "|" not in key:
        value = records.get(record, key)
        value = value if isinstance(value, Mapping) else {"": value}
    else:
        value = dict(_matches(record.values, key.split("."), ()))
        if not value:
            raise records.RecordError(f"record {record.experiment!r} (seed {record.seed}) has no value {key!r}.")
    values = records.measured(value)
    if not key.startswith("cases.*."):
        return values
    patients = list(records.get(record, "per_patient.dice"))
    of = {p: [v for k, v in values.items() if re.match(rf"{re.escape(p)}([._]|$)", k)] for p in patients}
    return {patient: math.fsum(v) / len(v) for patient, v in of.items() if v}


def limits_of(metric: str) -> tuple[float, float] | None:
    """Returns the smallest and the largest value that a metric can have; None where it is not known.

    Example:
        >>> limits_of("cases.*.LV.dice"), limits_of("assd"), limits_of("parameters.trained")
        ((0.0, 1.0), (0.0, inf), None)
    """
    last = metric.rpartition(".")[2]
    if last in ("dice", "jaccard", "nsd", "nsd_1", "boundary_iou", "worst", "flips", "train_weighted", "group_mean"):
        return 0.0, 1.0
    return (0.0, math.inf) if last in ("hd95", "assd", "asd", "contour") else None


def _side(experiments: str | Sequence[str], metric: str, *, average: bool = False) -> SeedValues:
    names = [experiments] if isinstance(experiments, str) else list(experiments)
    if not all(map(records.exists, names)):
        return {}
    first, *others = ({r.seed: units(r, metric) for r in records.load(name)} for name in names)
    seeds = [s for s in first if all(s in other for other in others)]
    sign, parts = (1, len(names)) if average else (-1, 1)
    return {
        s: {u: (v + sign * math.fsum(other[s][u] for other in others)) / parts for u, v in first[s].items()}
        for s in seeds
    }


def _known(values: Mapping[str, float], unit: str) -> bool:
    return math.isfinite(values.get(unit, 0.0))  # compare() names a unit that is on one side only


def _matches(value: Any, parts: Sequence[str], names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not parts:
        yield ".".join(names), value
    elif isinstance(value, Mapping):
        either = parts[0].split("|")
        for name in value if parts[0] == "*" else [n for n in either if n in value]:
            yield from _matches(value[name], parts[1:], (*names, name) if parts[0] == "*" or either[1:] else names)


def pairwise(experiments: Mapping[str, str], metric: str = "dice") -> list[Pair]:
    """Compares all pairs of recorded methods, with Holm-adjusted p-values.

    Args:
        experiments: Name of a method to its experiment, all of one cohort and budget.
        metric: A key of ``per_patient``.
    """
    there = [name for name, e in experiments.items() if records.exists(e)]
    pairs = [(a, b, c) for a, b in combinations(there, 2) if (c := between(experiments[a], experiments[b], metric))]
    adjusted = holm([c.p_value for *_, c in pairs])
    return [Pair(a, b, c, float(p)) for (a, b, c), p in zip(pairs, adjusted, strict=True)]


def ranking(experiments: Mapping[str, str], metric: str = "dice", *, higher: bool = True) -> Ranking | None:
    """Ranks the recorded methods within each patient, seeds averaged; returns None for fewer than three methods.

    A patient without a value in any run of any method is left out of all.
    """
    runs = {name: values for name, e in experiments.items() if (values := per_patient(e, metric))}
    if len(runs) < 3:
        return None
    patients = list(next(iter(next(iter(runs.values())).values())))
    means = {n: {p: math.fsum(v[p] for v in r.values()) / len(r) for p in patients} for n, r in runs.items()}
    whole = [p for p in patients if all(math.isfinite(m[p]) for m in means.values())]
    return rank_methods({n: {p: m[p] for p in whole} for n, m in means.items()}, higher=higher)
