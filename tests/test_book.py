"""Pages obey the template, vendored files are what they were, and a number without its record stops the build."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from tests import warm
from tests.scripts import script

ROOT = Path(__file__).resolve().parents[1]
VENDOR = ROOT / "book" / "_static" / "vendor"
DIAGRAMS = ROOT / "book" / "_static" / "diagrams"


lint = script("tools/lint_pages.py")


# --------------------------------------------------------------------------------------------------------- diagrams
def includes() -> dict[Path, list[Path]]:
    """Diagram to the pages that include it, by the paths that they name."""
    by_file: dict[Path, list[Path]] = {}
    for page in lint.pages():
        for name in re.findall(r"^:file: (\S+\.svg)$", lint.read(page).prose, re.M):
            by_file.setdefault((page.parent / name).resolve(), []).append(page)
    return by_file


def test_every_diagram_is_included_somewhere_and_every_included_file_exists() -> None:
    assert set(includes()) == set(DIAGRAMS.glob("*.svg"))


@pytest.mark.parametrize("path", sorted(DIAGRAMS.glob("*.svg")), ids=lambda p: p.stem)
def test_a_diagram_has_words_names_of_its_own_and_colors_of_the_theme(path: Path) -> None:
    svg = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    assert svg.get("role") == "img"
    title = svg.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.get("id") == svg.get("aria-labelledby")
    assert len(title.text or "") > 100
    ids = [node.get("id", "") for node in svg.iter() if node.get("id")]
    assert all(name.startswith(path.stem) for name in ids)  # several diagrams may stand on one page
    assert len(set(ids)) == len(ids)
    assert [node.tag for node in svg.iter() if {"fill", "stroke", "style"} & set(node.attrib)] == []
    css = (ROOT / "book" / "_static" / "anatolab.css").read_text(encoding="utf-8")
    classes = {name for node in svg.iter() for name in node.get("class", "").split()}
    assert [name for name in classes if f".{name}" not in css] == []


# ------------------------------------------------------------------------------------------------------------ pages
@pytest.mark.parametrize("path", lint.pages(), ids=lambda p: p.name)
def test_the_page_obeys_the_template(path: Path) -> None:
    assert lint.problems(lint.read(path)) == []


def page(prose: str, kind: str = "prose", **more: object) -> list[str]:
    return lint.problems(lint.Page("p.md", kind, prose, **more))


def test_a_bar_that_is_escaped_splits_no_cell() -> None:
    assert page("# T\n\n| a | {num}`demo-a:n\\|.2f` |\n\nAnd {num}`demo-a:n|.2f` in prose.\n") == []


def test_a_clean_page_passes() -> None:
    assert page("# Title\n\nDice is {num}`acdc-3-supervised:dice.mean`; a paper's size is in its claim.\n") == []


@pytest.mark.parametrize(
    ("prose", "said"),
    [
        ("No title", "does not begin with its title"),
        ("# T\n\nMean Dice was 0.873 here.", "types a measured number"),
        ("# T\n\nHD95 falls to 4.2 mm.", "types a measured number"),
        ("# T\n\n![](x.png)", "without alternative text"),
        ("# T\n\n```{image} x.png\n:width: 3\n```", "without alternative text"),
        ("# T\n\nSee /" + "home/someone/data.", "path of one machine"),
        ("# T\n\n| a | {num}`demo-a:n|.2f` |\n", "splits the cell"),
    ],
)
def test_the_lint_sees(prose: str, said: str) -> None:
    assert any(said in problem for problem in page(prose))


def test_the_lint_sees_headings_between_directives() -> None:
    text = "# T\n\n```{math}\nx\n```\n\n## Exercises\n\n```python\n# no heading\n```\n\n```{math}\nx\n```\n"
    assert lint.headings(lint.without_literals(text)) == ["T", "Exercises"]


def test_the_lint_sees_a_figure_without_words_and_a_path_in_an_output() -> None:
    found = page("# T", code=("viz.show(fig)", "fig.show()"), outputs="/" + "root/x")
    assert [("no alt=" in f, "an output" in f) for f in found] == [(True, False), (False, True)]


def test_the_lint_knows_what_a_method_page_needs() -> None:
    text = (
        "# T\n" + "\n".join(f"## {s}\n" for s in lint.SECTIONS["method"]) + "\n```{page-card}\n```\n```{claim}\n```\n"
    )
    exercise = "```{exercise}\n:label: a\n```\n```{hint}\n```\n```{solution} a\n```\n"
    text += "Change the code, and predict. Open question: why?\n"
    assert page(text + 3 * exercise, "method") == []
    assert any(
        "3 exercises and 2 hints" in f for f in page(text + (3 * exercise).replace("{hint}", "{note}", 1), "method")
    )
    assert any("'open question'" in f for f in page(text.replace("Open", "Shut") + 3 * exercise, "method"))
    assert any("0 exercises" in f for f in page(text, "method"))
    assert any("3 exercises and 0 solutions" in f for f in page(text + 3 * "```{exercise}\n```\n", "method"))
    assert any("'Look inside'" in f for f in page(text.replace("## Look inside", ""), "method"))
    swapped = text.replace("## Setup\n", "").replace("## Summary", "## Setup\n\n## Summary")
    assert any("another place" in f for f in page(swapped, "method"))
    assert "kind is 'essay'" in page("# T", "essay")[0]


# ---------------------------------------------------------------------------------------------------- configuration
@pytest.mark.parametrize("folder", [VENDOR, ROOT / "tests" / "site" / "vendor"], ids=["book", "tests"])
def test_vendored_files_are_what_they_were(folder: Path) -> None:
    listed = dict(reversed(line.split(maxsplit=1)) for line in (folder / "SHA256").read_text().splitlines())
    there = {f"./{p.relative_to(folder).as_posix()}" for p in folder.rglob("*") if p.is_file()} - {
        "./SHA256",
        "./README.md",
    }
    assert set(listed) == there
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert any("LICENSE" in name for name in listed)


def test_the_plotly_bundle_is_that_of_the_locked_package() -> None:
    from plotly import __version__
    from plotly.offline import get_plotlyjs_version

    bundle = (VENDOR / "plotly" / "plotly-cartesian.min.js").read_text(encoding="utf-8")[:200]
    assert f"plotly.js (cartesian - minified) v{get_plotlyjs_version()}" in bundle
    assert f"plotly=={__version__}" in (ROOT / "requirements.lock").read_text().split()


def test_no_blank_figure_can_pass_the_build() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert not any("unknown_mime_type" in s for s in config["sphinx"]["config"]["suppress_warnings"])
    assert config["only_build_toc_files"] is True
    assert config["repository"]["url"] == ""


def test_every_reference_is_cited_by_a_known_key() -> None:
    known = set(
        re.findall(r"^@\w+\{([\w-]+),", (ROOT / "book/references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    )
    texts = [lint.read(path).prose for path in lint.pages()]
    used = {k.strip() for t in texts for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", t) for k in keys.split(",")}
    assert used <= known


# ----------------------------------------------------------------------------------------------- a book in miniature
CONF = """
import sys
sys.path.insert(0, {ext!r})
extensions = ["myst_parser", "anatolab_book"]
html_theme = "basic"
exclude_patterns = ["_build"]
html_theme_options = {{}}
"""
PAGE = """# Mini

