"""What the pages of results are made of: the claim ledger, the list of slips, the dashboard, and all solutions.

Directives ``{ledger}``, ``{ledger-summary}``, ``{not-reproduced}`` and ``{slips}`` read ``book/ledger.yml`` through
``anatolab_ledger``, which computes every verdict.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import anatolab_ledger as ledger
from anatolab_book import BookDirective, RecordTable, badge, runs, stale
from anatolab_exercises import exercises
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from anatolab import records
from anatolab.metrics.intervals import Verdict

logger = logging.getLogger(__name__)
WORDS = get_args(Verdict)
UP = "../"
NAMES = {
    "you2023action": "ACTION",
    "you2023actionpp": "ACTION++",
    "you2024mona": "MONA",
    "you2023arco": "ARCO",
    "you2023morse": "MORSE",
    "you2024cfr": "CFR",
}


@cache
def read_once(_changed: int) -> ledger.Ledger:
    return ledger.read()


def read() -> ledger.Ledger:
    """The ledger as it is on disk now."""
    return read_once(ledger.path().stat().st_mtime_ns)


class LedgerDirective(RecordTable):
    """Reads and evaluates claims, and notes which records the page depends on."""

    def book(self) -> ledger.Ledger:
        self.env.note_dependency(str(ledger.path()))
        return read()

    def outcome(self, test: ledger.Check | None) -> ledger.Outcome:
        for experiment in test.experiments if test else ():
            try:
                runs(self.env, experiment)
            except records.RecordError:
                continue  # evaluate() says which may be missing
        return ledger.evaluate(test, self.book().awaited)

    def lines(self, paper: str | None = None) -> Iterator[tuple[ledger.Entry, ledger.Check | None, ledger.Outcome]]:
        for entry, test in self.book().tests:
            if paper in (None, entry.paper):
                yield entry, test, self.outcome(test)

    def to_page(self, page: str, text: str) -> list[nodes.Node]:
        """A link to another page, where the book has it."""
        name, _, anchor = page.partition("#")
        if name not in self.env.found_docs:
            return []
        uri = self.env.app.builder.get_relative_uri(self.env.docname, name) + (f"#{anchor}" if anchor else "")
        return [nodes.reference("", text, refuri=uri, internal=True)]

    def to_record(self, experiment: str) -> nodes.Node:
        if not records.exists(experiment):
            return nodes.literal("", experiment)
        uri = UP * self.env.docname.count("/") + f"records/{experiment}.json"
        return nodes.reference("", experiment, refuri=uri, internal=True)

    def how(self, test: ledger.Check, outcome: ledger.Outcome) -> list[nodes.Node]:
        """What is compared, on which data."""
        parts: list[nodes.Node] = [*self.inline(test.what or test.key)]
        if test.exact:
            return [*parts, nodes.Text(f"; {outcome.setting}")]
        parts += [nodes.Text(": "), *self.side(test.ours)]
        if test.against and test.against != test.ours:
            parts += [nodes.Text(" minus "), *self.side(test.against)]
        return [*parts, nodes.Text(f"; {outcome.setting}; {outcome.device}")] if outcome.setting else parts

    def side(self, experiments: tuple[str, ...]) -> list[nodes.Node]:
        if len(experiments) == 1:
            return [self.to_record(experiments[0])]
        first, second = map(self.to_record, experiments)
        return [nodes.Text("("), first, nodes.Text(" minus "), second, nodes.Text(")")]

    def effect(self, test: ledger.Check | None, outcome: ledger.Outcome) -> list[nodes.Node]:
        """Difference, interval, units and seeds; the printed size beside it."""
        comparison = outcome.comparison
        if comparison is None:
            without = nodes.Text(f"no one of the {outcome.unit} has the value in every run")
            return [badge("not run") if outcome.missing else without] if test else []
        low, high = comparison.interval
        text = f"{comparison.difference:+.3f}"
        if low < high:
            text += f" [{low:+.3f}, {high:+.3f}]"
        count = f"{comparison.patients} {outcome.unit}" if outcome.unit != "count" else "a count"
        seeds = (
            f", {comparison.seeds} seed{'s' * (comparison.seeds > 1)}"
            if outcome.unit == "patients" and outcome.evidence
            else ""
        )
        text += f", {count}{seeds}"
        if comparison.left_out:
            text += f" ({len(comparison.left_out)} without a distance left out)"
        if test and test.size is not None:
            text += f"; printed {test.size * (1 if test.direction == 'higher' else -1):+.3f}"
        return [nodes.Text(text)]

    def word(self, outcome: ledger.Outcome) -> list[nodes.Node]:
        old: list[nodes.Node] = [nodes.Text(" "), badge("stale")] if any(map(stale, outcome.evidence)) else []
        return [badge(outcome.word), *old]


class LedgerTable(LedgerDirective):
    """The claims of one paper, a line each test: what is compared, effect with interval, verdict."""

    def build(self, body: Any) -> list[nodes.Node]:
        head = [[nodes.Text(t)] for t in ("claim", "tested by", "effect", "verdict")]
        lines, last = [], ""
        for entry, test, outcome in self.lines(body["paper"]):
            name = test.id if test else entry.id
            claim: list[nodes.Node] = [] if entry.id == last else self.inline(entry.says)
            claim = [nodes.inline("", "", *claim, ids=[f"claim-{name}"])]
            last = entry.id
            if test is None:
                how = [nodes.emphasis("", "Not tested. "), *self.inline(entry.not_attempted)]
            else:
                how = [*self.how(test, outcome), nodes.Text(". "), *self.inline(test.why)]
                where = self.to_page(test.page, "Page")
                how += [nodes.Text(" "), *where, nodes.Text(".")] if where else []
            lines.append([claim, how, self.effect(test, outcome), self.word(outcome)])
        table = self.table(head, lines)
        table["classes"].append("al-ledger")
        return [table]


class LedgerSummary(LedgerDirective):
    """How many tests of each paper came out how, and how many claims have no test."""

    def build(self, body: Any) -> list[nodes.Node]:
        counts: dict[str, Counter[str]] = {}
        waiting = 0
        for entry, _, outcome in self.lines():
            waiting += bool(outcome.missing)
            counts.setdefault(entry.paper, Counter())[outcome.word] += 1
        head = [[nodes.Text("paper")], *([badge(word)] for word in WORDS), [nodes.Text("lines")]]
        lines = [
            [
                self.inline(f"{NAMES[paper]} {{cite:p}}`{paper}`"),
                *([nodes.Text(str(n[word]))] for word in WORDS),
                [nodes.Text(str(n.total()))],
            ]
            for paper, n in counts.items()
        ]
        total = sum(counts.values(), Counter())
        lines.append(
            [[nodes.Text("all")], *([nodes.Text(str(total[w]))] for w in WORDS), [nodes.Text(str(total.total()))]]
        )
        book = self.book()
        bare = sum(not e.tests for e in book.entries)
        text = (
            f"{len(book.entries)} claims, of which {bare} have no test, each for a reason that stands in its line; "
            f"{waiting} of {total.total()} lines wait for a run and print “not run”."
        )
        return [self.table(head, lines), nodes.paragraph("", text)]


class NotReproduced(LedgerDirective):
    """Every test whose word is neither the best nor the last, with our reading of why."""

    def build(self, body: Any) -> list[nodes.Node]:
        pairs = []
        for entry, test, outcome in sorted(self.lines(), key=lambda line: -WORDS.index(line[2].word)):
            if test is None or outcome.word in (WORDS[0], WORDS[-1]):
                continue
            uri = f"#claim-{test.id}"
            text = [
                *self.inline(f"{NAMES[entry.paper]} {{cite:p}}`{entry.paper}`"),
                nodes.Text(": "),
                *self.inline(entry.says),
                nodes.Text(" "),
            ]
            text += [
                nodes.reference("", "Line", refuri=uri, internal=True),
                nodes.Text(", "),
                *self.effect(test, outcome),
            ]
            pairs.append((outcome.word, [*text, nodes.Text(". "), *self.inline(test.why)]))
        listing = nodes.bullet_list()
        for word, content in pairs:
            listing += nodes.list_item("", nodes.paragraph("", "", badge(word), nodes.Text(" "), *content))
        return [listing] if pairs else [nodes.paragraph("", "Nothing is on this list.")]


class Slips(LedgerDirective):
    """Slips in print and bugs in released code, with the test that shows each."""

    def build(self, body: Any) -> list[nodes.Node]:
        head = [[nodes.Text(t)] for t in ("where", "what", "shown by", "page")]
        lines = []
        for slip in self.book().slips:
            shown: list[nodes.Node] = []
            for test in slip.shown:
                shown += [nodes.literal("", test), nodes.Text(" ")]
            lines.append([self.inline(slip.where), self.inline(slip.what), shown, self.to_page(slip.page, "page")])
        table = self.table(head, lines)
        table["classes"].append("al-ledger")
        return [table]


class Dashboard(RecordTable):
    """Every record of the checkout, a line an experiment; a script beside the page filters and sorts it."""

    COLUMNS = ("record", "method", "data", "budget", "size", "seeds", "Dice", "HD95", "ASSD", "time (s)", "memory (MB)")

    def build(self, body: Any) -> list[nodes.Node]:
        lines = []
        for name in sorted({p.parent.name for p in records.root().glob("*/seed*.json")}):
            made = runs(self.env, name)
            uri = UP * self.env.docname.count("/") + f"records/{name}.json"
            first: list[nodes.Node] = [nodes.reference("", name, refuri=uri, internal=True)]
            first += [nodes.Text(" "), badge("stale")] if any(map(stale, made)) else []
            lines.append([first, *([nodes.Text(cell)] for cell in self.cells(made))])
        table = self.table([[nodes.Text(name)] for name in self.COLUMNS], lines)
        table["classes"].append("al-dashboard")
        return [table]

    def cells(self, made: list[records.Record]) -> list[str]:
        """Method, data, budget, size, seeds, the metrics, time and memory, as they are printed."""
        config, wholes = made[0].config, []
        for key, spec in (("dice.mean", ".3f"), ("hd95.mean", ".1f"), ("assd.mean", ".2f"), ("train_s", ".0f")):
            try:
                values = [records.get(record, key) for record in made]
                wholes.append(format(math.fsum(values) / len(values), spec))
            except (records.RecordError, TypeError):  # no such value, or one that could not be measured
                wholes.append("–")
        size, labeled = config.get("size", {}), config.get("labeled_patients")
        budget = "–" if labeled is None else f"{labeled or 'all'} labeled"
        memory = max((r.provenance.get("peak_memory_mb") or 0 for r in made), default=0)
        return [
            str(config.get("method", made[0].kind)).replace("_", " "),
            cohort if isinstance(cohort := config.get("cohort"), str) and len(cohort) < 20 else "–",
            budget,
            f"{size['name']}, {size['network'].replace('_', ' ')}" if isinstance(size, dict) and size else "–",
            str(len(made)),
            *wholes,
            f"{memory:,}" if memory else "–",
        ]


class Solutions(BookDirective):
    """The solutions of all chapters, read from the notebooks, each with a link to its exercise."""

    def build(self, body: Any) -> list[nodes.Node]:
        sections: list[nodes.Node] = []
        for page in sorted(d for d in self.env.found_docs if d.startswith("notebooks/")):
            path = Path(self.env.doc2path(page))
            solved = [e for e in exercises(path) if e.solution] if path.suffix == ".ipynb" else []
            if not solved:
                continue
            self.env.note_dependency(str(path))
            section = nodes.section("", ids=[f"solutions-{path.stem.replace('_', '-')}"])
            heading = json.loads(path.read_text("utf-8"))["cells"][0]["source"]
            section += nodes.title("", "", *self.inline("".join(heading).splitlines()[0].lstrip("# ")))
            uri = self.env.app.builder.get_relative_uri(self.env.docname, page)
            for exercise in solved:
                link = nodes.reference(
                    "", exercise.title or "Exercise", refuri=f"{uri}#{exercise.label}", internal=True
                )
                section += nodes.rubric("", "", link)
                section += self.parse_text_to_nodes(self.moved(exercise.solution, path.stem))
                if exercise.answer and exercise.answer not in exercise.solution:
                    code = nodes.Text("In code: ")
                    section += nodes.paragraph("", "", code, nodes.literal("", exercise.answer.strip()))
            sections.append(section)
        return sections

    def moved(self, text: str, chapter: str) -> str:
        """Links of a solution as this page must write them."""
        text = re.sub(r"\]\((\d\d_\w+\.ipynb)", r"](../notebooks/\1", text)
        return re.sub(r"\]\(#", f"](../notebooks/{chapter}.ipynb#", text)


class Line(SphinxRole):
    """``{line}`action-memory-1` ``: a link to a line of the ledger."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        known = {test.id if test else entry.id for entry, test in read().tests}
        if self.text not in known:
            logger.warning(
                "{line}`%s`: no line of the ledger", self.text, location=self.get_location(), type="anatolab"
            )
        uri = self.env.app.builder.get_relative_uri(self.env.docname, "book/ledger")
        here = "" if self.env.docname == "book/ledger" else uri
        return [nodes.reference("", "line", refuri=f"{here}#claim-{self.text}", internal=True)], []


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directives."""
    for name, directive in {
        "dashboard": Dashboard,
        "ledger": LedgerTable,
        "ledger-summary": LedgerSummary,
        "not-reproduced": NotReproduced,
        "slips": Slips,
        "solutions": Solutions,
    }.items():
        app.add_directive(name, directive)
    app.add_role("line", Line())
    app.add_js_file("anatolab-dashboard.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
