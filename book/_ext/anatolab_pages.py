"""What pages get without asking: the picture of the cell tagged ``hero`` first, glossary links, text for the search."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

EXCERPT = 30_000  # letters a page that the search can quote
PLAIN = {  # terms that are also everyday words, so that their first use need not be the term: {term} links them by hand
    "assignment", "attribute", "bank", "cell", "cohort", "group", "key", "method", "query", "step", "view", "volume",
}  # fmt: skip


def outputs_of(cell: nodes.Element) -> nodes.Element | None:
    """Returns the container of a code cell's outputs."""
    return next((n for n in cell.children if "cell_output" in n.get("classes", [])), None)


def picture_first(app: Sphinx, doctree: nodes.document) -> None:
    """Moves what the cell tagged ``hero`` draws behind title and question; its code stays, with a link to the picture.

    The picture may need all the code of the page: in a notebook it stands where it is made, in the book where it is
    looked for.
    """
    heroes = [n for n in doctree.findall(nodes.container) if "tag_hero" in n["classes"]]
    section = next(doctree.findall(nodes.section), None)
    if any(isinstance(n, nodes.container) and outputs_of(n) is not None for n in section or ()):
        return  # the notebook itself opens with what a cell shows
    for cell in heroes[:1]:
        shown = outputs_of(cell)
        question = next((i for i, n in enumerate(section or ()) if isinstance(n, nodes.paragraph)), None)
        if shown is None or not shown.children or section is None or question is None:
            continue
        picture = shown.children[-1]
        shown.remove(picture)
        if not shown.children:
            cell.remove(shown)
        frame = nodes.container("", picture, classes=[*shown["classes"]], **nb_element(shown))
        section.insert(question + 1, nodes.container("", frame, classes=["cell", "al-hero"], ids=["hero"]))
        link = nodes.reference("", "The picture that this cell draws", refid="hero", internal=True)
        words = nodes.paragraph("", "", link, nodes.Text(" opens the page."), classes=["al-moved"])
        cell.parent.insert(cell.parent.index(cell) + 1, words)


def nb_element(node: nodes.Element) -> dict[str, Any]:
    """Returns the mark by which myst-nb knows a container of outputs."""
    return {"nb_element": node["nb_element"]} if "nb_element" in node else {}


def terms(app: Sphinx) -> list[str]:
    """Returns the terms of the glossary that pages link by themselves, the longest first."""
    path = Path(app.srcdir) / "book" / "glossary.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    block = re.search(r"^```\{glossary\}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    listed = re.findall(r"^(?! )(\S.*?)\s*$", block[1], re.MULTILINE) if block else []
    return sorted((t for t in listed if t not in PLAIN and not t.startswith(":")), key=len, reverse=True)


def link_terms(app: Sphinx, doctree: nodes.document) -> None:
    """Links the first use of each term of the glossary in the paragraphs of a page."""
    docname = app.env.docname
    if docname == "book/glossary" or docname.startswith("book/autoapi"):
        return
    linked = {x["reftarget"].lower() for x in doctree.findall(addnodes.pending_xref) if x.get("reftype") == "term"}
    left = [term for term in terms(app) if term.lower() not in linked]
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.entry | nodes.term | nodes.definition):
            continue
        for text in [n for n in paragraph.children if isinstance(n, nodes.Text)]:
            for term in left:
                match = re.search(rf"(?<![\w-]){re.escape(term)}s?(?![\w-])", str(text), re.IGNORECASE)
                if not match:
                    continue
                whole, place = str(text), paragraph.index(text)
                options = {"refdoc": docname, "refdomain": "std", "reftype": "term", "refexplicit": True}
                shown = nodes.inline("", match[0], classes=["xref", "std", "std-term"])
                link = addnodes.pending_xref("", shown, reftarget=term, refwarn=True, **options)
                rest = nodes.Text(whole[match.end() :])
                paragraph[place : place + 1] = [nodes.Text(whole[: match.start()]), link, rest]
                left.remove(term)
                break  # at most one new link in a piece of text


def write_excerpts(app: Sphinx, error: Exception | None) -> None:
    """Writes the running text of all pages but the API's, from which the search quotes without a request."""
    if error or app.builder.format != "html":
        return
    texts = {}
    for name in sorted(app.env.found_docs):
        if not name.startswith("book/autoapi"):
            paragraphs = (node.astext() for node in app.env.get_doctree(name).findall(nodes.paragraph))
            texts[name] = " ".join(" ".join(paragraphs).split())[:EXCERPT]
    path = Path(app.outdir) / "_static" / "anatolab-excerpts.js"
    path.write_text(f"window.anatolabExcerpts = {json.dumps(texts, ensure_ascii=False)};", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the hooks."""
    app.connect("doctree-read", picture_first)
    app.connect("doctree-read", link_terms)
    app.connect("build-finished", write_excerpts)
    app.add_js_file("anatolab-search.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
