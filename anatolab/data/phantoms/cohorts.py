"""Generated cohorts, written once and opened by the readers of the public layouts.

This module is separate from the generators, so that a changed reader does not make records of a generator stale.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from anatolab.data.phantoms import abdomen, atrium, cardiac
from anatolab.data.phantoms.files import written_once
from anatolab.types import Cohort


def cardiac_cohort(
    patients: int = 100, *, seed: int = 0, size: int = cardiac.SIZE, cache: str | Path | None = None
) -> Cohort:
    """Opens generated hearts, written once under the cache root; safe with several processes.

    Args:
        patients: Number of patients.
        seed: Seed of the cohort.
        size: Pixels along the longer side of a slice.
        cache: Cache root; by default ``ANATOLAB_CACHE``, else ``~/.cache/anatolab``.

    Returns:
        The cohort, its provenance naming generator, version and seed.
    """
    return _opened("cardiac", "generated cardiac", cardiac, cardiac.write_cardiac, patients, seed, size, cache)


def abdomen_cohort(
    patients: int = 60, *, seed: int = 0, size: int = abdomen.SIZE, cache: str | Path | None = None
) -> Cohort:
    """Opens generated abdomens, as :func:`cardiac_cohort` does; ``size`` is pixels along a side of a slice."""
    return _opened("abdomen", "generated abdomen", abdomen, abdomen.write_abdomen, patients, seed, size, cache)


def atrium_cohort(
    patients: int = 60, *, seed: int = 0, size: int = atrium.SIZE, cache: str | Path | None = None
) -> Cohort:
    """Opens generated left atria, as :func:`cardiac_cohort` does; ``size`` is voxels along the columns."""
    return _opened("atrium", "generated left atrium", atrium, atrium.write_atrium, patients, seed, size, cache)


def _opened(
    kind: str, title: str, module: Any, write: Any, patients: int, seed: int, size: int, cache: str | Path | None
) -> Cohort:
    from anatolab.data import open_cohort

    name = f"{kind}-v{module.VERSION}-seed{seed}-{patients}x{size}"
    folder = written_once(name, lambda root: write(root, patients=patients, seed=seed, size=size), cache)
    return replace(open_cohort(folder), name=title, provenance=module.provenance(patients, seed, size))
