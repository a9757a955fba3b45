"""What a GPU that is lent for minutes is asked for, in order of worth, and how its results come home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anatolab import records

PART, PARTS = 15 << 20, 8  # bytes in an archive of results, and how many of them should do


def gpu(limit: float, out: Path, make_records: Callable[..., Any], *, dry_run: bool = False) -> int:
    """Runs the GPU tests, the benchmarks and every missing record within a time limit; archives the results.

    Needs only a Python with torch and the wheels that anatolab imports. Stopped and called again, it continues.

    Args:
        limit: Seconds.
        out: Folder of all that is made; its sub-folder ``results`` is what goes home.
        make_records: Makes records until a time limit, its ``workdir`` for unfinished runs.
        dry_run: Go through tests and benchmarks on the CPU, and make no record.
    """
    import torch

    if not torch.cuda.is_available() and not dry_run:
        print("no CUDA device here; --dry-run goes through the motions on the CPU", file=sys.stderr)
        return 2
    started, failures = time.monotonic(), 0
    out.mkdir(parents=True, exist_ok=True)
    root = Path(__file__).resolve().parent.parent
    benchmarks = sorted((root / "benchmarks").glob("bench_*.py"))
    commands = [[sys.executable, "-m", "pytest", "-q", "tests/gpu"]]
    numbers = out / "benchmarks"
    numbers.mkdir(exist_ok=True)
    commands += [[sys.executable, str(b), "--report", "--json", str(numbers / f"{b.stem}.json")] for b in benchmarks]
    for command in commands:
        left = limit - (time.monotonic() - started)
        if left <= 0:
            print("time is up before", " ".join(command[1:]), flush=True)
            break
        print("$", " ".join(command[1:]), flush=True)
        try:
            code = subprocess.run(command, cwd=root, timeout=left, check=False).returncode
        except subprocess.TimeoutExpired:
            code = -1
            print("stopped at the time limit", flush=True)
        failures += code not in (0, 5)  # 5: pytest found nothing to run
    os.environ.setdefault("ANATOLAB_RECORDS", str(out / "records"))
    if not dry_run:
        make_records(limit=limit - (time.monotonic() - started), workdir=out / "runs")
    packed = pack_results(out / "results", [numbers, records.root()])
    if len(packed) > PARTS:
        print(f"{len(packed)} archives in {out / 'results'}, more than {PARTS}: carry them in turns.", file=sys.stderr)
    return min(failures, 1)


def pack_results(target: Path, folders: Sequence[Path]) -> list[Path]:
    """Writes all files of some folders into archives in ``target`` that each fit through a narrow door.

    An archive holds at most ``PART`` bytes before compression, unless one file alone is larger. Archives of an earlier
    call are replaced.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    parts: list[list[tuple[Path, Path]]] = [[]]
    size = 0
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            if parts[-1] and size + path.stat().st_size > PART:
                parts.append([])
                size = 0
            parts[-1].append((path, Path(folder.name) / path.relative_to(folder)))
            size += path.stat().st_size
    packed = [target / f"results-{number}.tar.gz" for number in range(1, len(parts) + 1)]
    for archive_path, part in zip(packed, parts, strict=True):
        with tarfile.open(archive_path, "w:gz") as archive:
            for path, name in part:
                archive.add(path, name)
    return packed
