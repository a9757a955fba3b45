"""Checks stored notebooks: `notebooks.py check | compare | strip [FILE ...] | install | list lax|strict`.

A notebook in git stores only outputs that a test compares with fresh ones: those of contract cells, which print a
rounded deterministic number and carry the tags `nbval-check-output` and `keep_output`, and all cells of a theory
notebook, whose metadata say `keep_output: true`. The rules exist because nbval passes a cell without a stored output
and compares nothing.

`compare` compares every stored output, by nbval's rules, with the output of the book's build, which has run each
notebook. `install` gives each notebook the same first code cell, below the title, which installs anatolab where it is
missing. nbval itself runs theory notebooks (strict) and one contract notebook of each part (lax), to test that they
run without the build.
"""

from __future__ import annotations

import copy
import difflib
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
FLOOR = 224  # cells whose stored outputs are compared, at least; raise it as notebooks land
SLACK = 5  # and at most this many above the floor, so that it cannot fall behind
MAX_BYTES = 200_000
LIVE = (  # the contract notebook of each part that nbval runs
    "12_baselines.ipynb",
    "24_arco.ipynb",
    "30_morse.ipynb",
    "40_spurious.ipynb",
    "51_embeddings_over_training.ipynb",
    "70_harness.ipynb",
)
CACHE = ROOT / "_build" / ".jupyter_cache"
KINDS = ("method", "theory", "prose")
INSTALL = """# @title Installs anatolab where it is missing
import importlib.util
from pathlib import Path

if importlib.util.find_spec("anatolab") is None:
    wheels = sorted(Path().glob("anatolab-*.whl"))  # beside this notebook
    wheel = wheels[-1] if wheels else "anatolab"
    %pip install --quiet {wheel}
"""
INSTALL_CELL = {  # folded in JupyterLab and Colab, absent from the page, compared with nothing
    "cell_type": "code",
    "execution_count": None,
    "id": "install",
    "metadata": {
        "cellView": "form",
        "jupyter": {"source_hidden": True},
        "tags": ["remove-cell", "nbval-ignore-output"],
    },
    "outputs": [],
    "source": INSTALL.rstrip().splitlines(keepends=True),
}
STRIP = ("--keep-count", "--keep-id", "--extra-keys", "metadata.language_info.version")

Notebook = dict[str, Any]


def paths(root: Path = ROOT) -> list[Path]:
    """Returns the notebooks of the book, in order of name."""
    return sorted((root / "notebooks").glob("*.ipynb"))


def read(path: Path) -> Notebook:
    """Reads a notebook as plain JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def is_strict(notebook: Notebook) -> bool:
    """Returns whether nbval compares every cell of it: theory notebooks, which keep their outputs."""
    return bool(notebook["metadata"].get("keep_output"))


def tags(cell: dict[str, Any]) -> set[str]:
    """Returns the tags of a cell."""
    return set(cell["metadata"].get("tags", []))


def code_cells(notebook: Notebook) -> list[tuple[int, dict[str, Any]]]:
    """Returns the nonempty code cells, with their index among all cells."""
    cells = enumerate(notebook["cells"])
    return [(i, cell) for i, cell in cells if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]


def compared(notebook: Notebook) -> list[tuple[int, dict[str, Any]]]:
    """Returns the cells whose stored output nbval compares with a fresh one."""
    if is_strict(notebook):
        unread = {"nbval-ignore-output", "nbval-skip", "parameters"}
        return [(i, cell) for i, cell in code_cells(notebook) if not tags(cell) & unread]
    return [(i, cell) for i, cell in code_cells(notebook) if "nbval-check-output" in tags(cell)]


def install_problem(notebook: Notebook) -> str | None:
    """Returns what is wrong with the cell that installs anatolab: the first code cell, the same in all notebooks."""
    cells = notebook["cells"]
    first = next((i for i, cell in enumerate(cells) if cell["cell_type"] == "code"), None)
    if first == 1 and {**cells[1], "execution_count": None} == INSTALL_CELL:
        return None
    return "cell 1 must install anatolab where it is missing; run `tools/notebooks.py install`"


def with_install(notebook: Notebook) -> Notebook:
    """Returns a notebook whose cell below the title installs anatolab where it is missing."""
    cells = [cell for cell in notebook["cells"] if cell.get("id") != INSTALL_CELL["id"]]
    return {**notebook, "cells": [*cells[:1], INSTALL_CELL, *cells[1:]]}


def parts(root: Path = ROOT) -> list[list[str]]:
    """Returns the names of the notebooks of each part of the book."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    files = [[Path(chapter["file"]) for chapter in part["chapters"]] for part in toc["parts"]]
    return [[f"{file.name}.ipynb" for file in chapters if file.parts[0] == "notebooks"] for chapters in files]


