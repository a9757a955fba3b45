"""Every claim has its line, every word is computed, and a record that is gone stops the build by name."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from anatolab import records
from anatolab.experiments import EXPERIMENTS
from anatolab.metrics import Claim, compare, verdict
from anatolab.metrics.intervals import Verdict
from anatolab.types import InputError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import anatolab_ledger as ledger  # noqa: E402
from anatolab_ledger import Check, Entry, evaluate, units  # noqa: E402

BOOK = ledger.read()
WORDS = get_args(Verdict)
# The statements of each abstract, counted while reading it.
ABSTRACTS = {
    "you2023action": "imbalance soft-negatives diverse-negatives global-local memory smooth accurate best",
    "you2023actionpp": "tail labeled-tail centers adaptive temperature separation best label-efficiency",
    "you2024mona": "tailness consistency diversity augmentation decomposition best theory",
    "you2023arco": "tail few-labels universal-stratified universal-antithetic real-variance best natural plug-in",
    "you2023morse": "blur implicit stochastic backbones gains theory",
    "you2024cfr": "costly spurious last-layer no-groups reliance generalizes",
}
OF_STUDIES = {
    "variance-acdc",
    "robust-vit",
    "attribution-rn",
    "cfr-cost",
}  # records beside trainings


def test_every_statement_of_every_abstract_has_a_line() -> None:
    for paper, names in ABSTRACTS.items():
        prefix = re.sub(r"^you\d{4}", "", paper)
        assert [e.id for e in BOOK.entries if e.paper == paper] == [f"{prefix}-{n}" for n in names.split()]
    assert {e.paper for e in BOOK.entries} == set(ABSTRACTS)


def test_at_most_a_fifth_of_the_claims_has_no_test_and_each_of_these_has_a_reason() -> None:
    bare = [e for e in BOOK.entries if not e.tests]
    assert len(bare) <= len(BOOK.entries) / 5
    assert all(len(e.not_attempted) > 40 for e in bare)


def test_every_line_names_a_run_that_is_wanted_or_made_by_a_tool_and_says_what_differs() -> None:
    earlier = json.loads((ROOT / "book" / "records" / "earlier.json").read_text(encoding="utf-8"))
    known = {e.id for e in EXPERIMENTS} | OF_STUDIES | set(earlier)
    used = {e for _, t in BOOK.tests if t for e in t.experiments}
    assert used <= known
    assert used >= BOOK.awaited, "an experiment is awaited that no line uses"
    assert all(len(t.why) > 15 for _, t in BOOK.tests if t)


def test_exact_tests_are_those_of_the_ledger() -> None:
    assert {t.exact for _, t in BOOK.tests if t and t.exact} == set(ledger.EXACT)


# ------------------------------------------------------------------------------------------------ words are computed
def constants(path: Path) -> set[str]:
    return {
        n.value
        for n in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }


def test_no_verdict_is_typed_anywhere() -> None:
    files = [*(ROOT / "anatolab").rglob("*.py"), *(ROOT / "book" / "_ext").glob("*.py")]
    typed = {p.name for p in files if constants(p) & set(WORDS)}
    assert typed == {"intervals.py"}
    claims = ledger.path().read_text("utf-8")
    assert not [w for w in WORDS if re.search(rf"^\s*-?\s*\w+: *[\"']?{w}\b", claims, re.MULTILINE)]
    assert "verdict:" not in claims


def test_the_word_of_a_line_is_that_of_the_verdict_function() -> None:
    def side(experiment: str) -> dict[int, dict[str, float]]:
        return {r.seed: dict(records.get(r, "per_patient.dice")) for r in records.load(experiment)}

    test = next(t for _, t in BOOK.tests if t and t.id == "action-best-2")
    expected = compare(side("acdc-3-action"), side("acdc-3-ua-mt"))
    found = evaluate(test)
    assert found.comparison == expected
    assert found.word == verdict(expected, Claim("higher"))
    assert evaluate(Check("turned", "", "lower", test.ours, test.against)).word != found.word


# ----------------------------------------------------------------------------------------------------- toy records
@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANATOLAB_RECORDS", str(tmp_path))
    for name, lift in {"a": 0.3, "b": 0.1, "c": 0.0}.items():
        for seed in range(7):
            patients = {f"p{i}": i / 10 + lift for i in range(7)}
            cases = {
                f"p{i}_{t}": {"LV": {"dice": i / 10 + t / 100}, "RV": {"dice": None}} for i in range(7) for t in (0, 2)
            }
            record(name, seed, {"per_patient": {"dice": patients}, "cases": cases, "worst": lift + 0.01 * seed})
    return tmp_path


def record(name: str, seed: int, values: dict[str, object]) -> None:
    records.write(records.Record(name, seed, values, provenance={"device": "toy"}))


def line(**more: object) -> Check:
    return Check(**({"id": "claim-1", "why": "", "direction": "higher", "ours": ("a",), "against": ("b",)} | more))  # type: ignore[arg-type]


def test_units_by_hand(toy: Path) -> None:
    (first, *_) = records.load("a")
    assert units(first, "per_patient.dice")["p3"] == pytest.approx(0.6)
    assert units(first, "cases.*.LV.dice")["p3"] == pytest.approx(0.31)  # the mean of the patient's two cases
    assert units(first, "cases.*.RV.dice")["p3"] != units(first, "cases.*.RV.dice")["p3"]  # undefined, not left out
    assert units(first, "worst") == {"": 0.3}
    with pytest.raises(records.RecordError, match=re.escape("no value 'cases.*.XX.dice'")):
        units(first, "cases.*.XX.dice")


def test_a_pair_a_constant_and_a_difference_of_differences(toy: Path) -> None:
    pair = evaluate(line())
    assert pair.comparison is not None
    assert (pair.comparison.difference, pair.unit) == (pytest.approx(0.2), "patients")
    both = evaluate(line(ours=("a", "b"), against=("b", "c")))
    assert both.comparison is not None
    assert both.comparison.difference == pytest.approx(0.1)
    constant = evaluate(line(against=(), than=1.0, direction="lower"))
    assert constant.comparison is not None
    assert constant.comparison.difference == pytest.approx(-0.4)


def test_where_a_record_has_one_number_its_seeds_are_the_units(toy: Path) -> None:
    found = evaluate(line(key="worst"))
    assert found.unit == "seeds"
    assert found.comparison is not None
    assert (found.comparison.patients, found.comparison.difference) == (7, pytest.approx(0.2))
    for seed in range(2, 7):
        records.path_of("a", seed).unlink()
    few = evaluate(line(key="worst", against=("a",), against_key="per_patient.dice.p0"))
    assert few.word == verdict(few.comparison, Claim("higher"))  # two units decide nothing
    assert evaluate(line(key="worst", against=("a",), against_key="per_patient.dice.p0", counted=True)).unit == "seeds"


def test_a_missing_record_is_an_error_unless_it_is_awaited(toy: Path) -> None:
    for path in (toy / "b").iterdir():
        path.unlink()
    with pytest.raises(records.RecordError, match=r"claim-1 needs 'per_patient.dice' of 'b'"):
        evaluate(line())
    found = evaluate(line(), frozenset({"b"}))
    assert (found.word, found.missing) == (verdict(None, Claim("higher")), ("b",))
    with pytest.raises(records.RecordError, match=r"claim-1.*no value 'nobody'"):
        evaluate(line(against=("c",), key="nobody"))


def test_where_no_patient_has_the_value_nothing_is_compared(toy: Path) -> None:
    found = evaluate(line(key="cases.*.RV.dice"))
    assert (found.comparison, found.missing, found.word) == (None, (), verdict(None, Claim("higher")))


@pytest.mark.parametrize(
    "fields", [{"ours": "a"}, {"ours": "a", "exact": "x"}, {"ours": "a", "against": "b", "than": 1.0}]
)
def test_a_line_that_compares_nothing_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match="needs `ours`"):
        ledger._test("claim-1", {"why": "", "direction": "higher"} | fields)


def test_a_claim_without_test_and_reason_and_an_unknown_field_are_refused(tmp_path: Path) -> None:
    for claim, said in (("{id: x-y, says: s}", "needs either"), ("{id: x-y, says: s, verdict: good}", "verdict")):
        (tmp_path / "l.yml").write_text(f"awaited: []\nslips: []\nclaims:\n  p:\n    - {claim}\n")
        with pytest.raises(InputError, match=said):
            ledger.read(tmp_path / "l.yml")


def test_the_memory_of_the_banks_is_that_of_the_closed_form() -> None:
    found, _ = ledger.EXACT["action-bank-memory"]()
    assert found.difference == pytest.approx(4e-6 * (36 * (512 + 49 * 4 * 64) - 1_948_180), abs=0.1)


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
    for page in {*(t.page for _, t in BOOK.tests if t), *(s.page for s in BOOK.slips)} - {""}:
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
BODIES += [(name, "") for name in ("ledger-summary", "not-reproduced", "slips", "dashboard", "bibliography")]
PAGE = "# Mini\n\nA {line}`action-memory-1`.\n\n" + "\n".join(f"```{{{name}}}\n{body}```\n" for name, body in BODIES)


def built(folder: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "src", "out"]
    env = os.environ | {"ANATOLAB_RECORDS": str(folder / "records"), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
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
    assert f"{len(BOOK.entries)} claims, of which" in text
    outcome = evaluate(next(t for _, t in BOOK.tests if t and t.id == "action-best-2"))
    assert outcome.comparison is not None
    assert f"{outcome.comparison.difference:+.3f} [{outcome.comparison.interval[0]:+.3f}" in text
    assert {f'id="claim-{t.id if t else e.id}"' in html for e, t in BOOK.tests} == {True}
    assert "al-dashboard" in html
    assert 'href="records/acdc-3-ua-mt.json"' in html
    single = evaluate(next(t for _, t in BOOK.tests if t and t.id == "action-soft-negatives-1"))
    assert single.comparison is not None
    seeds = f"{single.comparison.seeds} seed{'s' * (single.comparison.seeds > 1)}"
    assert f"{single.comparison.interval[1]:+.3f}], {single.comparison.patients} patients, {seeds}" in text
    assert json.loads((tmp_path / "out" / "records" / "acdc-3-ua-mt.json").read_text())
    (tmp_path / "records" / "acdc-3-ua-mt").unlink()
    status, _, said = built(tmp_path)
    assert status != 0
    assert "index.md" in said
    assert "action-best-2 needs 'per_patient.dice' of 'acdc-3-ua-mt', which has no record and is not awaited" in said


@pytest.mark.parametrize("experiment", sorted({e for _, t in BOOK.tests if t for e in t.experiments} - BOOK.awaited))
def test_deleting_any_record_that_a_line_uses_is_noticed_with_line_and_value(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[tuple[Entry, Check]] = [(e, t) for e, t in BOOK.tests if t and experiment in t.experiments]
    assert lines
    for folder in records.root().iterdir():
        if folder.name != experiment:
            (tmp_path / folder.name).symlink_to(folder)
    monkeypatch.setenv("ANATOLAB_RECORDS", str(tmp_path))
    for _, test in lines:
        with pytest.raises(records.RecordError) as error:
            evaluate(test, BOOK.awaited)
        assert all(name in str(error.value) for name in (test.id, experiment, test.key))
