"""Describes a folder of patients and lists all its problems: ``anatolab check``."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anatolab.data.cache import scaled
from anatolab.data.checks import side_pairs
from anatolab.data.dims import dims_for
from anatolab.data.formats import cohort_orientation
from anatolab.data.geometry import orientation_of, reoriented, slices_note
from anatolab.data.layouts import survey
from anatolab.data.volumes import volume_of
from anatolab.types import UNKNOWN, Case, Cohort, InputError

Triple = tuple[float, float, float]
SHOWN = 5  # names of a list that the text spells out; the report itself holds all


@dataclass(frozen=True)
class Report:
    """The result of :func:`check_folder`; voxel shares and ranges are over the cases that could be read."""

    folder: str
    problems: tuple[str, ...]  # a sentence each; none: ready to train on
    name: str = ""  # "ACDC"; empty where nothing was recognized
    layout: str = ""
    patients: int = 0
    cases: int = 0
    annotated: int = 0  # cases
    read: int = 0  # cases without a problem of their own
    classes: tuple[str, ...] = ()  # background first
    shares: dict[str, float] = field(default_factory=dict)  # of the annotated voxels, by class; "unknown" where any is
    present: dict[str, int] = field(default_factory=dict)  # annotated cases that hold the class at all
    channels: int = 0
    size: tuple[Triple, Triple, Triple] | None = None  # least, median, greatest (z, y, x) in voxels
    spacing: tuple[Triple, Triple, Triple] | None = None  # the same in mm; None where the files carry none
    orientations: dict[str, int] = field(default_factory=dict)  # "LPS": cases; directions of x, y, z
    trained_in: str = ""  # the orientation that all cases are brought to before training; empty without affine
    intensity: tuple[float, float] | None = None  # least and greatest of all cases, the files' own unit
    window: tuple[float, float] | None = None  # what intensities are clipped to before training
    dims: int = 0  # 2 where slices are advised, 3 where patches are, 0 where nothing could be read
    published: dict[str, int] = field(default_factory=dict)  # patients on each published list
    absent: tuple[str, ...] = ()  # patients on a list without files here
    ignored: tuple[str, ...] = ()  # files left aside
    notes: tuple[str, ...] = ()  # hints that are not problems
    license: str = ""
    source: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def check_folder(path: str | Path, *, progress: bool = True) -> Report:
    """Reads every case of a folder once, describes the folder and lists all its problems.

    Args:
        path: A folder in any known layout; an unknown or missing one gives a report with this problem.
        progress: Whether to show a progress bar after two seconds.

    Returns:
        The report. It depends on the folder alone, and nothing is written.

    Example:
        >>> check_folder("no/such/folder").problems
        ('no/such/folder: there is no such folder; check the path.',)
    """
    from tqdm import tqdm

    try:
        cohort = survey(path)
    except InputError as error:
        return Report(str(path), (str(error),))
    codes = None
    with suppress(InputError):  # reading the case says it
        codes = cohort_orientation(cohort)
    problems = list(cohort.problems)
    facts: list[dict[str, Any]] = []
    for ref in tqdm(
        cohort.refs, desc=f"checking {cohort.name}", unit="case", delay=2, disable=None if progress else True
    ):
        try:
            facts.append(_facts(ref.load(), codes, len(cohort.classes), facts))
        except InputError as error:
            problems.append(str(error))
    problems += [
        f"{fact['source']}: has {fact['channels']} channels, the cases before it {facts[0]['channels']}; "
        "keep cases with another number of channels in a folder of their own."
        for fact in facts
        if fact["channels"] != facts[0]["channels"]
    ]
    spacings = [fact["spacing"] for fact in facts if fact["spacing"] is not None]
    size, spacing = _range([fact["size"] for fact in facts]), _range(spacings)
    counts = sum((fact["counts"] for fact in facts), np.zeros(UNKNOWN + 1, np.int64))
    names = {**dict(enumerate(cohort.classes)), **({UNKNOWN: "unknown"} if counts[UNKNOWN] else {})}
    present = {name: sum(bool(fact["counts"][k]) for fact in facts) for k, name in names.items()}
    orientations = Counter(fact["orientation"] for fact in facts if fact["orientation"])
    return Report(
        folder=str(path),
        problems=tuple(dict.fromkeys(problems)),
        name=cohort.name,
        layout=cohort.layout,
        patients=len(cohort.patients),
        cases=len(cohort),
        annotated=sum(ref.labeled for ref in cohort.refs),
        read=len(facts),
        classes=cohort.classes,
        shares={name: float(counts[k] / counts.sum()) for k, name in names.items()} if counts.any() else {},
        present=present if counts.any() else {},
        channels=facts[0]["channels"] if facts else 0,
        size=size,
        spacing=spacing,
        orientations=dict(orientations.most_common()),
        trained_in=codes or "",
        intensity=(min(f["low"] for f in facts), max(f["high"] for f in facts)) if facts else None,
        window=cohort.window,
        dims=0 if size is None else 2 if size[1][0] == 1 else dims_for(spacing[1] if spacing else None),
        published={part: len(patients) for part, patients in cohort.published.items()},
        absent=cohort.provenance.get("absent", ()),
        ignored=cohort.provenance.get("ignored", ()),
        notes=(*cohort.provenance.get("notes", ()), *_notes(facts, cohort, codes, orientations, present)),
        license=str(
            cohort.provenance.get("license", "generated" if "generator" in cohort.provenance else "not stated")
        ),
        source=str(cohort.provenance.get("source") or cohort.provenance.get("generator") or "not stated"),
    )


def describe(report: Report) -> str:
    """Returns the report as text, a fact per line; problems come last, a sentence each."""
    lines = [f"{report.folder}: {_headline(report)}"]

    def add(word: str, text: str) -> None:
        lines.append(f"  {word:13}{text}")

    if report.shares:
        annotated = max(report.present.values())
        for name, share in report.shares.items():
            where = "" if report.present[name] == annotated else f", in {report.present[name]} of {annotated} cases"
            add("classes" if name == report.classes[0] else "", f"{name} {_percent(share)}{where}")
    elif report.classes:
        add("classes", ", ".join(report.classes))
    if report.size:
        add("size", f"{_span(report.size)} voxels (z, y, x)")
        add("spacing", f"{_span(report.spacing)} mm" if report.spacing else "the files carry none; distances in voxels")
    if report.orientations:
        add("orientation", ", ".join(f"{codes} in {count}" for codes, count in report.orientations.items()))
    if report.intensity:
        low, high = report.intensity
        kept = "each volume and channel scaled from its least to its greatest"
        if report.window:
            kept = f"clipped to {report.window[0]:g} to {report.window[1]:g}"
        add("intensities", f"{low:g} to {high:g} in {report.channels} channel{'s' * (report.channels > 1)}; {kept}")
    if report.dims:
        flat = report.size is not None and report.size[1][0] == 1
        thick = "a single slice" if flat else "slices over 3 times thicker than pixels are wide"
        why = "near-cubic voxels" if report.dims == 3 else thick if report.spacing or flat else "no spacing is known"
        add("advice", f"{report.dims}-D {'patches' if report.dims == 3 else 'slices'} ({why})")
    if report.layout:
        add("license", report.license)
        add("source", report.source)
    if report.published:
        add("lists", ", ".join(f"{part} {count} patients" for part, count in report.published.items()))
    for word, names in (("absent", report.absent), ("ignored", report.ignored)):
        if names:
            add(word, f"{len(names)}: {', '.join(names[:SHOWN])}{', ...' * (len(names) > SHOWN)}")
    for note in report.notes:
        add("note", note)
    lines.append(f"  {len(report.problems)} problems:" if len(report.problems) > 1 else "  1 problem:")
    lines += [f"  - {problem}" for problem in report.problems]
    return "\n".join(lines if report.problems else [*lines[:-1], "  nothing is wrong"])


def _facts(source: Case, codes: str | None, classes: int, before: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the report's entry for one case, in training orientation; refuses what training refuses."""
    case = reoriented(source, codes)
    dims = 2 if case.image.shape[1] == 1 else dims_for(case.spacing)
    scaled(case)
    if 3 in (dims, before[0]["dims"] if before else dims):  # patches are advised, and the default of training
        volume_of(case)
    counts = np.zeros(UNKNOWN + 1, np.int64)
    if case.label is not None:
        counts += np.bincount(case.label.ravel(), minlength=UNKNOWN + 1)
    return {
        "name": case.name,
        "patient": case.patient,
        "source": case.source,
        "channels": len(case.image),
        "size": case.image.shape[1:],
        "spacing": case.spacing,
        "dims": dims,
        "orientation": "" if source.affine is None else orientation_of(source.affine),
        "notes": (*source.notes, *(slices_note(source.affine, codes) if source.affine is not None else ())),
        "low": float(case.image.min()),
        "high": float(case.image.max()),
        "counts": counts,
        "empty": case.label is not None and not counts[1:classes].any(),
        "sha256": hashlib.sha256(case.image.tobytes()).hexdigest(),
    }


