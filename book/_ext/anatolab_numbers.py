"""Numbers and tables from records: the role ``{num}``, the directives ``{record-table}`` and ``{record-index}``.

The page template (book/page-template.md) shows each. A record or value that does not exist is a warning that names page
and value, which `make book` turns into an error. A page is read again when a record that it uses appears, changes or
becomes stale.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from string import ascii_lowercase
from typing import Any, ClassVar

import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from anatolab import records

logger = logging.getLogger(__name__)


def formatted(value: Any, spec: str = "") -> str:
    """Formats a value as prose prints it: three decimals unless ``spec`` says otherwise; ``pct`` is a percentage."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "undefined"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if spec == "pct":
        return f"{100 * value:.1f} %"
    if spec:
        return format(value, spec)
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def duration(seconds: float | None) -> str:
    """Formats seconds in a readable unit."""
    if seconds is None:
        return "not measured"
    unit, name = (1, "s") if seconds < 90 else (60, "min") if seconds < 5400 else (3600, "h")
    return f"{seconds / unit:.{int(name == 'h')}f} {name}"


def stale(record: records.Record) -> bool:
    """Returns whether the code of a record, or the configuration of its wanted run, has changed since."""
    if records.is_stale(record):
        return True
    configuration = wanted_configuration(record.experiment)
    return configuration is not None and configuration != record.config


@cache
def wanted_configuration(experiment: str) -> dict[str, Any] | None:
    """Returns the configuration that a wanted run would have today; None for other runs."""
    if not wanted(experiment) or experiment in earlier() or experiment in STUDIES:
        return None
    from anatolab.experiments import by_id, config_of

    return config_of(by_id(experiment))


def stamps(experiment: str = "*") -> tuple[tuple[Path, int, int], ...]:
    """Returns the files of an experiment's records, or of all, with their times and sizes."""
    files = sorted(records.root().glob(f"{experiment}/seed*.json"))
    return tuple((path, (status := path.stat()).st_mtime_ns, status.st_size) for path in files)


def fingerprint(experiment: str) -> str:
    """Returns a hash that changes when a run of the experiment appears, disappears, is rewritten or becomes stale."""
    return fingerprint_of(stamps(experiment))


@cache
def fingerprint_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Returns the hash over these files; the code, on which staleness depends, is that of this build."""
    digest = hashlib.sha256()
    for path, *_ in files:
        digest.update(path.name.encode() + path.read_bytes())
        digest.update(str(stale(records.read(path))).encode())
    return digest.hexdigest()


def runs(env: Any, experiment: str) -> list[records.Record]:
    """Loads all runs of an experiment and notes that the current page depends on them."""
    uses = env.__dict__.setdefault("anatolab_uses", {})
    uses.setdefault(env.docname, {})[experiment] = fingerprint(experiment)
    return records.load(experiment)


STUDIES = ("gains-ensemble", "gains-init")  # wanted records of studies/gains.py, which are no single training


def wanted(experiment: str) -> bool:
    """Returns whether a run is on the list of wanted ones, for which a table prints "not run"."""
    from anatolab.experiments import EXPERIMENTS

    return experiment in STUDIES or experiment in earlier() or any(e.id == experiment for e in EXPERIMENTS)


@cache
def earlier() -> dict[str, str]:
    """Returns ids and titles of the runs of the first regime."""
    path = records.root() / "earlier.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def source_of(made: list[records.Record], key: str) -> str:
    """Returns the source of a number, for its tooltip."""
    first = made[0].provenance
    seeds = ", ".join(str(r.seed) for r in made)
    parts = [f"record {made[0].experiment}, {key}", f"{'seeds' if len(made) > 1 else 'seed'} {seeds}"]
    parts += [f"commit {str(first['commit'])[:8]}"] if first.get("commit") else []
    parts += [str(first["device"])] if first.get("device") else []
    return "; ".join(parts) + ("; stale: code or configuration have changed since" if any(map(stale, made)) else "")


def cited_number(env: Any, made: list[records.Record], key: str, spec: str = "") -> nodes.reference:
    """Renders a number as a link to its record, with the run in the tooltip."""
    experiment = made[0].experiment
    value = records.mean(made, key)
    if isinstance(value, float) and value.is_integer() and all(isinstance(records.get(r, key), int) for r in made):
        value = int(value)  # a count that is the same for every seed stays a count
    text = formatted(value, spec)
    uri = "../" * env.docname.count("/") + f"records/{experiment}.json"
    mark = ["al-stale"] if any(map(stale, made)) else []
    return nodes.reference(
        "", text, refuri=uri, reftitle=source_of(made, key), classes=["al-num", *mark], internal=True
    )


class Num(SphinxRole):
    """``{num}`experiment:key|format` ``: the mean over seeds of a recorded value."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        target, _, spec = self.text.partition("|")
        experiment, _, key = target.strip().partition(":")
        try:
            return [cited_number(self.env, runs(self.env, experiment), key, spec.strip())], []
        except (records.RecordError, ValueError, TypeError) as error:
            logger.warning("{num}`%s`: %s", self.text, error, location=self.get_location(), type="anatolab")
            return [nodes.inline("", "?", classes=["al-missing"])], []


