"""The ledger at a glance: a picture of all claims, what is decided of each paper in a sentence, and the counts."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Any, ClassVar, get_args

import anatolab_ledger as ledger
from anatolab_claims import NAMES, LedgerDirective, line_uri, tally, verdict_badge
from anatolab_numbers import badge
from docutils import nodes
from sphinx.application import Sphinx

from anatolab.metrics.verdicts import Outcome


class LedgerPicture(LedgerDirective):
    """All claims at a glance: a row a paper, a square a claim, colored by outcome, filled by scope; each is a link."""

    LETTERS: ClassVar[dict[str | None, str]] = {
        "own setting": "o",
        "mathematics": "m",
        "stronger base": "b",
        "reduced": "r",
        "stand-in data": "s",
        None: "",
    }
    SIDE, GAP, LEFT = 26, 4, 110

    def build(self, body: Any) -> list[nodes.Node]:
        book = self.book()
        rows = {paper: self.verdicts(paper) for paper in book.papers}
        widest = max(map(len, rows.values()))
        step = self.SIDE + self.GAP
        width, height = self.LEFT + widest * step, len(rows) * step
        marks = []
        for row, (paper, verdicts) in enumerate(rows.items()):
            y = row * step
            marks.append(f'<text class="al-label" x="0" y="{y + 18}">{NAMES[paper]}</text>')
            for column, v in enumerate(verdicts):
                x = self.LEFT + column * step
                title = escape(f"{v.entry.id}: {v.words}. {v.entry.says}")
                kind = f"al-{v.outcome.replace(' ', '-')}"
                marks.append(
                    f'<a href="#claim-{v.entry.id}" aria-label="{title}"><title>{title}</title>'
                    f'<rect class="{kind}" x="{x}" y="{y}" width="{self.SIDE}" height="{self.SIDE}" rx="4"/>'
                    f'<text x="{x + self.SIDE / 2:g}" y="{y + 18}" text-anchor="middle">'
                    f"{self.LETTERS[v.scope] if v.outcome in ('agrees', 'opposite') else ''}</text></a>"
                )
        everything = [v for verdicts in rows.values() for v in verdicts]
        alt = escape(" ".join(f"{NAMES[p]}: {tally(v)}" for p, v in rows.items()))
        svg = (
            f'<figure class="al-picture"><svg viewBox="-1 -1 {width + 2} {height + 2}" role="group" aria-label="{alt}">'
            + "".join(marks)
            + "</svg></figure>"
        )
        legend = [nodes.Text(f"{len(everything)} claims, a square each, which leads to its line. ")]
        for outcome in dict.fromkeys(v.outcome for v in everything):
            kind = f"al-{outcome.replace(' ', '-')}"
            legend += [nodes.inline("", outcome, classes=["al-badge", kind]), nodes.Text(" ")]
        letters = ", ".join(f"{letter} {scope}" for scope, letter in self.LETTERS.items() if scope)
        legend += [nodes.Text(f"Letters are scopes: {letters}.")]
        return [nodes.raw("", svg, format="html"), nodes.paragraph("", "", *legend)]


class LedgerSummary(LedgerDirective):
    """How the claims of each paper came out, a row a paper; claims, not tests, are counted."""

    def build(self, body: Any) -> list[nodes.Node]:
        book = self.book()
        counts = {paper: Counter(v.outcome for v in self.verdicts(paper)) for paper in book.papers}
        kinds = (*get_args(Outcome), ledger.UNTESTED)
        head = [[nodes.Text("paper")], *([badge(kind)] for kind in kinds), [nodes.Text("claims")]]
        lines = [
            [
                [nodes.Text(NAMES[paper])],
                *([nodes.Text(str(n[kind]))] for kind in kinds),
                [nodes.Text(str(n.total()))],
            ]
            for paper, n in counts.items()
        ]
        total = sum(counts.values(), Counter())
        lines.append(
            [[nodes.Text("all")], *([nodes.Text(str(total[k]))] for k in kinds), [nodes.Text(str(total.total()))]]
        )
        sentence = f"{book.version} Claims are counted, not tests: each has one primary test, and a cause counts once."
        return [self.table(head, lines), nodes.paragraph("", sentence)]


class LedgerSentences(LedgerDirective):
    """A sentence a paper: which claims are decided, and how, and what became of the others."""

    def build(self, body: Any) -> list[nodes.Node]:
        items = nodes.bullet_list()
        for paper in self.book().papers:
            parts: list[nodes.Node] = [nodes.strong("", NAMES[paper]), nodes.Text(": ")]
            verdicts = self.verdicts(paper)
            decided = [v for v in verdicts if v.outcome in ("agrees", "opposite")]
            for words in dict.fromkeys(v.words for v in decided):
                group = [v for v in decided if v.words == words]
                parts += [verdict_badge(group[0]), nodes.Text(" ")]
                for v in group:
                    text = self.inline(v.entry.says.rstrip("."))
                    link = nodes.reference("", "", *text, refuri=line_uri(self.env, v.entry.id), internal=True)
                    parts += [link, nodes.Text("; " if v is not group[-1] else ". ")]
            rest = Counter(v.words for v in verdicts if v not in decided)
            counted = ", ".join(f"{n} {outcome}" for outcome, n in rest.most_common())
            parts.append(
                nodes.Text(
                    f"Of the other {rest.total()}: {counted}." if decided else f"nothing is decided yet; {counted}."
                )
            )
            items += nodes.list_item("", nodes.paragraph("", "", *parts))
        return [items]


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directives."""
    app.add_directive("ledger-picture", LedgerPicture)
    app.add_directive("ledger-sentences", LedgerSentences)
    app.add_directive("ledger-summary", LedgerSummary)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
