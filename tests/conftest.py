"""What every test runs under: one thread, no model hub, a cache of its own, seeded; and which tests a machine skips."""

from __future__ import annotations

import gc
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before anything imports numpy, torch or matplotlib; xdist's workers inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("NUMBA_OPT", "0")  # UMAP compiles longer than it runs
os.environ.setdefault("ANATOLAB_SIZE", "tiny")

import numpy as np
import pytest

# jsonschema, which nbformat imports, would take 1.5 s for a parser of IRIs; no schema here has one.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

# The collector looks less often through all objects of torch and MONAI for the few that tests leave behind.
gc.set_threshold(20_000, 20, 20)

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Gives the session one cache folder, shared by xdist's workers so that a cohort is generated once."""
    if not hasattr(config, "workerinput"):
        config.anatolab_cache = os.environ["ANATOLAB_CACHE"] = tempfile.mkdtemp(prefix="anatolab-cache-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the session's cache folder."""
    if hasattr(config, "anatolab_cache"):
        shutil.rmtree(config.anatolab_cache, ignore_errors=True)


# The files that take longest. `make unit` deals them out first, so that no worker ends alone with one.
LONG = (
    "test_readme.py",
    "faults/test_faults.py",
    "methods/test_action.py",
    "test_solutions.py",
    "methods/test_today.py",
    "test_cli_methods.py",
    "test_cli_robust.py",
    "test_startup.py",
    "nn/test_backbones.py",
    "training/test_ddp_cli.py",
    "test_cli_runs.py",
    "methods/test_action_runs.py",
    "training/test_shipped.py",
    "test_carry.py",
    "methods/test_morse.py",
    "analysis/test_embeddings.py",
    "data/test_malformed.py",
    "test_gains.py",
    "test_ledger_pages.py",
    "training/test_loop.py",
    "robust/test_demo.py",
    "robust/test_clip.py",
    "nn/test_tap.py",
    "test_explore_live.py",
    "test_ensembles.py",
    "training/test_folder.py",
    "test_trainings.py",
    "test_notebooks.py",
    "methods/test_mona.py",
    "test_cli_volumes.py",
)


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what lies in tests/site and tests/gpu by its folder; puts long files first."""
    order = {ROOT / "tests" / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path, len(LONG)))  # within a file, and among the others, as before
    for item in items:
        for folder in ("site", "gpu"):
            if item.path.is_relative_to(ROOT / "tests" / folder):
                item.add_marker(folder)


def reason_to_skip(marks: set[str]) -> str | None:
    """Why a test with these marks cannot run here, or None where it can."""
    data = os.environ.get("ANATOLAB_DATA")
    if "real" in marks and not data:
        return "needs real data: set ANATOLAB_DATA to the folder that holds ACDC"
    if "real" in marks and not Path(str(data)).is_dir():
        return f"needs real data: ANATOLAB_DATA names {data}, which is no folder"
    if "gpu" in marks:
        import torch

        if not torch.cuda.is_available():
            return "needs a CUDA device: run `make gpu` on a machine that has one"
    if "site" in marks and not (ROOT / "_build" / "html" / "index.html").exists():
        return "needs the built book: run `make book` first"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what this machine cannot run; where a browser is demanded, a missing site is a failure instead."""
    marks = {mark.name for mark in item.iter_markers()}
    if reason := reason_to_skip(marks):
        if "site" in marks and os.environ.get("ANATOLAB_REQUIRE_BROWSER"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seeds the global generators, for code under test that is not given one."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; for tests marked ``real``."""
    return Path(os.environ["ANATOLAB_DATA"])


FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--force-prefers-reduced-motion",
    "--window-size=1280,1000",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium that resolves no host but localhost; skipped, or failed where it is demanded, if absent."""
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        reason = "no Chromium with chromedriver on PATH: pages, figures and widgets are not tried in a browser"
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
    chrome.set_script_timeout(120)
    yield chrome
    chrome.quit()
