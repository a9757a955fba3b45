"""Boxes under exercises that say whether a number is right, off-line and without showing it.

    python book/_ext/anatolab_answers.py      # writes book/answers.yml anew from the solutions

A number is stored as a tolerance and a hash of the number in units of it, so that neither page nor repository shows it
beside its exercise. Pages ask only for answers that are plain arithmetic; notebooks check the others.
"""

from __future__ import annotations

import ast
import html
import math
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from anatolab_exercises import ROOT, Exercise, asked, exercises, needed, statements
from docutils import nodes
from sphinx.application import Sphinx

STORED = ROOT / "book" / "answers.yml"
HEAD = "# Numbers that pages ask for, hashed; written by `python book/_ext/anatolab_answers.py`.\n"
SHARE = 0.01  # of the number: how far an answer may be off; a whole number must be met
SEVERAL = {"ex-scene-fool"}  # exercises with more than one right number
PLAIN = {"math", "np", "abs", "float", "int", "len", "max", "min", "range", "round", "sum"}  # what an answer may call


def fnv(text: str) -> int:
    """Returns the 32-bit FNV-1a hash of a text, as anatolab-answers.js computes it."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def hashed(label: str, name: str, number: float) -> dict[str, Any]:
    """Returns tolerance and hash of a number."""
    step = 0.5 if float(number).is_integer() else float(f"{max(abs(number), 1e-9) * SHARE:.1g}")
    return {"name": name, "step": step, "hash": fnv(f"{label}|{name}|{math.floor(number / step + 0.5)}")}


def accepts(stored: dict[str, Any], label: str, number: float) -> bool:
    """Returns whether the box of an exercise takes a number for right, by the rule of the script."""
    unit, near = math.floor(number / stored["step"] + 0.5), (0,) if stored["step"] == 0.5 else (-1, 0, 1)
    return any(fnv(f"{label}|{stored['name']}|{unit + d}") == stored["hash"] for d in near)


def is_arithmetic(code: list[ast.stmt]) -> bool:
    """Returns whether statements call nothing but plain mathematics, so that they run at once."""
    called = [node.func for statement in code for node in ast.walk(statement) if isinstance(node, ast.Call)]
    names = [[n.id for n in ast.walk(function) if isinstance(n, ast.Name)] for function in called]
    return all(roots and roots[0] in PLAIN for roots in names)


def numbers(exercise: Exercise) -> Iterator[tuple[str, float]]:
    """Yields the numbers that an exercise asks for, by name; nothing where an answer is no number or needs a run."""
    program = [s for source in exercise.before for s in statements(source)]
    answer = statements(exercise.answer)
    code = [*needed(program, answer), *answer]
    if not is_arithmetic(code):
        return
    spaces: dict[str, Any] = {"__name__": "answer"}
    exec(compile("\n".join(map(ast.unparse, code)), exercise.label, "exec"), spaces)
    for name in sorted(asked(exercise.cell)):
        value = spaces.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield name, float(value)


def collect(paths: list[Path]) -> dict[str, list[dict[str, Any]]]:
    """Returns the hashed numbers of all exercises, by label."""
    boxes = {}
    for exercise in (e for path in paths for e in exercises(path) if e.answer and e.cell and e.label not in SEVERAL):
        if stored := [hashed(exercise.label, name, value) for name, value in numbers(exercise)]:
            boxes[exercise.label] = stored
            print(exercise.label, [s["name"] for s in stored], flush=True)
    return boxes


def stored() -> dict[str, list[dict[str, Any]]]:
    """Returns the hashed numbers that are stored."""
    return parsed(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}


@cache
def parsed(text: str) -> dict[str, list[dict[str, Any]]]:
    """Returns the numbers in the text of the file, which every page asks for."""
    return yaml.safe_load(text) or {}


def shown(name: str) -> str:
    """Returns the name of a number as the page asks for it."""
    return "your answer" if re.fullmatch(r"answer(_\d+)?", name) else name.replace("_", " ")


def box(label: str, asked_for: list[dict[str, Any]]) -> str:
    """Returns the box under an exercise; it stays hidden without the script."""
    fields = "".join(
        f'<label>{html.escape(shown(f["name"]))} <input type="text" inputmode="decimal" autocomplete="off" '
        f'data-name="{html.escape(f["name"])}" data-step="{f["step"]}" data-hash="{f["hash"]}"></label>'
        for f in asked_for
    )
    return f'<form class="al-answer" data-label="{html.escape(label)}" hidden>{fields}<output></output></form>'


def ask(app: Sphinx, doctree: nodes.document) -> None:
    """Puts the box of each exercise that asks for numbers behind it."""
    boxes = stored()
    for node in list(doctree.findall(nodes.Element)):
        label = node.get("label", "")
        if type(node).__name__.startswith("exercise") and label in boxes and node.parent is not None:
            raw = nodes.raw("", box(label, boxes[label]), format="html")
            node.parent.insert(node.parent.index(node) + 1, raw)


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the hook and the script."""
    app.connect("doctree-read", ask)
    app.add_js_file("anatolab-answers.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def main() -> int:
    """Writes the numbers of all chapters; the exit status."""
    boxes = collect(sorted((ROOT / "notebooks").glob("*.ipynb")))
    STORED.write_text(HEAD + yaml.safe_dump(boxes, default_flow_style=None, width=110), encoding="utf-8")
    print(f"{sum(map(len, boxes.values()))} numbers of {len(boxes)} exercises")
    return 0


if __name__ == "__main__":
    sys.exit(main())
