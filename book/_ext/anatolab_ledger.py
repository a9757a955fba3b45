"""The claim ledger: what the six abstracts say, what tests each statement, and the word that a rule gives it.

``book/ledger.yml`` holds the claims in our own words and, for each, which two experiments test it, in which value and
in which direction. Nothing there says how a test came out. :func:`evaluate` reads the records, compares unit by unit
(:func:`anatolab.metrics.compare`), and :func:`anatolab.metrics.verdict` gives the word. A claim about mathematics is
tested by enumeration (:data:`EXACT`) instead of by training, and goes through the same function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from anatolab import records
from anatolab.metrics import Claim, Comparison, compare, verdict
from anatolab.metrics.intervals import Verdict
from anatolab.types import InputError

Units = dict[str, float]  # patient, seed or setting -> value


@dataclass(frozen=True)
class Check:
    """How one claim is tested: ``ours`` minus ``against`` in one value, and the claimed sign of it.

    With ``exact`` a function of :data:`EXACT` gives the difference instead. Two experiments on one side are a
    difference of their own: ``ours=(a, b)`` stands for *a - b*.
    """

    id: str  # of the claim, and a number
    why: str  # what differs from the paper's setting, and our reading; MyST
    direction: Literal["higher", "lower"]
    ours: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    key: str = "per_patient.dice"  # see units()
    against_key: str = ""  # the same as key where empty
    than: float | None = None  # a constant in place of against
    exact: str = ""
    size: float | None = None  # the printed difference
    tolerance: float = 0.0
    counted: bool = False  # numbers that are counted and not sampled: the interval is the difference itself
    what: str = ""  # the value, in words
    page: str = ""  # a page of the book, with an anchor

    @property
    def experiments(self) -> tuple[str, ...]:
        """All experiments that are read."""
        return (*self.ours, *self.against)


@dataclass(frozen=True)
class Entry:
    """One claim of one abstract."""

    id: str
    paper: str  # key of the bibliography
    says: str  # in our own words; MyST
    tests: tuple[Check, ...] = ()
    not_attempted: str = ""  # why not, where there is no test


@dataclass(frozen=True)
class Slip:
    """A slip in print or a bug in released code, and the test that shows it."""

    id: str
    where: str
    what: str
    shown: tuple[str, ...]  # tests, as pytest names them
    page: str = ""


@dataclass(frozen=True)
class Ledger:
    """Everything in ``book/ledger.yml``."""

    entries: tuple[Entry, ...]
    slips: tuple[Slip, ...]
    awaited: frozenset[str]  # experiments that may be missing; any other that is missing is an error

    @property
    def tests(self) -> Iterator[tuple[Entry, Check | None]]:
        """Claim and test, a line of the ledger each; a claim without a test is one line."""
        for entry in self.entries:
            for test in entry.tests or (None,):
                yield entry, test


@dataclass(frozen=True)
class Outcome:
    """What became of one test."""

    word: Verdict
    comparison: Comparison | None = None  # None as well where no unit has the value in every run
    missing: tuple[str, ...] = ()  # experiments not run yet
    unit: str = "patients"  # what the interval is over
    setting: str = ""  # data, size
    device: str = ""
    evidence: tuple[records.Record, ...] = field(default=(), repr=False)


def path() -> Path:
    """The file of claims in the checkout."""
    return records.PACKAGE.parent / "book" / "ledger.yml"


def read(file: Path | None = None) -> Ledger:
    """Reads claims, slips and the list of awaited experiments.

    Raises:
        InputError: A claim with neither a test nor a reason, an unknown field, or an id that is there twice.
    """
    import yaml

    raw = yaml.safe_load((file or path()).read_text(encoding="utf-8"))
    entries = []
    for paper, claims in raw["claims"].items():
        for claim in claims:
            tests = tuple(_test(f"{claim['id']}-{n}", t) for n, t in enumerate(claim.pop("tests", ()), 1))
            entries.append(_made(Entry, paper=paper, tests=tests, **claim))
            if bool(tests) == bool(entries[-1].not_attempted):
                raise InputError(f"Claim {entries[-1].id} needs either tests or a reason why there is none.")
    slips = tuple(_made(Slip, **(s | {"shown": tuple(s["shown"])})) for s in raw["slips"])
    ids = [e.id for e in entries] + [s.id for s in slips]
    if twice := {i for i in ids if ids.count(i) > 1}:
        raise InputError(f"Ids {sorted(twice)} are in the ledger more than once.")
    return Ledger(tuple(entries), slips, frozenset(raw["awaited"]))


def _test(name: str, raw: Mapping[str, Any]) -> Check:
    sides = {k: (raw[k],) if isinstance(raw[k], str) else tuple(raw[k]) for k in ("ours", "against") if k in raw}
    test: Check = _made(Check, id=name, **(dict(raw) | sides))
    if bool(test.exact) == bool(test.ours) or (test.ours and bool(test.against) == (test.than is not None)):
        raise InputError(f"Check {name} needs `ours` with `against` or `than`, or `exact` alone.")
    return test


def _made(kind: type[Any], **fields: Any) -> Any:
    try:
        return kind(**fields)
    except TypeError as error:
        raise InputError(f"{fields.get('id')}: {error}; see {kind.__name__}.") from error


def evaluate(test: Check | None, awaited: frozenset[str] = frozenset()) -> Outcome:
    """Compares what a test names, and asks the verdict.

    Args:
        test: None for a claim without a test.
        awaited: Experiments that may be missing, which makes the test "not run".

    Raises:
        RecordError: A record is missing that is not awaited, or a record lacks the value; the message names the test.
    """
    if test is None:
        return Outcome(verdict(None, Claim("higher")))
    claim = Claim(test.direction, test.size, test.tolerance)
    if test.exact:
        computed, unit = EXACT[test.exact]()
        return Outcome(verdict(computed, claim), computed, unit=unit, setting="computed while this page is built")
    missing = tuple(e for e in dict.fromkeys(test.experiments) if not records.exists(e))
    if lost := [e for e in missing if e not in awaited]:
        raise records.RecordError(
            f"{test.id} needs {test.key!r} of {lost[0]!r}, which has no record and is not awaited; "
            f"`make records ARGS={lost[0]}` makes it."
        )
    if missing:
        return Outcome(verdict(None, claim), missing=missing)
    try:
        ours, unit = _side(test.ours, test.key)
        if test.than is not None:
            theirs = {s: dict.fromkeys(v, test.than) for s, v in ours.items()}
        else:
            theirs = _side(test.against, test.against_key or test.key)[0]
    except records.RecordError as error:
        raise records.RecordError(f"{test.id}: {error}") from error
    shared = sorted(ours.keys() & theirs.keys())
    whole = [
        u
        for u in (ours[shared[0]] if shared else ())
        if all(_known(side[s], u) for side in (ours, theirs) for s in shared)
    ]
    comparison = compare({s: ours[s] for s in shared}, {s: theirs[s] for s in shared}) if whole else None
    if comparison and test.counted:
        comparison = _certain(comparison.difference)
    loaded = tuple(r for e in dict.fromkeys(test.experiments) for r in records.load(e))
    return Outcome(
        verdict(comparison, claim),
        comparison,
        unit=unit,
        setting=_setting(loaded[0]),
        device=", ".join(dict.fromkeys(str(r.provenance.get("device", "unknown")) for r in loaded)),
        evidence=loaded,
    )


def _known(values: Units, unit: str) -> bool:
    return math.isfinite(values.get(unit, 0.0))  # compare() names a unit that is on one side only


def units(record: records.Record, key: str) -> Units:
    """What a record says at a key, unit by unit; an unmeasured value is NaN.

    A key with ``*`` collects every value that fits, such as ``*.info_nce.stratified.loss``; ``cases.*.LV.dice`` is
    averaged over the cases of a patient. A key that leads to one number gives one unit without a name.

    Raises:
        RecordError: Nothing is there.
    """
    if "*" not in key:
        values = records.get(record, key)
        values = values if isinstance(values, Mapping) else {"": values}
    else:
        values = dict(_matches(record.values, key.split("."), ()))
        if not values:
            raise records.RecordError(f"record {record.experiment!r} (seed {record.seed}) has no value {key!r}.")
    values = records.measured(values)
    if not key.startswith("cases.*."):
        return values
    of = {patient: [v for k, v in values.items() if k.startswith(patient)] for patient in _patients(record)}
    return {patient: math.fsum(v) / len(v) for patient, v in of.items() if v}


def _matches(value: Any, parts: Sequence[str], prefix: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not parts:
        yield ".".join(prefix), value
    elif isinstance(value, Mapping):
        for name in value if parts[0] == "*" else [parts[0]] if parts[0] in value else []:
            yield from _matches(value[name], parts[1:], (*prefix, name) if parts[0] == "*" else prefix)


def _patients(record: records.Record) -> list[str]:
    return list(records.get(record, "per_patient.dice"))


def _side(experiments: tuple[str, ...], key: str) -> tuple[dict[int, Units], str]:
    """Seed to unit to value, and what the units are; where a record has one number, its seeds are the units."""
    runs = [{r.seed: units(r, key) for r in records.load(e)} for e in experiments]
    shared = sorted(set.intersection(*(set(run) for run in runs)))
    side = {s: {u: runs[0][s][u] - sum(run[s][u] for run in runs[1:]) for u in runs[0][s]} for s in shared}
    if all(list(values) == [""] for values in side.values()):
        return {0: {f"seed {s}": values[""] for s, values in side.items()}}, "seeds"
    return side, "patients" if key.startswith(("per_patient", "cases", "coarse")) else "settings"


def _setting(record: records.Record) -> str:
    config = record.config
    if "cohort" not in config:
        return record.title or record.experiment
    labeled = config.get("labeled_patients")
    return f"{config['cohort']}, {labeled or 'all'} labeled, {config.get('size', {}).get('name', '')}"


# ------------------------------------------------------------------------------------------ claims about mathematics
def _worst(differences: Mapping[str, float]) -> Comparison:
    """A claim that something holds *always* stands or falls with its worst case, which has no sampling error."""
    largest = max(differences.values())
    return Comparison(largest, (largest, largest), 2.0 ** (1 - len(differences)), {0: largest}, len(differences), 1)


@cache
def _variance_ratios(kind: str) -> dict[str, float]:
    """Variance over that of naive draws, minus 1, of nine fields on one irregular mask."""
    import torch

    from anatolab.analysis.sampling_variance import exact_variance
    from anatolab.sampling import PixelSampler, bin_pixels

    draw = torch.Generator().manual_seed(0)
    side = torch.arange(32)
    y, x = torch.meshgrid(side, side, indexing="ij")
    in_cell = ((y % 8 - 3.5) ** 2 + (x % 8 - 3.5) ** 2).double()
    label = torch.where(torch.rand(1, 32, 32, generator=draw) < 0.6, 0, -1)
    fields = {
        "ramp": x.double(),
        "two tissues": ((y - 13) ** 2 + (x - 15) ** 2 < 60).double(),
        "a bowl in each cell": in_cell,
        **{f"noise {i}": torch.randn(32, 32, generator=draw).double() for i in range(6)},
    }
    sampler: PixelSampler = "stratified" if kind == "stratified" else "antithetic"
    ratios = {}
    strata = bin_pixels(label, 1)
    for name, values in fields.items():
        naive, ours = (exact_variance(values.flatten(), strata, 64, k).item() for k in ("naive", sampler))
        ratios[name] = ours / naive - 1
    return ratios


def _bank_memory() -> Comparison:
    """Megabytes of ACTION's two banks at the published widths, less those of the network that it trains."""
    import torch

    from anatolab.methods import Action
    from anatolab.nn import NETWORKS, PatchProjector

    classes, config = 4, Action.Config.official().pretraining
    patches = PatchProjector(classes)(torch.zeros(1, classes, 256, 256)).shape[1:].numel()
    network = sum(p.numel() for p in NETWORKS["basic_unet"](1, classes).parameters())
    return _certain(4e-6 * (config.bank * (config.embedding + patches) - network))


