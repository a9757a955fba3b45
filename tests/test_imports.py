"""Imports go down one list, in no circle, and heavy packages are imported where they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the ground up; a part imports only from levels below its own, and the pairs in PEERS.
LEVELS = (
    {"errors"},
    {"files", "staleness", "ranges"},
    {"types", "records"},
    {
        "data",
        "writing",
        "transforms",
        "nn",
        "losses",
        "sampling",
        "memory",
        "schedules",
        "metrics",
        "postprocess",
        "presets",
    },
    {"methods", "robust"},
    {"training", "inference", "ensembles"},
    {"analysis", "viz", "experiments", "cli"},
    {"__main__"},
)
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
# Who may import a part of its own level: (importer, imported), each for a reason that was thought about.
PEERS = {
    ("records", "types"),
    ("training", "inference"),  # validation during a run
    ("ensembles", "inference"),  # the mean of predictions
    ("viz", "analysis"),
    ("cli", "analysis"),  # `anatolab robust attribute` draws its maps
    ("cli", "experiments"),
    ("cli", "analysis"),  # a command for maps of a run
    ("cli", "viz"),  # colors of classes, figures of a command
}
HEAVY = {"monai", "open_clip", "umap", "lightning_fabric", "openTSNE", "captum"}  # 4 to 11 s each
HEAVY_ALLOWED: dict[str, set[str]] = {}  # module: packages without which it does nothing at all


class Import(NamedTuple):
    """One import statement's target, resolved to a module where it names one of ours."""

    source: str
    target: str
    line: int
    top: bool  # runs when the module is imported


