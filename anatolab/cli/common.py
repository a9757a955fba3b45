"""Helpers that several commands share: flags, devices, printed JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from anatolab.errors import InputError

Flag = tyro.conf.FlagCreatePairsOff[bool]  # --flag, without a --no-flag beside it
Json = Annotated[Flag, tyro.conf.arg(name="json", help="Print the result as JSON, and nothing else.")]
Overwrite = Annotated[Flag, tyro.conf.arg(help="Replace files that exist.")]
Stride = tuple[int, int, int]
Accelerator = Literal["auto", "cpu", "cuda", "mps"]


def print_json(value: Any) -> None:
    """Prints dataclasses, dictionaries, paths and arrays as JSON; a number that is not finite becomes null."""
    from anatolab.records import plain

    print(json.dumps(plain(value), indent=1, ensure_ascii=False))


def device_of(accelerator: str) -> str:
    """Returns torch's name of the device.

    Raises:
        InputError: There is no such device here.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator == "auto":
        return "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
    if not there[accelerator]:
        raise InputError(f"--accelerator {accelerator}: torch sees no such device here; use cpu, or install its build.")
    return accelerator


def check_stride(stride: Stride | None, patch: Sequence[int] | None) -> Stride | None:
    """Returns the stride; refuses one for a run on slices."""
    if stride is not None and patch is None:
        raise InputError("--stride: this run was trained on slices, which need no sliding window; leave it out.")
    return stride


def one_of_these(count: int, noun: str) -> str:
    """Returns ``1 patient`` or ``2 patients``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def cohort_of(run: Path, info: Any, data: Path | None) -> Any:
    """Returns the cohort of a folder, or of the one that a run was trained on, as it is stored.

    Raises:
        InputError: No folder is given, and the run names none.
    """
    from anatolab.data import open_cohort

    if data is None and not info.data:
        raise InputError(f"{run}: does not say which folder it was trained on; give --data.")
    if data is None and not Path(info.data).exists():
        raise InputError(f"{run}: the folder {info.data} that it was trained on is not there; give --data.")
    return open_cohort(data or info.data, as_stored=True)


def patients_of(run: Path, info: Any, cohort: Any, on: str) -> tuple[str, ...]:
    """Returns the patients of a part of a run's split, or all annotated ones of a cohort.

    Raises:
        InputError: There are no such patients.
    """
    if on == "all":
        patients = tuple(dict.fromkeys(ref.patient for ref in cohort.refs if ref.labeled))
        if not patients:
            raise InputError(f"{cohort.root}: no patient is annotated, so nothing can be compared; use predict.")
        return patients
    patients = getattr(info.split, on)
    if not patients:
        flag = {"validation": "--held-out", "test": "--held-out-test", "development": "--development"}[on]
        raise InputError(
            f"{run}: its split has no {on} patients; train with --split-seed and {flag}, or give --on all."
        )
    if absent := [patient for patient in patients if patient not in set(cohort.patients)]:
        raise InputError(
            f"{cohort.root}: {len(absent)} of the run's {len(patients)} {on} patients are not here, first {absent[0]}; "
            "give the folder it was trained on, or --on all."
        )
    return patients


def check_sides(given: tuple[Any, ...], network: str, dims: int) -> None:
    """Refuses the sides of slices or patches that a network cannot halve often enough.

    Args:
        given: The name of the setting, and its sides in pixels or voxels.
        network: A key of :data:`anatolab.nn.NETWORKS`.
        dims: 2 or 3.

    Raises:
        InputError: Names the setting and the multiple that is needed.
    """
    from anatolab.nn import multiple_of

    flag, *sides = given
    each = multiple_of(network, dims)
    if min(sides) < each or max(sides) > 4_096 or any(side % each for side in sides):
        raise InputError(
            f"{flag} {' '.join(map(str, sides))}: {network} needs multiples of {each}, from {each} to 4096; "
            "choose such sides."
        )
