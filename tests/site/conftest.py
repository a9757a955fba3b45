"""The built site, and a server that serves the site under a sub-path."""

from __future__ import annotations

import functools
import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.site.built import SITE, Reader, built_pages, name_of


@pytest.fixture(scope="session")
def site() -> Path:
    """The folder of the built site."""
    return SITE


@pytest.fixture(scope="session")
def pages() -> list[Path]:
    """Every page of the site."""
    return built_pages()


@pytest.fixture(scope="session")
def parsed(pages: list[Path]) -> dict[Path, Reader]:
    """Each page as a parser sees it."""
    readers = {page: Reader() for page in pages}
    for page, reader in readers.items():
        reader.feed(page.read_text(encoding="utf-8"))
    return readers


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives a test that asks for a ``page`` each page in turn; an unbuilt site has one, which the test then skips."""
    if "page" in metafunc.fixturenames:
        pages = sorted(built_pages(), key=lambda page: -page.stat().st_size) or [SITE / "index.html"]
        metafunc.parametrize("page", pages, ids=map(name_of, pages))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints how much was checked, over all workers."""
    done: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        if report.when == "call":
            done.update({name: n for name, n in report.user_properties if name.startswith("site ")})
    if done:
        counts = ", ".join(f"{count} {name.removeprefix('site ')}" for name, count in sorted(done.items()))
        terminalreporter.write_line(f"the site: {counts}")


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
