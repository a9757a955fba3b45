"""Stored outputs are those that a test compares, and no stored or cached output outlives what made it."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

from tests.scripts import script

ROOT = Path(__file__).resolve().parents[1]
Notebook = dict[str, Any]


notebooks, book_cache = script("tools/notebooks.py"), script("tools/book_cache.py")
CONTRACT = ("nbval-check-output", "keep_output")
TITLE = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# A title"}


def cell(source: str, printed: str | None = None, tags: tuple[str, ...] = ()) -> dict[str, Any]:
    """A code cell with what it printed."""
    output = {"output_type": "stream", "name": "stdout", "text": f"{printed}\n"}
    return {
        "cell_type": "code",
        "id": f"c{abs(hash((source, tags))) % 10**8}",
        "metadata": {"tags": list(tags)},
        "source": source,
        "execution_count": 1,
        "outputs": [] if printed is None else [output],
    }


def notebook(*cells: dict[str, Any], kind: str = "method") -> Notebook:
    """A notebook with a title, the cell that installs, a parameters cell and these cells."""
    metadata: dict[str, Any] = {"kind": kind, "kernelspec": {"name": "python3", "display_name": "Python 3"}}
    if kind == "theory":
        metadata["keep_output"] = True
    cells = (cell("steps = 3", tags=("parameters",)), *cells)
    whole = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": [TITLE, *cells]}
    return copy.deepcopy(notebooks.with_install(whole))


def sized(**books: Notebook) -> dict[str, tuple[Notebook, int]]:
    """Notebooks as ``check`` takes them."""
    return {f"{name}.ipynb": (content, len(json.dumps(content))) for name, content in books.items()}


GOOD = sized(
    method=notebook(cell("x = 1"), cell("print(round(0.5, 3))", "0.5", CONTRACT)),
    theory=notebook(cell("import math", tags=("nbval-ignore-output",)), cell("print(math.pi)", "3.14"), kind="theory"),
    prose=notebook(kind="prose"),
)


def emptied(books: dict[str, tuple[Notebook, int]]) -> dict[str, tuple[Notebook, int]]:
    """The same notebooks with every stored output removed."""
    books = copy.deepcopy(books)
    for content, _ in books.values():
        for each in content["cells"]:
            if each["cell_type"] == "code":
                each["outputs"] = []
    return books


def test_the_stored_notebooks_keep_the_rules() -> None:
    count, found = notebooks.check(notebooks.load())
    assert found == []
    assert count >= notebooks.FLOOR


def test_good_notebooks_pass_and_their_compared_cells_are_counted() -> None:
    assert notebooks.check(GOOD, floor=2) == (2, [])


@pytest.mark.parametrize("books", [GOOD, notebooks.load()], ids=["toy", "stored"])
def test_emptying_all_stored_outputs_fails(books: dict[str, tuple[Notebook, int]]) -> None:
    count, _ = notebooks.check(books)
    if count == 0:
        pytest.skip("no stored notebook has an output to compare yet")
    left, found = notebooks.check(emptied(books))
    assert left == 0
    assert sum("nothing would be compared" in problem for problem in found) == count


def test_the_floor_holds_and_follows() -> None:
    assert "under the floor" in notebooks.check(GOOD, floor=3)[1][0]
    many = sized(a=notebook(*(cell(f"print({i})", str(i), CONTRACT) for i in range(9))))
    assert "raise FLOOR" in notebooks.check(many, floor=3)[1][0]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (notebook(cell("print(1)", "1")), "nothing compares"),
        (notebook(cell("print(1)", "1", ("keep_output",))), "both"),
        (notebook(cell("print(1)", "1", ("nbval-check-output",))), "both"),
        (notebook(cell("print(1)", None, CONTRACT)), "nothing would be compared"),
        (notebook(cell("x = 1"), kind="theory"), "nothing would be compared"),
        (notebook(cell("x = 1", tags=("parameters",))), "2 cells are tagged"),
        (notebook(cell("x = 1", tags=("skip-execution",))), "nbval-skip"),
        (notebook(kind="poem"), "not one of"),
        (notebook(kind="prose") | {"cells": []}, "0 cells are tagged"),
        (notebook(cell("#" * 200_001)), "over 200000"),
    ],
)
def test_each_broken_rule_is_named(broken: Notebook, message: str) -> None:
    found = notebooks.check(sized(broken=broken))[1]
    assert any(message in problem and problem.startswith("broken.ipynb: ") for problem in found)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("widgets", {}, "widget state"),
        ("keep_output", True, "belongs to theory"),
        ("kernelspec", {"name": "my-env"}, "must be python3"),
    ],
)
def test_each_broken_rule_of_the_metadata_is_named(key: str, value: Any, message: str) -> None:
    broken = notebook()
    broken["metadata"][key] = value
    assert any(message in problem for problem in notebooks.check(sized(broken=broken))[1])


def test_a_stored_error_is_found() -> None:
    broken = cell("print(1)", "1", CONTRACT)
    broken["outputs"] = [{"output_type": "error", "ename": "E", "evalue": "", "traceback": []}]
    assert any("stores an error" in problem for problem in notebooks.check(sized(broken=notebook(broken)))[1])


def test_the_cell_that_installs_is_the_first_and_the_same_everywhere() -> None:
    whole = GOOD["method.ipynb"][0]
    assert notebooks.with_install(whole) == whole
    without = {**whole, "cells": [TITLE, *whole["cells"][2:]]}
    moved = {**whole, "cells": [*without["cells"], whole["cells"][1]]}
    other = copy.deepcopy(whole)
    other["cells"][1]["source"][-1] = "    %pip install something-else"
    for broken in (without, moved, other):
        assert ["must install anatolab" in p for p in notebooks.problems("a.ipynb", broken, 100)] == [True]
        assert notebooks.with_install(broken) == whole


@pytest.mark.parametrize(
    ("missing", "beside", "asked"),
    [
        (False, ["anatolab-0.1.0-py3-none-any.whl"], []),
        (True, [], ["install --quiet anatolab"]),
        (True, ["anatolab-0.1.0-py3-none-any.whl"], ["install --quiet anatolab-0.1.0-py3-none-any.whl"]),
    ],
)
def test_anatolab_is_installed_where_it_is_missing_and_nothing_is_done_where_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool, beside: list[str], asked: list[str]
) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.chdir(tmp_path)
    for name in beside:
        (tmp_path / name).touch()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if missing and n == "anatolab" else find(n))
    shell, calls = InteractiveShell(), []
    shell.register_magic_function(calls.append, magic_name="pip")
    shell.run_cell(notebooks.INSTALL).raise_error()
    assert calls == asked


def test_strip_removes_what_is_not_compared_and_keeps_the_rest(tmp_path: Path) -> None:
    content = notebook(cell("print(1)", "1"), cell("print(2)", "2", CONTRACT))
    content["metadata"]["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    content["metadata"]["language_info"] = {"name": "python", "version": "3.11.7"}
    for name, each in {"method": content, "theory": GOOD["theory.ipynb"][0]}.items():
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(each))
    files = sorted(tmp_path.iterdir())
    assert notebooks.main(["strip", *map(str, files)]) == 0
    books = {path.name: (notebooks.read(path), path.stat().st_size) for path in files}
    assert notebooks.check(books, floor=2) == (2, [])
    assert books["method.ipynb"][0]["metadata"]["language_info"] == {"name": "python"}
    before = [path.read_bytes() for path in files]
    assert notebooks.main(["strip", *map(str, files)]) == 0
    assert [path.read_bytes() for path in files] == before


def test_pre_commit_strips_with_the_same_options() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (hook,) = (hook for hook in config["repos"][0]["hooks"] if hook["id"] == "nbstripout")
    assert tuple(hook["entry"].split()[1:]) == notebooks.STRIP


def nbval(path: Path, *options: str) -> str:
    """Runs nbval on a notebook as the make target does; pytest's output."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(path.parent), *options]
    command += ["--nbval-current-env", "--nbval-sanitize-with", str(ROOT / "tests" / "nbval.cfg"), str(path)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=path.parent).stdout


