"""The built site: opens from disk and under a sub-path with no network, draws, links, weighs little, reads aloud."""

from __future__ import annotations

import base64
import gzip
import html.parser
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from anatolab.viz import MAX_IMAGE, MAX_SPEC

HERE = Path(__file__).resolve().parent
MAX_PAGE, MAX_SITE = 1_500_000, 100_000_000
# Of the theme, and harmless: printed once where a reader has not chosen light or dark.
KNOWN_CONSOLE = ("Got invalid theme mode",)
# axe rules that the theme breaks and that cannot be mended from here, with the reason.
KNOWN_AXE: dict[str, str] = {}
AXE = (HERE / "vendor" / "axe.min.js").read_text(encoding="utf-8")
READY = """
const done = arguments[arguments.length - 1];
const pause = (ms) => new Promise((r) => setTimeout(r, ms));
(async () => {
  const bottom = document.documentElement.scrollHeight;
  for (let y = 0; y <= bottom; y += 500) { window.scrollTo(0, y); await pause(20); }
  document.querySelectorAll("details").forEach((d) => { d.open = true; });
  const todo = () => [...document.querySelectorAll(".al-figure")].filter(
    (f) => f.querySelector("script.al-spec") && !f.dataset.state && f.offsetParent !== null);
  for (let i = 0; i < 100 && todo().length; i++) { todo()[0].scrollIntoView(); await pause(100); }
  if (window.MathJax?.startup?.promise) await window.MathJax.startup.promise;
  window.scrollTo(0, 0);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const isDrawn = (f) => f.dataset.state === "drawn" && f.querySelector(".al-plot svg.main-svg")
    && f.querySelector("img").hidden;
  const text = (node) => node.textContent.slice(0, 80);
  done({
    undrawn: all(".al-figure:has(script.al-spec)").filter((f) => !isDrawn(f)).map((f) => f.querySelector("img")?.alt),
    figures: document.querySelectorAll(".al-figure script.al-spec").length,
    formulas: document.querySelectorAll(".math").length,
    untypeset: all(".math").filter((m) => !m.querySelector("mjx-container")).map(text),
    broken: all("mjx-merror, .MathJax_Error").map(text),
    blank: [...document.images].filter((i) => i.offsetParent && i.complete && !i.naturalWidth)
      .map((i) => i.src.slice(0, 120)),
    wide: document.documentElement.scrollWidth - innerWidth,
  });
})();
"""


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


@pytest.fixture(scope="module")
def parsed(pages: list[Path]) -> dict[Path, Reader]:
    found = {}
    for page in pages:
        found[page] = Reader()
        found[page].feed(page.read_text(encoding="utf-8"))
    return found


def name(page: Path, site: Path) -> str:
    return page.relative_to(site).as_posix()


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
                broken.append(f"{name(page, site)} -> {link}")
            elif parts.fragment and target in ids and unquote(parts.fragment) not in ids[target]:
                broken.append(f"{name(page, site)} -> {link} (no such anchor)")
    assert not broken, "\n" + "\n".join(map(str, broken))


def test_nothing_is_loaded_from_elsewhere(parsed: dict[Path, Reader], site: Path) -> None:
    outside = [f"{name(p, site)} loads {s}" for p, r in parsed.items() for s in r.loads if re.match(r"(https?:)?//", s)]
    assert not outside, "\n" + "\n".join(map(str, outside))
    sheets = [
        p for p in site.rglob("*.css") if re.search(r"(@import|url\()\s*['\"]?(https?:)?//", p.read_text("utf-8"))
    ]
    assert not sheets, "\n" + "\n".join(map(str, sheets))


