"""The built site on disk: where it lies, and its pages as a parser sees them."""

from __future__ import annotations

import html.parser
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"


def built_pages() -> list[Path]:
    """Every page of the table of contents and of the API, as built; the front door, which only leads on, is none."""
    built = [p for p in sorted(SITE.rglob("*.html")) if "_static" not in p.parts and "_modules" not in p.parts]
    return [p for p in built if p != SITE / "index.html"]


def name_of(page: Path) -> str:
    """A page as its address names it."""
    return page.relative_to(SITE).as_posix()


def one_page_a_part() -> list[str]:
    """The root, the first page of each part, a page of the API and the search, as their addresses name them."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    first = [toc["root"], *(part["chapters"][0]["file"] for part in toc["parts"])]
    return [f"{name}.html" for name in (*first, "book/autoapi/anatolab/types/index", "search")]


class Reader(html.parser.HTMLParser):
    """Collects ids, links, images and inline figure data of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.images: list[dict[str, str]] = []
        self.loads: list[str] = []
        self.specs: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {k: v or "" for k, v in attrs}
        self.ids |= {given[k] for k in ("id", "name") if k in given and (k == "id" or tag == "a")}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "img":
            self.images.append(given)
        if tag in ("script", "img", "iframe", "source") and given.get("src"):
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon"):
            self.loads.append(given["href"])
        self.inside = tag == "script" and given.get("class") == "al-spec"

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.specs.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.inside = False
