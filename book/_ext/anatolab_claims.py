"""Claims on pages: the ledger's tables, claim boxes, links to lines, slips, the A/A rate.

The directives read ``book/ledger.yml`` through ``anatolab_ledger``, which computes every verdict; ``{repeats}`` prints
the rate of decisions where nothing differs. ``anatolab_overview`` makes the picture and the counts above the tables.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import anatolab_ledger as ledger
from anatolab_numbers import RecordTable, badge, earlier, runs, stale, stamps
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from anatolab import records
from anatolab.analysis import repeats
from anatolab.analysis.harness import between
from anatolab.metrics.verdicts import SEEDS

logger = logging.getLogger(__name__)
UP = "../"
LEDGER = "book/ledger"
PRINTED = "you2023arco"  # whose tables every printed size is from
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
    """Returns the ledger as it is on disk now."""
    return read_once(ledger.path().stat().st_mtime_ns)


@cache
def judged(changed: int, paper: str, _records: tuple[tuple[Path, int, int], ...]) -> list[ledger.Verdict]:
    """Returns the verdicts on a paper's claims, which many lines of a page share, for these files."""
    return ledger.judge(read_once(changed), paper)


class LedgerDirective(RecordTable):
    """A directive that reads and judges claims, and notes the records that the page depends on."""

    def book(self) -> ledger.Ledger:
        self.env.note_dependency(str(ledger.path()))
        self.env.note_dependency(str(ledger.path().with_name("awaited.txt")))
        return read()

    def verdicts(self, paper: str) -> list[ledger.Verdict]:
        """Judges the claims of a paper together."""
        for entry, check in self.book().checks:
            for experiment in check.experiments if entry.paper == paper else ():
                try:
                    runs(self.env, experiment)
                except records.RecordError:
                    continue  # judge() says which may be missing
        return judged(ledger.path().stat().st_mtime_ns, paper, stamps())

    def to_page(self, page: str, text: str) -> list[nodes.Node]:
        """Returns a link to another page, if the book has it."""
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

    def how(self, check: ledger.Check, measured: ledger.Measured) -> list[nodes.Node]:
        """Describes what is compared, on which data."""
        parts: list[nodes.Node] = [*self.inline(check.what)]
        if check.exact:
            return [*parts, nodes.Text(f"; {measured.setting}")]
        parts += [nodes.Text(": "), *self.side(check.ours, check.average)]
        if check.against != check.ours:
            parts += [nodes.Text(" minus "), *self.side(check.against, check.average)]
        return [*parts, nodes.Text(f"; {measured.setting}; {measured.device}")] if measured.setting else parts

    def side(self, experiments: tuple[str, ...] | float, average: bool) -> list[nodes.Node]:
        if isinstance(experiments, float):
            return [nodes.Text(f"{experiments:g}")]
        if len(experiments) == 1:
            return [self.to_record(experiments[0])]
        parts: list[nodes.Node] = []
        for experiment in experiments:
            parts += [nodes.Text(", " if average else " minus "), self.to_record(experiment)]
        return [nodes.Text("mean of (" if average else "("), *parts[1:], nodes.Text(")")]

    def effect(self, check: ledger.Check, measured: ledger.Measured, adjusted: float | None = None) -> list[nodes.Node]:
        """Formats difference, interval, seeds, patients, corrected p-value and printed size."""
        compared = measured.comparison
        to_come = f"; to come: {', '.join(measured.pending)}" if measured.pending else ""
        if compared is None:
            return [badge("not run") if measured.missing else nodes.Text(measured.reason + to_come)]
        text = f"{compared.difference:+.3f}"
        if compared.sampled:
            low, high = compared.interval
            text += f" [{low:+.3f}, {high:+.3f}], {compared.seeds} seed{'s' * (compared.seeds > 1)}"
            text += f" x {compared.patients} patients" if compared.patients > 1 else ""
            text += f", p = {compared.p_value:.2g}"
            text += f", corrected {adjusted:.2g}" if adjusted is not None else ""
        if compared.left_out:
            text += f" ({len(compared.left_out)} without a distance left out)"
        if check.size is not None:
            printed = f"; printed {check.size:+.3f} "
            return [nodes.Text(text + printed), *self.inline(f"{{cite:p}}`{PRINTED}`"), nodes.Text(to_come)]
        return [nodes.Text(text + to_come)]

    def words(self, verdict: ledger.Verdict) -> list[nodes.Node]:
        """Renders the verdict as a badge, with its scope and whether a record is stale."""
        parts: list[nodes.Node] = [verdict_badge(verdict)]
        if verdict.scope and verdict.outcome not in ("agrees", "opposite"):
            parts += [nodes.Text(f" {verdict.scope}")]
        if any(map(stale, verdict.measured.records)):
            parts += [nodes.Text(" "), badge("stale")]
        return parts


def verdict_badge(verdict: ledger.Verdict) -> nodes.inline:
    """Renders the words of a verdict, colored by its outcome."""
    kind = f"al-{verdict.outcome.replace(' ', '-')}"
    return nodes.inline("", verdict.words, classes=["al-badge", kind])


