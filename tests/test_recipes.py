"""The recipes of CONTRIBUTING.md, followed in a copy of the tree."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from anatolab.methods import METHODS
from anatolab.staleness import closure_sha256
from tests import warm

ROOT = Path(__file__).resolve().parents[1]
USE = """
import numpy as np
import plotly.graph_objects as go
from anatolab import experiments, viz
from anatolab.cli import main
from anatolab.data import Rows
from anatolab.methods import METHODS
from anatolab.nn import light_unet
from anatolab.presets import SIZES
from anatolab.training import Settings, train
from anatolab.types import Split

print("row:", [row for row in experiments.ROWS if row[1] == "toy"])
print("color:", viz.method_color("Toy method"), viz.method_style("toy_method")["line"])
config = METHODS["toy"].Config(updates=3)
images, labels = np.random.default_rng(0).random((4, 1, 32, 32), np.float32), np.zeros((4, 32, 32), np.uint8)
rows = Rows.from_arrays(images, labels, patients=list("abcd"))
method = METHODS["toy"](light_unet(1, 2), config)
figure = go.Figure(go.Scatter(y=[0, 1], name="Toy method", **viz.method_style("toy_method")))
print("line:", figure.data[0].line.color)
print("steps:", train(method, rows, Split(tuple("abcd"), 2), Settings(accelerator="cpu"), progress=False).step)
main(["train", "--help"])
"""
READER = """
from functools import partial
from anatolab.data import pairs
from anatolab.types import Cohort

CLASSES = ("background", "disk")

def is_toy(root):
    return (root / "scan-0.nii").exists()

