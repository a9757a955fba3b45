"""Pages made of records and notebooks: the dashboard, the performance contracts, the solutions of every chapter."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

from anatolab_exercises import exercises
from anatolab_numbers import BookDirective, RecordTable, badge, made_on, runs, stale
from docutils import nodes
from sphinx.application import Sphinx

from anatolab import records

UP = "../"


class Dashboard(RecordTable):
    """Lists every record of the checkout, one line per experiment; a script filters and sorts them."""

    COLUMNS = (
        *("record", "method", "data", "budget", "size", "seeds", "Dice", "HD95"),
        *("CPU (s)", "processor", "memory (MB)"),
    )

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
        """Formats each column but the first; CPU seconds are those of the processor that made most seeds."""
        config, wholes = made[0].config, []
        timed = Counter(made_on(r) for r in made if "train_cpu_s" in r.values)
        kind = timed.most_common(1)[0][0] if timed else "–"
        some = [r for r in made if made_on(r) == kind]
        for key, spec in (("dice.mean", ".3f"), ("hd95.mean", ".1f"), ("train_cpu_s", ",.0f")):
            try:
                values = [records.get(record, key) for record in (some if key == "train_cpu_s" else made)]
                wholes.append(format(math.fsum(values) / len(values), spec))
            except (records.RecordError, TypeError, ZeroDivisionError):  # no such value, or not measured
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
            kind.removeprefix("CPU, "),
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
            heading = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]
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
        """Returns a solution with its links rewritten for this page."""
        text = re.sub(r"\]\((\d\d_\w+\.ipynb)", r"](../notebooks/\1", text)
        return re.sub(r"\]\(#", f"](../notebooks/{chapter}.ipynb#", text)


class Benchmarks(RecordTable):
    """Every performance contract, a line each: against what, target, what was measured, and why where it is not met."""

    def build(self, body: Any) -> list[nodes.Node]:
        (made,) = runs(self.env, "benchmarks")
        lines = []
        for row in made.values["rows"]:
            verdict = f"{row['verdict']}: {row['reason']}" if row["reason"] else row["verdict"]
            cells = (row["what"], row["peer"], row["target"], row["measured"], verdict)
            lines.append([[nodes.Text(cell)] for cell in cells])
        head = ("contract", "against", "target", "measured", "verdict")
        return [self.table([[nodes.Text(name)] for name in head], lines)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directives."""
    app.add_directive("benchmarks", Benchmarks)
    app.add_directive("dashboard", Dashboard)
    app.add_directive("solutions", Solutions)
    app.add_js_file("anatolab-dashboard.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