class LedgerTable(LedgerDirective):
    """The claims of one paper: quote, primary test, effect with interval, verdict; further comparisons beside it."""

    def build(self, body: Any) -> list[nodes.Node]:
        paper = body["paper"]
        verdicts = self.verdicts(paper)
        head = [[nodes.Text(t)] for t in ("claim", "tested by", "effect", "verdict")]
        lines = []
        for v in verdicts:
            entry = v.entry
            claim: list[nodes.Node] = [nodes.emphasis("", quoted(entry)), *self.inline(entry.says)]
            cell = [nodes.inline("", "", *claim, ids=[f"claim-{entry.id}"])]
            if entry.test is None:
                how = [nodes.emphasis("", "Not tested. "), *self.inline(entry.not_tested)]
                lines.append([cell, how, [], self.words(v)])
                continue
            how = [*self.how(entry.test, v.measured), nodes.Text(". "), *self.inline(entry.test.why)]
            where = self.to_page(entry.test.page, "Page")
            how += [nodes.Text(" "), *where, nodes.Text(".")] if where else []
            adjusted = v.decision.adjusted if v.decision else None
            lines.append([cell, how, self.effect(entry.test, v.measured, adjusted), self.words(v)])
            for check, measured in v.beside:
                lines.append([[], self.how(check, measured), self.effect(check, measured), [nodes.Text("beside")]])
        table = self.table(head, lines)
        table["classes"].append("al-ledger")
        top = [nodes.paragraph("", "", *self.sources(paper)), nodes.paragraph("", tally(verdicts))]
        return [*top, table, *self.without_claim(paper)]

    def without_claim(self, paper: str) -> list[nodes.Node]:
        """The sentences of the abstract that no line quotes, each with the reason, folded away."""
        rest = self.book().unclaimed[paper]
        items = "".join(f"<li>“{escape(sentence)}” <em>{escape(why)}</em></li>" for sentence, why in rest.items())
        summary = f"{len(rest)} sentences of this abstract make no claim that could be tested"
        return [nodes.raw("", f"<details><summary>{summary}</summary><ul>{items}</ul></details>", format="html")]

    def sources(self, paper: str) -> list[nodes.Node]:
        """Says what was read first-hand, with links to the paper and its code."""
        source = self.book().papers[paper]
        parts = [*self.inline(f"{{cite:t}}`{paper}`"), nodes.Text(f". Read first-hand: {source['read']}. ")]
        links = [(f"arXiv:{source['arxiv']}", f"https://arxiv.org/abs/{source['arxiv']}")]
        doi = source.get("doi", f"10.48550/arXiv.{source['arxiv']}")  # arXiv registers one for every paper
        links.append((f"doi:{doi}", f"https://doi.org/{doi}"))
        if "pmc" in source:
            links.append((f"full text, {source['pmc']}", f"https://pmc.ncbi.nlm.nih.gov/articles/{source['pmc']}/"))
        links.append((f"official code, {source['code']}", f"https://github.com/{source['code']}"))
        for text, uri in links:
            parts += [nodes.reference("", text, refuri=uri), nodes.Text(" · ")]
        return parts[:-1]


def quoted(entry: ledger.Entry) -> str:
    """Returns the words of the abstract in quotation marks."""
    return "“" + entry.quote.replace(r"$\tau$", "τ") + "” "


def tally(verdicts: list[ledger.Verdict]) -> str:
    """Returns one sentence with the number of claims of a paper and their outcomes."""
    counts = Counter(v.words for v in verdicts)
    counted = ", ".join(f"{n} {words}" for words, n in counts.most_common())
    return f"{len(verdicts)} claims: {counted}."


class Repeats(LedgerDirective):
    """The A/A rate beside the rule: three seeds of a method against three others, of every row with six seeds.

    The body names rows that must be there, so that one that is deleted stops the build.
    """

    def build(self, body: Any) -> list[nodes.Node]:
        rows = repeats.recorded_rows()
        for name in dict.fromkeys([*body["rows"], *rows]):
            runs(self.env, name)
            if name not in rows:
                raise ValueError(f"the A/A rate needs {2 * SEEDS} seeds of {name!r}, whose record has fewer")
        rates = {name: repeats.repeat_rate(values) for name, values in rows.items()}
        everything = repeats.total(rates)
        if everything.pairs < repeats.PAIRS:
            raise ValueError(f"the A/A rate needs {repeats.PAIRS} pairs that could decide, not {everything.pairs}")
        if repeats.is_too_high(everything):
            raise ValueError(
                f"the rule decides {everything.decided} of {everything.pairs} pairs of one method (95 % interval from "
                f"{everything.interval[0]:.3f}), which is more than the 5 % that it promises"
            )
        head = [[nodes.Text(t)] for t in ("row", "seeds", "pairs", "decided", "rate", "95 % interval")]
        lines = [
            [
                [self.to_record(name)] if name in rows else [nodes.strong("", name)],
                [nodes.Text(str(len(rows[name])) if name in rows else "")],
                [nodes.Text(str(rate.pairs))],
                [nodes.Text(str(rate.decided))],
                [nodes.Text(f"{100 * rate.value:.1f} %")],
                [nodes.Text(" to ".join(f"{100 * end:.1f}" for end in rate.interval) + " %")],
            ]
            for name, rate in [*rates.items(), ("all", everything)]
        ]
        return [self.table(head, lines)]


