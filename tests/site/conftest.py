"""The built site, a browser without a network, and a server that serves the site under a sub-path."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1280,1000",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
)


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site."""
    return SITE


@pytest.fixture(scope="session")
def pages(site: Path) -> list[Path]:
    """Every page of the table of contents and of the API, as built."""
    return [p for p in sorted(site.rglob("*.html")) if "_static" not in p.parts and "_modules" not in p.parts]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium that resolves no host but localhost; skipped, or failed where it is demanded, if absent."""
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        reason = "no Chromium with chromedriver on PATH: figures, formulas and accessibility are not checked"
        if os.environ.get("ANATOLAB_REQUIRE_BROWSER"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    chrome.set_page_load_timeout(60)
    chrome.set_script_timeout(60)
    yield chrome
    chrome.quit()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the site under /anatolab/, as a published project page is, and says nothing."""

    def translate_path(self, path: str) -> str:
        """The file for a path; nothing outside the sub-path."""
        inside = path.removeprefix("/anatolab/")
        return super().translate_path("/" + inside if inside != path else "/absent")

    def log_message(self, *args: Any) -> None:
        """Silence."""


@pytest.fixture(scope="session")
def served(site: Path) -> Iterator[str]:
    """The address of the site over http."""
    server = http.server.ThreadingHTTPServer(("localhost", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}/anatolab"
    server.shutdown()
