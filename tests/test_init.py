import subprocess
import sys

import pytest

import anatolab


def test_every_name_offered_can_be_used_and_is_the_one_of_its_module() -> None:
    for name in anatolab.__all__:
        assert getattr(anatolab, name).__name__ == name


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'; it offers .*open_cohort"):
        anatolab.nothing  # noqa: B018


def test_the_import_alone_loads_no_torch() -> None:
    code = "import sys, anatolab; print('torch' in sys.modules, 'numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert found.stdout.split() == ["False", "False"]
