"""The README's script runs as printed, and its numbers are those of the records."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from anatolab import records

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")

PRINTED = re.compile(
    r"plain supervision reaches a Dice of (0\.\d\d) .*? pseudo-label base (0\.\d\d).*? supervision reaches (0\.\d\d)"
    r".*?left atria .*? it is (0\.\d\d) and (0\.\d\d)"
)


def test_the_python_script_runs_as_printed(tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(script.strip().splitlines()) <= 20
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", cwd=tmp_path, timeout=600
    )
    assert ran.returncode == 0, ran.stderr
    assert 0.4 < float(ran.stdout.splitlines()[-1]) <= 1  # eight labeled hearts, half a minute


def test_its_result_is_that_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANATOLAB_RECORDS", raising=False)
    text = " ".join(README.split())
    (printed,) = re.findall(PRINTED, text)
    rows = ("acdc96-3-supervised", "acdc96-3-base", "acdc96-all-supervised", "la-8-supervised", "la-8-base")
    measured = [records.value(row, "dice.mean") for row in rows]
    assert [float(value) for value in printed] == [round(value, 2) for value in measured]
