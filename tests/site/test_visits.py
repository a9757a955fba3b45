"""Every page in a browser, once; and the site under a sub-path, as a project page is served."""

from __future__ import annotations

import re
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import pytest

from tests.scripts import script
from tests.site.built import Reader, name_of, one_page_a_part
from tests.site.visits import READY, THEME, visit

pytestmark = pytest.mark.site
LINTED = {"anatolab", "viz", "types"}  # of the API's pages, which are all made from one template
THEME_ONLY = {"genindex.html", "search.html", "py-modindex.html"}
Count = Callable[[str, object], None]


def has_axe(page: Path) -> bool:
    """Whether axe reads a page: all of ours, and some of the API's."""
    return name_of(page) not in THEME_ONLY and ("autoapi" not in page.parts or page.parent.name in LINTED)


def test_the_page_from_disk(browser: Any, page: Path, record_property: Count) -> None:
    """Console clean, figures drawn in both themes, formulas typeset, nothing sticks out, axe finds nothing serious."""
    seen = visit(browser, page.as_uri(), axe=has_axe(page))
    for name, count in (("pages", 1), ("checks of pages from disk", seen.checks), ("figures", seen.figures)):
        record_property(f"site {name}", count)
    record_property("site formulas", seen.formulas)
    assert not seen.bad, "\n" + "\n".join(seen.bad)


AMID = "<p>well</p><p>well</p>{}<p>well</p><p>well</p>"
LIGHT, DARK = (f"desk, {theme}: axe, colors: ['color-contrast x 1" for theme in ("light", "dark"))
FAULTS = {  # rule: what breaks it
    "tables wider than their box": '<div><table style="min-width: 90em"><tr><td>wide</td></tr></table></div>',
    "image-alt x 1": '<img src="../_static/favicon.svg">',
    LIGHT: '<pre><span class="k">def</span> <span class="n" style="color: #bbb !important">token</span></pre>',
    DARK: '<style>[data-theme="dark"] .faint { color: #333 !important }</style><p class="faint">in the dark</p>',
}


@pytest.mark.parametrize("rule", FAULTS)
def test_a_fault_is_seen(browser: Any, site: Path, tmp_path: Path, rule: str) -> None:
    whole = (site / "book" / "cite.html").read_text(encoding="utf-8")
    before, end, after = whole.rpartition("</h1>")
    based = before.replace("<head>", f'<head><base href="{(site / "book" / "cite.html").as_uri()}">', 1)
    (tmp_path / "cite.html").write_text(f"{based}{end}{AMID.format(FAULTS[rule])}{after}", encoding="utf-8")
    assert rule in "\n".join(visit(browser, (tmp_path / "cite.html").as_uri(), axe=True).bad)


@pytest.mark.parametrize("name", one_page_a_part())
def test_the_page_over_http_under_a_sub_path(browser: Any, served: str, name: str, record_property: Count) -> None:
    """The same but for axe, for a page of each part; what other pages link to and load is asked for below."""
    seen = visit(browser, f"{served}/{name}", axe=False)
    record_property("site checks of pages over http", seen.checks)
    assert not seen.bad, "\n" + "\n".join(seen.bad)


def test_all_that_pages_link_to_and_load_is_served_under_the_sub_path(
    parsed: dict[Path, Reader], served: str, record_property: Count
) -> None:
    wanted: dict[str, str] = {}
    for page, reader in parsed.items():
        base = f"{served}/{name_of(page)}"
        for link in reader.links + reader.loads:
            target = urldefrag(urljoin(base, link)).url
            if urlsplit(target).netloc == urlsplit(served).netloc:
                wanted.setdefault(target, base)
    connection, bad = HTTPConnection(urlsplit(served).netloc), []
    for target, source in wanted.items():
        connection.request("HEAD", urlsplit(target).path)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200 or not target.startswith(f"{served}/"):
            bad.append(f"{source} -> {target}: {answer.status}")
    record_property("site addresses over http", len(wanted))
    assert len(wanted) > len(parsed)
    assert not bad, "\n" + "\n".join(bad)


