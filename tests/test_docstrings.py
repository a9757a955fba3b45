"""Docstrings name what the API pages can link: an unknown error fails the build of the book, minutes later."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[1] / "anatolab"
RAISES = re.compile(r"^Raises:\n((?:[ ]+.*\n?|\n)*)", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(\w[\w., ]*):", re.MULTILINE)
NESTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def errors_of(tree: ast.AST) -> Iterator[str]:
    """Every name that a ``Raises`` section of a file gives."""
    for node in ast.walk(tree):
        if isinstance(node, NESTED):
            for section in RAISES.findall(ast.get_docstring(node) or ""):
                for entry in ENTRY.findall(section):
                    yield from (name.strip() for name in entry.split(","))


def unknown(sources: list[str]) -> list[str]:
    """The errors that are neither built in nor defined in these files."""
    trees = [ast.parse(source) for source in sources]
    ours = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    return sorted({name for tree in trees for name in errors_of(tree)} - ours - set(dir(builtins)))


def test_every_error_that_a_docstring_names_has_a_page() -> None:
    sources = [path.read_text(encoding="utf-8") for path in sorted(LIBRARY.rglob("*.py"))]
    assert sum(1 for source in sources for _ in errors_of(ast.parse(source))) > 50
    assert unknown(sources) == []


@pytest.mark.parametrize(
    ("entry", "wrong"), [("ValueError", []), ("TheirError", ["TheirError"]), ("OSError, TheirError", ["TheirError"])]
)
def test_an_unknown_error_is_named(entry: str, wrong: list[str]) -> None:
    assert (
        unknown([f'def f():\n    """Reads.\n\n    Raises:\n        {entry}: Why.\n            More.\n    """\n'])
        == wrong
    )
