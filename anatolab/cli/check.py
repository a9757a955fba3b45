"""``anatolab check``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from anatolab.cli.common import Json, print_json


def command(arguments: Sequence[str]) -> Any:
    """Returns the function whose parameters are the flags."""
    return check


def check(data: tyro.conf.Positional[Path], json: Json = False) -> int:
    """Describe a folder of patients and list all its problems; exit code 1 if there are any.

    Args:
        data: Folder of patients.
        json: Print the report as JSON.
    """
    from anatolab.data import check_folder, describe

    report = check_folder(data)
    if json:
        print_json(report)
    else:
        print(describe(report))
    return 0 if report.ok else 1
