"""What Sphinx and its extensions compute anew for every page although it is the same: kept, with equal output.

A quarter of a build was the sidebar. Sphinx copies the headings of all pages into the sidebar of every page, only to
drop all but the titles.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any
from unittest.mock import patch

import pybtex.plugin
from docutils import nodes
from sphinx.application import Sphinx

NO_PAGE = "a page that no table of contents names"


def links_of(tree: nodes.Element) -> list[tuple[nodes.reference, str]]:
    """Returns the links to pages in a sidebar that was made for :data:`NO_PAGE`, each with the page that it names."""
    links = [ref for ref in tree.findall(nodes.reference) if ref["internal"]]
    return [(ref, ref["refuri"].removesuffix(ref["anchorname"])) for ref in links]


def current(page: str, links: list[tuple[nodes.reference, str]], above: dict[str, str]) -> Iterator[nodes.Element]:
    """Yields what carries the class ``current``: the links to a page, and everything around them in the sidebar.

    For a page that lies deeper than the sidebar goes, it is what is around the page above, without the link itself.
    """
    listed, start = {name for _, name in links}, page
    while start not in listed and start in above:
        start = above[start]
    for link, name in links:
        node: Any = link if start == page else link.parent.parent
        while name == start and node.parent is not None:
            yield node
            node = node.parent


def quick_sidebars(app: Sphinx) -> None:
    """Lets the builder make the sidebar once, and adapt it to each page.

    With no branch collapsed, a sidebar depends on its page only by where its links start from and by which are current.
    """
    builder: Any = app.builder
    if not hasattr(builder, "_get_local_toctree"):
        return
    whole = builder._get_local_toctree

    @cache
    def once(arguments: tuple[tuple[str, Any], ...]) -> tuple[nodes.Element, list[tuple[nodes.reference, str]]] | None:
        trees: list[nodes.Element | None] = []

        def keep(tree: nodes.Element | None) -> dict[str, str]:
            trees.append(tree)
            return {"fragment": ""}

        with (
            patch.object(builder, "get_relative_uri", lambda _page, target: target),
            patch.object(builder, "render_partial", keep),
        ):
            whole(NO_PAGE, collapse=False, **dict(arguments))
        return (trees[0], links_of(trees[0])) if trees[0] is not None else None

    def sidebar(docname: str, collapse: bool = True, **options: Any) -> str:
        made = None if collapse else once(tuple(sorted(options.items())))
        if made is None:
            return whole(docname, collapse=collapse, **options)
        tree, links = made
        for link, page in links:
            link["refuri"] = builder.get_relative_uri(docname, page) + link["anchorname"]
        above = {child: page for page, children in app.env.toctree_includes.items() for child in children}
        here = list(current(docname, links, above))
        for node in here:
            node["classes"].append("current")
        try:
            return builder.render_partial(tree)["fragment"]
        finally:
            for node in here:
                node["classes"].remove("current")

    builder._get_local_toctree = sidebar


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the sidebars, and looks up a plugin of pybtex once, not for each citation."""
    app.connect("builder-inited", quick_sidebars)
    pybtex.plugin.entry_points = cache(pybtex.plugin.entry_points)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