def modules(root: Path) -> dict[str, Path]:
    """Dotted name to file of every module of the package."""
    files = sorted((root / "anatolab").rglob("*.py"))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def walk(node: ast.AST, top: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    """Every import statement below a node, and whether it runs at import."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, top
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from walk(
            child, top and not typing_only and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        )


def imports(root: Path) -> list[Import]:
    """Every import in the package, lazy ones as well."""
    known, found = modules(root), []
    for name, path in known.items():
        for node, top in walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                base = node.module or ""
                if node.level:
                    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
                    base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
                targets = [f"{base}.{alias.name}" for alias in node.names]
                targets = [target if target in known else base for target in targets]
            found += [Import(name, target, node.lineno, top) for target in dict.fromkeys(targets)]
    return found


def part(module: str) -> str | None:
    """The part of the package that a module belongs to: its second name."""
    names = module.split(".")
    return names[1] if names[0] == "anatolab" and len(names) > 1 else None


def shared_by_methods(module: str) -> bool:
    """Whether a module in ``methods`` is there for all methods: its name has a leading underscore."""
    return module.rpartition(".")[2].startswith("_")


def violations(root: Path) -> list[str]:
    """Every import that breaks a rule, a line each."""
    found, graph = [], {name: set() for name in modules(root)}
    found += [
        f"{name}: the part {part(name)!r} has no level in tests/test_imports.py"
        for name in graph
        if name != "anatolab" and part(name) not in LEVEL
    ]
    for source, target, line, top in imports(root):
        here, there, where = part(source), part(target), f"{source}:{line} imports {target}"
        if target.split(".")[0] != "anatolab":
            package = target.split(".")[0]
            if top and package in HEAVY - HEAVY_ALLOWED.get(source, set()):
                found.append(f"{where}: import it inside the function that needs it")
            continue
        if target != source and target in graph and target != "anatolab":
            graph[source].add(target)
        if here is None or there is None or here not in LEVEL or there not in LEVEL:
            continue
        if LEVEL[there] > LEVEL[here]:
            found.append(f"{where}: imports only go down")
        elif here != there and LEVEL[there] == LEVEL[here] and (here, there) not in PEERS:
            found.append(f"{where}: {here!r} and {there!r} are parts of one level")
        elif here == there == "methods" and source != "anatolab.methods" and not shared_by_methods(target):
            found.append(f"{where}: no method imports another; shared code lies in a module with a leading _")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"import cycle: {' -> '.join(error.args[1])}")
    return found


def test_imports_only_go_down() -> None:
    assert violations(ROOT) == []


TOY = {
    "__init__.py": "",
    "types.py": "import torch",
    "nn/__init__.py": "from .tap import tap",
    "nn/tap.py": "from anatolab.types import Batch",
    "losses/__init__.py": "",
    "losses/dice.py": "from anatolab import types",
    "methods/__init__.py": "from anatolab.methods.mona import Mona\nfrom . import action",
    "methods/_pretrain.py": "from anatolab.nn import tap",
    "methods/action.py": "from anatolab.methods import _pretrain",
    "methods/mona.py": "def f():\n    import monai",
    "training/__init__.py": "",
    "training/loop.py": "import anatolab.methods\nfrom anatolab import __version__",
}


def toy(root: Path, **changed: str) -> Path:
    """A small tree that keeps every rule, with some files replaced (``losses__dice`` for losses/dice.py)."""
    for name, text in TOY.items():
        path = root / "anatolab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, text in changed.items():
        path = root / "anatolab" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_tree_that_keeps_the_rules_passes(tmp_path: Path) -> None:
    assert violations(toy(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nn__tap", "from anatolab.methods import action", "only go down"),
        ("nn__tap", "def f():\n    from ..training import loop", "only go down"),
        ("types", "import anatolab.nn.tap", "only go down"),
        ("losses__dice", "from anatolab.nn import tap", "one level"),
        ("nn__tap", "from ..losses.dice import dice", "one level"),
        ("methods__mona", "from anatolab.methods.action import Action", "no method imports another"),
        ("methods__mona", "from . import action", "no method imports another"),
        ("methods__mona", "import anatolab.methods", "no method imports another"),
        ("methods__mona", "from monai.networks.nets import UNet", "inside the function"),
        ("methods__mona", "class A:\n    import umap", "inside the function"),
        ("types", "from .records import load", "cycle"),
        ("helpers", "x = 1", "no level"),
    ],
)
def test_a_tree_that_breaks_a_rule_fails(tmp_path: Path, name: str, text: str, message: str) -> None:
    extra = {"records": "import anatolab.types"} if message == "cycle" else {}
    assert message in "\n".join(violations(toy(tmp_path, **{name: text}, **extra)))


LIMIT, METHOD_LIMIT = 400, 350  # lines of a file
SCRIPTS = ("studies", "tools", "book/_ext")  # folders that are no packages
LAYOUT_LIMIT = 140  # lines of a reader, for each layout that it reads


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_is_long() -> None:
    lines = {str(path.relative_to(ROOT / "anatolab")): lines_of(path) for path in modules(ROOT).values()}
    limits = {name: METHOD_LIMIT if name.startswith("methods/") else LIMIT for name in lines}
    assert {name: count for name, count in lines.items() if count > limits[name]} == {}
    assert lines["__init__.py"] < 40


@pytest.mark.parametrize("folder", SCRIPTS)
def test_no_script_is_long_and_none_imports_another_in_a_circle(folder: str) -> None:
    files = {path.stem: path for path in (ROOT / folder).glob("*.py")}
    assert {name: n for name, path in files.items() if (n := lines_of(path)) > LIMIT} == {}
    graph = {name: imported_names(path) & set(files) for name, path in files.items()}
    assert list(TopologicalSorter(graph).static_order())  # raises a CycleError


def imported_names(path: Path) -> set[str]:
    """The modules that a script imports anywhere, and those that it names as extensions of Sphinx."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(module)):
                names.add(module)
            case ast.Constant(value=str(text)) if text.startswith("anatolab_"):
                names.add(text)
    return names - {path.stem}


def test_no_reader_is_long() -> None:
    from anatolab.data.layouts import LAYOUTS

    layouts: Counter[str] = Counter()
    for layout in LAYOUTS:
        layouts[layout.read.__module__] += len(layout.name.split(" or "))
    files = modules(ROOT)
    assert {name: lines for name, n in layouts.items() if (lines := lines_of(files[name])) > n * LAYOUT_LIMIT} == {}


def test_import_anatolab_loads_nothing_heavy() -> None:
    code = "import anatolab, sys; print([m for m in ('torch', 'numpy', 'monai', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
