"""Boxes under exercises take the stored number and nothing far from it, and page and script compute one hash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import anatolab_answers as boxes  # noqa: E402
import anatolab_exercises as book  # noqa: E402

ALL = {e.label: e for path in sorted((ROOT / "notebooks").glob("*.ipynb")) for e in book.exercises(path)}
STORED = boxes.stored()


def test_the_hash_is_the_published_one() -> None:
    assert [boxes.fnv(text) for text in ("", "a", "foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]


@pytest.mark.parametrize("number", [0.693147, 51.827, 2, -0.2, 1234.5, 0.0])
def test_a_box_takes_its_number_and_refuses_others(number: float) -> None:
    stored = boxes.hashed("ex", "x", number)
    assert boxes.accepts(stored, "ex", number)
    assert boxes.accepts(stored, "ex", number + 0.4 * stored["step"] * (stored["step"] != 0.5))
    assert not boxes.accepts(stored, "ex", number + 4 * max(stored["step"], 0.01 * abs(number)))
    assert not boxes.accepts(stored, "other", number)


def test_many_exercises_can_be_answered_in_the_page_and_all_of_them_exist() -> None:
    assert len(STORED) >= 25
    assert set(STORED) <= set(ALL)
    for label, stored in STORED.items():
        assert {s["name"] for s in stored} <= book.asked(ALL[label].cell), label


@pytest.mark.parametrize("label", [label for label in STORED if label.startswith(("ex-pc", "ex-tails", "ex-temp"))])
def test_the_stored_numbers_are_those_of_the_solutions(label: str) -> None:
    assert [boxes.hashed(label, *pair) for pair in boxes.numbers(ALL[label])] == STORED[label]


def test_the_script_computes_the_same_hash() -> None:
    if not (node := shutil.which("node")):
        pytest.skip("no node on PATH")
    script = (ROOT / "book" / "_static" / "anatolab-answers.js").read_text(encoding="utf-8")
    fnv = script[script.index("const fnv") : script.index("const isRight")]
    done = subprocess.run(
        [node, "-e", f"{fnv} console.log(fnv('ex|x|-3'))"],
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    assert int(done.stdout) == boxes.fnv("ex|x|-3")


def test_the_box_shows_no_number() -> None:
    text = boxes.box("ex", [boxes.hashed("ex", "share_of_all", 0.25)])
    assert "share of all" in text
    assert "0.25" not in text
