"""The style of the bibliography: every entry ends with its DOI, arXiv, PubMed Central and code, as links."""

from __future__ import annotations

from typing import Any

from pybtex.plugin import register_plugin
from pybtex.style.formatting.alpha import Style as Alpha
from pybtex.style.template import field, href, join, optional, sentence
from sphinx.application import Sphinx


class Style(Alpha):
    """BibTeX's alpha, with links that say where they lead."""

    def format_web_refs(self, e: Any) -> Any:
        """Returns the links of an entry, those that it has."""
        pmc = href(join["https://pmc.ncbi.nlm.nih.gov/articles/", field("pmcid", raw=True)])[field("pmcid", raw=True)]
        return sentence[
            optional[self.format_doi(e)],
            optional[self.format_eprint(e)],
            optional[pmc],
            optional[href(field("url", raw=True))["full text"]],
            optional[href(field("code", raw=True))["code"]],
        ]


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the style under the name that the configuration uses."""
    register_plugin("pybtex.style.formatting", "anatolab", Style)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
