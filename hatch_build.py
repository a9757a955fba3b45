"""The addresses of the package: from the setting that also serves the book, ``repository.url`` in _config.yml.

The environment variables ``ANATOLAB_REPOSITORY`` and ``ANATOLAB_SITE`` override it, as they do for the book. Without an
address the package names none.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


def urls(config: str) -> dict[str, str]:
    """Returns the addresses by label, given the text of _config.yml; empty where no repository is set."""
    setting = re.search(r"^repository:\n(?: .*\n)*? +url: *[\"']?([^\"'\s]*)", config, re.MULTILINE)
    repository = (os.environ.get("ANATOLAB_REPOSITORY") or (setting[1] if setting else "")).rstrip("/")
    site = os.environ.get("ANATOLAB_SITE") or re.findall(r"^ +baseurl: *[\"']?([^\"'\s]*)", config, re.MULTILINE)[0]
    named = {"Documentation": site}
    if repository:
        named |= {"Repository": repository, "Issues": f"{repository}/issues", "Releases": f"{repository}/releases"}
    return {label: address for label, address in named.items() if address}


class Urls(MetadataHookInterface):
    """Fills ``project.urls`` while the package is built."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Sets the addresses."""
        metadata["urls"] = urls((Path(self.root) / "_config.yml").read_text(encoding="utf-8"))
