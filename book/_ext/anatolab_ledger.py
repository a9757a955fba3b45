"""The claim ledger: the claims of the six abstracts, the test of each, and its verdict by a rule.

``book/ledger.yml`` holds the quotes and, for each, its primary test: two experiments, a metric and a direction, but no
results. :func:`judge` reads the records, compares (:func:`anatolab.analysis.harness.between`), decides all claims of a
paper together (:func:`anatolab.metrics.decide`), and computes the scope of each from the configuration of the run
(:func:`anatolab.metrics.scope_of`). A claim about mathematics is tested by enumeration
(:data:`anatolab_exact.EXACT`) instead of training, by the same functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from anatolab_exact import EXACT

from anatolab import records
from anatolab.analysis.harness import between
from anatolab.experiments import EXPERIMENTS
from anatolab.metrics import Comparison, Control, Decision, Setting, decide, phrase, scope_of
from anatolab.metrics.verdicts import Scope, exactly
from anatolab.types import InputError


@dataclass(frozen=True)
class Check:
    """A comparison: ``ours`` minus ``against`` in one metric, and, of a primary one, the claimed sign of it.

    With ``exact`` a function of :data:`EXACT` gives the difference instead. Two experiments on one side are a
    difference of their own: ``ours=(a, b)`` stands for *a - b*; with ``average`` any number of them is a mean.
    """

    id: str  # of the claim; a number behind it for one that stands beside the primary test
    what: str  # the value, in words
    direction: Literal["higher", "lower"] = "higher"
    ours: tuple[str, ...] = ()
    against: tuple[str, ...] | float = ()
    metric: str = "dice"  # see anatolab.analysis.harness.units
    against_metric: str = ""  # the same as metric where empty
    exact: str = ""
    average: bool = False
    margin: float = 0.0  # by how much "comparable" may lose
    size: float | None = None  # the printed difference
    counted: bool = False  # numbers that are counted and not sampled
    why: str = ""  # what differs from the paper's setting, and our reading; MyST
    page: str = ""  # a page of the book, with an anchor

    @property
    def experiments(self) -> tuple[str, ...]:
        """All experiments that are read."""
        return (*self.ours, *(self.against if isinstance(self.against, tuple) else ()))


@dataclass(frozen=True)
class Entry:
    """One claim of one abstract."""

    id: str
    paper: str  # key of the bibliography
    quote: str  # verbatim, from a sentence of book/abstracts.yml
    says: str  # in our own words; MyST
    about: Setting  # the setting of the claim
    test: Check | None = None  # the primary one, named before its runs
    beside: tuple[Check, ...] = ()
    not_tested: str = ""  # why not, where there is no test


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

    version: str  # of the abstracts
    entries: tuple[Entry, ...]
    papers: Mapping[str, Mapping[str, Any]]  # sources: what was read, arxiv, pmc, code
    printed: Mapping[str, Mapping[int, float]]  # Dice of plain supervision, by data set and labeled patients; 0: all
    slips: tuple[Slip, ...]
    awaited: Mapping[str, frozenset[int]]  # runs that may be missing, by experiment; any other is an error
    unclaimed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # paper -> sentence without a claim -> why

    def of(self, paper: str) -> tuple[Entry, ...]:
        """Returns the claims of one paper."""
        return tuple(e for e in self.entries if e.paper == paper)

    @property
    def checks(self) -> Iterator[tuple[Entry, Check]]:
        """Yields every test, primary and further ones, with its claim."""
        for entry in self.entries:
            for check in (*((entry.test,) if entry.test else ()), *entry.beside):
                yield entry, check


@dataclass(frozen=True)
class Measured:
    """The recorded result of one check."""

    comparison: Comparison | None = None  # None as well where no unit has the value in every run
    missing: tuple[str, ...] = ()  # experiments of which no run is made yet
    pending: tuple[str, ...] = ()  # seeds to come of the others, in words
    reason: str = ""  # why there is no comparison although something was run
    setting: str = ""  # data, labels, size
    device: str = ""
    records: tuple[records.Record, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Verdict:
    """The verdict on one claim."""

    entry: Entry
    words: str  # as a page prints them
    outcome: str  # of anatolab.metrics.verdicts.Outcome; "not tested" without a test
    scope: Scope | None  # None where nothing was run
    decision: Decision | None = None
    measured: Measured = Measured()
    control: Control | None = None
    beside: tuple[tuple[Check, Measured], ...] = ()


UNTESTED = "not tested"


def path() -> Path:
    """Returns the file of claims in the checkout."""
    return records.PACKAGE.parent / "book" / "ledger.yml"


def read(file: Path | None = None) -> Ledger:
    """Reads claims, slips and the list of awaited runs.

    Raises:
        InputError: A claim with neither a test nor a reason, an unknown field, or an id that is there twice.
    """
    import yaml

    file = file or path()
    raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    entries = []
    for paper, claims in raw["claims"].items():
        about = raw["papers"][paper]["about"]
        for claim in claims:
            name = claim["id"]
            test = _check(name, claim.pop("test")) if "test" in claim else None
            beside = tuple(_check(f"{name}-{n}", c) for n, c in enumerate(claim.pop("beside", ()), 2))
            setting = _made(Setting, **(about | claim.pop("about", {})))
            entries.append(_made(Entry, paper=paper, test=test, beside=beside, about=setting, **claim))
            if bool(test) == bool(entries[-1].not_tested):
                raise InputError(f"Claim {name} needs either a test or a reason why there is none.")
    slips = tuple(_made(Slip, **(s | {"shown": tuple(s["shown"])})) for s in raw["slips"])
    ids = [e.id for e in entries] + [s.id for s in slips]
    if twice := {i for i in ids if ids.count(i) > 1}:
        raise InputError(f"Ids {sorted(twice)} are in the ledger more than once.")
    awaited = file.with_name("awaited.txt")
    lines = awaited.read_text(encoding="utf-8").splitlines() if awaited.exists() else []
    runs = {name: frozenset(map(int, seeds)) for name, *seeds in map(str.split, lines)}
    abstracts = file.with_name("abstracts.yml")
    sentences = yaml.safe_load(abstracts.read_text(encoding="utf-8")) if abstracts.exists() else {}
    unclaimed = {
        paper: {text: why for s in each if isinstance(s, dict) for text, why in s.items()}
        for paper, each in sentences.items()
    }
    return Ledger(raw["version"], tuple(entries), raw["papers"], raw["printed"], slips, runs, unclaimed)


# The seeds of each study beside the trainings.
STUDIES = {
    "attribution-rn": range(6),
    "cfr-cells": range(10, 20),
    "cfr-cost": range(1),
    "robust-fair-vit": range(10, 20),
    "variance-acdc": range(3),
}


@cache
def wanted(experiment: str) -> frozenset[int]:
    """The seeds that an experiment is to have; none where neither the wanted runs nor the studies know it."""
    if experiment in STUDIES:
        return frozenset(STUDIES[experiment])
    return frozenset(next((e.seeds for e in EXPERIMENTS if e.id == experiment), ()))


def unrecorded(ledger: Ledger) -> dict[str, frozenset[int]]:
    """The runs that lines name and that have no record, which is what book/awaited.txt has to hold."""
    names = sorted({e for _, check in ledger.checks for e in check.experiments})
    return {name: seeds for name in names if (seeds := wanted(name) - recorded(name))}


def recorded(experiment: str) -> frozenset[int]:
    """The seeds of which there is a record."""
    return frozenset(r.seed for r in records.load(experiment)) if records.exists(experiment) else frozenset()


def _check(name: str, raw: Mapping[str, Any]) -> Check:
    sides = {
        k: raw[k] if isinstance(raw[k], float) else (raw[k],) if isinstance(raw[k], str) else tuple(raw[k])
        for k in ("ours", "against")
        if k in raw
    }
    check: Check = _made(Check, id=name, **(dict(raw) | sides))
    if bool(check.exact) == bool(check.ours) or bool(check.ours) != (check.against != ()):
        raise InputError(f"Check {name} needs `ours` and `against`, or `exact` alone.")
    if not check.average and max(len(s) for s in (check.ours, check.against) if isinstance(s, tuple)) > 2:
        raise InputError(f"Check {name} names more than two experiments on a side; with `average: true` it may.")
    return check


def _made(kind: type[Any], **fields: Any) -> Any:
    try:
        return kind(**fields)
    except TypeError as error:
        raise InputError(f"{fields.get('id')}: {error}; see {kind.__name__}.") from error


@cache
def earlier() -> frozenset[str]:
    """Returns the experiments of the first, undertrained regime, which no verdict may use."""
    file = records.PACKAGE.parent / "book" / "records" / "earlier.json"
    return frozenset(json.loads(file.read_text(encoding="utf-8")))


def measure(check: Check, awaited: Mapping[str, frozenset[int]] = {}) -> Measured:
    """Runs the comparison of a check on the records.

    Args:
        check: A primary or a further test.
        awaited: Runs that may be missing, by experiment. One that has none of its runs makes the check "not run".

    Raises:
        RecordError: A record is missing that is not awaited, is of the earlier regime, or lacks the value; the message
            names the check.
    """
    if check.exact:
        return Measured(EXACT[check.exact](), setting="computed while this page is built")
    names = tuple(dict.fromkeys(check.experiments))
    if old := [e for e in names if e in earlier()]:
        raise records.RecordError(f"{check.id} rests on {old[0]!r}, a run of the earlier, undertrained regime.")
    missing = tuple(e for e in names if not records.exists(e))
    absent = {e: wanted(e) - recorded(e) for e in names}
    for e in names:
        lost = sorted(absent[e] - awaited.get(e, frozenset()))
        if lost or (e in missing and e not in awaited):
            which = f" of seed {lost[0]}" if lost and e not in missing else ""
            raise records.RecordError(
                f"{check.id} needs {check.metric!r} of {e!r}, which has no record{which} and is not awaited; "
                f"`make records ARGS={e}` makes it."
            )
    pending = tuple(
        f"{e} (seed{'s' * (len(absent[e]) > 1)} {', '.join(map(str, sorted(absent[e])))})"
        for e in names
        if absent[e] and e not in missing
    )
    if missing:
        return Measured(missing=missing, pending=pending)
    one = check.ours[0] if len(check.ours) == 1 else check.ours
    other = check.against[0] if isinstance(check.against, tuple) and len(check.against) == 1 else check.against
    try:
        comparison = between(one, other, check.metric, check.against_metric, margin=check.margin, average=check.average)
    except records.RecordError as error:
        raise records.RecordError(f"{check.id}: {error}") from error
    if comparison and check.counted:
        comparison = exactly(comparison.difference)
    runs = tuple(r for e in names for r in records.load(e))
    alone = not frozenset.intersection(*map(recorded, names))
    return Measured(
        comparison,
        pending=pending,
        reason="" if comparison else "no common seed" if alone else "no unit has the value in every run",
        setting=_described(runs),
        device=", ".join(dict.fromkeys(str(r.provenance.get("device", "unknown")) for r in runs)),
        records=runs,
    )


def judge(ledger: Ledger, paper: str) -> list[Verdict]:
    """Decides all claims of a paper together, one primary test each, and says in which scope.

    Raises:
        RecordError: See :func:`measure`.
    """
    entries = ledger.of(paper)
    measured = {e.id: measure(e.test, ledger.awaited) for e in entries if e.test}
    tested = [e for e in entries if e.test]
    decisions = decide([(measured[e.id].comparison, e.test.direction) for e in tested if e.test])
    decided = dict(zip((e.id for e in tested), decisions, strict=True))
    made = []
    for entry in entries:
        if entry.test is None:
            made.append(Verdict(entry, UNTESTED, UNTESTED, None))
            continue
        decision, values = decided[entry.id], measured[entry.id]
        control = control_of(ledger, values)
        if values.reason:
            decision = Decision("undecided" if values.reason == "no common seed" else "no power", None, values.reason)
        scope: Scope | None = "mathematics" if entry.test.exact else None
        if scope is None and values.records:
            scope = scope_of(entry.about, setting_of(values.records[0]), control)
        words = phrase(decision, scope) if scope else decision.outcome
        beside = tuple((c, measure(c, ledger.awaited)) for c in entry.beside)
        made.append(Verdict(entry, words, decision.outcome, scope, decision, values, control, beside))
    return made


def setting_of(record: records.Record) -> Setting:
    """Returns the setting of a recorded run, from its configuration."""
    config = record.config
    if "cohort" not in config:
        return Setting("generated scenes")
    size = config.get("size", {})
    return Setting(
        data=config["cohort"],
        labeled=config.get("labeled_patients"),
        side=size.get("side"),
        updates=config.get("fields", {}).get("updates", size.get("updates")),
        network=size.get("network"),
        profile=config.get("profile"),
    )


def control_of(ledger: Ledger, values: Measured) -> Control | None:
    """Returns the positive control: supervision on the same cohort, side and network, here and as printed."""
    if not values.records or "cohort" not in values.records[0].config:
        return None
    run, setting = values.records[0].experiment, setting_of(values.records[0])
    printed = ledger.printed.get(setting.data, {})
    start = run.split("-")[0]
    end = next((end for end in ("-basic-unet", "-light-unet", "-segresnet") if run.endswith(end)), "")

    def bound(labels: str) -> float | None:
        name = f"{start}-{labels}-supervised{end}"
        return records.value(name, "dice.mean") if records.exists(name) and name not in earlier() else None

    labeled = setting.labeled or 0
    return Control(bound("all"), printed.get(0), bound(str(labeled or "all")), printed.get(labeled))


def _described(runs: Sequence[records.Record]) -> str:
    if "cohort" not in runs[0].config:
        return runs[0].title or runs[0].experiment
    made = [setting_of(r) for r in runs]

    def each(of: Callable[[Setting], Any]) -> str:
        return " and ".join(dict.fromkeys(str(of(s)) for s in made))

    view = f", {each(lambda s: f'{s.side} x {s.side}')}" if made[0].side else ""
    updates = f", {each(lambda s: f'{s.updates:,}')} updates" if all(s.updates for s in made) else ""
    labels = f"{each(lambda s: s.labeled or 'all')} labeled"
    return f"{made[0].data}, {labels}{view}{updates}, {each(lambda s: s.network)}, {each(lambda s: s.profile)} profile"
