"""Splits: published order, nested budgets, one hash for one split on every machine."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anatolab.data import present, published_lists, split_patients, split_sha256
from anatolab.types import CaseRef, Cohort, InputError, Split


def never() -> Any:
    raise AssertionError("a split reads no image")


def cohort_of(
    patients: list[str], published: dict[str, tuple[str, ...]] | None = None, bare: tuple[str, ...] = ()
) -> Cohort:
    refs = [CaseRef(p, phase, Path(p), never, labeled=p not in bare) for p in patients for phase in ("ED", "ES")]
    return Cohort("test", "none", ("background", "organ"), tuple(refs), Path("root"), published or {})


HUNDRED = [f"patient{i:03d}" for i in range(1, 101)]
ACDC = cohort_of(HUNDRED, published_lists("acdc"))
SEEDED = cohort_of(HUNDRED)
# By seed 0, with 10 and 20 held out; a change here would change what every seeded record was made on.
PINNED_LABELED = ("patient061", "patient043", "patient059")
PINNED_SHA256 = "c6267a89e325bb7a39f8d960318c7053c40799f9f8cfc588b16d42ac290480bd"


def test_the_published_acdc_file_is_the_one_that_was_checked() -> None:
    content = resources.files("anatolab.data.splits").joinpath("acdc.json").read_bytes()
    sha256 = "f99b4744e4cc079442b5f4c9ad761423a8df67caa2e9add32b972e1561b9ed6b"
    assert hashlib.sha256(content).hexdigest() == sha256
    lists = published_lists("acdc")
    assert sorted(lists["train"] + lists["validation"] + lists["test"]) == HUNDRED


@pytest.mark.real
def test_the_published_acdc_file_is_what_the_lists_say(real_data: Path) -> None:
    for part, file in (("train", "train.list"), ("validation", "val.list"), ("test", "test.list")):
        names = (real_data / "ACDC" / file).read_text().split()
        assert published_lists("acdc")[part] == tuple(dict.fromkeys(name.split("_")[0] for name in names))


def test_published_budgets_are_the_papers() -> None:
    one, three, seven = (split_patients(ACDC, k) for k in (1, 3, 7))
    assert one.labeled_patients == ("patient099",)
    assert three.labeled_patients == ("patient099", "patient038", "patient050")
    assert seven.labeled_patients[3:] == ("patient100", "patient058", "patient021", "patient049")
    assert (len(three.train), len(three.validation), len(three.test)) == (70, 10, 20)
    assert len(three.unlabeled_patients) == 67
    assert three.origin == "published list"


def test_all_labels_every_training_patient() -> None:
    split = split_patients(ACDC, "all")
    assert split.labeled == 70
    assert split.unlabeled_patients == ()


def test_hashes_are_the_same_on_every_machine() -> None:
    assert split_sha256(split_patients(ACDC, 3)) == "6994d68581722214875e1462570b54aab2657e05def46c622f7838f1a8961713"
    seeded = split_patients(SEEDED, 3, validation=10, test=20, seed=0)
    assert seeded.labeled_patients == PINNED_LABELED
    assert split_sha256(seeded) == PINNED_SHA256


def test_the_hash_sees_order_budget_and_parts_but_not_the_origin() -> None:
    base = Split(("a", "b", "c"), 1, ("d",), ("e",), "seed 0")
    assert split_sha256(base) == split_sha256(replace(base, origin="by hand"))
    others = [
        replace(base, labeled=2),
        replace(base, train=("b", "a", "c")),
        replace(base, validation=("e",), test=("d",)),
        replace(base, test=()),
    ]
    assert len({split_sha256(s) for s in (base, *others)}) == 5


@given(seed=st.integers(0, 10**6), shuffle=st.integers(0, 10**6))
def test_by_seed_nested_and_independent_of_the_order_of_files(seed: int, shuffle: int) -> None:
    shuffled = random.Random(shuffle).sample(HUNDRED, 100)
    small, medium, large = (split_patients(SEEDED, k, validation=10, test=20, seed=seed) for k in (1, 3, 7))
    again = split_patients(cohort_of(shuffled), 7, validation=10, test=20, seed=seed)
    assert again == large
    assert small.labeled_patients == large.labeled_patients[:1]
    assert medium.labeled_patients == large.labeled_patients[:3]
    assert (small.validation, small.test) == (large.validation, large.test)
    assert sorted(large.train + large.validation + large.test) == HUNDRED
    assert (len(large.train), len(large.validation), len(large.test)) == (70, 10, 20)


def test_seeds_differ_and_every_patient_is_labeled_by_some_seed() -> None:
    first = {split_patients(SEEDED, 1, seed=seed).train[0] for seed in range(1000)}
    assert len(first) > 95


def test_a_seed_reorders_the_published_training_list_and_spares_the_held_out() -> None:
    published, seeded = split_patients(ACDC, 3), split_patients(ACDC, 3, seed=1)
    assert set(seeded.train) == set(published.train)
    assert seeded.train != published.train
    assert (seeded.validation, seeded.test) == (published.validation, published.test)
    inner = split_patients(ACDC, 3, validation=10, seed=1)
    assert set(inner.validation) < set(published.train)
    assert inner.labeled_patients == seeded.labeled_patients
    assert inner.test == published.test


def test_named_patients_are_held_out_of_a_seeded_order() -> None:
    split = split_patients(SEEDED, 3, validation=("patient002", "patient001"), seed=0)
    assert split.validation == ("patient002", "patient001")
    assert split.test == ()
    assert len(split.train) == 98


def test_published_test_patients_without_files_stay_on_the_list() -> None:
    present = cohort_of([p for p in HUNDRED if p not in published_lists("acdc")["test"]], published_lists("acdc"))
    split = split_patients(present, 3)
    assert len(split.test) == 20
    with pytest.raises(InputError, match="published test list"):
        present.of(split.test)


def test_patients_without_annotation_are_never_labeled_nor_held_out_by_a_seed() -> None:
    bare = tuple(HUNDRED[:50])
    split = split_patients(cohort_of(HUNDRED, bare=bare), 40, validation=5, test=5, seed=0)
    assert set(split.train[40:]) == set(bare)
    assert not set(bare) & set(split.validation + split.test)
    with pytest.raises(InputError, match=r"labeled patient .* has no annotation .* at most 40 labeled"):
        split_patients(cohort_of(HUNDRED, bare=bare), 41, validation=5, test=5, seed=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: split_patients(ACDC, 0), "0 labeled patients were asked for, and 70 are there"),
        (lambda: split_patients(ACDC, -1), "ask for 1 to 70"),
        (lambda: split_patients(ACDC, 71), "71 labeled patients were asked for"),
        (
            lambda: split_patients(ACDC, 3, validation=("patient099",)),
            "patient099 is in two parts of the split, train and",
        ),
        (lambda: split_patients(SEEDED, 3, validation=("patient001",), test=("patient001",), seed=0), "in two parts"),
        (lambda: split_patients(SEEDED, 3, test=("patient101",), seed=0), "test patient 'patient101' is not in this"),
        (lambda: split_patients(ACDC, 3, validation=5), "can only be drawn with a seed"),
        (lambda: split_patients(SEEDED, 3), "has no published training list"),
        (lambda: split_patients(SEEDED, 3, test=100, seed=0), "100 test patients cannot be held out of 100"),
        (lambda: split_patients(SEEDED, 3, validation=-1, seed=0), "-1 validation patients cannot"),
        (
            lambda: split_patients(cohort_of(HUNDRED[:50], published_lists("acdc")), 3),
            "of the 70 patients of the published",
        ),
        (lambda: split_patients(cohort_of(HUNDRED, {"train": ("patient001",) * 2}), 1), "in two parts"),
        (lambda: split_patients(ACDC, 3, development=("patient099",)), "patient099 is one of the 3 labeled patients"),
        (lambda: split_patients(ACDC, 3, development=("patient101",)), "'patient101' is not one of the 70 annotated"),
        (lambda: split_patients(ACDC, 3, development=published_lists("acdc")["test"]), "is not one of the 70"),
        (lambda: split_patients(ACDC, 3, development=70), "70 development patients cannot be taken of 70"),
        (lambda: split_patients(ACDC, 3, development=68), "3 labeled patients were asked for, and 2 are there"),
        (lambda: split_patients(ACDC, 3, development=-1), "-1 development patients cannot be taken"),
        (lambda: split_patients(cohort_of([]), 1, seed=0), "0 are there to train on"),
    ],
)
def test_impossible_splits_are_refused_in_one_sentence(make: Callable[[], Split], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        make()
    message = str(error.value)
    assert message.startswith("root: ")
    assert message.endswith(".")
    assert ";" in message


DEVELOPMENT = tuple(f"patient{n:03d}" for n in (14, 36, 37, 43, 54, 60, 61, 71, 76, 91))


@given(seed=st.integers(0, 10**6), held=st.integers(0, 9), tests=st.one_of(st.none(), st.integers(0, 9)))
def test_no_seed_touches_a_published_held_out_patient(seed: int, held: int, tests: int | None) -> None:
    lists = published_lists("acdc")
    only_test = cohort_of(HUNDRED, {"test": lists["test"]})
    for cohort in (ACDC, only_test):
        split = split_patients(cohort, 3, validation=held, test=tests, development=5, seed=seed)
        parts = {*split.train, *split.validation, *split.development}
        assert parts.isdisjoint(lists["test"])
        assert split.test == lists["test"] or (tests is not None and len(split.test) == tests)
        assert set(split.test) == set(lists["test"]) or set(split.test).isdisjoint(lists["test"])


def test_development_patients_are_not_trained_on_and_budgets_stay_nested() -> None:
    named = {k: split_patients(ACDC, k, development=DEVELOPMENT) for k in (1, 3, 7, "all")}
    drawn = {k: split_patients(SEEDED, k, validation=10, test=20, development=10, seed=0) for k in (1, 3, 7, "all")}
    for splits in (named, drawn):
        for split in splits.values():
            assert (len(split.train), len(split.development)) == (60, 10)
            assert set(split.development).isdisjoint(split.train + split.validation + split.test)
            assert split.development == splits[1].development
        assert splits[1].labeled_patients == splits[3].labeled_patients[:1]
        assert splits["all"].labeled == 60
    assert named[3].development == DEVELOPMENT
    assert named[7].labeled_patients == split_patients(ACDC, 7).labeled_patients
    whole = split_patients(SEEDED, 3, validation=10, test=20, seed=0)
    assert drawn[3].development == whole.train[-10:]
    assert drawn[3].train == whole.train[:-10]


def test_development_is_part_of_the_hash_and_its_absence_changes_none() -> None:
    without, with_ = split_patients(ACDC, 3), split_patients(ACDC, 3, development=DEVELOPMENT)
    assert split_sha256(without) == "6994d68581722214875e1462570b54aab2657e05def46c622f7838f1a8961713"
    assert split_sha256(with_) != split_sha256(without)
    assert with_ == without.with_development(DEVELOPMENT)
    assert without.with_development(2).development == without.train[-2:]
    assert split_sha256(replace(with_, development=())) != split_sha256(with_)


def test_development_patients_have_an_annotation() -> None:
    bare = tuple(HUNDRED[:50])
    split = split_patients(cohort_of(HUNDRED, bare=bare), 3, validation=5, development=10, seed=0)
    assert len(split.development) == 10
    assert set(bare).isdisjoint(split.development)
    assert set(bare) < set(split.train)


def test_listed_patients_without_files_are_left_out_where_that_is_asked_for() -> None:
    lists = published_lists("acdc")
    some = present(cohort_of(HUNDRED[:50], lists))
    assert some.published == {part: tuple(p for p in names if p in HUNDRED[:50]) for part, names in lists.items()}
    assert set(some.provenance["absent"]) == set(HUNDRED[50:])
    assert some.provenance["notes"][0].startswith("50 of the 100 patients of the published lists have no files here")
    split = split_patients(some, 3)
    assert split.train == some.published["train"]
    assert present(ACDC) is ACDC


def test_zero_held_out_patients_need_no_seed() -> None:
    split = split_patients(ACDC, 3, validation=0, test=0)
    assert (split.validation, split.test) == ((), ())


@pytest.mark.parametrize("patients", [3, -1, ("a",), ("c", "c"), ("z",)])
def test_development_patients_that_cannot_be_taken(patients: Any) -> None:
    with pytest.raises(InputError, match="development: "):
        Split(("a", "b", "c"), 1).with_development(patients)
