"""What every page gets without asking: its picture first, where a cell carries the tag ``hero``."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


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


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the hooks."""
    app.connect("doctree-read", picture_first)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