class BookDirective(SphinxDirective):
    """A directive whose body is YAML, and whose problems are warnings that name the page."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        try:
            body = yaml.safe_load("\n".join(self.content)) or {}
            return self.build(body)
        except (records.RecordError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            logger.warning(
                "{%s}: %s: %s", self.name, type(error).__name__, error, location=self.get_location(), type="anatolab"
            )
            return []

    def build(self, body: Any) -> list[nodes.Node]:
        raise NotImplementedError

    def inline(self, text: Any) -> list[nodes.Node]:
        """Parses a line of MyST."""
        parsed, messages = self.state.inline_text(str(text), self.lineno)
        return [*parsed, *messages]

    def facts(self, pairs: list[tuple[str, list[nodes.Node]]]) -> nodes.definition_list:
        """Renders pairs of term and description, one per line."""
        listing = nodes.definition_list(classes=["al-facts"])
        for term, content in pairs:
            listing += nodes.definition_list_item(
                "", nodes.term("", term), nodes.definition("", nodes.paragraph("", "", *content))
            )
        return listing

    def recorded(self, experiment: str) -> list[records.Record] | None:
        """Returns the runs, or None if they are wanted but not made yet."""
        try:
            return runs(self.env, experiment)
        except records.RecordError:
            if wanted(experiment):
                return None
            raise


def made_on(record: records.Record) -> str:
    """Returns what a record was made on."""
    return str(record.provenance.get("device", "?"))


def badge(text: str) -> nodes.inline:
    """Renders a small label, colored by its text."""
    return nodes.inline("", text, classes=["al-badge", f"al-{text.replace(' ', '-')}"])


def missed_organs(made: list[records.Record]) -> bool:
    """Returns whether any run missed an organ, so that its mean distance is over fewer organs."""
    return any((r.values.get("counts") or {}).get("missed") for r in made)


def leads(made: list[records.Record], key: str, others: list[tuple[str, str]], best: str) -> bool:
    """Returns whether no other row is better than this one in the mean over the seeds that both have."""
    values = {r.seed: records.get(r, key) for r in made}
    for experiment, name in others:
        theirs = {r.seed: records.get(r, name) for r in records.load(experiment)}
        common = values.keys() & theirs.keys()
        gains = [theirs[seed] - values[seed] for seed in common if None not in (theirs[seed], values[seed])]
        if math.fsum(gains) * {"max": 1, "min": -1}[best] > 1e-12:
            return False
    return True


class RecordTable(BookDirective):
    """Experiments by metrics: mean and spread over seeds, interval over patients, number of seeds, best in bold.

    The best is that on common seeds. A row of a single seed is gray among rows of several, and the distance of a method
    that missed an organ is not bold.

    A row is an experiment, ``[label, experiment]``, or ``[label, experiment, part]``, where part goes before every key.
    CPU seconds of several processors are no mean: each has its own, with a letter that the caption explains.
    """

    optional_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {"name": directives.unchanged}
    processors: Sequence[str] = ()  # of a table with CPU seconds

    def build(self, body: Any) -> list[nodes.Node]:
        rows = [row if isinstance(row, list) else [None, row] for row in body["rows"]]
        columns = [{"name": c, "key": c} if isinstance(c, str) else c for c in body["columns"]]
        made = {row[1]: self.recorded(row[1]) for row in rows}
        head = [[nodes.Text(body.get("head", "method"))], *(self.inline(c.get("name", c["key"])) for c in columns)]
        most = max((len(record) for record in made.values() if record), default=0)
        head += [[nodes.Text("seeds")]] if most > 1 else []  # like is compared with like, or it shows
        if any(column["key"].endswith("cpu_s") for column in columns):
            self.processors = sorted({made_on(r) for some in made.values() for r in some or ()})
        lines = []
        for label, experiment, *part in rows:
            record = made[experiment]
            name: list[nodes.Node] = self.inline(label) if label else [nodes.Text(self.title_of(experiment, record))]
            if record and any(map(stale, record)):
                name += [nodes.Text(" "), badge("stale")]
            cells = []
            for column in columns:
                others = [(e, ".".join([*of, column["key"]])) for _, e, *of in rows if made[e]]
                named = column | {k: ".".join([*part, column[k]]) for k in ("key", "patients") if k in column}
                cells.append(self.cell(record, named, others) if record else [badge("not run")])
            if most > 1:
                cells.append([nodes.Text(str(len(record)) if record else "")])
            if record and len(record) == 1 < most:
                name, *cells = ([nodes.inline("", "", *cell, classes=["al-one-seed"])] for cell in (name, *cells))
            lines.append([name, *cells])
        return [self.table(head, lines)]

    def title_of(self, experiment: str, made: list[records.Record] | None) -> str:
        if made and made[0].title:
            return made[0].title
        from anatolab.experiments import EXPERIMENTS

        return next((e.title for e in EXPERIMENTS if e.id == experiment), earlier().get(experiment, experiment))

    def cell(
        self, made: list[records.Record], column: dict[str, Any], others: list[tuple[str, str]]
    ) -> list[nodes.Node]:
        from anatolab.analysis.harness import units
        from anatolab.metrics import bootstrap_interval

        key, spec = column["key"], column.get("format", "")
        if len(self.processors) > 1 and key.endswith("cpu_s"):
            parts: list[nodes.Node] = []
            for letter, name in zip(ascii_lowercase, self.processors, strict=False):
                if there := [r for r in made if made_on(r) == name]:
                    parts += [nodes.Text(", " * bool(parts)), cited_number(self.env, there, key, spec)]
                    parts.append(nodes.superscript("", letter))
            return parts
        values = [records.get(r, key) for r in made]
        number: nodes.Node = cited_number(self.env, made, key, spec)
        if best := column.get("best"):
            single = len(made) == 1 and any(len(records.load(e)) > 1 for e, _ in others)
            if (
                len(others) > 1
                and not single
                and not (best == "min" and missed_organs(made))
                and leads(made, key, others, best)
            ):
                number = nodes.strong("", "", number)
        cell: list[nodes.Node] = [number]
        if len(values) > 1 and all(isinstance(v, int | float) for v in values) and column.get("spread", True):
            mean = math.fsum(values) / len(values)
            spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
            cell.append(nodes.inline("", f" ± {formatted(float(spread), spec)}", classes=["al-spread"]))
        if patients := column.get("patients"):
            by_seed = [units(record, patients) for record in made]
            means_of = [math.fsum(v[p] for v in by_seed) / len(by_seed) for p in by_seed[0]]
            known = [m for m in means_of if math.isfinite(m)]
            low, high = bootstrap_interval(known)
            note = "" if len(known) == len(means_of) else f", {len(known)} of {len(means_of)} patients"
            text = f" [{formatted(low, spec)}, {formatted(high, spec)}{note}]"
            cell.append(nodes.inline("", text, classes=["al-interval"]))
        return cell

    def table(self, head: list[Any], lines: list[list[Any]]) -> nodes.Node:
        def row(cells: list[Any]) -> nodes.row:
            return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))

        group = nodes.tgroup("", cols=len(head))
        group += [nodes.colspec("", colwidth=1) for _ in head]
        group += nodes.thead("", row(head))
        group += nodes.tbody("", *(row(line) for line in lines))
        table = nodes.table("", group, classes=["al-records"])
        caption = self.inline(self.arguments[0]) if self.arguments else []
        if len(self.processors) > 1:
            named = "; ".join(f"{a}: {p}" for a, p in zip(ascii_lowercase, self.processors, strict=False))
            caption = [*caption, nodes.Text(f" ({named})")]
        if caption:
            table.insert(0, nodes.title("", "", *caption))
        self.add_name(table)
        return table


class RecordIndex(RecordTable):
    """Every record in the checkout: seeds, commit, machine, time, memory, and whether its code has changed since."""

    def build(self, body: Any) -> list[nodes.Node]:
        names = sorted({p.parent.name for p in records.root().glob("*/seed*.json")})
        head = [[nodes.Text(t)] for t in ("record", "seeds", "commit", "device", "wall time", "memory", "")]
        lines = []
        for name in names:
            made = runs(self.env, name)
            provenance = made[0].provenance
            lines.append(
                [
                    [self.link(name)],
                    [nodes.Text(", ".join(str(r.seed) for r in made))],
                    [nodes.Text(str(provenance.get("commit", "?"))[:8] + ("*" if provenance.get("dirty") else ""))],
                    [nodes.Text("; ".join(dict.fromkeys(map(made_on, made))))],
                    [nodes.Text(duration(provenance.get("wall_s")))],
                    [nodes.Text(f"{provenance.get('peak_memory_mb', '?')} MB")],
                    [badge("stale") if any(map(stale, made)) else badge("fresh")],
                ]
            )
        if not lines:
            return [nodes.paragraph("", "No record has been made yet.")]
        return [self.table(head, lines)]

    def link(self, experiment: str) -> nodes.reference:
        uri = "../" * self.env.docname.count("/") + f"records/{experiment}.json"
        return nodes.reference("", experiment, refuri=uri, internal=True)


def outdated(app: Sphinx, env: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Returns the pages that print a record which has changed since they were read."""
    uses = env.__dict__.setdefault("anatolab_uses", {})
    return [
        doc for doc, used in uses.items() if doc in env.found_docs and any(fingerprint(e) != f for e, f in used.items())
    ]


def forget(app: Sphinx, env: Any, docname: str) -> None:
    """Forgets the records of a page before it is read again."""
    env.__dict__.setdefault("anatolab_uses", {}).pop(docname, None)


def merge(app: Sphinx, env: Any, docnames: set[str], other: Any) -> None:
    """Collects the records that a parallel reader noted."""
    env.__dict__.setdefault("anatolab_uses", {}).update(getattr(other, "anatolab_uses", {}))


def write_records(app: Sphinx, error: Exception | None) -> None:
    """Writes the records that pages use beside the pages, one file per experiment."""
    if error or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "records"
    folder.mkdir(exist_ok=True)
    used = {e for uses in getattr(app.env, "anatolab_uses", {}).values() for e in uses}
    for experiment in sorted(e for e in used if records.exists(e)):
        files = (records.path_of(experiment, r.seed) for r in records.load(experiment))
        stored = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        (folder / f"{experiment}.json").write_text(json.dumps(stored, indent=1), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the role, the directives and the bookkeeping of used records."""
    app.add_role("num", Num())
    app.add_directive("record-table", RecordTable)
    app.add_directive("record-index", RecordIndex)
    app.connect("env-get-outdated", outdated)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("build-finished", write_records)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
