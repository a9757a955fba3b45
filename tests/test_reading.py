"""Pages read well: short lines and sentences, folded plots, no habits of the list; and notebooks keep their meaning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.scripts import script

reading, tidy = script("tools/lint_reading.py"), script("tools/tidy_notebooks.py")


@pytest.mark.parametrize("path", reading.pages(), ids=lambda p: p.name)
def test_the_page_keeps_every_rule(path: Path) -> None:
    assert reading.broken(path) == {}


def page(folder: Path, text: str, *cells: tuple[str, list[str]]) -> dict[str, list[str]]:
    """What a notebook of this text and these cells breaks."""
    code = [{"cell_type": "code", "source": s, "metadata": {"tags": t}, "outputs": []} for s, t in cells]
    words = {"cell_type": "markdown", "source": text, "metadata": {}}
    path = folder / "page.ipynb"
    path.write_text(json.dumps({"cells": [words, *code], "metadata": {"kind": "prose"}}), encoding="utf-8")
    return reading.broken(path)


def test_a_plain_page_breaks_nothing(tmp_path: Path) -> None:
    assert page(tmp_path, "# T\n\nA short sentence.\n", ("x = 1", []), ("viz.show(f)", ["hide-input"])) == {}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("word " * 36 + ".", "sentences"),
        ("One; two; three.", "semicolons"),
        ("The teacher's class decides.", "habits"),
        ("A short one.\n\n" * 840, "length"),
        ("```python\n" + "x = 1  # " + "-" * 90 + "\n```", "columns"),
    ],
)
def test_each_rule_sees_its_case(tmp_path: Path, text: str, rule: str) -> None:
    assert set(page(tmp_path, f"# T\n\n{text}\n")) == {rule}


@pytest.mark.parametrize("source", ["import math", "x = 1\nviz.show(f, alt='a')", "viz.explorer(f, [1], alt='a')"])
def test_plots_and_imports_are_folded(tmp_path: Path, source: str) -> None:
    assert set(page(tmp_path, "# T\n", (source, []))) == {"unfolded"}
    assert page(tmp_path, "# T\n", (source, ["hide-input"])) == {}
    assert page(tmp_path, "# T\n", ("y = viz.show(f)", [])) == {}


def test_the_check_of_an_exercise_is_folded(tmp_path: Path) -> None:
    asked = "# T\n\n```{exercise} One\n:label: ex\nHow many?\n```\n"
    assert set(page(tmp_path, asked, ("answer = None\nprint(answer == 3)", []))) == {"unfolded"}
    assert set(page(tmp_path, "# T\n", ("def check(answer):\n    return answer == 3", []))) == {"unfolded"}


def test_a_page_that_breaks_a_rule_fails_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "p.md"
    text.write_text("---\nkind: prose\n---\n# T\n\n" + "word " * 40 + ".\n", encoding="utf-8")
    assert reading.main([str(text)]) == 1
    assert "p.md: sentences: 1:" in capsys.readouterr().out


LONG = 'print(\n    f"a first part of words {value:.3f} and a second part of words {other:.3f}, too long: {end}"\n)'


def test_long_literals_are_split_and_mean_the_same() -> None:
    split = tidy.split_strings(LONG, 60)
    assert max(map(len, split.splitlines())) <= 60
    assert tidy.same(split, LONG)
    assert not tidy.same(LONG.replace("first", "other"), LONG)


def test_a_docstring_is_wrapped_and_a_literal_is_not() -> None:
    words = 'def f():\n    """' + "word " * 20 + 'end."""\n    return "' + "word " * 20 + '"'
    lines = tidy.wrap_words(words, 60).splitlines()
    assert max(map(len, lines[:-1])) <= 60
    assert len(lines[-1]) > 60
    comment = tidy.wrap_words("x = None  # " + "word " * 20, 60).splitlines()
    assert comment[-1] == "x = None"
    assert all(line.startswith("# ") and len(line) <= 60 for line in comment[:-1])


def test_pages_without_a_picture_exist_and_are_no_chapters() -> None:
    from tests.site.visits import PICTURELESS, of_chapter

    names = {path.stem for path in reading.pages()}
    assert set(PICTURELESS) <= names
    assert of_chapter("file:///x/notebooks/20_action.html")
    assert not of_chapter("file:///x/book/glossary.html")
    assert not of_chapter("http://localhost/anatolab/book/autoapi/anatolab/types/index.html")
    assert not of_chapter("file:///x/search.html")
