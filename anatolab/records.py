"""Records: the files behind every number in the book, with configuration and provenance.

One run of one experiment with one seed is one JSON file, ``<root>/<experiment>/seed<k>.json``. The root is the
environment variable ``ANATOLAB_RECORDS``, else ``book/records`` of the checkout, else the records that the installed
package holds, which are those of the book without its pictures. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

from anatolab.files import write_atomically
from anatolab.staleness import closure_sha256

SCHEMA = 1
PACKAGE = Path(__file__).resolve().parent
VERSIONS_OF = ("torch", "monai", "numpy", "scipy", "lightning-fabric", "anatolab")


class RecordError(LookupError):
    """A record or a value in it does not exist; the message names both and the command that makes it."""


@dataclass(frozen=True)
class Record:
    """One run: measured values, configuration, code and machine.

    ``values`` nests dictionaries of numbers, strings and lists; a number that could not be measured is ``None``.
    """

    experiment: str  # "acdc-3-supervised"
    seed: int
    values: dict[str, Any]
    title: str = ""
    kind: str = "segmentation"
    config: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    code: dict[str, Any] = field(default_factory=dict)  # module and its sha256; name and statistics of a reference run
    split_sha256: str = ""
    arrays: dict[str, str] = field(default_factory=dict)  # file beside the record -> sha256
    schema: int = SCHEMA

    @property
    def run_id(self) -> str:
        """Experiment, seed and the first digits of the commit, as the book prints it."""
        return f"{self.experiment}/seed{self.seed}@{self.provenance.get('commit', 'unknown')[:7]}"


def root() -> Path:
    """Returns the folder that holds all records."""
    if named := os.environ.get("ANATOLAB_RECORDS"):
        return Path(named)
    packaged = PACKAGE / "book_records"  # only in a wheel, see pyproject.toml
    return packaged if packaged.is_dir() else PACKAGE.parent / "book" / "records"


def path_of(experiment: str, seed: int) -> Path:
    """Returns the path of this run's record, which need not exist."""
    return root() / experiment / f"seed{seed}.json"


def write(record: Record) -> Path:
    """Writes a record atomically, with a seal by which a later change is noticed."""
    path = path_of(record.experiment, record.seed)
    held = plain(asdict(record))
    text = json.dumps({**held, "seal": seal(held)}, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(path, text, overwrite=True)
    return path


def seal(held: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of what a record holds, however its file is laid out.

    Example:
        >>> seal({"a": 1, "b": [2.0]}) == seal({"b": [2.0], "a": 1}), seal({"a": 1}) == seal({"a": 2})
        (True, False)
    """
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def read(path: Path) -> Record:
    """Reads one record file.

    Old records without a seal are read without this check.

    Raises:
        RecordError: The file is not a record of this schema, was changed after it was written, or belongs to another
            run.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        message = f"{path}: cannot be read as a record ({reason}); delete it and run `make records`."
        raise RecordError(message) from error
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        raise RecordError(f"{path}: not a record of schema {SCHEMA}; delete it and run `make records`.")
    sealed = raw.pop("seal", None)
    wrong = sealed is not None and seal(raw) != sealed
    wrong = wrong or bool(raw.keys() - Record.__dataclass_fields__.keys())
    wrong = wrong or any(not isinstance(raw.get(k, {}), dict) for k in ("config", "provenance", "code", "arrays"))
    wrong = wrong or not isinstance(raw.get("values"), dict)
    if wrong:
        raise RecordError(f"{path}: was changed after it was written; restore it, or delete it and run `make records`.")
    if [path.parent.name, path.name] != [raw.get("experiment"), f"seed{raw.get('seed')}.json"]:
        raise RecordError(
            f"{path}: is the record of {raw.get('experiment')!r} with seed {raw.get('seed')}; "
            "move it back, or delete it."
        )
    return Record(**raw)


def load(experiment: str) -> list[Record]:
    """Returns all runs of an experiment, by seed.

    Raises:
        RecordError: There is no run.
    """
    paths = (root() / experiment).glob("seed*.json")
    records = sorted((read(p) for p in paths), key=lambda r: r.seed)
    if not records:
        raise RecordError(f"no record of {experiment!r}; `make records ARGS={experiment}` makes it.")
    return records


def exists(experiment: str) -> bool:
    """Returns whether at least one run of the experiment is recorded."""
    return any((root() / experiment).glob("seed*.json"))


def get(record: Record, key: str) -> Any:
    """Returns the value at a dotted key of one record, e.g. ``dice.mean``.

    Raises:
        RecordError: The record has no such value.
    """
    value: Any = record.values
    for part in key.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, Sequence) and not isinstance(value, str) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise RecordError(f"record {record.experiment!r} (seed {record.seed}) has no value {key!r}.")
    return value


def value(experiment: str, key: str) -> Any:
    """Returns the mean of a number over the seeds of an experiment, as :func:`mean` has it."""
    return mean(load(experiment), key)


def mean(made: Sequence[Record], key: str) -> Any:
    """Returns the mean of a number over runs; the value itself for one run, or if it is not a number.

    Unmeasured entries (``None``) make the mean ``nan``; they are not silently left out.

    Raises:
        RecordError: The number is missing, or CPU seconds of runs on several processors, which have no mean.
    """
    seconds = any(part.endswith("cpu_s") for part in key.split("."))  # a list of them as well
    if seconds and len({record.provenance.get("device") for record in made}) > 1:
        raise RecordError(f"{key} of {made[0].experiment}: its runs were on several processors; compare one at a time.")
    values = [get(record, key) for record in made]
    if len(values) == 1 or not all(v is None or isinstance(v, int | float) for v in values):
        return values[0]
    return math.fsum(math.nan if v is None else v for v in values) / len(values)


def measured(values: Mapping[str, float | None]) -> dict[str, float]:
    """Returns the recorded numbers of units such as patients; those that could not be measured are ``nan``.

    Example:
        >>> measured({"p0": 0.5, "p1": None})
        {'p0': 0.5, 'p1': nan}
    """
    return {unit: math.nan if v is None else float(v) for unit, v in values.items()}


def plain(value: Any) -> Any:
    """Turns dataclasses, tuples, paths and numpy values into what JSON holds; a non-finite number becomes ``None``."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)


def provenance(
    *, started: str, wall_s: float, device: str, threads: int, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Collects the provenance of a run: commit, versions, machine, time, memory.

    Args:
        started: Date and time, ISO.
        wall_s: Seconds.
        device: Where it was computed.
        threads: Threads of the processor.
        before: :func:`git_state` at the start of the run, whose commit is that of the code that ran. If the state has
            changed since, the record counts as made from uncommitted code.
    """
    import resource  # not on Windows, where no record of ours is made

    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KiB on Linux
    return {
        **_state_of_run(before),
        "started": started,
        "wall_s": round(wall_s, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6),
        "device": device,
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: installed_version(name) for name in VERSIONS_OF},
    }


