"""The card at the top of a page, ``{page-card}``: paper, costs, data, freshness of its records, downloads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from anatolab_numbers import BookDirective, badge, duration, stale
from docutils import nodes
from sphinx.application import Sphinx

WORDS_A_MINUTE = 180


class Late(nodes.inline):
    """A placeholder for text that is known when all pages have been read: reading time, cost, downloads."""


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


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directive, and fills its placeholders when all pages have been read."""
    app.add_node(Late, html=(lambda self, node: None, lambda self, node: None))
    app.add_directive("page-card", PageCard)
    app.connect("doctree-resolved", fill_late)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