def read_toy(root):
    images = {path.stem: (path,) for path in root.glob("scan-*.nii")}
    labels = {name: root / f"{name.replace('scan', 'mask')}.nii" for name in images}
    load = lambda patient, files, label: partial(pairs.load_case, patient, files, label, CLASSES)
    refs = pairs.refs_of(images, labels, load, labels.get, [])
    return Cohort("Toy", "official", CLASSES, refs, root, {}, {"license": "MIT", "source": "drawn"})
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package."""
    shutil.copytree(ROOT / "anatolab", tmp_path / "anatolab", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(tree: Path, code: str) -> str:
    """What Python code prints by the package of a tree."""
    result = warm.python("-c", code, folder=tree, path=tree, env={**os.environ, "COLUMNS": "120"})
    assert "Traceback" not in result.stderr, result.stderr[-2000:]
    return result.stdout


def hashes(tree: Path) -> dict[str, str]:
    """Of every method what ties its records to the code of a tree."""
    return {name: closure_sha256(kind.__module__, tree / "anatolab") for name, kind in METHODS.items()}


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_method_is_one_file_and_its_line_in_the_list(tree: Path) -> None:
    source = (tree / "anatolab" / "methods" / "mean_teacher.py").read_text().replace("MeanTeacher", "Toy")
    source = re.sub(r'title: ClassVar\[str\] = ".*"', 'title: ClassVar[str] = "Toy method"', source)
    source = re.sub(r'color: ClassVar\[str\] = ".*"', 'color: ClassVar[str] = "#123456"', source)
    (tree / "anatolab" / "methods" / "toy.py").write_text(source)
    methods = tree / "anatolab" / "methods" / "__init__.py"
    replaced(
        methods, "from anatolab.methods.ua_mt", "from anatolab.methods.toy import Toy\nfrom anatolab.methods.ua_mt"
    )
    replaced(methods, '    "morse": Morse,\n', '    "morse": Morse,\n    "toy": Toy,\n')

    printed = run(tree, USE)
    assert "row: [('toy', 'toy', 'Toy method', {})]" in printed
    assert "color: #123456 {'color': '#123456'" in printed
    assert "line: #123456" in printed
    assert "steps: 3" in printed
    assert re.search(r"\btoy\b.*Train Toy method\.", printed)
    assert hashes(tree) == hashes(ROOT)


def test_an_augmentation_makes_every_training_stale(tree: Path) -> None:
    replaced(tree / "anatolab" / "transforms.py", "rotate: float = 40.0", "rotate: float = 41.0")
    before, after = hashes(ROOT), hashes(tree)
    assert [name for name in METHODS if before[name] == after[name]] == []


def test_a_data_set_is_one_reader_and_its_line_in_the_list(tree: Path) -> None:
    (tree / "anatolab" / "data" / "toy.py").write_text(READER)
    layouts = tree / "anatolab" / "data" / "layouts.py"
    replaced(layouts, "mmwhs, synapse", "mmwhs, synapse, toy")
    replaced(layouts, "LAYOUTS = (\n", 'LAYOUTS = (\n    Layout("Toy", "scan-0.nii", toy.is_toy, toy.read_toy),\n')

    folder = tree / "toy"
    folder.mkdir()
    disk = np.hypot(*np.meshgrid(*[np.arange(24) - 12] * 2)) < 6
    for number in range(3):
        label = np.repeat(disk[..., None], 4, axis=2).astype(np.uint8)
        image = 100.0 * label + np.random.default_rng(number).normal(0, 5, label.shape)
        for name, values in (("scan", image.astype(np.float32)), ("mask", label)):
            nibabel.save(nibabel.Nifti1Image(values, np.diag([1.5, 1.5, 8, 1])), folder / f"{name}-{number}.nii")
    printed = run(tree, "from anatolab.cli import main; main(['check', 'toy'])")
    assert "Toy" in printed
    assert "disk" in printed
    assert hashes(tree) == hashes(ROOT)


def test_a_page_is_one_file_and_its_line_in_the_table_of_contents(tree: Path) -> None:
    for part in ("notebooks", "book", "tools"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__", "records", "_static"))
    toc = tree / "_toc.yml"
    shutil.copy(ROOT / "_toc.yml", toc)
    replaced(toc, "      - file: book/cite", "      - file: book/cite\n      - file: book/toy")
    last = "      - file: notebooks/73_cost"
    replaced(toc, last, f"{last}\n      - file: notebooks/99_toy")
    write_notebook(tree / "notebooks" / "99_toy.ipynb", "print(round(2 / 3, 3))", "0.667\n")
    (tree / "book" / "toy.md").write_text("---\nkind: prose\n---\n# A toy page\n\nIt has one sentence.\n")
    assert checked(tree, "lint_pages.py") == (0, f"{toc.read_text().count('file:') + 1} pages, 0 problems")
    assert checked(tree, "notebooks.py", "install")[0] == 0
    assert checked(tree, "notebooks.py", "check")[0] == 0

    write_notebook(tree / "notebooks" / "99_toy.ipynb", "print(round(2 / 3, 3))", None)
    status, printed = checked(tree, "notebooks.py", "check")
    assert (status, "99_toy.ipynb: cell 2 is compared" in printed) == (1, True)


def write_notebook(path: Path, source: str, printed: str | None) -> None:
    """A notebook with a title, its parameters and one contract cell."""
    outputs = [] if printed is None else [{"output_type": "stream", "name": "stdout", "text": printed}]

    def code(text: str, tags: list[str], outputs: list[dict[str, Any]]) -> dict[str, Any]:
        cell = {"cell_type": "code", "id": f"cell-{len(text)}", "metadata": {"tags": tags}, "source": text}
        return cell | {"execution_count": 1, "outputs": outputs}

    title = {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# A toy notebook"}
    cells = [title, code("seed = 0", ["parameters"], []), code(source, ["nbval-check-output", "keep_output"], outputs)]
    metadata = {"kind": "prose", "kernelspec": {"name": "python3", "display_name": "Python 3"}}
    path.write_text(
        json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}), encoding="utf-8"
    )


def checked(tree: Path, tool: str, *arguments: str) -> tuple[int, str]:
    """The exit status of one of the tree's tools, and what it prints."""
    result = warm.python(str(tree / "tools" / tool), *arguments, folder=tree, path=tree)
    assert "Traceback" not in result.stderr, result.stderr[-2000:]
    return result.returncode, result.stdout.strip()
