"""Extracts exercises and solutions from all chapters, and tests the answers with the chapters' checks.

    python book/_ext/anatolab_exercises.py [NOTEBOOK ...]

An answer is code in the solution, `name = ...` or a block; for a formula, the same in code is in `book/solutions.yml`.
It replaces the `None` of the cell after its exercise, and runs after those statements of the chapter that the cell
needs, found by the names they bind, so that no network is trained unless a check uses one. Tagged cells in the
notebooks would repeat some forty answers of the solutions and would still need this slicing.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
BLOCK = r"^(?P<fence>`{3,}|:{3,})\{%s\}(?P<title>[^\n]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$"
SIMPLE = ast.Assign | ast.AnnAssign | ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom  # bind for sure
OPTION = re.compile(r"^:[\w-]+:[^\n]*\n", re.MULTILINE)


@dataclass(frozen=True)
class Exercise:
    """One exercise with its solution."""

    chapter: str  # "20_action"
    label: str
    title: str
    question: str  # MyST
    solution: str  # MyST
    cell: str  # the code cell that checks it; empty where there is none
    before: tuple[str, ...]  # code cells in front of that
    answer: str  # code; empty where the solution is in words only


def exercises(path: Path) -> Iterator[Exercise]:
    """Yields the exercises of a notebook, in order."""
    cells = [(c["cell_type"], "".join(c["source"])) for c in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    written = yaml.safe_load((ROOT / "book" / "solutions.yml").read_text(encoding="utf-8"))
    solved = {}
    for kind, text in cells:
        for match in re.finditer(BLOCK % "solution", text, re.MULTILINE | re.DOTALL) if kind == "markdown" else ():
            solved[match["title"].strip()] = OPTION.sub("", match["body"]).strip()
    for index, (kind, text) in enumerate(cells):
        for match in re.finditer(BLOCK % "exercise", text, re.MULTILINE | re.DOTALL) if kind == "markdown" else ():
            options = dict(re.findall(r"^:([\w-]+):[ \t]*(.*)$", match["body"], re.MULTILINE))
            label, solution = options.get("label", ""), solved.get(options.get("label", ""), "")
            cell = cells[index + 1][1] if index + 1 < len(cells) and cells[index + 1][0] == "code" else ""
            yield Exercise(
                chapter=path.stem,
                label=label,
                title=match["title"].strip(),
                question=OPTION.sub("", match["body"]).strip(),
                solution=solution,
                cell=cell,
                before=tuple(source for k, source in cells[:index] if k == "code"),
                answer=written.get(label) or shown(solution, asked(cell)),
            )


def asked(cell: str) -> set[str]:
    """Returns the names that a cell leaves to the reader: those set to None."""
    return {name for statement in statements(cell) if blank(statement) for name in bound(statement)}


def blank(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Assign):
        return False
    values = statement.value.elts if isinstance(statement.value, ast.Tuple) else [statement.value]
    return all(isinstance(v, ast.Constant) and v.value is None for v in values)


def shown(solution: str, names: set[str]) -> str:
    """Returns the code of a solution that binds the required names."""
    blocks = [m[1] for m in re.finditer(r"^```(?:python|py)\n(.*?)^```", solution, re.MULTILINE | re.DOTALL)]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", solution, flags=re.MULTILINE | re.DOTALL))
    kept: list[str] = []
    for code in reversed([*blocks, *spans]):
        tree = statements(code)
        if names & {n for s in tree for n in (*bound(s), *changed(s))}:
            kept.insert(0, code)
            names = names | {n.id for s in tree for n in ast.walk(s) if isinstance(n, ast.Name)}
    return "\n".join(kept)


def statements(source: str) -> list[ast.stmt]:
    """Parses the statements of a cell; empty if it does not parse."""
    try:
        return ast.parse("\n".join(line for line in source.splitlines() if not line.startswith(("%", "!")))).body
    except SyntaxError:
        return []


def bound(statement: ast.stmt) -> set[str]:
    """Returns the names that a statement binds."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def changed(statement: ast.stmt) -> set[str]:
    """Returns the names whose value a statement changes in place, by a method call or an assignment to a part."""
    names = set()
    for node in ast.walk(statement):
        target: Any = None
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Attribute)
        ):
            target = node.value.func.value
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
            target = node.value
        while isinstance(target, ast.Attribute | ast.Subscript):
            target = target.value
        if isinstance(target, ast.Name):
            names.add(target.id)
    return names


