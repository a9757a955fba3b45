"""The look of the book: options of the theme, its one address, and repairs of its HTML."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

NEEDLESS = re.compile(
    r'<link rel="preload" as="font"[^>]*>\s*|<script>const THEBE_JS_URL.*?</script>\s*'
    r'|<script[^>]*sphinx-thebe\.js[^>]*></script>\s*|<script type="text/x-thebe-config">.*?</script>\s*'
    r"|<script>kernelName = .*?</script>\s*|<link[^>]*sphinx-thebe\.css[^>]*>\s*",
    re.DOTALL,
)
SPOKEN = (  # repairs of the theme's markup for axe: label-content-name-mismatch, summary-name, aria-required-children
    (r'(<button class="btn search-button-field[^>]*?)\s+(?:title|aria-label)="Search"', r"\1"),
    (r'(<button class="btn search-button-field[^>]*?)\s+(?:title|aria-label)="Search"', r"\1"),
    (r'<summary>(?=<span class="toctree-toggle")', '<summary aria-label="Show or hide the pages below">'),
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r'<div role="list" class="citation-list">', '<div class="citation-list">'),
)
LOOK = {
    "search_bar_text": "Search the book",
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def configure(app: Sphinx, config: Any) -> None:
    """Derives everything that needs an address from one setting; leaves it out if that is empty."""
    if config.html_theme != "sphinx_book_theme":
        return
    options = config.html_theme_options
    url = os.environ.get("ANATOLAB_REPOSITORY") or options.get("repository_url") or ""
    options.update(LOOK, repository_url=url, launch_buttons={})
    options.update(use_repository_button=bool(url), use_issues_button=bool(url))
    if url.startswith("https://github.com/"):
        options["launch_buttons"] = {"colab_url": "https://colab.research.google.com"}
    config.html_context.setdefault("default_mode", "auto")
    if site := site_of(app):
        config.html_baseurl = config.ogp_site_url = site
        config.ogp_social_cards = {"enable": False}


def site_of(app: Sphinx) -> str:
    """Returns the address of the published book, or an empty string."""
    return os.environ.get("ANATOLAB_SITE") or app.config.overrides.get("html_baseurl") or ""


def tidy(app: Sphinx, error: Exception | None) -> None:
    """Removes from every page what needs a server or the network, and repairs markup for screen readers."""
    if error or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        mended = NEEDLESS.sub("", text)
        for pattern, instead in SPOKEN:
            mended = re.sub(pattern, instead, mended)
        if mended != text:
            path.write_text(mended, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Adds style sheet and script, configures the theme, and repairs its pages."""
    if site_of(app):
        app.setup_extension("sphinxext.opengraph")
    app.add_css_file("anatolab.css")
    app.add_js_file("anatolab-figures.js", loading_method="defer")
    app.add_js_file("anatolab-fit.js", loading_method="defer")
    app.connect("config-inited", configure, priority=100)
    app.connect("build-finished", tidy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
