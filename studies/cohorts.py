"""The cohorts of the studies by the name in an experiment's id, and their splits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from anatolab.data import open_cohort, phantoms, split_patients
from anatolab.types import Cohort, InputError, Split

Splits = Callable[[int], Split]  # of a budget of labeled patients; 0: all
# Training patients of ACDC on whom settings are chosen; a run that is measured on them never trains on them.
DEVELOPMENT = tuple(f"patient{n}" for n in ["014", "036", "037", "043", "054", "060", "061", "071", "076", "091"])


def _acdc() -> tuple[Cohort, Splits]:
    root = os.environ.get("ANATOLAB_DATA")
    if not root:
        raise InputError("ANATOLAB_DATA is not set; let it name the folder that holds ACDC/ to make records on ACDC.")
    cohort = open_cohort(Path(root) / "ACDC")
    return cohort, lambda labeled: split_patients(cohort, labeled or len(cohort.published["train"]))


def _acdc_development() -> tuple[Cohort, Splits]:
    """Opens ACDC with the development patients in place of the validation patients, and out of the training."""
    cohort, split_of = _acdc()
    train = tuple(p for p in split_of(1).train if p not in DEVELOPMENT)
    return cohort, lambda labeled: Split(
        train, labeled or len(train), validation=DEVELOPMENT, origin="development patients"
    )


def _la() -> tuple[Cohort, Splits]:
    """Opens the real atria at 1.25 mm; the available patients of the published test list are reported."""
    root = os.environ.get("ANATOLAB_DATA")
    if not root:
        raise InputError(
            "ANATOLAB_DATA is not set; let it name the folder that holds LA-1.25mm/ to make records on LA."
        )
    cohort = open_cohort(Path(root) / "LA-1.25mm")
    train, test = cohort.published["train"], cohort.published["test"]
    return cohort, lambda labeled: Split(train, labeled or len(train), validation=test, origin="published list")


def _generated(
    draw: Callable[..., Cohort], patients: int, train: int, validation: int, test: int
) -> tuple[Cohort, Splits]:
    cohort = draw(patients, seed=0)
    return cohort, lambda labeled: split_patients(cohort, labeled or train, validation=validation, test=test, seed=0)


COHORTS: dict[str, Callable[[], tuple[Cohort, Splits]]] = {
    "acdc": _acdc,
    "acdc-development": _acdc_development,
    "la": _la,
    "cardiac": lambda: _generated(phantoms.cardiac_cohort, 100, 70, 10, 20),
    "abdomen": lambda: _generated(phantoms.abdomen_cohort, 64, 40, 10, 14),
    "atrium": lambda: _generated(phantoms.atrium_cohort, 60, 40, 8, 12),
}
