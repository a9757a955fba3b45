"""Python in a process of its own that need not import torch, MONAI and Sphinx: a fork of one that has, and did no more.

A new interpreter spends three seconds on them. Nothing else differs from ``subprocess.run([sys.executable, ...])``:
anatolab itself is imported anew, from the folder that the test names. What tests an import or its time starts afresh.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

HEAVY = ["torch", "torch._dynamo", "monai.networks.nets", "tyro", "sphinx.cmd.build", "myst_parser.sphinx_ext.main"]
HEAVY += ["plotly.graph_objects", "scipy.stats", "sphinxcontrib.bibtex", "nbformat"]  # none of them imports anatolab
ROOT = Path(__file__).resolve().parents[1]


def python(
    *arguments: str, folder: Path = ROOT, path: Path = ROOT, env: Mapping[str, str] | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Runs ``python`` with these arguments (``-c CODE``, ``-m MODULE ...`` or a script) and captures what it prints.

    Args:
        arguments: Those behind ``python``.
        folder: The working directory.
        path: Where it imports anatolab from, as by PYTHONPATH.
        env: The variables of its environment; those of this process where None.
        timeout: Seconds after which it is killed, and the test fails.
    """
    env = {**(os.environ if env is None else env), "PYTHONPATH": str(path)}
    command = [sys.executable, *arguments]
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return subprocess.run(
            command, cwd=folder, env=env, capture_output=True, encoding="utf-8", timeout=timeout, check=False
        )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    with tempfile.TemporaryDirectory() as spoken:
        out, err = (Path(spoken, name) for name in ("out", "err"))
        child = context.Process(target=_child, args=(arguments, str(folder), env, str(out), str(err)))
        child.start()
        child.join(timeout)
        if child.exitcode is None:
            child.kill()
            child.join()
            raise subprocess.TimeoutExpired(command, timeout)
        printed, complaints = (p.read_text("utf-8") if p.exists() else "" for p in (out, err))
    return subprocess.CompletedProcess(command, child.exitcode, printed, complaints)


def _child(arguments: Sequence[str], folder: str, env: dict[str, str], out: str, err: str) -> None:
    """Becomes the interpreter that was asked for; never returns."""
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    kind, *rest = arguments
    first = folder if kind in ("-c", "-m") else str(Path(kind).resolve().parent)
    sys.path[:] = [first, env["PYTHONPATH"], *(p for p in sys.path if p not in ("", str(ROOT)))]
    for name in [n for n in sys.modules if n.partition(".")[0] in ("anatolab", "tests")]:
        del sys.modules[name]
    code = 0
    try:
        if kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        elif kind == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(arguments)
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
