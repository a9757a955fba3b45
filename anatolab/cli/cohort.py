"""``anatolab cohort``: generated patients in the public layouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from anatolab.cli.common import Json, print_json
from anatolab.errors import InputError
from anatolab.files import check_target


def command(arguments: Sequence[str]) -> Any:
    """Returns the function whose parameters are the flags; its kinds are those of ``anatolab.data.phantoms``."""
    from anatolab.data.phantoms import KINDS

    cohort.__annotations__["kind"] = tyro.conf.Positional[Literal[tuple(KINDS)]]  # type: ignore[misc]
    return cohort


def cohort(kind: Any, out: tyro.conf.Positional[Path], patients: int = 24, seed: int = 0, json: Json = False) -> int:
    """Generate patients and write them in the layout of the public data set of their anatomy.

    Args:
        kind: Which anatomy.
        out: Folder to write; it must be new or empty.
        patients: How many.
        seed: Random seed; patient 7 is the same in a cohort of 10 and of 100.
        json: Print what was written as JSON.
    """
    from anatolab.data import open_cohort

    if not 1 <= patients <= 10_000:
        raise InputError(f"--patients {patients}: a cohort has 1 to 10000 patients; give a number such as 24.")
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed}: must be a whole number from 0 to 4294967295.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out}: exists and is not an empty folder; name a new one, or remove it.")
    check_target(out / "cohort", overwrite=False)
    _write_cohort(kind, out, patients, seed)
    made = open_cohort(out)
    train = f"anatolab train --data {out} --out runs/{kind} --split-seed 0 --labeled-patients 3 base"
    if json:
        about = {"kind": kind, "folder": out, "patients": patients, "seed": seed, "layout": made.layout}
        print_json({**about, "next": train})
    else:
        print(f"{out}: {patients} generated patients, {kind}, seed {seed}, classes {', '.join(made.classes[1:])}")
        print(f"train on three of them: {train}")
    return 0


def _write_cohort(kind: str, out: Path, patients: int, seed: int) -> None:
    """Writes beside ``out`` and moves the finished cohort there, so that an interruption leaves no partial cohort."""
    import shutil
    import tempfile
    from concurrent.futures import ThreadPoolExecutor, wait

    from tqdm import tqdm

    from anatolab.data.phantoms import KINDS

    write, one_each = KINDS[kind]
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with (
            ThreadPoolExecutor(1) as pool,
            tqdm(total=patients, desc=f"drawing {kind}", unit="patient", disable=None) as bar,
        ):
            job = pool.submit(write, part, patients=patients, seed=seed)
            try:
                while wait([job], timeout=0.2).not_done:
                    bar.update(len(list(part.glob(one_each))) - bar.n)
            except KeyboardInterrupt:
                while part.is_dir():
                    shutil.rmtree(part, ignore_errors=True)
                part.touch()  # a file in its place ends the writer at its next patient
                raise
            job.result()
            bar.update(patients - bar.n)
        part.chmod(0o755)
        if out.is_dir():
            out.rmdir()
        part.rename(out)
    finally:
        if part.is_file():
            part.unlink()
        shutil.rmtree(part, ignore_errors=True)
