"""The recipes of CONTRIBUTING.md, followed in a copy of the tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
USE = """
import numpy as np
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
print("steps:", train(method, rows, Split(tuple("abcd"), 2), Settings(accelerator="cpu"), progress=False).step)
main(["train", "--help"])
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package."""
    shutil.copytree(ROOT / "anatolab", tmp_path / "anatolab", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(tree: Path, code: str) -> str:
    """What Python code prints by the package of a tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "120"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr, result.stderr[-2000:]
    return result.stdout


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


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
    assert "steps: 3" in printed
    assert re.search(r"\btoy\b.*Train Toy method\.", printed)
