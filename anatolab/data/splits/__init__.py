"""Splits by patient: from a published list or a seed, with nested label budgets and a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from typing import Literal

from anatolab.types import CaseRef, Cohort, InputError, Split


def published_lists(name: str) -> dict[str, tuple[str, ...]]:
    """Returns the published patient lists of a data set, in list order.

    Args:
        name: ``"acdc"``, ``"la"``, ``"lits"`` or ``"synapse"``; the files name the source of each list.

    Returns:
        Patients of ``train`` (in the order in which they become labeled), ``validation`` and ``test``.

    Example:
        >>> published_lists("acdc")["train"][:3]
        ('patient099', 'patient038', 'patient050')
    """
    text = resources.files(__package__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    return {part: tuple(patients) for part, patients in json.loads(text)["patients"].items()}


def split_patients(
    cohort: Cohort,
    labeled: int | Literal["all"],
    *,
    validation: int | Sequence[str] | None = None,
    test: int | Sequence[str] | None = None,
    development: int | Sequence[str] = 0,
    seed: int | None = None,
) -> Split:
    """Divides a cohort's patients; a larger label budget contains the smaller one.

    Without a seed the published training list is taken in its order. With a seed the patients get an order that depends
    only on the seed and their names (not on the order of files or a library's version): the first ones are labeled, the
    last ones are held out. If a cohort has published lists, a seed reorders the published training list; published
    held-out patients are never trained on or used for choices. To split all patients, pass
    ``dataclasses.replace(cohort, published={})``.

    Args:
        cohort: The patients.
        labeled: Budget in patients, or ``"all"``.
        validation: Patients by name, or a number to sample with the seed; ``None`` for the published list, if any.
        test: The same for the test patients. Published test patients stay in the split even if their files are absent;
            ``cohort.of`` then raises an error, and :func:`present` leaves them out.
        development: Training patients by name, or their number, set aside for choices that must not use held-out
            patients; the last annotated ones, so that budgets stay nested.
        seed: Seed of the order; ``None`` for the published one.

    Returns:
        The split; ``origin`` names its source.

    Raises:
        InputError: A patient is unknown or in two parts; a labeled patient has no annotation; the budget is below 1
            or above the training patients; numbers are asked for without a seed; there is no published list.

    Example:
        >>> from pathlib import Path
        >>> from anatolab.types import CaseRef
        >>> refs = [CaseRef(f"p{i}", "", Path(f"p{i}"), lambda: None) for i in range(6)]
        >>> cohort = Cohort("example", "none", ("background", "organ"), tuple(refs), Path("example"))
        >>> one, three = (split_patients(cohort, k, validation=1, test=1, seed=0) for k in (1, 3))
        >>> one.labeled_patients == three.labeled_patients[:1], one.test == three.test, len(three.train)
        (True, True, 4)
    """
    if cohort.refs and not any(ref.labeled for ref in cohort.refs):
        raise InputError(f"{cohort.root}: no patient is annotated; add the label maps of those who are to be labeled.")
    known = set(cohort.patients)
    held: dict[str, tuple[str, ...]] = {}
    counts: dict[str, int] = {}
    for part, asked in (("validation", validation), ("test", test)):
        if asked is None:
            held[part] = cohort.published.get(part, ())
        elif isinstance(asked, int):
            counts[part] = asked
        elif unknown := [p for p in asked if p not in known]:
            raise InputError(
                f"{cohort.root}: {part} patient {unknown[0]!r} is not in this {cohort.name} cohort of {len(known)} "
                "patients; correct the list."
            )
        else:
            held[part] = tuple(asked)

    train = cohort.published.get("train")
    if train is not None and (absent := [p for p in train if p not in known]):
        raise InputError(
            f"{cohort.root}: {len(absent)} of the {len(train)} patients of the published training list have no files, "
            f"first {absent[0]}; copy them there, or leave them out (anatolab.data.present)."
        )
    if seed is None:
        if train is None:
            raise InputError(
                f"{cohort.root}: this {cohort.name} cohort has no published training list for these patients; "
                "give a seed (--split-seed 0)."
            )
        if any(counts.values()):
            raise InputError(
                f"{cohort.root}: {max(counts.values())} held-out patients can only be drawn with a seed; "
                "give a seed (--split-seed 0), or name the patients."
            )
        held |= dict.fromkeys(counts, ())
        origin = "published list"
    else:
        kept = {p for part in held.values() for p in part}
        kept |= {p for part in ("validation", "test") for p in cohort.published.get(part, ())}
        order = sorted((p for p in train or sorted(known) if p not in kept), key=lambda p: _rank(seed, p))
        bare = {ref.patient for ref in cohort.refs if not ref.labeled}
        order, unannotated = [p for p in order if p not in bare], [p for p in order if p in bare]
        for part in ("test", "validation"):
            count = counts.get(part)
            if count is not None:
                if not 0 <= count < len(order):
                    raise InputError(
                        f"{cohort.root}: {count} {part} patients cannot be held out of {len(order)} annotated ones; "
                        "ask for fewer."
                    )
                order, held[part] = order[: len(order) - count], tuple(order[len(order) - count :])
        train = (*order, *unannotated)
        origin = f"seed {seed}"

    chosen = _development(development, tuple(train), 0 if labeled == "all" else labeled, cohort)
    rest = tuple(p for p in train if p not in set(chosen))
    budget = len(rest) if labeled == "all" else labeled
    split = Split(rest, budget, held["validation"], held["test"], origin, chosen)
    _check(split, cohort)
    return split


def _development(asked: int | Sequence[str], train: tuple[str, ...], labeled: int, cohort: Cohort) -> tuple[str, ...]:
    """Returns the annotated training patients that are set aside, none of them labeled."""
    bare = {ref.patient for ref in cohort.refs if not ref.labeled}
    free = [p for p in train if p not in bare]
    if isinstance(asked, int):
        if not 0 <= asked < max(len(free), 1):
            raise InputError(
                f"{cohort.root}: {asked} development patients cannot be taken of {len(free)} annotated training "
                "patients; ask for fewer."
            )
        return tuple(free[len(free) - asked :])
    if wrong := [p for p in asked if p not in free]:
        raise InputError(
            f"{cohort.root}: development patient {wrong[0]!r} is not one of the {len(free)} annotated training "
            "patients; name others."
        )
    if both := [p for p in asked if p in train[:labeled]]:
        raise InputError(
            f"{cohort.root}: development patient {both[0]} is one of the {labeled} labeled patients; name others, or "
            "label fewer."
        )
    return tuple(asked)


def test_part(refs: Sequence[CaseRef], held_out: Callable[[CaseRef], bool]) -> dict[str, tuple[str, ...]]:
    """Returns the published lists of a release without list files, whose test patients have their own folder.

    Args:
        refs: All cases.
        held_out: Whether a case lies in that folder.

    Returns:
        ``test``, the annotated patients there; nothing where these are all or none. Those without annotation may be
        trained on without labels.
    """
    test = tuple(dict.fromkeys(ref.patient for ref in refs if ref.labeled and held_out(ref)))
    return {"test": test} if test and any(not held_out(ref) for ref in refs) else {}


def present(cohort: Cohort) -> Cohort:
    """Returns the same cohort, its published lists without the patients whose files are not here.

    Args:
        cohort: A cohort, some of whose patients may be on a list only.

    Returns:
        The cohort; ``provenance["absent"]`` and a note name those that were left out. A list without any present
        patient is dropped.

    Example:
        >>> from pathlib import Path
        >>> from anatolab.types import CaseRef
        >>> refs = (CaseRef("a", "", Path("a"), lambda: None),)
        >>> lists = {"train": ("a", "b"), "test": ("c",)}
        >>> present(Cohort("example", "none", ("background", "organ"), refs, Path("."), lists)).published
        {'train': ('a',)}
    """
    here = set(cohort.patients)
    kept = {part: tuple(p for p in patients if p in here) for part, patients in cohort.published.items()}
    absent = tuple(p for patients in cohort.published.values() for p in patients if p not in here)
    if not absent:
        return cohort
    note = (
        f"{len(absent)} of the {sum(map(len, cohort.published.values()))} patients of the published lists have no "
        f"files here and are left out, first {absent[0]}."
    )
    notes = (*cohort.provenance.get("notes", ()), note)
    absent = tuple(dict.fromkeys([*cohort.provenance.get("absent", ()), *absent]))
    provenance = {**cohort.provenance, "absent": absent, "notes": notes}
    return replace(cohort, published={k: v for k, v in kept.items() if v}, provenance=provenance)


def split_sha256(split: Split) -> str:
    """Returns the identity of a split: its patients, their order and the budget, whatever its origin.

    Args:
        split: The split.

    Returns:
        The sha256 of its canonical JSON, 64 hexadecimal digits.

    Example:
        >>> split_sha256(Split(("b", "a"), 1))[:8] == split_sha256(Split(("a", "b"), 1))[:8]
        False
    """
    content = {
        "labeled": list(split.labeled_patients),
        "unlabeled": list(split.unlabeled_patients),
        "validation": list(split.validation),
        "test": list(split.test),
        **({"development": list(split.development)} if split.development else {}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _rank(seed: int, patient: str) -> str:
    return hashlib.sha256(f"anatolab split {seed} {patient}".encode()).hexdigest()


def _check(split: Split, cohort: Cohort) -> None:
    if not 1 <= split.labeled <= len(split.train):
        raise InputError(
            f"{cohort.root}: {split.labeled} labeled patients were asked for, and {len(split.train)} are there to "
            f"train on; ask for 1 to {len(split.train)}."
        )
    part_of: dict[str, str] = {}
    for part in ("train", "validation", "test", "development"):
        for patient in getattr(split, part):
            if patient in part_of:
                raise InputError(
                    f"{cohort.root}: patient {patient} is in two parts of the split, {part_of[patient]} and {part}; "
                    "take it off one of the two lists."
                )
            part_of[patient] = part
    bare = {ref.patient for ref in cohort.refs if not ref.labeled}
    if wrong := [p for p in split.labeled_patients if p in bare]:
        raise InputError(
            f"{cohort.root}: labeled patient {wrong[0]} has no annotation ({len(wrong)} such); add the label files, or "
            f"ask for at most {len(split.train) - len(bare & set(split.train))} labeled patients."
        )
