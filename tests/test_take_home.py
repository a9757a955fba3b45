"""The book to take home: links and ids of the print, what the ZIP holds, and what the front page names."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from tests.scripts import script

home = script("tools/take_home.py")
PAGES = ["book/intro", "notebooks/10_a"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site of two pages."""
    for page, body in (
        (
            "book/intro",
            '<h1 id="top">Title</h1><p class="al-take-home"></p><a href="../notebooks/10_a.html#part">a</a>'
            '<a href="https://example.org">out</a><a href="glossary.html">not printed</a>'
            '<img src="../_images/x.png" loading="lazy">',
        ),
        ("notebooks/10_a", '<h2 id="part">Part<a class="headerlink" href="#part">#</a></h2><a href="#part">here</a>'),
    ):
        path = tmp_path / f"{page}.html"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            '<html><head><link rel="stylesheet" href="../_static/a.css"></head>'
            f"<body><article>{body}<script>x</script></article></body></html>",
            encoding="utf-8",
        )
    return tmp_path


def test_all_pages_are_one_and_links_lead_inside(site: Path) -> None:
    html = home.one_page(site, PAGES)
    assert html.count("<article") == 2
    ids = set(re.findall(r'id="([^"]+)"', html))
    inside = {link[1:] for link in re.findall(r'href="(#[^"]+)"', html)}
    assert inside == {"notebooks-10_a--part"}
    assert inside <= ids
    assert {"book-intro", "notebooks-10_a", "book-intro--top"} <= ids
    assert 'href="https://example.org"' in html
    assert "not printed" in html
    assert "glossary.html" not in html
    assert 'src="_images/x.png"' in html
    assert 'href="_static/a.css"' in html
    assert "<script>x" not in html
    assert "headerlink" not in html


def test_what_is_not_printed_is_linked_where_the_site_is_published(site: Path) -> None:
    page = site / "book" / "intro.html"
    text = page.read_text(encoding="utf-8").replace("glossary.html", "glossary.html#term")
    canonical = '<link rel="canonical" href="https://example.org/lab/book/intro.html">'
    page.write_text(text.replace("<head>", f"<head>{canonical}"), encoding="utf-8")
    assert 'href="https://example.org/lab/book/glossary.html#term"' in home.one_page(site, PAGES)


def test_every_chapter_is_printed_in_order() -> None:
    pages = home.chapters()
    assert pages[0] == "book/intro"
    assert sum(page.startswith("notebooks/") for page in pages) >= 30
    assert not set(pages) & home.NOT_PRINTED


def test_the_zip_holds_the_site_but_not_itself_and_the_front_page_names_it(site: Path) -> None:
    assert home.main(["zip"], site) == 0
    assert home.main(["zip"], site) == 0
    with zipfile.ZipFile(site / "take-home" / "anatolab-book.zip") as archive:
        assert sorted(archive.namelist()) == ["anatolab-book/book/intro.html", "anatolab-book/notebooks/10_a.html"]
    front = (site / "book" / "intro.html").read_text(encoding="utf-8")
    assert front.count('href="../take-home/anatolab-book.zip"') == 1
    assert "anatolab-book.pdf" not in front


def test_without_a_book_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert home.main(["zip"], tmp_path) == 1
    assert "run `make book` first" in capsys.readouterr().err
    assert home.main(["epub"], tmp_path) == 2
