"""The scripts of studies/ and tools/ and the extensions of the book as modules, whose folders are no packages."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "studies"))  # whose scripts import from one another


def script(path: str, name: str = "") -> ModuleType:
    """The script at a path below the root, run anew; under another name where that of its file is taken."""
    spec = importlib.util.spec_from_file_location(name or Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found
