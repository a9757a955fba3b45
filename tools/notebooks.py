"""The rules for stored notebooks, as a command: `notebooks.py check | strip [FILE ...] | list lax | list strict`.

A notebook in git holds no outputs but those that a test compares with fresh ones. Those are the contract cells, which
print a rounded deterministic number and carry the tags `nbval-check-output` and `keep_output`, and every cell of a
theory notebook, whose own metadata say `keep_output: true`. The rules exist because nbval passes a cell without a
stored output, comparing nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FLOOR = 223  # cells whose stored outputs are compared, at least; raise it as notebooks land
SLACK = 5  # and at most this many above the floor, so that it cannot fall behind
MAX_BYTES = 200_000
KINDS = ("method", "theory", "prose")
STRIP = ("--keep-count", "--keep-id", "--extra-keys", "metadata.language_info.version")

Notebook = dict[str, Any]


def paths(root: Path = ROOT) -> list[Path]:
    """The notebooks of the book, in order of name."""
    return sorted((root / "notebooks").glob("*.ipynb"))


def read(path: Path) -> Notebook:
    """A notebook as plain JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def is_strict(notebook: Notebook) -> bool:
    """Whether nbval compares every cell of it: theory notebooks, which keep their outputs."""
    return bool(notebook["metadata"].get("keep_output"))


def tags(cell: dict[str, Any]) -> set[str]:
    """The tags of a cell."""
    return set(cell["metadata"].get("tags", []))


def code_cells(notebook: Notebook) -> list[tuple[int, dict[str, Any]]]:
    """Code cells that hold code, with their index among all cells."""
    cells = enumerate(notebook["cells"])
    return [(i, cell) for i, cell in cells if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]


def compared(notebook: Notebook) -> list[tuple[int, dict[str, Any]]]:
    """The cells whose stored output nbval compares with a fresh one."""
    if is_strict(notebook):
        unread = {"nbval-ignore-output", "nbval-skip", "parameters"}
        return [(i, cell) for i, cell in code_cells(notebook) if not tags(cell) & unread]
    return [(i, cell) for i, cell in code_cells(notebook) if "nbval-check-output" in tags(cell)]


def problems(name: str, notebook: Notebook, size: int) -> list[str]:
    """What is wrong with one notebook, a sentence each."""
    messages = []
    metadata, cells = notebook["metadata"], code_cells(notebook)
    kind, strict = metadata.get("kind"), is_strict(notebook)
    if kind not in KINDS:
        messages.append(f"metadata say kind: {kind!r}, which is none of {', '.join(KINDS)}")
    if strict != (kind == "theory"):
        messages.append(
            "`keep_output: true` in the notebook's metadata belongs to theory notebooks, and to all of them"
        )
    if metadata.get("kernelspec", {}).get("name") != "python3":
        messages.append("the kernel must be python3, whatever machine it was written on")
    if "widgets" in metadata:
        messages.append("widget state is stored; run `make strip`")
    if (n := sum("parameters" in tags(cell) for _, cell in cells)) != 1:
        messages.append(f"{n} cells are tagged `parameters`, not one")
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
    """How many cells are compared, and everything that is wrong, in notebooks given as name: (content, bytes)."""
    messages = [problem for name, (nb, size) in notebooks.items() for problem in problems(name, nb, size)]
    count = sum(bool(cell["outputs"]) for nb, _ in notebooks.values() for _, cell in compared(nb))
    if count < floor:
        messages.append(f"{count} cells are compared, under the floor of {floor}")
    if count > floor + SLACK:
        messages.append(f"{count} cells are compared: raise FLOOR in tools/notebooks.py from {floor} to {count}")
    return count, messages


def load(root: Path = ROOT) -> dict[str, tuple[Notebook, int]]:
    """All notebooks as name: (content, bytes)."""
    return {path.name: (read(path), path.stat().st_size) for path in paths(root)}


def main(arguments: list[str]) -> int:
    """Runs one of the commands; the exit status."""
    match arguments:
        case ["check"]:
            notebooks = load()
            count, messages = check(notebooks)
            print("\n".join([*messages, f"{len(notebooks)} notebooks, {count} cells compared, floor {FLOOR}"]))
            return bool(messages)
        case ["list", "lax" | "strict" as mode]:
            for path in paths():
                notebook = read(path)
                if compared(notebook) and is_strict(notebook) == (mode == "strict"):
                    print(path.relative_to(ROOT))
            return 0
        case ["strip", *files]:
            chosen = files or [str(path) for path in paths()]
            return subprocess.run([sys.executable, "-m", "nbstripout", *STRIP, *chosen]).returncode if chosen else 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
