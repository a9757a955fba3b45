"""The directive ``{record-dots}``: experiments as rows of one chart, a dot for each seed.

The chart is HTML and CSS: it is as wide as the column, on a phone too, and follows the theme.
"""

from __future__ import annotations

import math
from html import escape
from typing import Any

from anatolab_numbers import RecordTable, badge, cited_number, stale
from docutils import nodes
from sphinx.application import Sphinx

from anatolab import records


def place(value: float, low: float, high: float) -> str:
    """Returns where a value lies on an axis from ``low`` to ``high``, as CSS prints it."""
    if not low <= value <= high:
        raise ValueError(f"{value:.3f} lies off the axis from {low} to {high}")
    return f"{100 * (value - low) / (high - low):.1f}%"


class RecordDots(RecordTable):
    """Experiments on one axis: a dot for each seed, a stroke and a number for their mean.

    The body has the `key` of the value, the `axis` as `[low, high]`, its `ticks`, and `rows`: `[label, experiment]` or
    `[label, experiment, part]` as in a table; a text is the heading of the rows below it. The caption is the argument.
    """

    def build(self, body: Any) -> list[nodes.Node]:
        low, high = body["axis"]
        chart = nodes.container(classes=["al-dots"])
        for row in body["rows"]:
            if isinstance(row, str):
                chart += nodes.paragraph("", "", *self.inline(row), classes=["al-dots-head"])
                continue
            label, experiment, *part = row
            key = ".".join([*part, body["key"]])
            made = self.recorded(experiment)
            line = nodes.container(classes=["al-dots-row"])
            line += nodes.paragraph("", "", *self.inline(label))
            line += nodes.raw("", self.track(made, key, low, high, body["ticks"]), format="html")
            mark = [nodes.Text(" "), badge("stale")] if made and any(map(stale, made)) else []
            number = cited_number(self.env, made, key, body.get("format", ".2f")) if made else badge("not run")
            line += nodes.paragraph("", "", number, *mark)
            chart += line
        ticks = "".join(f'<span style="left:{place(t, low, high)}">{t:g}</span>' for t in body["ticks"])
        axis = nodes.container(classes=["al-dots-row", "al-dots-axis"])
        axis += nodes.raw("", f'<div class="al-dots-track" aria-hidden="true">{ticks}</div>', format="html")
        chart += axis
        if self.arguments:
            chart += nodes.paragraph("", "", *self.inline(self.arguments[0]), classes=["al-dots-caption"])
        self.add_name(chart)
        return [chart]

    def track(self, made: list[records.Record] | None, key: str, low: float, high: float, ticks: list[float]) -> str:
        """Returns the line of a row: ticks, a dot for each seed, a stroke for the mean, and the values as text."""
        values = [records.get(record, key) for record in made or []]
        mean = math.fsum(values) / max(len(values), 1)
        words = escape("seeds: " + ", ".join(f"{v:.3f}" for v in values) if values else "not run")
        marks = [f'<i style="left:{place(t, low, high)}"></i>' for t in ticks]
        marks += [f'<b style="left:{place(mean, low, high)}"></b>'] if values else []
        marks += [f'<span style="left:{place(v, low, high)}"></span>' for v in values]
        return f'<div class="al-dots-track" role="img" aria-label="{words}" title="{words}">{"".join(marks)}</div>'


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directive."""
    app.add_directive("record-dots", RecordDots)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
