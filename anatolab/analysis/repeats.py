"""What the rule of verdicts decides where nothing differs: one method against itself over other seeds (A/A)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from anatolab import records
from anatolab.metrics.verdicts import LEVEL, SEEDS, compare, decide
from anatolab.types import InputError

SeedValues = Mapping[int, Mapping[str, float]]  # seed -> patient -> value
PAIRS = 100  # that could decide, fewer of which say too little about a rate of 5 %


@dataclass(frozen=True)
class Rate:
    """How many pairs were decided, with the 95 % interval of the rate after Clopper and Pearson."""

    decided: int
    pairs: int  # that could have been decided

    @property
    def value(self) -> float:
        """Returns the share of decided pairs; NaN without pairs."""
        return self.decided / self.pairs if self.pairs else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Returns the exact interval of the share, as if pairs shared no seed; they do, so that it is too narrow.

        Example:
            >>> [round(end, 4) for end in Rate(5, 100).interval]
            [0.0164, 0.1128]
        """
        k, n = self.decided, self.pairs
        low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
        return low, float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0


def triples(seeds: list[int], pairs: int, *, seed: int = 0) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Returns pairs of disjoint groups of three seeds; within one partition no seed is in two pairs.

    Example:
        >>> (one, other), = triples([0, 1, 2, 3, 4, 5, 6], 1)
        >>> len(one), len(other), set(one) & set(other)
        (3, 3, set())
    """
    if len(seeds) < 2 * SEEDS:
        raise InputError(f"{len(seeds)} seeds make no two groups of {SEEDS}; {2 * SEEDS} or more do.")
    generator = np.random.default_rng(seed)
    made: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    while len(made) < pairs:
        order = generator.permutation(seeds).tolist()
        made += [
            (tuple(order[start : start + SEEDS]), tuple(order[start + SEEDS : start + 2 * SEEDS]))
            for start in range(0, len(order) - 2 * SEEDS + 1, 2 * SEEDS)
        ]
    return made[:pairs]


def repeat_rate(runs: SeedValues, pairs: int = 60, *, seed: int = 0) -> Rate:
    """Returns how often three seeds of a method are decided to differ from three others of the same method.

    Args:
        runs: Seed to patient to Dice, six seeds or more, all of one method and setting.
        pairs: Number of pairs of groups.
        seed: Seed of their choice.
    """
    decided = counted = 0
    for one, other in triples(sorted(runs), pairs, seed=seed):
        sides = ({k: runs[s] for k, s in enumerate(group)} for group in (one, other))
        outcome = decide([(compare(*sides, limits=(0, 1)), "higher")])[0].outcome
        counted += outcome != "no power"
        decided += outcome in ("agrees", "opposite")
    return Rate(decided, counted)


def recorded_rows() -> dict[str, SeedValues]:
    """Returns every recorded row with at least six seeds of one method: the repeats made for it, and any other.

    Runs of the first, undertrained regime and records without patients are left out.
    """
    file = records.root() / "earlier.json"
    earlier = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    rows: dict[str, SeedValues] = {}
    for folder in sorted(p for p in records.root().iterdir() if p.is_dir() and p.name not in earlier):
        if folder.name.startswith("repeats-"):
            dice = records.load(folder.name)[0].values["dice"]
            runs = {int(s): records.measured(v) for s, v in dice.items()}
        else:
            files = list(folder.glob("seed*.json"))
            made = [records.read(p) for p in files] if len(files) >= 2 * SEEDS else []
            runs = {r.seed: records.measured(r.values.get("per_patient", {}).get("dice", {})) for r in made}
        if len(runs) >= 2 * SEEDS and all(runs.values()):
            rows[folder.name] = runs
    return rows


def total(rates: Mapping[str, Rate]) -> Rate:
    """Returns the rate over all rows."""
    return Rate(sum(r.decided for r in rates.values()), sum(r.pairs for r in rates.values()))


def is_too_high(rate: Rate, level: float = LEVEL) -> bool:
    """Returns whether a rate excludes the level that the rule promises; the book is then not built."""
    return rate.pairs > 0 and rate.interval[0] > level