def live_problems(notebooks: dict[str, tuple[Notebook, int]], chapters: list[list[str]]) -> list[str]:
    """Lists the problems of ``LIVE``, which names one contract notebook of each part that has any."""
    lax = {name for name, (nb, _) in notebooks.items() if compared(nb) and not is_strict(nb)}
    chosen = [[name for name in part if name in lax and name in LIVE] for part in chapters if lax & set(part)]
    where = "LIVE in tools/notebooks.py"
    bad = [f"{where} must name one contract notebook per part, not {names}" for names in chosen if len(names) != 1]
    return bad + [f"{where} names {name}, which is not a contract notebook" for name in {*LIVE} - lax]


def judge(sanitizers: Path = ROOT / "tests" / "nbval.cfg") -> SimpleNamespace:
    """Returns nbval's comparison without its kernel: ``compare(fresh, stored)``, then ``comparison_traceback``."""
    from nbval.plugin import IPyNbCell, coalesce_streams, get_sanitize_patterns, nocolors

    unread = ("metadata", "traceback", "prompt_number", "output_type", "name", "execution_count")
    pictures = ("application/vnd.jupyter.widget-view+json", "image/png", "image/jpeg")
    patterns = dict(get_sanitize_patterns(sanitizers.read_text(encoding="utf-8")))
    cell = SimpleNamespace(parent=SimpleNamespace(skip_compare=unread + pictures, sanitize_patterns=patterns))
    cell.colors = nocolors
    cell.sanitize = partial(IPyNbCell.sanitize, cell)

    def differ(key: str, stored: Any, fresh: Any) -> None:
        lines = (str(stored).splitlines(), str(fresh).splitlines())
        cell.comparison_traceback += list(difflib.unified_diff(*lines, f"stored {key}", f"fresh {key}", "", "", 0, ""))

    def compare(fresh: list[Any], stored: list[Any]) -> bool:
        both = (coalesce_streams(copy.deepcopy(outputs)) for outputs in (fresh, stored))
        return IPyNbCell.compare_outputs(cell, *both)

    cell.format_output_compare, cell.compare = differ, compare
    return cell


def differences(name: str, stored: Any, fresh: Any, cell: SimpleNamespace) -> list[str]:
    """Lists the compared cells whose outputs differ from a fresh run, both as nbformat reads them."""
    messages = []
    for i, _ in compared(stored):
        if not cell.compare(fresh.cells[i].outputs, stored.cells[i].outputs):
            messages.append(f"{name}: cell {i} differs from its run\n" + "\n".join(cell.comparison_traceback))
    return messages


def compare(cache_folder: Path = CACHE, files: list[Path] | None = None) -> tuple[int, list[str]]:
    """Returns the number of cells compared with the build's outputs, and all differences or missing runs."""
    import nbformat
    from jupyter_cache import get_cache

    cache, cell, count, messages = get_cache(str(cache_folder)), judge(), 0, []
    for path in paths() if files is None else files:
        stored = nbformat.read(path, as_version=4)
        if cells := compared(stored):
            try:
                _, fresh = cache.merge_match_into_notebook(stored)
            except KeyError:
                messages.append(f"{path.name}: the build has not run this notebook as it is; run `make html` first")
                continue
            count += len(cells)
            messages += differences(path.name, stored, fresh, cell)
    return count, messages


def stale() -> str | None:
    """Returns why the build's outputs do not belong to this checkout, or None."""
    from book_cache import fingerprint

    stamp = CACHE / "fingerprint"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == fingerprint(
        ROOT, os.environ.get("ANATOLAB_SIZE", "tiny")
    ):
        return None
    return "the outputs in _build are of another state of library, records or environment; run `make html` first"


