"""The README's script runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_python_script_runs_as_printed(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(script.strip().splitlines()) <= 20
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert 0.05 < float(ran.stdout.splitlines()[-1]) <= 1  # three labeled hearts, 300 updates: the start of learning
