"""The extension of this book: loads its parts, each of which has a ``setup`` of its own."""

from __future__ import annotations

import os
from typing import Any

from sphinx.application import Sphinx

PARTS = (
    "anatolab_numbers",
    "anatolab_dots",
    "anatolab_cards",
    "anatolab_claims",
    "anatolab_overview",
    "anatolab_results",
    "anatolab_pages",
    "anatolab_bibliography",
    "anatolab_answers",
    "anatolab_theme",
    "anatolab_api",
    "anatolab_speed",
)


def setup(app: Sphinx) -> dict[str, Any]:
    """Loads the parts."""
    os.environ["ANATOLAB_BOOK"] = "1"  # kernels started by this build draw figures for the book
    for part in PARTS:
        app.setup_extension(part)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
