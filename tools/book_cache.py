"""Runs the book's notebooks, several at once, into the jupyter-cache that `jupyter-book build` then serves.

jupyter-cache identifies a notebook by its kernel and its code, and would serve old outputs when the library, a record
or a package changes. So the cache has a fingerprint of all of these and is emptied when it differs. A changed notebook
needs no fingerprint: its code is its key.

It prints the time of each notebook and those over the limit. If a cell raises, it fails and names notebook and cell.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from jupyter_client.manager import AsyncKernelManager

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "_build" / ".jupyter_cache"
LIMIT = 60  # seconds per notebook, at size tiny
IGNORED = {"__pycache__", ".ipynb_checkpoints"}


def sources(root: Path) -> Iterator[Path]:
    """Yields the files that outputs depend on beside the notebooks' own code, in order."""
    yield root / "requirements.lock"
    for folder in ("anatolab", "book/records", "notebooks"):
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix != ".ipynb" and not IGNORED & set(path.parts):
                yield path


def fingerprint(root: Path, size: str) -> str:
    """Computes the sha256 over library, records, lock, the interpreter's version and the size that notebooks run at."""
    digest = hashlib.sha256(f"{platform.python_version()} {size} {os.environ.get('ANATOLAB_DATA', '')}".encode())
    for path in sources(root):
        digest.update(f"\n{path.relative_to(root).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()


def refresh(cache: Path, wanted: str) -> bool:
    """Empties the cache unless its fingerprint is the same; returns whether it was emptied."""
    stamp = cache / "fingerprint"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return False
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True)
    stamp.write_text(wanted, encoding="utf-8")
    return True


def chapters(root: Path) -> list[Path]:
    """Returns the notebooks that the table of contents names, in its order."""

    def walk(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (node[key] for key in ("root", "file") if key in node)
            for value in node.values():
                yield from walk(value)
        elif isinstance(node, list):
            for item in node:
                yield from walk(item)

    toc = root / "_toc.yml"
    if not toc.exists():
        return []
    named = [root / Path(name).with_suffix(".ipynb") for name in walk(yaml.safe_load(toc.read_text(encoding="utf-8")))]
    return [path for path in dict.fromkeys(named) if path.exists()]


def run(path: Path) -> ExecutionResult:
    """Runs a notebook in its folder with a new kernel, and stores the peak memory in the notebook's metadata."""
    peak: list[int | None] = []

    class Measured(AsyncKernelManager):
        async def shutdown_kernel(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
            peak.append(peak_memory_mb(getattr(self.provisioner, "pid", None)))
            await AsyncKernelManager.shutdown_kernel(self, *args, **kwargs)

    notebook = nbformat.read(path, as_version=4)
    result = single_nb_execution(
        notebook, cwd=str(path.parent), timeout=2 * LIMIT, allow_errors=False, kernel_manager_class=Measured
    )
    result.nb.metadata["peak_memory_mb"] = max((p for p in peak if p), default=None)
    return result


def peak_memory_mb(pid: int | None) -> int | None:
    """Returns the peak resident memory of a process in MB, where the system reports it (Linux)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    peak = re.search(r"VmHWM:\s*(\d+) kB", status)
    return round(int(peak[1]) * 1024 / 1e6) if peak else None


def main() -> int:
    """Fills the cache; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at a time")
    jobs = parser.parse_args().jobs
    os.environ["ANATOLAB_BOOK"] = "1"  # figures for the book, not for a live notebook

    if refresh(CACHE, fingerprint(ROOT, os.environ.get("ANATOLAB_SIZE", "tiny"))):
        print("library, records or environment are new to the cache: every notebook runs")
    cache = get_cache(str(CACHE))
    todo = []
    for path in chapters(ROOT):
        try:
            cache.match_cache_notebook(nbformat.read(path, as_version=4))
        except KeyError:
            todo.append(path)
    print(f"{len(chapters(ROOT))} notebooks in the book, {len(todo)} to run, {jobs} at a time", flush=True)

    bad, took = 0, []
    with ThreadPoolExecutor(jobs) as pool:
        for path, result in zip(todo, pool.map(run, todo), strict=True):
            took.append((result.time, path.name))
            verdict, peak = "ok", result.nb.metadata.pop("peak_memory_mb")
            if result.err is not None:
                verdict = "FAILED"
            elif result.time > LIMIT and os.environ.get("ANATOLAB_SIZE", "tiny") == "tiny":
                verdict = f"over the {LIMIT} s that a notebook may take"
            print(f"{path.relative_to(ROOT)!s:50} {result.time:6.1f} s  {peak or '?':>6} MB  {verdict}", flush=True)
            if result.err is not None:
                bad += 1
                print(result.exc_string, file=sys.stderr)
                continue
            bundle = CacheBundleIn(
                result.nb, str(path), data={"execution_seconds": result.time, "peak_memory_mb": peak}
            )
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    slowest = ", ".join(f"{name} {seconds:.0f} s" for seconds, name in sorted(took, reverse=True)[:10])
    print(f"slowest: {slowest or 'none had to run'}", flush=True)
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
