"""What the pages of this book can say beyond MyST: numbers, tables and verdicts that come from records, and page cards.

Role ``{num}`` and the directives ``{record-table}``, ``{record-index}`` and ``{page-card}``; the page template
(book/page-template.md) shows each, and ``{claim}`` of ``anatolab_claims``. A record or value that does not exist is a
warning that names page and value, which `make book` turns into an error; a page is read again when a record that it
uses appears, changes or gets stale. The module also sets what depends on the one repository address, and helps the API
pages to link.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from anatolab import records

logger = logging.getLogger(__name__)
WORDS_A_MINUTE = 180


# ---------------------------------------------------------------------------------------------- numbers from records
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


def stale(record: records.Record) -> bool:
    """Whether the code that made a record has changed since, or the configuration of the wanted run."""
    if records.is_stale(record):
        return True
    configuration = wanted_configuration(record.experiment)
    return configuration is not None and configuration != record.config


@cache
def wanted_configuration(experiment: str) -> dict[str, Any] | None:
    """Returns the configuration that a wanted training would have today; None for other records."""
    if not wanted(experiment) or experiment in STUDIES or experiment in earlier():
        return None
    from anatolab.experiments import by_id, config_of

    return config_of(by_id(experiment))


def fingerprint(experiment: str) -> str:
    """Changes when a run of the experiment appears, disappears, is rewritten or gets stale."""
    digest = hashlib.sha256()
    for path in sorted((records.root() / experiment).glob("seed*.json")):
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
    """Whether a run is on the list of wanted ones, so that a table may print "not run" for it."""
    from anatolab.experiments import EXPERIMENTS

    return experiment in STUDIES or experiment in earlier() or any(e.id == experiment for e in EXPERIMENTS)


@cache
def earlier() -> dict[str, str]:
    """Ids and titles of the runs of the first regime, which pages print until they are rewritten."""
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
    value = records.value(experiment, key)
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


def badge(text: str) -> nodes.inline:
    """Renders a small label, colored by its text."""
    return nodes.inline("", text, classes=["al-badge", f"al-{text.replace(' ', '-')}"])


def missed_organs(made: list[records.Record]) -> bool:
    """Whether any run missed an organ, so that its distances are means over fewer of them."""
    return any((r.values.get("counts") or {}).get("missed") for r in made)


class RecordTable(BookDirective):
    """Experiments by metrics: mean and spread over seeds, interval over patients, number of seeds, best in bold.

    A row of a single seed is gray among rows of several, and the distance of a method that missed an organ is not bold.

    A row is an experiment, ``[label, experiment]``, or ``[label, experiment, part]``, where part goes before every key.
    """

    optional_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {"name": directives.unchanged}

    def build(self, body: Any) -> list[nodes.Node]:
        rows = [row if isinstance(row, list) else [None, row] for row in body["rows"]]
        columns = [{"name": c, "key": c} if isinstance(c, str) else c for c in body["columns"]]
        made = {row[1]: self.recorded(row[1]) for row in rows}
        head = [[nodes.Text(body.get("head", "method"))], *(self.inline(c.get("name", c["key"])) for c in columns)]
        most = max((len(record) for record in made.values() if record), default=0)
        head += [[nodes.Text("seeds")]] if most > 1 else []  # like is compared with like, or it shows
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
        values = [records.get(r, key) for r in made]
        number: nodes.Node = cited_number(self.env, made, key, spec)
        if best := column.get("best"):
            means = [records.value(e, k) for e, k in others]
            leads = records.value(made[0].experiment, key) == {"max": max, "min": min}[best](means)
            if leads and len(means) > 1 and not (best == "min" and missed_organs(made)):
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
        if self.arguments:
            table.insert(0, nodes.title("", "", *self.inline(self.arguments[0])))
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
                    [nodes.Text(str(provenance.get("device", "?")))],
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


# -------------------------------------------------------------------------------------------------------- page cards
class Late(nodes.inline):
    """Text that is known only when all pages have been read: what running this page took, how long it reads."""


class PageCard(BookDirective):
    """The header of a page: paper, difficulty, times, data, freshness, and the notebook itself."""

    def build(self, body: Any) -> list[nodes.Node]:
        is_notebook = Path(self.env.doc2path(self.env.docname)).suffix == ".ipynb"
        pairs: list[tuple[str, list[nodes.Node]]] = []
        for key, term in (("paper", "Paper"), ("difficulty", "Difficulty"), ("before", "Before you start")):
            if key in body:
                pairs.append((term, self.inline(body[key])))
        pairs.append(("Reading", [Late("", what="reading")]))
        if is_notebook:
            pairs.append(("Running", [Late("", what="running")]))
        for key, term in (("data", "Data"), ("license", "License")):
            if key in body:
                pairs.append((term, self.inline(body[key])))
        if named := body.get("records"):
            state = [self.recorded(name) for name in ([named] if isinstance(named, str) else named)]
            made = [record for side in state if side for record in side]
            fresh: list[nodes.Node] = [badge("stale" if any(map(stale, made)) else "fresh" if made else "not run")]
            if missing := sum(side is None for side in state):
                fresh.append(nodes.Text(f" {missing} of {len(state)} experiments not run"))
            if made:
                fresh.append(nodes.Text(" newest run " + max(str(r.provenance.get("started", "")) for r in made)[:10]))
            pairs.append(("Records", fresh))
        if is_notebook:
            pairs.append(("Notebook", [Late("", what="notebook")]))
        return [nodes.container("", self.facts(pairs), classes=["al-card"])]


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return "not measured"
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def execution(app: Sphinx, docname: str) -> dict[str, Any]:
    """Returns the cost of a notebook's cached run: ``execution_seconds`` and, where measured, ``peak_memory_mb``."""
    import nbformat
    from jupyter_cache import get_cache

    try:
        cache = get_cache(app.config.nb_execution_cache_path or str(Path(app.outdir).parent / ".jupyter_cache"))
        notebook = nbformat.read(app.env.doc2path(docname), as_version=4)
        return dict(cache.match_cache_notebook(notebook).data)
    except (KeyError, OSError):
        return {}