def test_nbval_compares_contract_cells_after_replacing_what_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "toy.ipynb"
    content = notebook(
        cell("print('not compared')", tags=()),
        cell("print(object())", "<object object at 0x7f00aa00bb00>", CONTRACT),
        cell("import uuid; print(uuid.uuid4())", "0b1d6a4c-8f36-4a4e-9d6e-1d2f3a4b5c6d", CONTRACT),
        cell("import tempfile; print(tempfile.mkdtemp())", "/tmp/tmpabcdefgh", CONTRACT),
        cell("print('Dice 0.731, 12.5 s, 3 steps/s')", "Dice 0.731, 12.5 s, 3 steps/s", CONTRACT),
        cell("print('Dice 0.731, 12.5 s')", "Dice 0.731, 12.6 s", CONTRACT),
        cell("print('Dice 0.732')", "Dice 0.731", CONTRACT),
    )
    path.write_text(json.dumps(content))
    report = nbval(path, "--nbval-lax")
    assert "2 failed, 7 passed" in report
    assert "Cell 7" in report
    assert "Cell 8" in report


def tree(root: Path) -> Path:
    """A toy checkout that the book's cache depends on."""
    for name, text in {
        "requirements.lock": "a==1",
        "anatolab/losses/dice.py": "x = 1",
        "book/records/a/seed0.json": "{}",
        "notebooks/helper.csv": "1",
        "notebooks/01_toy.ipynb": "{}",
        "notebooks/02_not_in_the_book.ipynb": "{}",
        "_toc.yml": "root: book/intro\nparts:\n- chapters:\n  - file: notebooks/01_toy\n  - file: book/glossary\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    "name", ["requirements.lock", "anatolab/losses/dice.py", "book/records/a/seed0.json", "notebooks/helper.csv"]
)
def test_the_cache_is_emptied_when_what_outputs_depend_on_changes(tmp_path: Path, name: str) -> None:
    root, cache = tree(tmp_path), tmp_path / "_build" / "cache"
    assert book_cache.refresh(cache, book_cache.fingerprint(root, "tiny"))
    (cache / "output").touch()
    assert not book_cache.refresh(cache, book_cache.fingerprint(root, "tiny"))
    assert (cache / "output").exists()
    (root / name).write_text("changed")
    assert book_cache.refresh(cache, book_cache.fingerprint(root, "tiny"))
    assert not (cache / "output").exists()


