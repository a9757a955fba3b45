"""A fork of the warm process is a Python like any other: its output, exit code, environment and modules are its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import warm
from tests.conftest import LONG

ROOT = Path(__file__).resolve().parents[1]


def test_it_prints_ends_and_imports_as_a_new_interpreter_does(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ.get('A'), sys.argv); sys.exit('no')"
    done = warm.python("-c", code, "b", folder=tmp_path, env={**os.environ, "A": "1"})
    assert (done.returncode, done.stdout, done.stderr) == (1, f"{tmp_path} 1 ['-c', 'b']\n", "no\n")
    assert warm.python("-c", "import sys; sys.exit(3)").returncode == 3
    assert warm.python("-c", "{}['x']").stderr.endswith("KeyError: 'x'\n")
    assert warm.python("-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)").returncode == -9


def test_anatolab_is_that_of_the_folder_and_not_imported_before(tmp_path: Path) -> None:
    (tmp_path / "anatolab").mkdir()
    (tmp_path / "anatolab" / "__init__.py").write_text("print('theirs')")
    (tmp_path / "tool.py").write_text("import sys, anatolab; print(sys.argv[1:], __name__)")
    assert warm.python(str(tmp_path / "tool.py"), "a", path=tmp_path).stdout == "theirs\n['a'] __main__\n"
    loaded = warm.python("-c", "import sys; print([m for m in sys.modules if m.startswith('anatolab')])").stdout
    assert loaded == "[]\n"
    where = warm.python("-c", "import anatolab; print(anatolab.__file__)").stdout.strip()
    assert Path(where) == ROOT / "anatolab" / "__init__.py"


def test_a_module_runs_and_what_hangs_is_killed(tmp_path: Path) -> None:
    assert warm.python("-m", "anatolab", "--version", folder=tmp_path).returncode == 0
    with pytest.raises(subprocess.TimeoutExpired):
        warm.python("-c", "import time; time.sleep(60)", timeout=0.5)


def test_the_files_that_are_dealt_out_first_exist() -> None:
    assert [name for name in LONG if not (ROOT / "tests" / name).is_file()] == []