def fill_late(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replaces the placeholders of a page card."""
    for node in list(doctree.findall(Late)):
        what: list[nodes.Node]
        if node["what"] == "reading":
            words = sum(len(t.astext().split()) for t in doctree.findall(nodes.Text))
            what = [nodes.Text(f"{max(1, round(words / WORDS_A_MINUTE))} minutes")]
        elif node["what"] == "running":
            took = execution(app, docname)
            memory = f", {took['peak_memory_mb'] / 1000:.1f} GB of memory" if took.get("peak_memory_mb") else ""
            size = os.environ.get("ANATOLAB_SIZE", "tiny")
            what = [
                nodes.Text(
                    f"{duration(took.get('execution_seconds'))}{memory}, at size {size}, measured on this build's CPU"
                )
            ]
        else:
            up = "../" * docname.count("/")
            what = [nodes.reference("", "download", refuri=f"{up}_sources/{docname}.ipynb", internal=True)]
            if colab := colab_of(app, docname):
                what += [nodes.Text(" · "), nodes.reference("", "open in Colab", refuri=colab)]
        node.replace_self(what)


def colab_of(app: Sphinx, docname: str) -> str:
    """Returns the Colab address of a notebook; empty if the repository is not on GitHub."""
    url, branch = (app.config.html_theme_options.get(k) or "" for k in ("repository_url", "repository_branch"))
    if not url.startswith("https://github.com/"):
        return ""
    return (
        url.replace("https://github.com/", "https://colab.research.google.com/github/")
        + f"/blob/{branch}/{docname}.ipynb"
    )


# ------------------------------------------------------------------------------------------------- pages and records
def outdated(app: Sphinx, env: Any, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Pages that print a record which is not what it was when they were read."""
    uses = env.__dict__.setdefault("anatolab_uses", {})
    return [
        doc for doc, used in uses.items() if doc in env.found_docs and any(fingerprint(e) != f for e, f in used.items())
    ]


def forget(app: Sphinx, env: Any, docname: str) -> None:
    """Drops what a page used, before it is read again."""
    env.__dict__.setdefault("anatolab_uses", {}).pop(docname, None)


def merge(app: Sphinx, env: Any, docnames: set[str], other: Any) -> None:
    """Collects what was noted in a parallel reader."""
    env.__dict__.setdefault("anatolab_uses", {}).update(getattr(other, "anatolab_uses", {}))


def tidy(app: Sphinx, error: Exception | None) -> None:
    """Takes out of every page what needs a server or the network, and mends what a screen reader stumbles over."""
    if error or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        mended = NEEDLESS.sub("", text)
        for pattern, instead in SPOKEN:
            mended = re.sub(pattern, instead, mended)
        if mended != text:
            path.write_text(mended, encoding="utf-8")


def write_records(app: Sphinx, error: Exception | None) -> None:
    """Puts the records that pages use beside the pages, one file an experiment."""
    if error or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "records"
    folder.mkdir(exist_ok=True)
    used = {e for uses in getattr(app.env, "anatolab_uses", {}).values() for e in uses}
    for experiment in sorted(e for e in used if records.exists(e)):
        stored = [
            json.loads(records.path_of(experiment, r.seed).read_text(encoding="utf-8"))
            for r in records.load(experiment)
        ]
        (folder / f"{experiment}.json").write_text(json.dumps(stored, indent=1), encoding="utf-8")


# ---------------------------------------------------------------------------------------------------- configuration
NEEDLESS = re.compile(
    r'<link rel="preload" as="font"[^>]*>\s*|<script>const THEBE_JS_URL.*?</script>\s*'
    r'|<script[^>]*sphinx-thebe\.js[^>]*></script>\s*|<script type="text/x-thebe-config">.*?</script>\s*'
    r"|<script>kernelName = .*?</script>\s*|<link[^>]*sphinx-thebe\.css[^>]*>\s*",
    re.DOTALL,
)
SPOKEN = (  # the theme's markup, mended for axe: label-content-name-mismatch, summary-name, aria-required-children
    (r'(<button class="btn search-button-field[^>]*?)\s+(?:title|aria-label)="Search"', r"\1"),
    (r'(<button class="btn search-button-field[^>]*?)\s+(?:title|aria-label)="Search"', r"\1"),
    (r'<summary>(?=<span class="toctree-toggle")', '<summary aria-label="Show or hide the pages below">'),
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    (r'<div role="list" class="citation-list">', '<div class="citation-list">'),
)
LOOK = {
    "search_bar_text": "Search the book",
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def configure(app: Sphinx, config: Any) -> None:
    """Derives everything that needs an address from one setting, and leaves it all out where that is empty."""
    if config.html_theme != "sphinx_book_theme":
        return
    options = config.html_theme_options
    url = os.environ.get("ANATOLAB_REPOSITORY") or options.get("repository_url") or ""
    options.update(LOOK, repository_url=url, launch_buttons={})
    options.update(use_repository_button=bool(url), use_issues_button=bool(url))
    if url.startswith("https://github.com/"):
        options["launch_buttons"] = {"colab_url": "https://colab.research.google.com"}
    config.html_context.setdefault("default_mode", "auto")
    if site := site_of(app):
        config.html_baseurl = config.ogp_site_url = site
        config.ogp_social_cards = {"enable": False}


def site_of(app: Sphinx) -> str:
    """Returns the address of the published book, or an empty string."""
    return os.environ.get("ANATOLAB_SITE") or app.config.overrides.get("html_baseurl") or ""


# --------------------------------------------------------------------------------------------------------- API pages
SHARED = {  # private modules whose settings or types are part of public signatures
    "anatolab.methods._config",
    "anatolab.methods._mining",
    "anatolab.methods._pretrain",
    "anatolab.methods._teacher_student",
    "anatolab.robust._fit",
}
MECHANICS = {"get_extra_state", "set_extra_state", "state_dict", "load_state_dict"}


def escape_shapes(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Lets docstrings write a shape as (b, c, \\*s) without a backslash."""
    for i, line in enumerate(lines):
        parts = line.split("``")
        parts[::2] = [re.sub(r"(?<![\\*\w])\*(?=s\b)", r"\\*", part) for part in parts[::2]]
        lines[i] = "``".join(parts)


def qualify(app: Sphinx, doctree: nodes.document) -> None:
    """Names a nested class in the signature of its owner in full: several methods have a ``Config``."""
    known = {name for name, *_ in app.env.get_domain("py").get_objects()}
    for signature in doctree.findall(addnodes.desc_signature):
        owner = next(iter(signature.get("ids", [])), "")
        for reference in signature.findall(addnodes.pending_xref):
            if (full := f"{owner}.{reference.get('reftarget')}") in known:
                reference["reftarget"] = full


def skip_mechanics(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out how a module hands its state to torch, which torch documents; shows what public settings contain."""
    if name in SHARED:
        return False
    return True if name.rpartition(".")[2] in MECHANICS else None


def reexported(app: Sphinx, env: Any, node: Any, contnode: nodes.Node) -> nodes.Node | None:
    """Finds a name of ours by its last part: re-exported (anatolab.data.Rows), or a type alias of the module."""
    target = node.get("reftarget", "")
    module = node.get("py:module") or ""
    if node.get("refdomain") != "py":
        return None
    if "." in target and not target.startswith("anatolab."):  # a type that autoapi names from the package it is in
        target = f"{module}.{target}"
    package = target.rpartition(".")[0] or module
    objects = env.get_domain("py").objects
    last = target.rpartition(".")[2]
    scopes = [package] if target.startswith("anatolab.") else [module]
    if "." not in target and node.get("reftype") in ("class", "obj"):  # an annotation, whose module autoapi lost
        scopes.append("anatolab")
    for scope in scopes:
        names = [n for n in objects if n.startswith(scope + ".") and n.rpartition(".")[2] == last]
        if scope and len(names) == 1:
            entry = objects[names[0]]
            uri = app.builder.get_relative_uri(node["refdoc"], entry.docname) + "#" + entry.node_id
            return nodes.reference("", "", contnode, refuri=uri, internal=True, reftitle=names[0])
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the role, the directives and the hooks."""
    os.environ["ANATOLAB_BOOK"] = "1"  # kernels started by this build draw figures for the book
    app.add_node(Late, html=(lambda self, node: None, lambda self, node: None))
    app.add_role("num", Num())
    app.add_directive("record-table", RecordTable)
    app.add_directive("record-index", RecordIndex)
    app.add_directive("page-card", PageCard)
    app.setup_extension("anatolab_results")
    if site_of(app):
        app.setup_extension("sphinxext.opengraph")
    app.add_css_file("anatolab.css")
    app.add_js_file("anatolab-figures.js", loading_method="defer")
    app.connect("config-inited", configure, priority=100)
    app.connect("env-get-outdated", outdated)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("doctree-read", qualify)
    app.connect("missing-reference", reexported)
    app.connect("doctree-resolved", fill_late)
    app.connect("build-finished", write_records)
    app.connect("build-finished", tidy)
    for event, handler in (("autoapi-skip-member", skip_mechanics), ("autodoc-process-docstring", escape_shapes)):
        if event in app.events.events:
            app.connect(event, handler)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