def _labeled_tail() -> Comparison:
    """Decades between the voxels of gallbladder and liver, in each of eight patients of the generated abdomens."""
    import numpy as np

    from anatolab.data.phantoms.abdomen import CODES, draw_abdomen

    decades = {}
    for index in range(12):
        one = draw_abdomen(0, index, size=48)
        count = np.bincount(one.label.ravel(), minlength=16)
        if count[CODES["gallbladder"]]:
            decades[one.patient] = float(np.log10(count[CODES["gallbladder"]] / count[CODES["liver"]]))
    return compare({0: decades}, {0: dict.fromkeys(decades, 0.0)})


def _training_groups() -> Comparison:
    """Whether CFR sees group labels in training, less whether DFR does."""
    from anatolab.robust import Cfr, Dfr

    cfr, dfr = ("group" in m.sees_in_training for m in (Cfr, Dfr))
    return _certain(float(cfr - dfr))


def _certain(difference: float) -> Comparison:
    """A number that is computed, not sampled: its interval is itself, at no level of confidence."""
    return Comparison(difference, (difference, difference), 0.0, {0: difference}, 1, 1, level=0.0)


EXACT: dict[str, Callable[[], tuple[Comparison, str]]] = {
    "stratified-worst-case": lambda: (_worst(_variance_ratios("stratified")), "fields"),
    "antithetic-worst-case": lambda: (_worst(_variance_ratios("antithetic")), "fields"),
    "action-bank-memory": lambda: (_bank_memory(), "count"),
    "cfr-groups": lambda: (_training_groups(), "count"),
    "labeled-tail": lambda: (_labeled_tail(), "patients"),
}
