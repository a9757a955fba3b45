"""Every answer of every chapter is run against the check of its exercise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.scripts import script

ROOT = Path(__file__).resolve().parents[1]

book = script("book/_ext/anatolab_exercises.py")
ALL = [e for path in sorted((ROOT / "notebooks").glob("*.ipynb")) for e in book.exercises(path)]
CODED = [e for e in ALL if e.answer and e.cell]

# Trainings in front of an exercise whose results its check does not read, and updates that it does not need: what is
# replaced in the chapter's cells, and by what. The chapters themselves run whole when the book is built.
SPARED: dict[str, dict[str, str]] = {
    "ex-baselines-limit": {  # a quantile of the entropies of one teacher, however long it was trained
        "updates = 120 if tiny": "updates = 4 if tiny",
        'methods["supervised"], logs["supervised"] = trained(Supervised, **short)': "",
        'methods["mean teacher"], logs["mean teacher"] = trained(MeanTeacher, **gentle)': "",
    },
    "ex-cfr-break": {  # the last of four trainings against one that the check runs, both short and after a short ERM
        "erm = ErmProjection(start).fit(": "erm = ErmProjection(start, ErmProjection.Config(Sgd(epochs=25))).fit(",
        "w_hol=1.0, epochs=12,": "w_hol=1.0, epochs=6,",
        "by_hand, full_log = cfr_by_hand()": "full_log = []",
        '    ("no calibration loss", {"w_cal": 0.0}),\n': "",
        '    ("no cross-entropy of anchors", {"w_ce": 0.0}),\n': "",
    },
    "ex-scene-fool": {  # two of eleven methods, on a quarter of the epochs of ERM
        "from anatolab.robust import (": "from anatolab.robust import (\n    Sgd,",
        '"ERM": ErmProjection(start)': '"ERM": ErmProjection(start, ErmProjection.Config(Sgd(epochs=25)))',
        '"CFR": Cfr(start)': '"CFR": Cfr(start, Cfr.Config(erm=Sgd(epochs=25)))',
    }
    | {
        f'    "{name}": {made},\n': ""
        for name, made in {
            "zero-shot": "ZeroShot(start)",
            "linear probe": "ErmLinearProbe(start)",
            "WiSE-FT": "WiseFt(start)",
            "JTT": "Jtt(start)",
            "CnC": "Cnc(start, short)",
            "adapter": "ContrastiveAdapter(start, adapter)",
            "AFR": "Afr(start)",
            "GroupDRO": "GroupDro(start)",
            "DFR": "Dfr(start)",
        }.items()
    },
}


def spared(exercise: Any) -> Any:
    """An exercise with what SPARED replaces in the cells in front of it."""
    cells = list(exercise.before)
    for text, replacement in SPARED.get(exercise.label, {}).items():
        (place,) = (i for i, cell in enumerate(cells) if text in cell)
        cells[place] = cells[place].replace(text, replacement)
    return replace(exercise, before=tuple(cells))


@pytest.mark.parametrize("exercise", CODED, ids=lambda e: e.label)
def test_the_answer_is_right(exercise: Any) -> None:
    assert book.is_right(book.run(spared(exercise)))


def test_answers_are_found_and_labels_are_unique() -> None:
    assert len(CODED) >= 41
    assert len({e.label for e in ALL}) == len(ALL)
    assert all(e.solution for e in ALL), [e.label for e in ALL if not e.solution]
    written = yaml.safe_load((ROOT / "book" / "solutions.yml").read_text("utf-8"))
    assert set(written) <= {e.label for e in ALL}


@pytest.mark.parametrize(
    "label", ["ex-pc-floor", "ex-tails-batch", "ex-metrics-cube", "ex-actionpp-cosine", "ex-mona-fill"]
)
def test_a_wrong_answer_and_none_are_not_right(label: str) -> None:
    (exercise,) = (e for e in CODED if e.label == label)
    (name,) = book.asked(exercise.cell)
    for wrong in ("(1, 1)" if label == "ex-mona-fill" else "1e6", "None"):
        assert not book.is_right(book.run(replace(exercise, answer=f"{name} = {wrong}")))


@pytest.mark.parametrize(
    ("said", "right"),
    [("1: right", True), ("right | right", True), ("right | not yet", False), ("1: no answer yet", False), ("", False)],
)
def test_what_counts_as_right(said: str, right: bool) -> None:
    assert book.is_right(said) is right


def test_only_statements_that_are_needed_run() -> None:
    program = book.statements(
        "import math\ndef f(x):\n    return x + k\nbig = math.inf\nbig = 2\nk = big\nk2 = 1 / 0\ny = []\ny.append(k)"
    )
    kept = book.needed(program, book.statements("print(f(1), y)"))
    assert [s.lineno for s in kept] == [2, 5, 6, 8, 9]


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        ("x = 1 / 0\ny = [2]\nfor x in y:\n    z = x", [2, 3]),  # the loop binds what its body reads
        ("z = 1 / 0\nfor k in [1]:\n    z = k\n    w = z\nz = w", [2, 5]),  # and so do statements in front
        ("n = 0\nfor k in [1]:\n    z = n\n    n = k", [1, 2]),  # but not those behind: of the round before
        ("n = 0\nif n:\n    n = 1\nz = n", [1, 2, 4]),  # nor those that may not run
        ("f = open\nwith f('') as x:\n    z = x", [1, 2]),
    ],
)
def test_what_a_loop_or_block_binds_itself_is_not_looked_for_before_it(program: str, lines: list[int]) -> None:
    assert [s.lineno for s in book.needed(book.statements(program), book.statements("print(z)"))] == lines
