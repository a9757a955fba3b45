"""Writes pages in several processes, as many as ``ANATOLAB_JOBS`` says, after reading them in one.

Sphinx reads in parallel only where every extension declares that it may, and warns of those that do not declare it:
two of Jupyter Book's. Writing needs no such declaration, and takes most of the time.
"""

from __future__ import annotations

import os
from typing import Any

from sphinx.application import Sphinx


def write_in_parallel(app: Sphinx, env: Any) -> list[str]:
    """Sets how many processes write, one of which only hands out pages; no page has to be read again."""
    jobs = int(os.environ.get("ANATOLAB_JOBS") or 1)
    app.parallel = jobs + 1 if jobs > 1 else app.parallel
    return []


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects to the end of reading."""
    app.connect("env-updated", write_in_parallel, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
