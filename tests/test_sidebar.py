"""The sidebar that the book's build makes once is the one that Sphinx makes for each page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TREE = {"index": "folder/middle alone", "folder/middle": "deep", "folder/deep": "deepest"}
TREE |= {"folder/deepest": "", "alone": ""}
PAGES = [*TREE, "genindex", "folder/no-page"]
OPTIONS = {"collapse": False, "includehidden": True, "titles_only": True}


def test_it_is_the_one_of_sphinx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sphinx.testing.util import SphinxTestApp

    monkeypatch.setattr(sys, "path", [str(ROOT / "book" / "_ext"), *sys.path])
    (tmp_path / "conf.py").write_text('extensions = ["anatolab_speed"]\n', encoding="utf-8")
    for name, below in TREE.items():
        listed = "".join(f"   {page}\n" for page in below.split())
        text = f"{name}\n{'=' * 20}\n\nA heading\n---------\n\n.. toctree::\n\n{listed}"
        (tmp_path / name).with_suffix(".rst").parent.mkdir(exist_ok=True)
        (tmp_path / name).with_suffix(".rst").write_text(text, encoding="utf-8")
    app = SphinxTestApp("html", srcdir=tmp_path)
    app.build()
    for depth in (1, 2, 4):
        for page in PAGES:
            theirs = type(app.builder)._get_local_toctree(app.builder, page, maxdepth=depth, **OPTIONS)
            assert app.builder._get_local_toctree(page, maxdepth=depth, **OPTIONS) == theirs, (page, depth)
            assert ("current" in theirs) == (page in TREE and page != "index")
    app.cleanup()