Dice is {num}`demo-a:dice.mean`, {num}`demo-a:dice.mean|pct` or {num}`demo-a:n`.

| in a table |
| --- |
| {num}`demo-a:dice.mean\\|.1f` |

```{record-table} All
rows: [[A, demo-a], demo-b, acdc96-3-mean-teacher]
columns:
  - {name: Dice, key: dice.mean, format: .2f, patients: per_patient.dice, best: max}
```

```{claim}
says: A beats B.
source: Table 1
ours: demo-a
against: demo-b
```

```{record-index}
```
"""


def record(root: Path, experiment: str, seed: int, dice: float, **more: object) -> None:
    patients = {f"p{i:02d}": dice + 0.002 * (i % 5) for i in range(10)}
    values = {"dice": {"mean": dice}, "n": 1234, "per_patient": {"dice": patients}}
    folder = root / experiment
    folder.mkdir(parents=True, exist_ok=True)
    text = {
        "schema": 1,
        "experiment": experiment,
        "seed": seed,
        "values": values,
        "provenance": {"commit": "abcdef012345"},
    }
    (folder / f"seed{seed}.json").write_text(json.dumps(text | more))


class Mini:
    """A page that prints two experiments, built with warnings as errors."""

    def __init__(self, root: Path) -> None:
        self.root, self.records = root, root / "records"
        (root / "src").mkdir()
        (root / "src" / "conf.py").write_text(CONF.format(ext=str(ROOT / "book" / "_ext")))
        (root / "src" / "index.md").write_text(PAGE)
        for seed in (0, 1):
            record(self.records, "demo-a", seed, 0.80 + 0.02 * seed)
            record(self.records, "demo-b", seed, 0.60)

    def build(self) -> tuple[int, str, str]:
        env = os.environ | {"ANATOLAB_RECORDS": str(self.records), "NO_COLOR": "1"}
        command = ("-m", "sphinx", "-W", "--keep-going", "-q", "src", "out")
        done = warm.python(*command, folder=self.root, env=env, timeout=120)
        page = self.root / "out" / "index.html"
        html = page.read_text() if page.exists() else ""
        return done.returncode, re.sub(r"<[^>]+>", "", html), html + done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Mini, str, str]:
    mini = Mini(tmp_path_factory.mktemp("mini"))
    status, text, html = mini.build()
    assert status == 0, html
    return mini, text, html


def test_prose_and_tables_print_records(built: tuple[Mini, str, str]) -> None:
    mini, text, html = built
    assert "Dice is 0.810, 81.0 % or 1,234." in text
    assert re.search(r"<td><p><a [^>]*>0\.8</a></p></td>", html)
    assert "{num}" not in text
    assert 'title="record demo-a, dice.mean; seeds 0, 1; commit abcdef01"' in html
    assert 'href="records/demo-a.json"' in html
    assert len(json.loads((mini.root / "out/records/demo-a.json").read_text())) == 2
    assert re.search(r"<strong>\s*<a [^>]*>0\.81</a>", html)
    assert "0.81 ± 0.01 [0.81, 0.82]" in " ".join(text.split())
    assert "not run" in text


def test_a_table_prints_a_study_that_was_made_and_one_that_was_not(tmp_path: Path) -> None:
    mini = Mini(tmp_path)
    row = {"dice": {"mean": 0.8}, "gain": 0.02, "per_patient": {"gain": {"a": 0.01, "b": 0.03}}}
    record(mini.records, "gains-ensemble", 0, 0.8, values={"both": row})
    columns = "columns: [{name: gain, key: gain, format: .3f, patients: per_patient.gain}]\n```\n"
    rows = "rows: [[made, gains-ensemble, both], [not made, gains-init, few.nothing]]\n"
    (mini.root / "src" / "index.md").write_text("# Mini\n\n```{record-table}\n" + rows + columns)
    status, text, html = mini.build()
    assert status == 0, html
    assert re.search(r"made 0\.020 \[0\.010, 0\.030\] not made not run", " ".join(text.split()))


def test_seconds_of_two_processors_are_never_averaged(tmp_path: Path) -> None:
    mini = Mini(tmp_path)
    for seed, device, seconds in ((0, "old", 90.0), (1, "old", 110.0), (2, "new", 40.0)):
        values = {"cpu_s": seconds, "n": seconds}
        record(mini.records, "mixed", seed, 0.5, values=values, provenance={"device": device})
    record(mini.records, "pure", 0, 0.5, values={"cpu_s": 50.0, "n": 50.0}, provenance={"device": "old"})
    columns = "columns: [{name: s, key: cpu_s, format: .0f}, {name: n, key: n, format: .0f}]\n```\n\n"
    table = "```{record-table} Caption\nrows: [[M, mixed], [P, pure]]\n"
    (mini.root / "src" / "index.md").write_text("# Mini\n\n" + table + columns)
    status, text, html = mini.build()
    assert status == 0, html
    assert "Caption (a: new; b: old)" in text
    assert "M 40a, 100b 80 ± 36 3 P 50b 50 1" in " ".join(text.split())


def test_dots_lie_where_the_values_are_and_none_off_the_axis(tmp_path: Path) -> None:
    mini = Mini(tmp_path)  # demo-a: .80 and .82
    body = "key: dice.mean\naxis: [0.6, {high}]\nticks: [0.7]\nrows:\n  - '*Three* labels'\n"
    body += "  - [A, demo-a]\n  - [mean teacher, acdc96-3-mean-teacher]\n```\n"
    page = "# Mini\n\n```{record-dots} Of ten patients\n"
    (mini.root / "src" / "index.md").write_text(page + body.format(high=1.0))
    status, text, html = mini.build()
    assert status == 0, html
    dots = re.findall(r'<span style="left:([\d.]+)%"></span>', html)
    assert dots == ["50.0", "55.0"]
    assert re.findall(r'<b style="left:([\d.]+)%">', html) == ["52.5"]
    assert re.findall(r'<i style="left:([\d.]+)%">', html) == ["25.0"] * 2
    assert 'aria-label="seeds: 0.800, 0.820"' in html
    assert re.search(r"Three labels A 0\.81 mean teacher not run 0\.7 Of ten patients", " ".join(text.split()))
    (mini.root / "src" / "index.md").write_text(page + body.format(high=0.81))
    status, _, html = mini.build()
    assert status != 0
    assert "0.820 lies off the axis from 0.6 to 0.81" in html


def test_a_table_shows_its_seeds_and_neither_one_seed_nor_a_missed_organ_passes_for_more(tmp_path: Path) -> None:
    mini = Mini(tmp_path)
    (mini.records / "demo-b" / "seed1.json").unlink()
    for seed, missed in ((0, 1), (1, 0)):
        values = {"assd": {"mean": 1.0}, "counts": {"missed": missed}}
        record(mini.records, "near", seed, 0.5, values=values)
        record(mini.records, "far", seed, 0.5, values={"assd": {"mean": 2.0}, "counts": {"missed": 0}})
    columns = "columns: [{name: D, key: %s, format: .2f, best: %s}]\n```\n\n"
    first = "```{record-table}\nrows: [[A, demo-a], [B, demo-b]]\n" + columns % ("dice.mean", "max")
    second = "```{record-table}\nrows: [[N, near], [F, far]]\n" + columns % ("assd.mean", "min")
    (mini.root / "src" / "index.md").write_text("# Mini\n\n" + first + second)
    status, text, html = mini.build()
    assert status == 0, html
    assert html.count('class="al-one-seed"') == 3  # name, cell and number of the row B
    assert text.count("seeds") >= 2
    assert re.search(r"<strong>\s*<a [^>]*>0\.81</a>", html)
    assert not re.search(r"<strong>\s*<a [^>]*>[12]\.00</a>", html)


def test_the_best_of_a_table_is_that_on_common_seeds(tmp_path: Path) -> None:
    mini = Mini(tmp_path)  # demo-a: .80 and .82 with seeds 0 and 1
    record(mini.records, "lucky", 1, 0.81)
    record(mini.records, "lucky", 2, 0.99)
    columns = "columns: [{name: D, key: dice.mean, format: .2f, best: max}]\n```\n"
    table = "# Mini\n\n```{record-table}\nrows: [[A, demo-a], [L, lucky], [B, demo-b]]\n" + columns
    (mini.root / "src" / "index.md").write_text(table)
    status, _, html = mini.build()
    assert status == 0, html
    assert re.findall(r"<strong>\s*<a [^>]*>([\d.]+)</a>", html) == ["0.81"]
    assert ">0.90</a>" in html


def test_a_statement_that_is_no_line_of_the_ledger_is_measured_and_gets_no_verdict(
    built: tuple[Mini, str, str],
) -> None:
    _, text, html = built
    low, high = 0.21 - 6.3531 * 0.02, 0.21 + 6.3531 * 0.02  # two seeds: 0.01 times t of one degree of freedom, 12.706
    assert low == pytest.approx(0.0829, abs=1e-4)
    assert f"+0.210, 95 % interval [{low:+.3f}, {high:+.3f}] over 10 patients and 2 seeds" in " ".join(text.split())
    assert "none: no line of the ledger" in text
    assert not re.search(r"reproduced|contradicted|al-agrees|al-opposite", html)


def test_a_row_may_be_a_part_of_a_record_and_a_claim_a_number_a_run(tmp_path: Path) -> None:
    """Six runs, each with a draw of the data of its own, are the units."""
    mini = Mini(tmp_path)
    for seed in range(6):
        record(
            mini.records,
            "parts",
            seed,
            0.5,
            values={
                "good": {"worst": 0.8 + 0.01 * seed + 0.002, "each": {"a": 0.7, "b": 0.7}},
                "bad": {"worst": 0.6, "each": {"a": 0.5, "b": 0.5}},
            },
        )
    table = (
        "# Mini\n\n```{record-table}\nrows: [[G, parts, good], [B, parts, bad]]\n"
        "columns: [{name: W, key: worst, format: .2f, patients: each, best: max}]\n```\n\n"
        "```{claim}\nsays: Good beats bad.\n"
        "source: none\nours: parts:good.worst\nagainst: parts:bad.worst\nmetric: W\n```\n"
    )
    (mini.root / "src" / "index.md").write_text(table)
    status, text, html = mini.build()
    assert status == 0, html
    assert "0.83 ± 0.02 [0.70, 0.70]" in " ".join(text.split())
    assert "[0.50, 0.50]" in text
    assert re.search(r"<strong>\s*<a [^>]*>0\.83</a>", html)
    assert "over 6 draws of the data" in " ".join(text.split())
    assert "+0.202, +0.212, +0.222, +0.232, +0.242, +0.252" in text
    (mini.records / "parts" / "seed5.json").unlink()
    assert "over 5 draws of the data" in " ".join(mini.build()[1].split())


def test_a_changed_record_reaches_the_page_and_a_missing_one_stops_the_build(tmp_path: Path) -> None:
    mini = Mini(tmp_path)
    assert mini.build()[0] == 0
    record(mini.records, "demo-a", 0, 0.90, code={"module": "anatolab.records", "sha256": "of other code"})
    status, text, html = mini.build()  # nothing but the record changed
    assert status == 0, html
    assert "Dice is 0.860" in text
    assert "stale" in text
    for path in (mini.records / "demo-a").iterdir():
        path.unlink()
    status, _, said = mini.build()
    assert status != 0
    assert re.search(r"index\.md:3: WARNING: \{num\}`demo-a:dice\.mean`: no record of 'demo-a'", said)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("{num}`demo-a:dice.nobody`", "has no value 'dice.nobody'"),
        ("```{record-table}\nrows: [demo-x]\ncolumns: [dice.mean]\n```", "no record of 'demo-x'"),
    ],
)
def test_an_unknown_value_is_named(tmp_path: Path, wrong: str, said: str) -> None:
    mini = Mini(tmp_path)
    (mini.root / "src" / "index.md").write_text(f"# Mini\n\n{wrong}\n")
    status, _, output = mini.build()
    assert status != 0
    assert said in output
    assert "index.md:3" in output


CITED = re.compile(r"`(tests/[\w/]+\.py)`|`(test_\w+)`")


@pytest.mark.parametrize("path", [p for p in lint.pages() if CITED.search(lint.read(p).prose)], ids=lambda p: p.name)
def test_a_test_that_a_page_cites_lies_in_the_file_that_it_names(path: Path) -> None:
    bad: list[str] = []
    file: Path | None = None
    for named, test in CITED.findall(lint.read(path).prose):
        file = ROOT / named if named else file
        if not (file and file.exists()):
            bad.append(str(file))
        elif test and f"def {test}(" not in file.read_text(encoding="utf-8"):
            bad.append(f"{file.name}: {test}")
    assert bad == []