def _notes(
    facts: Sequence[dict[str, Any]],
    cohort: Cohort,
    codes: str | None,
    orientations: Counter[str],
    present: dict[str, int],
) -> list[str]:
    notes = []
    if len(orientations) > 1:
        shown = ", ".join(f"{name} in {count}" for name, count in orientations.most_common())
        notes.append(f"orientations are mixed ({shown}); all cases are brought to {codes} before training.")
    elif codes and codes not in orientations and orientations:
        notes.append(f"slices are not cut along the thickest axis; all cases are brought to {codes} before training.")
    by_note: dict[str, list[str]] = {}
    for fact in facts:
        for note in fact["notes"]:
            by_note.setdefault(note, []).append(fact["name"])
    notes += [f"{names[0]}{f' ({len(names)} such)' * (len(names) > 1)}: {note}." for note, names in by_note.items()]
    if pairs := side_pairs(cohort.classes):
        named = ", ".join(f"{one!r} and {other!r}" for one, other in pairs[:SHOWN])
        notes.append(
            f"{named} differ by side alone, and a flipped image exchanges them; train without left-right flips."
        )
    if facts and not any(ref.labeled for ref in cohort.refs):
        notes.append("no case is annotated; predict can segment them, and train needs annotated ones beside them.")
    if any(present.values()):
        notes += [f"no annotated case holds {name!r}." for name, count in present.items() if not count]
    if empty := [fact["name"] for fact in facts if fact["empty"]]:
        notes.append(f"{empty[0]} has an annotation that marks nothing ({len(empty)} such).")
    first: dict[str, dict[str, Any]] = {}
    for fact in facts:
        if (twin := first.setdefault(fact["sha256"], fact)) is not fact:
            notes.append(f"{fact['name']} holds the same image as {twin['name']}; a split may put it on both sides.")
    folded: dict[str, str] = {}
    for patient in cohort.patients:
        if (other := folded.setdefault(patient.casefold(), patient)) != patient:
            notes.append(f"{patient} and {other} differ in upper and lower case only; some disks take them for one.")
    return notes


def _range(rows: Sequence[Any]) -> tuple[Triple, Triple, Triple] | None:
    if not rows:
        return None
    table = np.asarray(rows, dtype=float)
    least, middle, greatest = (tuple(map(float, row)) for row in (table.min(0), np.median(table, 0), table.max(0)))
    return least, middle, greatest  # type: ignore[return-value]


def _headline(report: Report) -> str:
    if not report.layout:
        return "not a folder of patients that can be read"
    cases = "" if report.cases == report.patients else f" with {report.cases} cases"
    many = "s" * (report.patients != 1)
    if report.annotated == report.cases:
        annotated = "all annotated"
    else:
        annotated = f"{report.annotated} of {report.cases} cases annotated"
    return f"{report.name} ({report.layout}), {report.patients} patient{many}{cases}, {annotated}"


def _span(rows: tuple[Triple, Triple, Triple]) -> str:
    """Formats three axes, as one number where all cases agree: ``8 to 16 (median 10) x 128 x 128``."""
    return " x ".join(
        f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g} (median {middle:.4g})"
        for low, middle, high in zip(*rows, strict=True)
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if 0 < share < 0.1 else f"{100 * share:.1f} %"
