"""The pages of the ledger: links and tests that they name, and what stops their build."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from pathlib import Path

import pytest

from anatolab import records
from tests import warm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import anatolab_ledger as ledger  # noqa: E402

BOOK = ledger.read()


def functions(path: Path) -> set[str]:
    return {n.name for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.FunctionDef)}


def test_every_slip_is_shown_by_a_test_that_exists() -> None:
    assert all(slip.shown for slip in BOOK.slips)
    for slip in BOOK.slips:
        for name in slip.shown:
            file, _, function = name.partition("::")
            assert function in functions(ROOT / file), f"{slip.id}: {name}"


def test_each_of_the_nine_bugs_names_a_test_that_exists() -> None:
    cells = json.loads((ROOT / "notebooks" / "72_bugs.ipynb").read_text("utf-8"))["cells"]
    sections = re.split(r"\n## ", "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown"))
    named = [re.findall(r"\*Here:\* `(tests/[\w/]+\.py)::(\w+)`", section) for section in sections[1:-2]]
    assert len(named) == 9
    for tests in named:
        assert tests
        assert all(function in functions(ROOT / file) for file, function in tests)


def test_every_page_that_is_linked_has_its_anchor() -> None:
    for page in {*(t.page for _, t in BOOK.checks), *(s.page for s in BOOK.slips)} - {""}:
        name, _, anchor = page.partition("#")
        assert re.match(r"notebooks/\d\d_\w+$|book/[\w-]+$", name)
        path = ROOT / f"{name}.ipynb"
        if anchor:
            assert f"({anchor})=" in path.read_text("utf-8"), page


CONF = """
import sys
sys.path.insert(0, {ext!r})
extensions = ["myst_parser", "sphinxcontrib.bibtex", "anatolab_book"]
bibtex_bibfiles = [{bib!r}]
html_theme = "basic"
html_theme_options = {{}}
suppress_warnings = ["myst.xref_missing", "myst.domains"]
"""
BODIES = [("ledger", f"paper: {p}\n") for p in BOOK.papers]
BODIES += [
    (n, "") for n in ("ledger-picture", "ledger-sentences", "ledger-summary", "slips", "dashboard", "benchmarks")
]
REPEATS = "```{repeats}\nrows: [repeats-supervised]\n```\n"
BODIES += [("bibliography", "")]
BODIES += [("claim} cfr-generalizes\n```\n```{claim} mona-decomposition\n```\n```{claim", "says: S\nsource: T\n")]
PAGE = "# Mini\n\nA {line}`action-memory`.\n\n" + "\n".join(f"```{{{name}}}\n{body}```\n" for name, body in BODIES)


def prepared(folder: Path, page: str, conf: str = "") -> None:
    (folder / "src").mkdir()
    made = CONF.format(ext=str(ROOT / "book" / "_ext"), bib=str(ROOT / "book" / "references.bib"))
    (folder / "src" / "conf.py").write_text(made + conf)
    (folder / "src" / "index.md").write_text(page)
    (folder / "records").mkdir()
    for path in records.root().iterdir():
        (folder / "records" / path.name).symlink_to(path)


def built(folder: Path) -> tuple[int, str, str]:
    env = os.environ | {"ANATOLAB_RECORDS": str(folder / "records"), "NO_COLOR": "1"}
    done = warm.python("-m", "sphinx", "-W", "--keep-going", "-q", "src", "out", folder=folder, env=env)
    page = folder / "out" / "index.html"
    return done.returncode, page.read_text() if page.exists() else "", done.stderr


def test_the_page_is_made_from_records_and_breaks_by_name_when_one_is_deleted(tmp_path: Path) -> None:
    prepared(tmp_path, PAGE + REPEATS)
    status, html, said = built(tmp_path)
    assert status == 0, said
    text = " ".join(re.sub(r"<[^>]+>", "", html).split())
    assert f"{len(BOOK.entries)} claims, a square each" in text
    made = next(v for v in ledger.judge(BOOK, "you2024cfr") if v.entry.id == "cfr-generalizes")
    compared = made.measured.comparison
    assert compared is not None
    effect = f"{compared.difference:+.3f} [{compared.interval[0]:+.3f}, {compared.interval[1]:+.3f}], 10 seeds"
    assert text.count(effect) == 2, "in the ledger's line and in the claim's box"
    assert {f'id="claim-{e.id}"' in html for e in BOOK.entries} == {True}
    assert html.count("<rect class=") == len(BOOK.entries)
    assert "none: no line of the ledger" in text
    assert "al-dashboard" in html
    assert 'href="records/robust-fair-vit.json"' in html
    assert json.loads((tmp_path / "out" / "records" / "robust-fair-vit.json").read_text())
    (tmp_path / "records" / "robust-fair-vit").unlink()
    (tmp_path / "src" / "index.md").write_text("# Mini\n\n```{ledger}\npaper: you2024cfr\n```\n")  # its claims alone
    status, _, said = built(tmp_path)
    assert status != 0
    assert "index.md" in said
    assert re.search(r"cfr-\w+ needs '[\w.]+' of 'robust-fair-vit', which has no record and is not awaited", said)


@pytest.mark.parametrize("what", ["too high", "deleted"])
def test_the_build_stops_where_the_rule_decides_too_often_and_where_repeats_are_deleted(
    what: str, tmp_path: Path
) -> None:
    stricter = "\nfrom anatolab.analysis import repeats\nrepeats.is_too_high.__defaults__ = (0.0,)\n"
    prepared(tmp_path, "# Mini\n\n" + REPEATS, stricter if what == "too high" else "")
    if what == "deleted":
        (tmp_path / "records" / "repeats-supervised").unlink()
    status, _, error = built(tmp_path)
    assert status != 0
    wanted = r"the rule decides \d+ of \d+ pairs of one method" if what == "too high" else "repeats-supervised"
    assert re.search(wanted, error)