def test_the_front_door_leads_to_the_first_page(browser: Any, served: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(f"{served}/")
    WebDriverWait(browser, 20).until(lambda b: b.current_url == f"{served}/book/intro.html")


def with_figures(pages: list[Path]) -> list[Path]:
    """The pages that hold figures."""
    found = [page for page in pages if "al-spec" in page.read_text("utf-8")]
    assert len(found) >= 2
    return found


def test_the_theme_redraws_figures(browser: Any, pages: list[Path]) -> None:
    browser.get(with_figures(pages)[0].as_uri())
    browser.execute_async_script(READY)
    light, dark = (browser.execute_async_script(THEME, name) for name in ("light", "dark"))
    assert any(light)
    assert all(a != b for a, b in zip(light, dark, strict=True) if a)


def test_the_slider_answers_to_the_keyboard(browser: Any, site: Path) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get((site / "notebooks" / "00_read_and_run.html").as_uri())
    browser.execute_async_script(READY)
    slider = browser.find_element("css selector", ".al-slider input")
    first = browser.find_element("css selector", ".al-slider output").text
    heights = "return [...document.querySelectorAll('.al-plot')].at(-1).data[0].y.map((v) => v.toFixed(3)).join()"
    before = browser.execute_script(heights)
    slider.send_keys(Keys.ARROW_RIGHT)
    WebDriverWait(browser, 20).until(lambda b: b.execute_script(heights) != before)
    assert browser.find_element("css selector", ".al-slider output").text != first


def test_without_javascript_every_figure_is_a_picture(browser: Any, pages: list[Path], record_property: Count) -> None:
    pictures = """return [...document.querySelectorAll(".al-figure")].map((figure) => {
      const image = figure.querySelector("img.al-static");
      return [image?.checkVisibility({visibilityProperty: true, opacityProperty: true}), image?.height, image?.alt];
    })"""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        count, bad = 0, []
        for page in with_figures(pages):
            browser.get(page.as_uri())
            for visible, height, alt in browser.execute_script(pictures):
                count += 1
                if not visible or height < 100 or not alt:
                    bad.append(f"{name_of(page)}: {alt!r}, {height} px high")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    record_property("site figures without JavaScript", count)
    assert count >= 2
    assert not bad, "\n" + "\n".join(bad)


def test_search_from_disk_quotes_pages_and_ranks_chapters_before_the_api(browser: Any, site: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(f"{(site / 'search.html').as_uri()}?q=temperature")
    items = "return [...document.querySelectorAll('ul.search > li')].map((li) => ["
    items += "li.querySelector('a').getAttribute('href'), li.querySelector('.al-excerpt mark')?.textContent ?? ''])"
    WebDriverWait(browser, 20).until(lambda b: "page(s)" in b.find_element("id", "search-results").text)
    results = browser.execute_script(items)
    chapters = [i for i, (link, _) in enumerate(results) if link.startswith("notebooks/")]
    api = [i for i, (link, _) in enumerate(results) if link.startswith("book/autoapi/")]
    assert len(chapters) >= 5
    assert api
    assert max(chapters[:5]) < min(api)
    assert sum(mark.lower().startswith("temperature") for link, mark in results if "autoapi" not in link) >= 5
    opened = visit(browser, (site / "notebooks" / "60_centers.html").as_uri(), axe=True)
    assert browser.find_elements("css selector", "span.highlighted")
    assert not opened.bad, "\n" + "\n".join(opened.bad)


def test_each_heading_of_the_print_is_one_bookmark(browser: Any, site: Path) -> None:
    home = script("tools/take_home.py")
    pages = ["book/intro", "book/field"]
    titles = re.findall(r"/Title \(([^)\\]*)\)", home.print_pdf(site, pages).decode("latin-1"))
    headings = re.findall(r"<h[123]>([^<]*)", home.one_page(site, pages))
    assert {"Why it matters", "What the book does", "The field today"} <= set(headings) & set(titles)
    assert [title for title in titles if title[: len(title) // 2] == title[len(title) // 2 :]] == []