def installed_version(distribution: str) -> str:
    """Returns the installed version of a distribution, or ``absent``."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _state_of_run(before: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the commit that ran, and whether uncommitted code may have run with it."""
    now = git_state()
    return now if before is None else {**before, "dirty": before["dirty"] or dict(before) != now}


def git_state() -> dict[str, Any]:
    """Returns the commit of the checkout and whether tracked files of the package differ from it.

    An installed package has the commit that it was built at, whatever repository it lies in.
    """

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", *args], cwd=PACKAGE.parent, capture_output=True, encoding="utf-8", check=True, timeout=30
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", PACKAGE.name + "/records.py")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "anatolab"))}
    except (OSError, subprocess.SubprocessError):
        built = PACKAGE / "commit.json"  # only in a wheel, see hatch_build.py
        return (
            json.loads(built.read_text(encoding="utf-8")) if built.is_file() else {"commit": "unknown", "dirty": True}
        )


def is_stale(record: Record) -> bool:
    """Returns whether the current code would make a different record.

    A record is stale if the meaning of its module's code has changed (see :mod:`anatolab.staleness`), or if the last
    reference run of its method had another result (see ``studies/fingerprints.py``).
    """
    code = record.code
    if code.get("module") and closure_sha256(code["module"]) != code.get("sha256"):
        return True
    today = fingerprints().get(code.get("fingerprint", ""))
    return today is not None and not agree(code["statistics"], today["statistics"])


def code_of(module: str) -> dict[str, Any]:
    """Returns the entry that ties a record to a module and everything of anatolab it imports."""
    return {"module": module, "sha256": closure_sha256(module)}


def fingerprints() -> dict[str, Any]:
    """Returns the last measured reference runs, by name; empty if there is no file beside the records."""
    path = root() / "fingerprints.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_fingerprints(measured: Mapping[str, Any]) -> None:
    """Writes the reference runs beside the records."""
    text = json.dumps(measured, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_atomically(root() / "fingerprints.json", text, overwrite=True)


def agree(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Returns whether two fingerprints agree up to the rounding of different processors.

    Statistics of a trained network, whose names begin with ``trained.``, may differ by 2 %, because training amplifies
    rounding; all others by one part in a thousand.

    Example:
        >>> agree({"lr": 1.0}, {"lr": 1.0001}), agree({"lr": 1.0}, {"lr": 1.01})
        (True, False)
    """
    return one.keys() == other.keys() and all(
        math.isclose(v, other[k], rel_tol=0.02 if k.startswith("trained.") else 1e-3, abs_tol=1e-6)
        for k, v in one.items()
    )