def free(node: ast.AST) -> set[str]:
    """Returns the names that a piece of code reads and does not bind before, in its scope, loop or block."""
    if isinstance(node, ast.For):
        return free(node.iter) | (free_of_block(node.body) - stored(node.target)) | free_of_block(node.orelse)
    if isinstance(node, ast.With):
        targets = {name for item in node.items if item.optional_vars for name in stored(item.optional_vars)}
        return {name for item in node.items for name in free(item)} | (free_of_block(node.body) - targets)
    if isinstance(node, ast.If):
        return free(node.test) | free_of_block(node.body) | free_of_block(node.orelse)
    below = {name for child in ast.iter_child_nodes(node) for name in free(child)}
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return below - stored(node) - {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
    return below


def free_of_block(block: list[ast.stmt]) -> set[str]:
    """Names that statements in a row read and that none of those in front of it surely binds."""
    names: set[str] = set()
    known: set[str] = set()
    for statement in block:
        names |= free(statement) - known
        if isinstance(statement, SIMPLE):
            known |= bound(statement)
    return names


def stored(node: ast.AST) -> set[str]:
    """Names that a piece of code assigns to."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def needed(program: list[ast.stmt], wanted: list[ast.stmt]) -> list[ast.stmt]:
    """Returns the statements of a program that ``wanted`` depends on, directly or indirectly, in order.

    A name comes from the last statement that gives it a value, and from all that change it later. What a function reads
    may be bound after it.
    """
    binding, changing = [bound(s) for s in program], [changed(s) for s in program]
    defined = ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom
    functions = {n for s, names in zip(program, binding, strict=True) if isinstance(s, defined) for n in names}
    kept: set[int] = set()
    todo = [(name, len(program)) for s in wanted for name in free(s)]
    for name, before in todo:  # grows
        for i in reversed(range(before)):
            statement = program[i]
            binds = name in binding[i]
            if (binds or (name in changing[i] and name not in functions)) and i not in kept:
                kept.add(i)
                late = isinstance(statement, ast.FunctionDef | ast.ClassDef)
                todo += [(n, len(program) if late else i) for n in free(statement)]
            if binds and isinstance(statement, SIMPLE):
                break
    return [program[i] for i in sorted(kept)]


class Unasserted(ast.NodeTransformer):
    """Removes a chapter's assertions, because random numbers differ when statements are left out."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return ast.copy_location(ast.Pass(), node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        is_assert = isinstance(node.value, ast.Call) and "assert" in ast.unparse(node.value.func)
        return ast.copy_location(ast.Pass(), node) if is_assert else node


def run(exercise: Exercise) -> str:
    """Returns what the check of an exercise prints for its answer."""
    program = [s for source in exercise.before for s in statements(source)]
    cell = [s for s in statements(exercise.cell) if not blank(s)]
    answer = statements(exercise.answer)
    spaces: dict[str, Any] = {"__name__": "solution"}
    for code in ([*needed(program, [*answer, *cell]), *answer], cell):
        printed = io.StringIO()
        tree = ast.fix_missing_locations(Unasserted().visit(ast.Module(code, [])))
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, f"{exercise.chapter}: {exercise.label}", "exec"), spaces)
    return printed.getvalue().strip()


def is_right(printed: str) -> bool:
    """Returns whether every part of a check's output says "right", and none "not" or "no"."""
    lines = [part.strip() for part in re.split(r"\n|\|", printed) if part.strip()]
    return bool(lines) and all(re.search(r"\bright\b", part) and not re.search(r"\bno[t]?\b", part) for part in lines)


def main(arguments: list[str]) -> int:
    """Runs the answers of the named notebooks, or of all; returns the exit status."""
    paths = [Path(a) for a in arguments] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    bad = 0
    for exercise in (e for path in paths for e in exercises(path)):
        outcome = run(exercise) if exercise.answer and exercise.cell else "in words"
        bad += outcome != "in words" and not is_right(outcome)
        print(f"{exercise.chapter:24} {exercise.label:32} {outcome!r}")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
