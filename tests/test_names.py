"""Identifiers name the thing: none is a bare verb or preposition that says nothing about what it holds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VAGUE = {"found", "at", "told", "said", "own", "seen", "mine", "guess"}
IN_FUNCTIONS = VAGUE - {"at", "own"}  # `dice_at` of a threshold reads well as a function, not as a variable
LIBRARY = {"found_inf"}  # torch's fused optimizers read an attribute of this name
SCOPE = ("anatolab", "studies", "tools", "benchmarks", "book/_ext")


def bound(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Every name that a file gives to something, with its line and whether it names a function or class."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name, False
            case ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield node.lineno, name, False
            case ast.alias(asname=str(name)):
                yield node.lineno, name, False
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.ExceptHandler(name=str(name)):
                yield node.lineno, name, False
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name, True


def vague(source: str) -> list[str]:
    """The vague names that a file gives, as ``line: name``."""
    names = []
    for line, name, function in bound(ast.parse(source)):
        plain = name.strip("_").lower()
        if name not in LIBRARY and (plain in VAGUE or set(plain.split("_")) & (IN_FUNCTIONS if function else VAGUE)):
            names.append(f"{line}: {name}")
    return names


def test_names_say_what_they_hold() -> None:
    names = {
        file: lines
        for part in SCOPE
        for path in sorted((ROOT / part).rglob("*.py"))
        if (lines := vague(path.read_text(encoding="utf-8"))) and (file := str(path.relative_to(ROOT)))
    }
    assert names == {}


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "def f(at): ...",
        "def f(*, _told=1): ...",
        "class A:\n    own: int",
        "self.seen = 1",
        "def mine(): ...",
        "f(guess=1)",
        "if (said := 1): ...",
        "for at_x, b in c: ...",
        "def classes_seen(): ...",
        "import numpy as found",
        "try: ...\nexcept ValueError as said: ...",
        "[found for found in a]",
    ],
)
def test_a_vague_name_is_listed(source: str) -> None:
    assert len(vague(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "table.at[0] = 1",
        "numpy.add.at(a, b, c)",
        "def dice_at(threshold): ...",
        "foundation = 1",
        "optimizer.found_inf = 1",
    ],
)
def test_names_of_libraries_and_plain_words_are_allowed(source: str) -> None:
    assert vague(source) == []