class ClaimBox(LedgerDirective):
    """``{claim} action-best``: the line of the ledger as a box. With a body: a measurement without a verdict.

    A statement that is no line of the ledger (of a table, of another paper, or known only second-hand) gets no verdict.
    A side is an experiment, whose patients are compared, or ``experiment:key`` for a number per run.
    """

    def build(self, body: Any) -> list[nodes.Node]:
        return self.line(self.arguments[0]) if self.arguments else self.measurement(body)

    def line(self, name: str) -> list[nodes.Node]:
        entry = next((e for e in self.book().entries if e.id == name), None)
        if entry is None:
            raise KeyError(f"no line {name!r} of the ledger")
        verdict = next(v for v in self.verdicts(entry.paper) if v.entry.id == name)
        link = nodes.reference("", "ledger", refuri=line_uri(self.env, name), internal=True)
        quote = [nodes.emphasis("", quoted(entry)), *self.inline(f"{{cite:p}}`{entry.paper}`, abstract")]
        pairs = [("Claim", self.inline(entry.says)), ("Quote", quote)]
        if entry.test is None:
            pairs += [("Not tested", self.inline(entry.not_tested))]
        else:
            adjusted = verdict.decision.adjusted if verdict.decision else None
            effect = [*self.how(entry.test, verdict.measured), nodes.Text(": ")]
            pairs += [("Measured here", effect + self.effect(entry.test, verdict.measured, adjusted))]
        pairs += [("Verdict", [*self.words(verdict), nodes.Text(" "), link])]
        pairs += [("Why", self.inline(entry.test.why))] if entry.test and entry.test.why else []
        return [nodes.container("", self.facts(pairs), classes=["al-claim"])]

    def measurement(self, body: Any) -> list[nodes.Node]:
        spec, metric = body.get("format", "+.3f"), body.get("metric", "dice")
        (ours, _, key), (against, _, other) = (str(body.get(s) or "").partition(":") for s in ("ours", "against"))
        sides = [self.recorded(experiment) if experiment else None for experiment in (ours, against)]
        measured: list[nodes.Node] = [nodes.Text("not run")]
        compared = between(ours, against, key or metric, other) if all(sides) else None
        if compared:
            low, high = compared.interval
            units = f"{compared.patients} patients and " if not key else ""
            by_seed = ", ".join(f"{v:{spec}}" for v in compared.per_seed.values())
            device = sides[0][0].provenance.get("device", "machine unknown") if sides[0] else ""
            measured = [
                nodes.Text(f"{metric}, "),
                self.to_record(ours),
                nodes.Text(" minus "),
                self.to_record(against),
                nodes.Text(
                    f": {compared.difference:{spec}}, 95 % interval [{low:{spec}}, {high:{spec}}] over {units}"
                    f"{compared.seeds} {'draws of the data' if key else 'seed' + 's' * (compared.seeds > 1)}, "
                    f"p = {compared.p_value:.2g}; by seed: {by_seed}; {device}"
                    + (f"; left out (no distance): {', '.join(compared.left_out)}" if compared.left_out else "")
                ),
            ]
        pairs = [
            ("Statement", self.inline(body["says"])),
            ("Source", self.inline(body["source"])),
            ("Measured here", measured),
        ]
        old = sorted({e for e in (ours, against) if e in earlier()})
        none = "none: no line of the ledger" + (", and runs of the earlier, smaller budget" if old else "")
        label: list[nodes.Node] = [nodes.Text(none)]
        if any(map(stale, [r for side in sides if side for r in side])):
            label += [nodes.Text(" "), badge("stale")]
        pairs += [("Verdict", label)]
        pairs += [("Why", self.inline(body["why"]))] if body.get("why") else []
        return [nodes.container("", self.facts(pairs), classes=["al-claim"])]


def line_uri(env: Any, name: str) -> str:
    """Returns the address of a line, relative to the page being read."""
    page = "" if env.docname == LEDGER else env.app.builder.get_relative_uri(env.docname, LEDGER)
    return f"{page}#claim-{name}"


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


class Line(SphinxRole):
    """``{line}`action-memory-1` ``: a link to a line of the ledger."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        known = {entry.id for entry in read().entries}
        if self.text not in known:
            logger.warning(
                "{line}`%s`: no line of the ledger", self.text, location=self.get_location(), type="anatolab"
            )
        return [nodes.reference("", "line", refuri=line_uri(self.env, self.text), internal=True)], []


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directives and the role."""
    for name, directive in {
        "claim": ClaimBox,
        "ledger": LedgerTable,
        "repeats": Repeats,
        "slips": Slips,
    }.items():
        app.add_directive(name, directive)
    app.add_role("line", Line())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
