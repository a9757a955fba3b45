"""What a process imports before its first help page, prediction, step or cell, and the CPU time that this takes.

CPU seconds stretch on a busy machine, so each limit is a multiple of what ``import torch`` takes here and now. A start
may take 3 seconds, about twice torch's 1.4 on an idle core; the limits leave room for noise.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
RARE = {"monai", "umap", "numba", "open_clip", "torchvision", "captum", "matplotlib.pyplot", "skimage", "pandas"}
# torch's own optimizers import its compiler at the first step, and so does Fabric: this is no choice of ours.
COMPILER = {"lightning_fabric", "torch._dynamo"}
FILES = {"nibabel", "h5py", "SimpleITK"}
LEARN = {"sklearn", "scipy.stats"}

HELP = """
import contextlib, io
from anatolab.cli import main
from anatolab.cli.app import COMMANDS
for command in COMMANDS:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as page:
        main([command, "--help"])
    assert "--help" in page.getvalue(), command
"""
NETWORK = """
from pathlib import Path
import numpy as np, torch
from anatolab.inference import predict_logits
from anatolab.methods import Supervised
from anatolab.nn import NETWORKS
from anatolab.presets import current_size
from anatolab.types import Case, Split
method = Supervised(NETWORKS[current_size().network](1, 4), Supervised.Config(updates=1))
"""
PREDICTION = f"""{NETWORK}
image = np.random.default_rng(0).random((1, 2, 40, 40), np.float32)
case = Case("a", "", image, None, (1.0, 1.0, 1.0), np.eye(4), Path("a.nii"))
assert len(list(predict_logits(method.eval().predict, case, (32, 32)))) == 1
"""
STEP = f"""{NETWORK}
from anatolab.data import Rows
from anatolab.training import train
rows = Rows.from_arrays(
    np.zeros((6, 1, 32, 32), np.float32), np.zeros((6, 32, 32), np.uint8), patients=list("aabbcc"))
assert train(method, rows, Split(train=("a", "b", "c"), labeled=1), progress=False).step == 1
"""


def fresh(code: str, folder: Path = ROOT) -> tuple[float, set[str]]:
    """Runs code in a new interpreter; its CPU seconds, and the modules that it had loaded at the end."""
    end = "\nimport json, sys, time\nprint(json.dumps([time.process_time(), sorted(sys.modules)]), file=sys.stderr)"
    path = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", path + textwrap.dedent(code) + end],
        capture_output=True, encoding="utf-8", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seconds, loaded = json.loads(done.stderr.splitlines()[-1])
    return seconds, set(loaded)


@cache
def torch_seconds() -> float:
    """CPU seconds of ``import torch``, the lesser of two."""
    return min(fresh("import torch")[0] for _ in range(2))


def first_cells() -> str:
    """Every import of every notebook, once."""
    lines: dict[str, None] = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(line for line in cell["source"] if not line.lstrip().startswith(("%", "!")))
            tree = ast.parse(source) if cell["cell_type"] == "code" else ast.Module([], [])
            lines |= {ast.unparse(n): None for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)}
    assert len(lines) > 50
    return "\n".join(sorted(lines, key=lambda line: "__future__" not in line))


STARTS: dict[str, tuple[Any, set[str], float]] = {  # code, what it must not load, limit in times of torch's import
    "the help of every command": (lambda: HELP, RARE | COMPILER | FILES | LEARN | {"plotly"}, 2.2),
    "the first prediction": (lambda: PREDICTION, RARE | COMPILER | FILES | LEARN | {"plotly", "tyro"}, 2.2),
    "the first step": (lambda: STEP, RARE | FILES | LEARN | {"plotly", "tyro"}, 3.5),
    "the first cells of all notebooks": (first_cells, RARE | COMPILER | FILES | {"tyro"}, 3.0),
}


@pytest.mark.parametrize("start", STARTS)
def test_a_start_loads_nothing_that_it_does_not_use(start: str) -> None:
    code, unwanted, times = STARTS[start]
    seconds = float("inf")
    for _ in range(3):  # a neighbor in the caches only adds seconds, so the least of three counts
        taken, loaded = fresh(code(), ROOT / "notebooks" if "cells" in start else ROOT)
        assert loaded & unwanted == set()
        seconds = min(seconds, taken)
        if seconds <= times * torch_seconds():
            break
    assert seconds <= times * torch_seconds(), f"{seconds:.1f} CPU s, and torch alone {torch_seconds():.1f} s"


def test_help_and_version_load_no_torch() -> None:
    for flag in ("--help", "--version"):
        seconds, loaded = fresh(f"from anatolab.cli import main\nassert main(['{flag}']) == 0")
        assert loaded & {"torch", "numpy", "tyro"} == set()
        assert seconds <= 0.5