def test_the_fingerprint_knows_size_and_new_files_and_leaves_notebooks_to_their_code(tmp_path: Path) -> None:
    root = tree(tmp_path)
    before = book_cache.fingerprint(root, "tiny")
    assert book_cache.fingerprint(root, "demo") != before
    (root / "notebooks" / "01_toy.ipynb").write_text("changed")
    (root / "anatolab" / "__pycache__").mkdir()
    (root / "anatolab" / "__pycache__" / "a.pyc").touch()
    assert book_cache.fingerprint(root, "tiny") == before
    (root / "anatolab" / "new.py").touch()
    assert book_cache.fingerprint(root, "tiny") != before


def test_only_notebooks_of_the_table_of_contents_run(tmp_path: Path) -> None:
    root = tree(tmp_path)
    assert book_cache.chapters(root) == [root / "notebooks" / "01_toy.ipynb"]


def test_a_notebook_that_ran_is_served_until_its_code_changes(tmp_path: Path) -> None:
    path = tmp_path / "toy.ipynb"
    path.write_text(json.dumps(notebook(cell("import os\nprint(os.getcwd())"))))
    result = book_cache.run(path)
    assert result.err is None
    assert result.nb.cells[3].outputs[0].text.strip() == os.path.realpath(tmp_path)
    cache = get_cache(str(tmp_path / "cache"))
    cache.cache_notebook_bundle(CacheBundleIn(result.nb, str(path), data={"execution_seconds": 1.0}), False, True)
    assert cache.match_cache_notebook(nbformat.read(path, as_version=4)).data["execution_seconds"] == 1.0
    path.write_text(json.dumps(notebook(cell("print(2)"))))
    with pytest.raises(KeyError):
        cache.match_cache_notebook(nbformat.read(path, as_version=4))


