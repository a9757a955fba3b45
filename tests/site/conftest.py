"""The built site, and a server that serves the site under a sub-path."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site."""
    return SITE


@pytest.fixture(scope="session")
def pages(site: Path) -> list[Path]:
    """Every page of the table of contents and of the API, as built; the front door, which only leads on, is none."""
    built = [p for p in sorted(site.rglob("*.html")) if "_static" not in p.parts and "_modules" not in p.parts]
    return [p for p in built if p != site / "index.html"]


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