def problems(name: str, notebook: Notebook, size: int) -> list[str]:
    """Lists the problems of one notebook, a sentence each."""
    messages = []
    metadata, cells = notebook["metadata"], code_cells(notebook)
    kind, strict = metadata.get("kind"), is_strict(notebook)
    if kind not in KINDS:
        messages.append(f"metadata say kind: {kind!r}, not one of {', '.join(KINDS)}")
    if strict != (kind == "theory"):
        messages.append(
            "`keep_output: true` in the notebook's metadata belongs to theory notebooks, and to all of them"
        )
    if metadata.get("kernelspec", {}).get("name") != "python3":
        messages.append("the kernel must be python3")
    if "widgets" in metadata:
        messages.append("widget state is stored; run `make strip`")
    if (n := sum("parameters" in tags(cell) for _, cell in cells)) != 1:
        messages.append(f"{n} cells are tagged `parameters`, not one")
    if message := install_problem(notebook):
        messages.append(message)
    if size > MAX_BYTES:
        messages.append(f"{size} bytes, over {MAX_BYTES}")
    to_compare = {i for i, _ in compared(notebook)}
    for i, cell in cells:
        here = tags(cell)
        if i in to_compare and not cell["outputs"]:
            messages.append(f"cell {i} is compared by nbval but stores no output, so that nothing would be compared")
        if cell["outputs"] and cell.get("execution_count") is None:
            messages.append(
                f"cell {i} stores an output but no execution count, without which nbval takes it for not run"
            )
        if any(output["output_type"] == "error" for output in cell["outputs"]):
            messages.append(f"cell {i} stores an error")
        if ("nbval-check-output" in here) != ("keep_output" in here):
            messages.append(f"cell {i} must carry both nbval-check-output and keep_output, or neither")
        if "skip-execution" in here and "nbval-skip" not in here:
            messages.append(f"cell {i} is tagged skip-execution, which nbval does not know; add nbval-skip")
        if not strict and cell["outputs"] and "keep_output" not in here:
            messages.append(f"cell {i} stores an output that nothing compares; run `make strip`")
    return [f"{name}: {problem}" for problem in messages]


def check(notebooks: dict[str, tuple[Notebook, int]], floor: int = FLOOR) -> tuple[int, list[str]]:
    """Counts the compared cells and lists all problems, in notebooks given as name: (content, bytes)."""
    messages = [problem for name, (nb, size) in notebooks.items() for problem in problems(name, nb, size)]
    count = sum(bool(cell["outputs"]) for nb, _ in notebooks.values() for _, cell in compared(nb))
    if count < floor:
        messages.append(f"{count} cells are compared, under the floor of {floor}")
    if count > floor + SLACK:
        messages.append(f"{count} cells are compared: raise FLOOR in tools/notebooks.py from {floor} to {count}")
    return count, messages


def load(root: Path = ROOT) -> dict[str, tuple[Notebook, int]]:
    """Returns all notebooks as name: (content, bytes)."""
    return {path.name: (read(path), path.stat().st_size) for path in paths(root)}


def main(arguments: list[str]) -> int:
    """Runs one of the commands; the exit status."""
    match arguments:
        case ["check"]:
            notebooks = load()
            count, messages = check(notebooks)
            messages += live_problems(notebooks, parts())
            print("\n".join([*messages, f"{len(notebooks)} notebooks, {count} cells compared, floor {FLOOR}"]))
            return bool(messages)
        case ["compare"]:
            count, messages = (0, [reason]) if (reason := stale()) else compare()
            if not messages and count < FLOOR:
                messages.append(f"{count} cells are compared, under the floor of {FLOOR}")
            print("\n".join([*messages, f"{count} cells compared with the build's outputs, {len(messages)} problems"]))
            return bool(messages)
        case ["list", "lax" | "strict" as mode]:
            for path in paths():
                notebook = read(path)
                if compared(notebook) and (is_strict(notebook) if mode == "strict" else path.name in LIVE):
                    print(path.relative_to(ROOT))
            return 0
        case ["install"]:
            for path in paths():
                text = json.dumps(with_install(read(path)), indent=1, ensure_ascii=False) + "\n"
                path.write_text(text, encoding="utf-8")
            return 0
        case ["strip", *files]:
            chosen = files or [str(path) for path in paths()]
            return subprocess.run([sys.executable, "-m", "nbstripout", *STRIP, *chosen]).returncode if chosen else 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
