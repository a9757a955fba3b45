"""The explorer in a real JupyterLab: the cells run, the slider is moved by keyboard, and the picture changes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
CELLS = (
    """
from pathlib import Path
import numpy as np
from anatolab.types import Case
from anatolab.viz.explore import explore
""",
    """
z, y, x = np.ogrid[-1:1:5j, -1:1:32j, -1:1:32j]
ball = (z**2 + y**2 + x**2 < 0.9).astype(np.uint8)
case = Case("a", "", (100.0 * ball + 5 * z + 0 * y + 0 * x)[None].astype(np.float32), ball, None, None, Path("a.nii"))
explore(case, ("background", "ball"), alt="A ball, slice by slice.", side=32, slices=5)
""",
)
SHOWN = """
const plot = document.querySelector(".jp-OutputArea .js-plotly-plot");
if (!plot || !plot.querySelector("svg.main-svg")) return null;
return {readout: document.querySelector(".widget-readout").textContent, outlines: plot.data.length - 1,
        drawn: plot.data.slice(1).map((t) => t.visible !== false)};
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def until(condition: Any, seconds: float, what: str) -> Any:
    """The first true value of a condition that is asked until time is up; a page that is redrawn meanwhile has none."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(NoSuchElementException, StaleElementReferenceException):
            if found := condition():
                return found
        time.sleep(0.2)
    pytest.fail(f"no {what} within {seconds:.0f} s")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address of the notebook in a JupyterLab of its own, which leaves no process behind."""
    import psutil

    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "outputs": [], "execution_count": None, "source": code}
        for i, code in enumerate(CELLS)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "explore.ipynb").write_text(json.dumps(notebook))
    port = free_port()
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTERLAB_SETTINGS_DIR")
    env = {k: v for k, v in os.environ.items() if k != "ANATOLAB_BOOK"}
    env |= {name: str(tmp_path / name.lower()) for name in homes} | {"PYTHONPATH": str(ROOT)}
    options = ("--no-browser", "--ip=localhost", f"--port={port}", "--allow-root", "--LabApp.news_url=''")
    options += ("--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path / 'work'}")
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=env, stdout=log, stderr=log, start_new_session=True
        )

    def up() -> bool:
        assert server.poll() is None, (tmp_path / "log").read_text()
        try:
            return urllib.request.urlopen(f"http://localhost:{port}/api/status", timeout=5).status == 200
        except (urllib.error.URLError, OSError):
            return False

    try:
        until(up, 40, "JupyterLab")
        yield f"http://localhost:{port}/lab/tree/explore.ipynb?reset"
    finally:
        family = [p for p in psutil.Process().children(recursive=True) if p.pid == server.pid]
        family += [child for p in family for child in p.children(recursive=True)]
        server.send_signal(signal.SIGTERM)  # shuts its kernels down
        _, alive = psutil.wait_procs(family, timeout=10)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=5)
        server.wait(5)
        assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.skipif(not shutil.which("jupyter-lab", path=str(Path(sys.executable).parent)), reason="needs JupyterLab")
@pytest.mark.timeout(150)
def test_the_slider_moves_the_picture_in_jupyterlab(browser: Any, lab: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def found(path: str) -> Any:
        return next((e for e in browser.find_elements(By.XPATH, path) if e.is_displayed()), None)

    def clicked(path: str) -> bool:
        if element := found(path):
            element.click()
        return element is not None

    started = time.monotonic()
    browser.get(lab)
    until(lambda: found("//div[contains(@class, 'jp-Notebook')]//div[contains(@class, 'jp-CodeCell')]"), 40, "cell")
    until(lambda: found("//*[contains(text(), '| Idle')]"), 40, "idle kernel")
    until(lambda: clicked("//li[contains(@class, 'lm-MenuBar-item')]/div[text()='Run']"), 20, "menu")
    until(lambda: clicked("//div[contains(@class, 'lm-Menu-itemLabel') and text()='Run All Cells']"), 10, "item")
    first = until(lambda: browser.execute_script(SHOWN), 60, "figure")
    assert first == {"readout": "2", "outlines": 1, "drawn": [True]}

    def picture() -> bytes:
        return browser.find_element(By.CSS_SELECTOR, ".jp-OutputArea .js-plotly-plot").screenshot_as_png

    time.sleep(0.5)
    before = until(picture, 10, "picture")
    browser.find_element(By.CSS_SELECTOR, ".widget-slider .noUi-handle").send_keys(Keys.ARROW_RIGHT)
    until(lambda: (browser.execute_script(SHOWN) or {}).get("readout") == "3", 15, "answer to the arrow key")
    until(lambda: browser.execute_script(SHOWN) and picture() != before, 15, "change of the picture")
    browser.find_element(By.CSS_SELECTOR, ".widget-toggle-button").click()
    until(lambda: (browser.execute_script(SHOWN) or {}).get("drawn") == [False], 15, "outline switched off")
    assert time.monotonic() - started < 90
