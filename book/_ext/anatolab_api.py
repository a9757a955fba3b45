"""API pages: which members they show, and how names in docstrings and signatures are resolved."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

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
    """Writes a nested class in its owner's signature with its full name, because several methods have a ``Config``."""
    known = {name for name, *_ in app.env.get_domain("py").get_objects()}
    for signature in doctree.findall(addnodes.desc_signature):
        owner = next(iter(signature.get("ids", [])), "")
        for reference in signature.findall(addnodes.pending_xref):
            if (full := f"{owner}.{reference.get('reftarget')}") in known:
                reference["reftarget"] = full


def skip_mechanics(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out members for torch's state, which torch documents; shows private modules with public settings."""
    if name in SHARED:
        return False
    return True if name.rpartition(".")[2] in MECHANICS else None


def ending_in(app: Sphinx, last: str) -> list[str]:
    """Returns the documented names with this last part; the index is made anew when names have been added."""
    domain: Any = app.env.get_domain("py")
    objects = domain.objects
    kept: tuple[int, dict[str, list[str]]] = getattr(app, "anatolab_names", (-1, {}))
    if kept[0] != len(objects):
        kept = (len(objects), {})
        for name in objects:
            kept[1].setdefault(name.rpartition(".")[2], []).append(name)
        app.anatolab_names = kept  # type: ignore[attr-defined]
    return kept[1].get(last, [])


def reexported(app: Sphinx, env: Any, node: Any, contnode: nodes.Node) -> nodes.Node | None:
    """Resolves a name by its last part: a re-export (anatolab.data.Rows), or a type alias of the module."""
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
        names = [n for n in ending_in(app, last) if n.startswith(scope + ".")]
        if scope and len(names) == 1:
            entry = objects[names[0]]
            uri = app.builder.get_relative_uri(node["refdoc"], entry.docname) + "#" + entry.node_id
            return nodes.reference("", "", contnode, refuri=uri, internal=True, reftitle=names[0])
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connects the resolvers, and the hooks of autoapi and autodoc where these are loaded."""
    app.connect("doctree-read", qualify)
    app.connect("missing-reference", reexported)
    for event, handler in (("autoapi-skip-member", skip_mechanics), ("autodoc-process-docstring", escape_shapes)):
        if event in app.events.events:
            app.connect(event, handler)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
