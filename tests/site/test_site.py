"""The built site: opens from disk and under a sub-path with no network, draws, links, weighs little, reads aloud."""

from __future__ import annotations

import base64
import gzip
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from anatolab.viz import MAX_IMAGE, MAX_SPEC
from tests.site.built import Reader, name_of

MAX_PAGE, MAX_SITE = 1_500_000, 100_000_000


def test_there_are_pages_with_figures_and_formulas(parsed: dict[Path, Reader]) -> None:
    assert len(parsed) >= 10
    assert sum(len(reader.specs) for reader in parsed.values()) >= 2


def test_links_and_anchors_resolve(parsed: dict[Path, Reader], site: Path) -> None:
    ids = {page.resolve(): reader.ids for page, reader in parsed.items()}
    broken = []
    for page, reader in parsed.items():
        for link in reader.links + reader.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link in ("#", ""):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page.resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.is_relative_to(site.resolve()) or not target.is_file():
                broken.append(f"{name_of(page)} -> {link}")
            elif parts.fragment and target in ids and unquote(parts.fragment) not in ids[target]:
                broken.append(f"{name_of(page)} -> {link} (no such anchor)")
    assert not broken, "\n" + "\n".join(map(str, broken))


def test_nothing_is_loaded_from_elsewhere(parsed: dict[Path, Reader], site: Path) -> None:
    outside = [f"{name_of(p)} loads {s}" for p, r in parsed.items() for s in r.loads if re.match(r"(https?:)?//", s)]
    assert not outside, "\n" + "\n".join(map(str, outside))
    sheets = [
        p for p in site.rglob("*.css") if re.search(r"(@import|url\()\s*['\"]?(https?:)?//", p.read_text("utf-8"))
    ]
    assert not sheets, "\n" + "\n".join(map(str, sheets))


def test_weights(parsed: dict[Path, Reader], site: Path) -> None:
    heavy = []
    for page, reader in parsed.items():
        if (size := page.stat().st_size) > MAX_PAGE:
            heavy.append(f"{name_of(page)}: {size} bytes")
        heavy += [
            f"{name_of(page)}: a figure over the budget"
            for s in reader.specs
            if len(gzip.compress(s.encode())) > MAX_SPEC
        ]
        for image in reader.images:
            source = image.get("src", "")
            inline = source.startswith("data:") and ";base64," in source
            file = page.parent / unquote(urlsplit(source).path)
            size = (
                len(base64.b64decode(source.partition(",")[2]))
                if inline
                else file.stat().st_size
                if file.is_file()
                else 0
            )
            if size > MAX_IMAGE:
                heavy.append(f"{name_of(page)}: image {image.get('alt', source)[:60]!r} has {size} bytes")
    assert not heavy, "\n" + "\n".join(map(str, heavy))
    assert sum(p.stat().st_size for p in site.rglob("*") if p.is_file()) <= MAX_SITE


def test_no_path_of_the_machine(site: Path) -> None:
    place = str(site.parents[1])
    texts = [
        p
        for p in site.rglob("*")
        if p.suffix in (".html", ".js", ".json", ".ipynb", ".txt", ".md") and "vendor" not in p.parts
    ]
    assert texts
    assert not [name_of(p) for p in texts if place in p.read_text(encoding="utf-8", errors="replace")]


def test_every_figure_has_words(parsed: dict[Path, Reader], site: Path) -> None:
    blind = [
        f"{name_of(page)}: {image.get('src', '')[:60]}"
        for page, reader in parsed.items()
        for image in reader.images
        if not image.get("alt", "").strip() and "logo" not in image.get("class", "")
    ]
    assert not blind, "\n" + "\n".join(map(str, blind))


def test_no_role_is_left_as_text(parsed: dict[Path, Reader]) -> None:
    raw = []
    for page in parsed:
        text = re.sub(r"<(pre|code|script)\b.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        raw += [f"{name_of(page)}: {m[0]}" for m in re.finditer(r"\{[a-z:]+\}`[^`<]{0,60}", text)]
    assert not raw, "\n" + "\n".join(raw)
