"""Generated cohorts, written once and opened by the readers of the public layouts.

Apart from the generators, so that a change of a reader does not make what was recorded of a generator stale.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from anatolab.data.phantoms.abdomen import SIZE, VERSION, provenance, write_abdomen
from anatolab.data.phantoms.files import written_once
from anatolab.types import Cohort


def abdomen_cohort(patients: int = 60, *, seed: int = 0, size: int = SIZE, cache: str | Path | None = None) -> Cohort:
    """Opens a generated cohort, written once under the cache root; two processes at once do no harm.

    Args:
        patients: Number of patients.
        seed: Seed of the cohort.
        size: Pixels along a side of a slice.
        cache: Cache root; ``ANATOLAB_CACHE``, else ``~/.cache/anatolab``, where it is None.

    Returns:
        The cohort, its provenance naming generator, version and seed.
    """
    from anatolab.data import open_cohort

    name = f"abdomen-v{VERSION}-seed{seed}-{patients}x{size}"
    folder = written_once(name, lambda root: write_abdomen(root, patients=patients, seed=seed, size=size), cache)
    return replace(open_cohort(folder), name="generated abdomen", provenance=provenance(patients, seed, size))
