"""What makes a record stale and what does not: on toy modules for every construct, then on the real methods."""

from __future__ import annotations

import ast
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from anatolab import records, staleness
from anatolab.methods import METHODS
from anatolab.records import Record


def sha256(package: Path, module: str = "anatolab.method") -> str:
    return staleness._closure(staleness._Source(package), module)


def toy(folder: Path, **files: str) -> Path:
    """A package of these modules; ``parts__one`` is parts/one.py."""
    package = folder / "anatolab"
    for name, text in files.items():
        path = package / f"{name.replace('__', '/', 1)}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    return package


def hashes(tmp_path: Path, *texts: str) -> list[str]:
    return [sha256(toy(tmp_path / str(i), method=text)) for i, text in enumerate(texts)]


SAME = {
    "a local": ("def f(x):\n    y = x + 1\n    return y", "def f(x):\n    z = x + 1\n    return z"),
    "two locals": ("def f(x):\n  a = x; b = a\n  return a - b", "def f(x):\n  b = x; a = b\n  return b - a"),
    "a loop": ("def f(x):\n  for i in x:\n    print(i)", "def f(x):\n  for k in x:\n    print(k)"),
    "a comprehension": (
        "def f(x):\n  return {i: j for i, j in x if i}",
        "def f(x):\n  return {a: b for a, b in x if a}",
    ),
    "a name in and around a comprehension": (
        "def f(x):\n  a = [b for b in x]\n  return a",
        "def f(x):\n  a = [a for a in x]\n  return a",
    ),
    "a walrus": ("def f(x):\n  return [y for i in x if (y := i)]", "def f(x):\n  return [z for k in x if (z := k)]"),
    "an except": (
        "def f():\n  try:\n    g()\n  except KeyError as e:\n    print(e)",
        "def f():\n  try:\n    g()\n  except KeyError as error:\n    print(error)",
    ),
    "a with": ("def f(x):\n  with x as a:\n    return a.b", "def f(x):\n  with x as c:\n    return c.b"),
    "a match": (
        "def f(x):\n  match x:\n    case [a, *b]:\n      return a, b",
        "def f(x):\n  match x:\n    case [c, *d]:\n      return c, d",
    ),
    "a nested function": (
        "def f(x):\n  n = 0\n  def g(y):\n    nonlocal n\n    n += y\n  g(x)\n  return n",
        "def f(x):\n  k = 0\n  def h(y):\n    nonlocal k\n    k += y\n  h(x)\n  return k",
    ),
    "a deleted name": ("def f(x):\n  a = x\n  del a", "def f(x):\n  b = x\n  del b"),
    "a function": ("def f():\n  return g()\ndef g():\n  return 1", "def f():\n  return h()\ndef h():\n  return 1"),
    "a recursive function": ("def f(n):\n  return n and f(n - 1)", "def g(n):\n  return n and g(n - 1)"),
    "functions in a circle": (
        "def f(n):\n  return n and g(n)\ndef g(n):\n  return f(n - 1)",
        "def a(n):\n  return n and b(n)\ndef b(n):\n  return a(n - 1)",
    ),
    "a constant": ("A = 1\ndef f():\n  return A", "B = 1\ndef f():\n  return B"),
    "a global": ("A = 1\ndef f():\n  global A\n  A = 2", "B = 1\ndef f():\n  global B\n  B = 2"),
    "a class": ("class A:\n  x = 1\ndef f():\n  return A()", "class B:\n  x = 1\ndef f():\n  return B()"),
    "an alias": ("import numpy as np\nx = np.zeros(3)", "import numpy\ny = numpy.zeros(3)"),
    "an alias in a function": ("def f():\n  import os as o\n  return o.sep", "def f():\n  import os\n  return os.sep"),
    "docstrings and comments": (
        '"""A."""\ndef f():\n  """B."""\n  return 1',
        '"""C."""\n# D\ndef f():\n  """E."""\n  return 1',
    ),
    "annotations": (
        "from typing import Any\ndef f(x: int) -> int:\n  y: int = x\n  return y",
        "def f(x):\n  z: str\n  y = x\n  return y".replace("  z: str\n  y = x", "  y: float = x"),
    ),
    "spelling of numbers": ("x = 30_000", "x = 30000"),
    "what an error says": (
        'def f(x):\n  if not x:\n    raise ValueError(f"{x} is wrong")',
        'def f(x):\n  if not x:\n    raise ValueError("give x")',
    ),
    "what an assertion says": ('def f(x):\n  assert x, "wrong"', "def f(x):\n  assert x"),
    "title and color": (
        'class A:\n  title = "a"\n  color = "#000"\n  x = 1',
        'class A:\n  title = "b"\n  color = "#fff"\n  x = 1',
    ),
    "exports": ('__all__ = ["f"]\ndef f(): return 1', '__all__ = ["g"]\ndef g(): return 1'),
}
DIFFERENT = {
    "a number": ("def f(x):\n  return x + 1", "def f(x):\n  return x + 2"),
    "its type": ("x = 1", "x = 1.0"),
    "an operator": ("def f(x):\n  return x + 1", "def f(x):\n  return x - 1"),
    "which local": ("def f(x):\n  a = x; b = -x\n  return a", "def f(x):\n  a = x; b = -x\n  return b"),
    "a local for a parameter": ("def f(x):\n  a = 1\n  return a", "def f(x):\n  a = 1\n  return x"),
    "the order of statements": ("def f(x):\n  x.a()\n  x.b()", "def f(x):\n  x.b()\n  x.a()"),
    "a parameter": ("def f(x):\n  return x", "def f(y):\n  return y"),
    "a default": ("def f(x=1):\n  return x", "def f(x=2):\n  return x"),
    "which function": (
        "def f():\n  return g()\ndef g():\n  return 1\ndef h():\n  return 2",
        "def f():\n  return h()\ndef g():\n  return 1\ndef h():\n  return 2",
    ),
    "what a function three calls away does": (
        "def f():\n  return g()\ndef g():\n  return h()\ndef h():\n  return 1",
        "def f():\n  return g()\ndef g():\n  return h()\ndef h():\n  return 2",
    ),
    "which of two alike callers": (
        "def f(): return a()\ndef a(): return c()\ndef b(): return d()\ndef c(): return 1\ndef d(): return 2",
        "def f(): return b()\ndef a(): return c()\ndef b(): return d()\ndef c(): return 1\ndef d(): return 2",
    ),
    "a method": ("class A:\n  def f(self): return 1", "class A:\n  def g(self): return 1"),
    "a field": ("class A:\n  x: int = 1", "class A:\n  y: int = 1"),
    "a field without a value": ("class A:\n  x: int\n  y: int", "class A:\n  y: int\n  x: int"),
    "a field that is none": ("class A:\n  x: int = 1", "class A:\n  x: ClassVar[int] = 1"),
    "an attribute": ("def f(x):\n  return x.a", "def f(x):\n  return x.b"),
    "a keyword": ("def f(x):\n  return x(a=1)", "def f(x):\n  return x(b=1)"),
    "a string": ('x = "mean"', 'x = "sum"'),
    "the kind of an error": ("def f():\n  raise KeyError", "def f():\n  raise ValueError"),
    "a library": ("from torch import sum as f\nx = f(1)", "from numpy import sum as f\nx = f(1)"),
    "a decorator": ("def f():\n  return 1", "@cache\ndef f():\n  return 1"),
    "an entry": ("A = {}", 'A = {}\nA["x"] = 1'),
    "a walrus and a target": (
        "def f(x):\n  y = 0\n  [(y := i) for i in x]\n  return y",
        "def f(x):\n  y = 0\n  [(i := i) for y in x]\n  return y",
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_writing_the_same_otherwise_does_not_count(tmp_path: Path, case: str) -> None:
    one, two = hashes(tmp_path, *SAME[case])
    assert one == two


@pytest.mark.parametrize("case", DIFFERENT)
def test_doing_something_else_counts(tmp_path: Path, case: str) -> None:
    one, two = hashes(tmp_path, *DIFFERENT[case])
    assert one != two


def test_every_example_is_python() -> None:
    for text in (text for pair in (*SAME.values(), *DIFFERENT.values()) for text in pair):
        ast.parse(text)


PARTS = {
    "method": "from anatolab.parts import loss\ndef step():\n from anatolab.late import late\n return loss() + late()",
    "parts____init__": "from anatolab.parts.one import loss\nfrom anatolab.parts.two import other",
    "parts__one": "SCALE = 2\ndef loss(): return SCALE * helper()\ndef helper():\n return 1\ndef unused(): return 3",
    "parts__two": "def other(): return 4",
    "late": "def late(): return 5",
}


def edited(folder: Path, file: str, old: str, new: str) -> str:
    assert old in PARTS[file]
    return sha256(toy(folder, **{**PARTS, file: PARTS[file].replace(old, new)}))


@pytest.mark.parametrize(
    ("file", "old", "new", "counts"),
    [
        ("method", "loss() + late()", "loss() - late()", True),
        ("parts__one", "SCALE = 2", "SCALE = 3", True),
        ("parts__one", "return 1", "return 2", True),
        ("late", "return 5", "return 6", True),
        ("parts____init__", "parts.one import loss", "parts.two import other as loss", True),
        ("parts__one", "def helper():\n", "def helper():\n # a comment\n", False),
        ("parts__one", "return 3", "return 33", False),
        ("parts__two", "return 4", "return 44", False),
        ("method", "anatolab.parts import", "anatolab.parts.one import", False),
        ("method", "from anatolab.parts import loss\n", "from anatolab import parts\nloss = parts.loss\n", True),
    ],
)
def test_what_is_in_reach_counts(tmp_path: Path, file: str, old: str, new: str, counts: bool) -> None:
    assert (sha256(toy(tmp_path / "before", **PARTS)) != edited(tmp_path / "after", file, old, new)) == counts


@pytest.mark.parametrize("use", ["one.loss()", "anatolab.parts.one.loss()", "again.loss()", "loss()"])
def test_a_definition_is_the_same_by_whatever_import(tmp_path: Path, use: str) -> None:
    head = "from anatolab.parts import one\nfrom anatolab.parts import one as again, loss\nimport anatolab.parts.one\n"
    plain = toy(tmp_path / "a", **{**PARTS, "method": "from anatolab.parts import loss\nx = loss()"})
    other = toy(tmp_path / "b", **{**PARTS, "method": f"{head}x = {use}"})
    assert sha256(plain) == sha256(other)


def test_a_function_may_move_to_another_module(tmp_path: Path) -> None:
    moved = {
        **PARTS,
        "parts__one": "from anatolab.parts.three import helper\nSCALE = 2\ndef loss():\n    return SCALE * helper()",
        "parts__three": "def helper():\n    return 1",
    }
    assert sha256(toy(tmp_path / "a", **PARTS)) == sha256(toy(tmp_path / "b", **moved))


def test_a_package_is_all_that_it_exports(tmp_path: Path) -> None:
    before = sha256(toy(tmp_path / "a", **PARTS), "anatolab.parts")
    assert before != sha256(toy(tmp_path / "b", **{**PARTS, "parts__two": "def other(): return 44"}), "anatolab.parts")
    assert before == sha256(toy(tmp_path / "c", **{**PARTS, "late": "def late(): return 55"}), "anatolab.parts")


def test_a_module_that_is_gone_makes_its_records_stale() -> None:
    assert records.is_stale(Record("toy", 0, {}, code={"module": "anatolab.methods.gone", "sha256": "0" * 64}))


def test_a_fresh_record_of_a_real_method_is_fresh() -> None:
    code = records.code_of("anatolab.methods.mean_teacher")
    assert len(code["sha256"]) == 64
    assert code["sha256"] != records.code_of("anatolab.methods.supervised")["sha256"]
    fresh = Record("toy", 0, {}, code=code)
    assert not records.is_stale(fresh)
    assert records.is_stale(replace(fresh, code={**code, "sha256": "0" * 64}))


# ------------------------------------------------------------------------------------------------- the real methods
def of_methods(package: Path) -> dict[str, str]:
    source = staleness._Source(package)
    return {name: staleness._closure(source, f"anatolab.methods.{name}") for name in METHODS}


@pytest.fixture(scope="module")
def pristine() -> dict[str, str]:
    return of_methods(staleness.PACKAGE)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package's source."""
    ignored = shutil.ignore_patterns("__pycache__", "weights", "*.json", "*.txt")
    return Path(shutil.copytree(staleness.PACKAGE, tmp_path / "anatolab", ignore=ignored))


def stale(tree: Path, pristine: dict[str, str]) -> set[str]:
    """The methods whose records are stale by the code of a tree."""
    return {name for name, of_tree in of_methods(tree).items() if of_tree != pristine[name]}


class Renamed(ast.NodeTransformer):
    """Gives the plainly assigned locals of every function that holds no other function a new name."""

    count = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        inside = [n for n in ast.walk(node) if n is not node]
        self.generic_visit(node)
        nested = ast.FunctionDef | ast.Lambda | ast.ClassDef | ast.Nonlocal | ast.Global | ast.ListComp | ast.SetComp
        if any(isinstance(n, nested | ast.DictComp | ast.GeneratorExp) for n in inside):
            return node
        parameters = {n.arg for n in inside if isinstance(n, ast.arg)}
        stored = {n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} - parameters
        for n in inside:
            if isinstance(n, ast.Name) and n.id in stored:
                n.id = f"renamed_{n.id}"
        Renamed.count += len(stored)
        return node


def test_renaming_locals_and_dropping_annotations_comments_and_docstrings_leaves_every_record_fresh(
    tree: Path, pristine: dict[str, str]
) -> None:
    for path in tree.rglob("*.py"):
        parsed = Renamed().visit(ast.parse(path.read_text()))
        for node in ast.walk(parsed):
            if isinstance(node, ast.FunctionDef):
                node.returns = None
                if ast.get_docstring(node):
                    node.body[0] = ast.Expr(ast.Constant("Other words."))
        path.write_text(ast.unparse(parsed))
    assert Renamed.count > 500
    assert stale(tree, pristine) == set()


def substitute(tree: Path, old: str, new: str, files: str = "**/*.py") -> None:
    """Replaces a pattern in all files that match, at least once."""
    texts = {path: path.read_text() for path in tree.glob(files)}
    assert any(re.search(old, text) for text in texts.values())
    for path, text in texts.items():
        path.write_text(re.sub(old, new, text))


@pytest.mark.parametrize("name", ["sigmoid_ramp", "class_means", "Student", "multiple_of"])
def test_renaming_a_function_or_class_leaves_every_record_fresh(
    tree: Path, pristine: dict[str, str], name: str
) -> None:
    substitute(tree, rf"\b{name}\b", f"{name}_renamed")
    assert stale(tree, pristine) == set()


def test_moving_a_function_leaves_every_record_fresh(tree: Path, pristine: dict[str, str]) -> None:
    path = tree / "schedules.py"
    text = path.read_text()
    node = next(n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == "sigmoid_ramp")
    source = ast.get_source_segment(text, node)
    assert source
    (tree / "ramps.py").write_text(f"from __future__ import annotations\nimport math\n\n\n{source}\n")
    path.write_text(text.replace(source, "") + "\nfrom anatolab.ramps import sigmoid_ramp\n")
    assert stale(tree, pristine) == set()


@pytest.mark.parametrize(
    ("old", "new", "file", "methods"),
    [
        (r"exp\(-5\b", "exp(-6", "schedules.py", {"ua_mt"}),  # a number of sigmoid_ramp
        (r"self\.teacher\.update", "self.teacher.replace", "methods/mean_teacher.py", {"mean_teacher"}),
        (r"consistency\(logits", "supervised_terms(logits", "methods/mean_teacher.py", {"mean_teacher"}),
        (r"c\.consistency_weight \*", "c.consistency_weight +", "methods/ua_mt.py", {"ua_mt"}),
        (r"confidence_threshold: float = 0\.9\b", "confidence_threshold: float = 0.8", "methods/_config.py", {"base"}),
    ],
)
def test_a_change_of_what_is_computed_makes_those_stale_that_reach_it(
    tree: Path, pristine: dict[str, str], old: str, new: str, file: str, methods: set[str]
) -> None:
    substitute(tree, old, new, file)
    changed = stale(tree, pristine)
    assert methods <= changed
    assert "supervised" not in changed