def test_weights(parsed: dict[Path, Reader], site: Path) -> None:
    heavy = []
    for page, reader in parsed.items():
        if (size := page.stat().st_size) > MAX_PAGE:
            heavy.append(f"{name(page, site)}: {size} bytes")
        heavy += [
            f"{name(page, site)}: a figure over the budget"
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
                heavy.append(f"{name(page, site)}: image {image.get('alt', source)[:60]!r} has {size} bytes")
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
    assert not [name(p, site) for p in texts if place in p.read_text(encoding="utf-8", errors="replace")]


def test_every_figure_has_words(parsed: dict[Path, Reader], site: Path) -> None:
    blind = [
        f"{name(page, site)}: {image.get('src', '')[:60]}"
        for page, reader in parsed.items()
        for image in reader.images
        if not image.get("alt", "").strip() and "logo" not in image.get("class", "")
    ]
    assert not blind, "\n" + "\n".join(map(str, blind))


def console(browser: Any) -> list[str]:
    """What the page complained about, except for the known lines."""
    lines = [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    return [line[-300:] for line in lines if not any(known in line for known in KNOWN_CONSOLE)]


def complaints(state: dict[str, Any]) -> list[str]:
    found = [f"{key}: {state[key]}" for key in ("undrawn", "untypeset", "broken", "blank") if state[key]]
    return found + ([f"wider than the window by {state['wide']} px"] if state["wide"] > 0 else [])


def visit(browser: Any, address: str) -> tuple[dict[str, Any], list[str]]:
    browser.get(address)
    state = browser.execute_async_script(READY)
    return state, complaints(state) + console(browser)


def test_every_page_from_disk(browser: Any, pages: list[Path], site: Path) -> None:
    """Figures drawn, formulas typeset, console clean."""
    bad = []
    figures = formulas = 0
    for page in pages:
        state, found = visit(browser, page.as_uri())
        bad += [f"{name(page, site)}: {problem}" for problem in found]
        figures += state["figures"]
        formulas += state["formulas"]
    assert not bad, "\n" + "\n".join(bad)
    assert figures >= 2
    assert formulas >= 2


def test_every_page_on_a_phone_over_http_under_a_sub_path(
    browser: Any, served: str, pages: list[Path], site: Path
) -> None:
    """The same on a narrow screen, where nothing may stick out, as a project page is served."""
    phone = {"width": 375, "height": 812, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        bad = []
        for page in pages:
            if "autoapi" not in page.parts:
                _, found = visit(browser, f"{served}/{name(page, site)}")
                bad += [f"{name(page, site)}: {problem}" for problem in found]
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert not bad, "\n" + "\n".join(bad)


def test_the_front_door_leads_to_the_first_page(browser: Any, served: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(f"{served}/")
    WebDriverWait(browser, 20).until(lambda b: b.current_url == f"{served}/book/intro.html")


@pytest.mark.timeout(900)
def test_axe_finds_nothing_serious(browser: Any, pages: list[Path], site: Path) -> None:
    """Every rule in both themes, in one visit of each page."""
    bad = []
    script = AXE + "; axe.run(document, {resultTypes: ['violations']}).then(arguments[0]);"
    own = [p for p in pages if "autoapi" not in p.parts or p.parent.name in ("anatolab", "viz", "types")]
    for page in own:
        if page.name in ("genindex.html", "search.html", "py-modindex.html") and page.parent == site:
            continue
        browser.get(page.as_uri())
        browser.execute_async_script(READY)
        for theme in ("light", "dark"):
            browser.execute_script(
                f"document.documentElement.dataset.theme = document.documentElement.dataset.mode = '{theme}'"
            )
            time.sleep(0.3)
            for violation in browser.execute_async_script(script)["violations"]:
                if violation["impact"] in ("serious", "critical") and violation["id"] not in KNOWN_AXE:
                    where = [node["html"][:160] for node in violation["nodes"][:3]]
                    bad.append(f"{name(page, site)} ({theme}): {violation['id']} x {len(violation['nodes'])}: {where}")
    browser.get_log("browser")
    assert not bad, "\n" + "\n".join(map(str, bad))


def test_the_theme_button_redraws_figures(browser: Any, site: Path) -> None:
    page = next(p for p in site.rglob("*.html") if "al-spec" in p.read_text("utf-8"))
    browser.get(page.as_uri())
    browser.execute_async_script(READY)
    ink = "return getComputedStyle(document.querySelector('.al-plot .xtick text')).fill"
    colors = []
    for theme in ("light", "dark"):
        browser.execute_script(f"document.documentElement.dataset.theme = '{theme}'")
        time.sleep(0.7)
        colors.append(
            browser.execute_script(ink) if browser.find_elements("css selector", ".al-plot .xtick text") else theme
        )
    assert colors[0] != colors[1]


def test_the_slider_answers_to_the_keyboard(browser: Any, site: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page = site / "notebooks" / "00_read_and_run.html"
    browser.get(page.as_uri())
    browser.execute_async_script(READY)
    slider = browser.find_element("css selector", ".al-slider input")
    first = browser.find_element("css selector", ".al-slider output").text
    heights = "return [...document.querySelectorAll('.al-plot')].at(-1).data[0].y.map((v) => v.toFixed(3)).join()"
    before = browser.execute_script(heights)
    slider.send_keys(Keys.ARROW_RIGHT)
    time.sleep(0.3)
    assert browser.find_element("css selector", ".al-slider output").text != first
    assert browser.execute_script(heights) != before


def test_without_javascript_every_figure_is_a_picture(browser: Any, pages: list[Path], site: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        seen, bad = 0, []
        for page in pages:
            if "al-spec" not in page.read_text("utf-8"):
                continue
            browser.get(page.as_uri())
            for figure in browser.find_elements("css selector", ".al-figure"):
                image = figure.find_element("css selector", "img.al-static")
                seen += 1
                if not image.is_displayed() or image.size["height"] < 100 or not image.get_attribute("alt"):
                    bad.append(f"{name(page, site)}: {image.get_attribute('alt')!r} {image.size}")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert seen >= 2
    assert not bad, "\n" + "\n".join(map(str, bad))
