"""Every claim is quoted, every word is computed, and a record that is gone stops the build by name."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from anatolab import records
from anatolab.experiments import EXPERIMENTS
from anatolab.metrics import Setting, decide, phrase
from anatolab.types import InputError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import anatolab_ledger as ledger  # noqa: E402
from anatolab_ledger import Check, Entry, judge, measure  # noqa: E402

BOOK = ledger.read()
EARLIER = set(json.loads((ROOT / "book" / "records" / "earlier.json").read_text(encoding="utf-8")))
# The claims of each abstract, counted while reading it.
ABSTRACTS = {
    "you2023action": "rare blurry soft diverse local memory smooth accurate best",
    "you2023actionpp": "rare boundary labeled optimal centers adaptive temperature separation best efficiency",
    "you2024mona": "tailness consistency diversity augmentation decomposition best",
    "you2023arco": "negatives tail collapse few-labels universal-stratified universal-antithetic best-semi best-full "
    "plug-in",
    "you2023morse": "blur implicit refine experts backbones gains-2d gains-3d theory",
    "you2024cfr": "costly specialized spurious tuned last-layer set contrast no-groups reliance generalizes benchmarks",
}
OF_STUDIES = {"variance-acdc", "robust-vit", "attribution-rn", "cfr-cost", "cfr-cells"}  # records beside trainings
WORDS = {"reproduced", "contradicted", "agrees", "opposite", "undecided", "no power"}


def test_every_claim_of_every_abstract_has_a_line() -> None:
    for paper, names in ABSTRACTS.items():
        prefix = re.sub(r"^you\d{4}", "", paper)
        assert [e.id for e in BOOK.of(paper)] == [f"{prefix}-{n}" for n in names.split()]
    assert {e.paper for e in BOOK.entries} == set(ABSTRACTS) == set(BOOK.papers)


def test_every_quote_is_verbatim_and_no_sentence_is_kept_that_nobody_quotes() -> None:
    sentences = yaml.safe_load((ROOT / "book" / "abstracts.yml").read_text(encoding="utf-8"))
    for entry in BOOK.entries:
        assert any(entry.quote in s for s in sentences[entry.paper]), f"{entry.id}: {entry.quote!r} is in no sentence"
    for paper, kept in sentences.items():
        assert all(any(e.quote in s for e in BOOK.of(paper)) for s in kept)


def test_what_is_not_tested_says_why() -> None:
    bare = [e for e in BOOK.entries if not e.test]
    assert len(bare) <= len(BOOK.entries) / 4
    assert all(len(e.not_tested) > 40 for e in bare)
    assert all(len(e.test.why) > 15 for e in BOOK.entries if e.test)


def test_sources_are_those_of_the_bibliography_and_links_are_complete() -> None:
    bib = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    for paper, source in BOOK.papers.items():
        entry = bib[bib.index(f"{{{paper},") :].split("\n@")[0]
        assert f"arXiv:{source['arxiv']}" in entry
        assert re.fullmatch(r"PMC\d{8}", source.get("pmc", "PMC00000000"))
        assert re.fullmatch(r"charlesyou999648/\w+", source["code"])


def test_no_line_rests_on_a_run_of_the_earlier_regime_and_every_run_is_wanted_or_made_by_a_study() -> None:
    used = {e for _, check in BOOK.checks for e in check.experiments}
    assert not used & EARLIER
    assert used <= {e.id for e in EXPERIMENTS} | OF_STUDIES
    assert used >= BOOK.awaited, "an experiment is awaited that no line uses"
    old = Check("x", "", ours=("acdc-3-action",), against=("acdc-3-base",))
    with pytest.raises(records.RecordError, match="earlier, undertrained regime"):
        measure(old)


def test_one_cause_is_counted_once() -> None:
    """No two primary tests of a paper make the same comparison."""
    for paper in ABSTRACTS:
        tests = [(t.ours, t.against, t.metric, t.exact) for e in BOOK.of(paper) if (t := e.test)]
        assert len(tests) == len(set(tests))


def test_exact_tests_are_those_of_the_ledger() -> None:
    assert {t.exact for _, t in BOOK.checks if t.exact} == set(ledger.EXACT)


# ------------------------------------------------------------------------------------------------ words are computed
def constants(path: Path) -> set[str]:
    return {
        n.value
        for n in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }


def test_no_verdict_is_typed_anywhere() -> None:
    files = [*(ROOT / "anatolab").rglob("*.py"), *(ROOT / "book" / "_ext").glob("*.py")]
    strong = {p.name for p in files if constants(p) & {"reproduced", "contradicted"}}
    assert strong == {"verdicts.py"}
    claims = ledger.path().read_text("utf-8")
    assert not [w for w in WORDS if re.search(rf"^\s*-?\s*\w+: *[\"']?{w}\b", claims, re.MULTILINE)]
    assert "verdict:" not in claims


def claim_boxes() -> Iterator[tuple[str, str]]:
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            for found in re.finditer(r"```\{claim\} *([^\n]*)\n", "".join(cell["source"])):
                yield path.name, found[1]


def test_claim_boxes_name_lines_of_the_ledger() -> None:
    named = [(page, name) for page, name in claim_boxes() if name]
    assert len(named) > 20
    assert {name for _, name in named} <= {e.id for e in BOOK.entries}


# ----------------------------------------------------------------------------------------------------- toy records
@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANATOLAB_RECORDS", str(tmp_path))
    config = {"cohort": "acdc", "labeled_patients": 3, "size": {"side": 96, "network": "x"}, "profile": "recommended"}
    for name, lift in {"toy-a": 0.3, "toy-b": 0.1, "toy-c": 0.0, "toy-lost": None}.items():
        for seed in range(4):
            noise = ((seed * 7) % 4) / 100
            dice = {f"p{i}": 0.0 if lift is None else i / 20 + lift + noise for i in range(7)}
            values = {"per_patient": {"dice": dice}, "dice": {"mean": 0.9}}
            records.write(records.Record(name, seed, values, config=config, provenance={"device": "toy"}))
    return tmp_path


def claim(name: str, ours: str, against: str, direction: str = "higher") -> Entry:
    check = Check(name, "Dice", direction, (ours,), (against,))  # type: ignore[arg-type]
    return Entry(name, "paper", "q", "s", Setting("acdc", 3), check)


def book(*entries: Entry, awaited: tuple[str, ...] = ()) -> ledger.Ledger:
    return ledger.Ledger("", entries, {"paper": {}}, {"acdc": {0: 0.915, 3: 0.517}}, (), frozenset(awaited))


def test_claims_of_a_paper_are_decided_together_and_turn_with_the_direction(toy: Path) -> None:
    entries = (
        claim("first", "toy-a", "toy-b"),
        claim("turned", "toy-a", "toy-b", "lower"),
        claim("floor", "toy-a", "toy-lost"),
        claim("later", "toy-a", "toy-z"),
        Entry("bare", "paper", "q", "s", Setting("acdc"), not_tested="why"),
    )
    made = judge(book(*entries, awaited=("toy-z",)), "paper")
    assert [v.outcome for v in made] == ["agrees", "opposite", "no power", "not run", ledger.UNTESTED]
    compared = [(v.measured.comparison, e.test.direction) for v, e in zip(made, entries, strict=True) if e.test]
    assert [v.decision for v in made[:4]][:3] == decide(compared)[:3]
    assert made[0].words == phrase(made[0].decision, "reduced")  # type: ignore[arg-type]
    assert made[3].words == "not run"


def test_a_control_far_above_the_printed_one_makes_the_base_stronger(toy: Path) -> None:
    for name in ("toy-all-supervised", "toy-3-supervised"):
        records.write(records.Record(name, 0, {"dice": {"mean": 0.9}}))
    (made,) = judge(book(claim("first", "toy-a", "toy-b")), "paper")
    assert made.control is not None
    assert (made.control.all_labels, made.control.printed_supervised) == (0.9, 0.517)
    assert made.scope == "stronger base"


def test_one_seed_decides_nothing(toy: Path) -> None:
    for seed in (1, 2, 3):
        records.path_of("toy-b", seed).unlink()
    (made,) = judge(book(claim("first", "toy-a", "toy-b")), "paper")
    assert made.words == "undecided (one seed)"


def test_a_margin_makes_comparable_a_claim(toy: Path) -> None:
    plain, comparable = (
        measure(Check("x", "", ours=("toy-b",), against=("toy-a",), margin=margin)).comparison for margin in (0.0, 0.3)
    )
    assert plain is not None
    assert comparable is not None
    assert comparable.difference == pytest.approx(plain.difference + 0.3)


def test_a_missing_record_is_an_error_unless_it_is_awaited(toy: Path) -> None:
    for path in (toy / "toy-b").iterdir():
        path.unlink()
    check = Check("claim", "", ours=("toy-a",), against=("toy-b",))
    with pytest.raises(records.RecordError, match=r"claim needs 'dice' of 'toy-b'"):
        measure(check)
    assert measure(check, frozenset({"toy-b"})).missing == ("toy-b",)
    with pytest.raises(records.RecordError, match=r"claim.*no value 'top.nobody'"):
        measure(Check("claim", "", ours=("toy-a",), against=("toy-c",), metric="top.nobody"))


@pytest.mark.parametrize("fields", [{"ours": "a"}, {"ours": "a", "exact": "x"}, {"against": "b"}, {}])
def test_a_line_that_compares_nothing_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match="needs `ours`"):
        ledger._check("claim", {"what": ""} | fields)


def test_a_claim_without_test_and_reason_and_an_unknown_field_are_refused(tmp_path: Path) -> None:
    head = "version: v\nprinted: {}\nslips: []\npapers: {p: {about: {data: acdc}}}\nclaims:\n  p:\n    - "
    for line, message in (("{id: x, quote: q, says: s}", "needs either"), ("{id: x, verdict: good}", "verdict")):
        (tmp_path / "l.yml").write_text(head + line + "\n")
        with pytest.raises(InputError, match=message):
            ledger.read(tmp_path / "l.yml")


def test_the_memory_of_the_banks_is_that_of_the_closed_form() -> None:
    computed = ledger.EXACT["action-bank-memory"]()
    assert computed.difference == pytest.approx(4e-6 * (36 * (512 + 49 * 4 * 64) - 1_948_180), abs=0.1)


# ------------------------------------------------------------------------------------------------ pages and their links
def functions(path: Path) -> set[str]:
    return {n.name for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.FunctionDef)}


def test_every_slip_is_shown_by_a_test_that_exists() -> None:
    assert all(slip.shown for slip in BOOK.slips)
    for slip in BOOK.slips:
        for name in slip.shown:
            file, _, function = name.partition("::")
            assert function in functions(ROOT / file), f"{slip.id}: {name}"


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
BODIES = [("ledger", f"paper: {p}\n") for p in ABSTRACTS]
BODIES += [
    (n, "") for n in ("ledger-picture", "ledger-summary", "repeats", "slips", "dashboard", "benchmarks", "bibliography")
]
BODIES += [("claim} cfr-generalizes\n```\n```{claim} mona-decomposition\n```\n```{claim", "says: S\nsource: T\n")]
PAGE = "# Mini\n\nA {line}`action-memory`.\n\n" + "\n".join(f"```{{{name}}}\n{body}```\n" for name, body in BODIES)


def built(folder: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "src", "out"]
    env = os.environ | {"ANATOLAB_RECORDS": str(folder / "records"), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, encoding="utf-8", timeout=600, check=False)
    page = folder / "out" / "index.html"
    return done.returncode, page.read_text() if page.exists() else "", done.stderr


def test_the_page_is_made_from_records_and_breaks_by_name_when_one_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    conf = CONF.format(ext=str(ROOT / "book" / "_ext"), bib=str(ROOT / "book" / "references.bib"))
    (tmp_path / "src" / "conf.py").write_text(conf)
    (tmp_path / "src" / "index.md").write_text(PAGE)
    (tmp_path / "records").mkdir()
    for folder in records.root().iterdir():
        (tmp_path / "records" / folder.name).symlink_to(folder)
    status, html, said = built(tmp_path)
    assert status == 0, said
    text = " ".join(re.sub(r"<[^>]+>", "", html).split())
    assert f"{len(BOOK.entries)} claims, a square each" in text
    made = next(v for v in judge(BOOK, "you2024cfr") if v.entry.id == "cfr-generalizes")
    compared = made.measured.comparison
    assert compared is not None
    effect = f"{compared.difference:+.3f} [{compared.interval[0]:+.3f}, {compared.interval[1]:+.3f}], 6 seeds"
    assert text.count(effect) == 2, "in the ledger's line and in the claim's box"
    assert {f'id="claim-{e.id}"' in html for e in BOOK.entries} == {True}
    assert html.count("<rect class=") == len(BOOK.entries)
    assert "none: no line of the ledger" in text
    assert "al-dashboard" in html
    assert 'href="records/robust-vit.json"' in html
    assert json.loads((tmp_path / "out" / "records" / "robust-vit.json").read_text())
    (tmp_path / "records" / "robust-vit").unlink()
    status, _, said = built(tmp_path)
    assert status != 0
    assert "index.md" in said
    assert re.search(r"cfr-\w+ needs '[\w.]+' of 'robust-vit', which has no record and is not awaited", said)


@pytest.mark.parametrize("experiment", sorted({e for _, t in BOOK.checks for e in t.experiments} - BOOK.awaited))
def test_deleting_any_record_that_a_line_uses_is_noticed_with_line_and_value(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = [t for _, t in BOOK.checks if experiment in t.experiments]
    assert checks
    for folder in records.root().iterdir():
        if folder.name != experiment:
            (tmp_path / folder.name).symlink_to(folder)
    monkeypatch.setenv("ANATOLAB_RECORDS", str(tmp_path))
    for check in checks:
        if set(check.experiments) & BOOK.awaited:
            continue
        with pytest.raises(records.RecordError) as error:
            measure(check, BOOK.awaited)
        assert all(name in str(error.value) for name in (check.id, experiment, check.metric))
