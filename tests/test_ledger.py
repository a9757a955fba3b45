"""Every claim is quoted, every word is computed, and a record that is gone stops the build by name."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from anatolab import records
from anatolab.experiments import EXPERIMENTS
from anatolab.metrics import Setting, decide, phrase
from anatolab.types import InputError
from tests.scripts import script

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import anatolab_ledger as ledger  # noqa: E402
from anatolab_ledger import Check, Entry, judge, measure  # noqa: E402

BOOK = ledger.read()
EARLIER = set(json.loads((ROOT / "book" / "records" / "earlier.json").read_text(encoding="utf-8")))
# The claims of each abstract, counted while reading it.
ABSTRACTS = {
    "you2023action": "rare blurry soft diverse local memory smooth accurate best best-full",
    "you2023actionpp": "rare boundary labeled optimal centers adaptive temperature separation best efficiency",
    "you2024mona": "long-tail tailness consistency diversity every-pixel augmentation decomposition best",
    "you2023arco": "negatives tail collapse few-labels universal-stratified universal-antithetic best-semi best-full "
    "plug-in",
    "you2023morse": "blur implicit refine experts backbones gains-2d gains-3d theory",
    "you2024cfr": "costly specialized spurious tuned last-layer set contrast no-groups reliance generalizes benchmarks",
}
# Of the whole text, spaces normalized, as the project was given it: the first digits of its sha256.
DIGESTS = {
    "you2023action": "10ea411741c38102",
    "you2023actionpp": "f450e3a6c51b1c82",
    "you2024mona": "f2f88ac3ebd6b592",
    "you2023arco": "b4352dff9363683a",
    "you2023morse": "d4440864c8030afd",
    "you2024cfr": "b9bcc06405b63971",
}
WORDS = {"reproduced", "contradicted", "agrees", "opposite", "undecided", "no power"}


def test_every_claim_of_every_abstract_has_a_line() -> None:
    for paper, names in ABSTRACTS.items():
        prefix = re.sub(r"^you\d{4}", "", paper)
        assert [e.id for e in BOOK.of(paper)] == [f"{prefix}-{n}" for n in names.split()]
    assert {e.paper for e in BOOK.entries} == set(ABSTRACTS) == set(BOOK.papers)


def test_every_sentence_of_every_abstract_is_quoted_verbatim_or_says_why_it_makes_no_claim() -> None:
    abstracts = yaml.safe_load((ROOT / "book" / "abstracts.yml").read_text(encoding="utf-8"))
    for paper, parts in abstracts.items():
        claims = [s for s in parts if isinstance(s, str)]
        unclaimed = BOOK.unclaimed[paper]
        text = " ".join(s if isinstance(s, str) else next(iter(s)) for s in parts)
        assert hashlib.sha256(text.encode()).hexdigest().startswith(DIGESTS[paper]), f"{paper}: not the abstract"
        for entry in BOOK.of(paper):
            assert any(entry.quote in s for s in claims), f"{entry.id}: {entry.quote!r} is in no sentence"
        for sentence in claims:
            assert any(e.quote in sentence for e in BOOK.of(paper)), f"{paper}: no line quotes {sentence!r}"
        assert len(claims) + len(unclaimed) == len(parts)
        assert all(why for why in unclaimed.values())


def test_what_is_not_tested_says_why() -> None:
    bare = [e for e in BOOK.entries if not e.test]
    assert len(bare) <= len(BOOK.entries) / 4
    assert all(len(e.not_tested) > 40 for e in bare)
    assert all(len(e.test.why) > 15 for e in BOOK.entries if e.test)


def test_sources_are_those_of_the_bibliography_and_links_are_complete() -> None:
    bib = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    for paper, source in BOOK.papers.items():
        entry = bib[bib.index(f"{{{paper},") :].split("\n@")[0]
        assert f"eprint = {{{source['arxiv']}}}" in entry
        assert re.fullmatch(r"PMC\d{8}", source.get("pmc", "PMC00000000"))
        assert re.fullmatch(r"charlesyou999648/\w+", source["code"])


def test_no_line_rests_on_a_run_of_the_earlier_regime_and_every_run_is_wanted_or_made_by_a_study() -> None:
    used = {e for _, check in BOOK.checks for e in check.experiments}
    assert not used & EARLIER
    assert used <= {e.id for e in EXPERIMENTS} | set(ledger.STUDIES)
    assert set(ledger.STUDIES) <= used
    old = Check("x", "", ours=("acdc-3-action",), against=("acdc-3-base",))
    with pytest.raises(records.RecordError, match="earlier, undertrained regime"):
        measure(old)


def test_runs_are_awaited_that_are_not_made_and_no_others() -> None:
    assert BOOK.awaited == ledger.unrecorded(BOOK), "run `python studies/verdicts.py awaited`"


def test_claims_of_many_backbones_and_contrasts_are_tested_over_three() -> None:
    for name in ("morse-backbones", "arco-plug-in"):
        test = next(e.test for e in BOOK.entries if e.id == name)
        assert test is not None
        assert isinstance(test.against, tuple)
        assert test.average
        assert len(set(test.ours)) == len(set(test.against)) == 3
        assert all(len(ledger.wanted(e)) >= 3 for e in test.experiments)
    claims = script("studies/verdicts.py").CLAIMS
    assert claims == max(
        sum(bool(e.test and not e.test.exact and not e.test.counted) for e in BOOK.of(p)) for p in ABSTRACTS
    )


def test_one_cause_is_counted_once() -> None:
    """No two primary tests of a paper make the same comparison."""
    for paper in ABSTRACTS:
        tests = [(t.ours, t.against, t.metric, t.against_metric, t.exact) for e in BOOK.of(paper) if (t := e.test)]
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


def pages() -> Iterator[tuple[str, str]]:
    yield from ((path.name, path.read_text("utf-8")) for path in (ROOT / "README.md", *(ROOT / "book").glob("*.md")))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        yield path.name, "\n".join("".join(cell["source"]) for cell in cells)


def test_no_page_writes_the_two_strong_words_but_the_one_that_defines_them() -> None:
    """What of released code is "not reproduced" is a list of switches, and no verdict."""
    strong = re.compile(r"(?<!not )(?<!be )\b(reproduced|contradict(s|ed)?|confirmed by|refuted)\b", re.IGNORECASE)
    typed = {(name, match[0].lower()) for name, text in pages() for match in strong.finditer(text)}
    assert typed == {("verdicts.md", "reproduced"), ("verdicts.md", "contradicted")}


def claim_boxes() -> Iterator[tuple[str, str]]:
    for name, text in pages():
        for box in re.finditer(r"```\{claim\} *([^\n]*)\n", text):
            yield name, box[1]


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
    runs = dict.fromkeys(awaited, frozenset({0, 1, 2}))
    return ledger.Ledger("", entries, {"paper": {}}, {"acdc": {0: 0.915, 3: 0.517}}, (), runs)


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


def test_seeds_of_which_none_is_common_are_no_lack_of_power(toy: Path) -> None:
    for name, seeds in {"toy-a": (2, 3), "toy-b": (0, 1)}.items():
        for seed in seeds:
            records.path_of(name, seed).unlink()
    (made,) = judge(book(claim("first", "toy-a", "toy-b")), "paper")
    assert made.words == "undecided (no common seed)"


def test_a_line_whose_runs_are_partly_there_names_those_that_are_to_come(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "wanted", lambda name: frozenset({0, 1, 2, 3}))
    for seed in (1, 3):
        records.path_of("toy-b", seed).unlink()
    check = Check("claim", "", ours=("toy-a",), against=("toy-b",))
    made = measure(check, {"toy-b": frozenset({1, 3})})
    assert made.comparison is not None
    assert (made.comparison.seeds, made.pending) == (2, ("toy-b (seeds 1, 3)",))
    with pytest.raises(records.RecordError, match=r"claim needs 'dice' of 'toy-b', which has no record of seed 3"):
        measure(check, {"toy-b": frozenset({1})})


def test_a_mean_over_pairs_is_the_mean_of_their_differences(toy: Path) -> None:
    apart = [measure(Check("x", "", ours=(e,), against=("toy-c",))).comparison for e in ("toy-a", "toy-b")]
    together = Check("x", "", ours=("toy-a", "toy-b"), against=("toy-c", "toy-c"), average=True)
    mean = measure(together).comparison
    assert mean is not None
    assert mean.difference == pytest.approx(sum(c.difference for c in apart if c) / 2)
    for fields, message in (({}, "more than two"), ({"average": True}, None)):
        raw = {"what": "", "ours": ["a", "b", "c"], "against": ["d", "e", "f"]} | fields
        if message is None:
            assert ledger._check("claim", raw).average
        else:
            with pytest.raises(InputError, match=message):
                ledger._check("claim", raw)


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
    assert measure(check, {"toy-b": frozenset()}).missing == ("toy-b",)
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


MADE = sorted({e for _, t in BOOK.checks for e in t.experiments if ledger.recorded(e)})


@pytest.mark.parametrize("experiment", MADE)
def test_deleting_any_run_that_a_line_uses_is_noticed_with_line_and_value(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = [t for _, t in BOOK.checks if experiment in t.experiments]
    assert checks
    for folder in records.root().iterdir():
        if folder.name != experiment:
            (tmp_path / folder.name).symlink_to(folder)
    kept = sorted((records.root() / experiment).glob("seed*.json"))
    monkeypatch.setenv("ANATOLAB_RECORDS", str(tmp_path))
    for files in ([], kept[:-1]):  # all of its runs, and the last one alone
        for file in files:
            (tmp_path / experiment).mkdir(exist_ok=True)
            (tmp_path / experiment / file.name).symlink_to(file)
        for check in checks:
            with pytest.raises(records.RecordError) as error:
                measure(check, BOOK.awaited)
            assert all(name in str(error.value) for name in (check.id, experiment, check.metric))