def test_a_notebook_that_fails_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "toy.ipynb"
    path.write_text(json.dumps(notebook(cell("raise RuntimeError('no such record')"))))
    result = book_cache.run(path)
    assert result.err is not None
    assert "no such record" in result.exc_string


def test_an_output_without_an_execution_count_is_said() -> None:
    unrun = cell("print(1)", "1", CONTRACT) | {"execution_count": None}
    assert "execution count" in notebooks.problems("a.ipynb", notebook(unrun), 100)[0]


def test_nbval_runs_one_contract_notebook_of_each_part() -> None:
    assert notebooks.live_problems(notebooks.load(), notebooks.parts()) == []
    assert any("one contract notebook" in p for p in notebooks.live_problems(notebooks.load(), [["20_action.ipynb"]]))
    assert any("not a contract notebook" in p for p in notebooks.live_problems({}, []))


def built(folder: Path, content: Notebook) -> tuple[Path, Path]:
    """A notebook on disk, and a cache in which its outputs are those of a run."""
    path, cache = folder / "toy.ipynb", get_cache(str(folder / "cache"))
    path.write_text(json.dumps(content))
    cache.cache_notebook_bundle(CacheBundleIn(nbformat.read(path, as_version=4), str(path)), False, True)
    return path, folder / "cache"


CONTRACTS = (
    cell("print('not compared')", "not compared"),
    cell("print(object())", "<object object at 0x7f00aa00bb00>", CONTRACT),
    cell("print('Dice 0.731')", "Dice 0.731", CONTRACT),
)


def test_stored_outputs_are_compared_with_those_of_the_build(tmp_path: Path) -> None:
    path, cache = built(tmp_path, notebook(*CONTRACTS))
    stored = copy.deepcopy(notebook(*CONTRACTS))
    stored["cells"][4]["outputs"][0]["text"] = "<object object at 0x7f00aa00cc00>\n"  # says nothing
    stored["cells"].insert(1, {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "not in the cache"})
    path.write_text(json.dumps(stored))
    assert notebooks.compare(cache, [path]) == (2, [])


@pytest.mark.parametrize("change", ["text", "stderr", "nothing", "twice"])
def test_a_perturbed_output_differs_from_that_of_the_build(tmp_path: Path, change: str) -> None:
    path, cache = built(tmp_path, notebook(*CONTRACTS))
    stored = copy.deepcopy(notebook(*CONTRACTS))
    output = stored["cells"][5]["outputs"][0]
    stored["cells"][5]["outputs"] = {
        "text": [output | {"text": "Dice 0.732\n"}],
        "stderr": [output | {"name": "stderr"}],
        "nothing": [],
        "twice": [output, output],
    }[change]
    path.write_text(json.dumps(stored))
    count, found = notebooks.compare(cache, [path])
    assert (count, len(found)) == (2, 1)
    assert found[0].startswith("toy.ipynb: cell 5 differs from its run\n")
    if change == "text":
        assert "-Dice 0.732" in found[0]
        assert "+Dice 0.731" in found[0]


def test_a_notebook_that_the_build_has_not_run_is_not_taken_for_equal(tmp_path: Path) -> None:
    path, cache = built(tmp_path, notebook(*CONTRACTS))
    path.write_text(json.dumps(notebook(*CONTRACTS, cell("print(3)", "3", CONTRACT))))
    count, found = notebooks.compare(cache, [path])
    assert (count, found) == (0, ["toy.ipynb: the build has not run this notebook as it is; run `make html` first"])
