"""What a package says of where it comes from: its addresses, and the commit that it was built at.

The addresses come from the setting that also serves the book, ``repository.url`` in _config.yml. The environment
variables ``ANATOLAB_REPOSITORY`` and ``ANATOLAB_SITE`` override it, as they do for the book. Without an address the
package names none.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
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


def commit(root: Path) -> dict[str, Any] | None:
    """Returns commit and state of a checkout, as ``anatolab.records.git_state`` does; None where there is none."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, encoding="utf-8", check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", "pyproject.toml")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "anatolab"))}
    except (OSError, subprocess.SubprocessError):
        return None


class Commit(BuildHookInterface):
    """Writes the commit into the package; a wheel that is built from an sdist takes over what that holds."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the file, but not to an editable installation, whose checkout knows better."""
        state = commit(Path(self.root))
        if version != "editable" and state is not None:
            self.folder = tempfile.TemporaryDirectory()
            path = Path(self.folder.name) / "commit.json"
            path.write_text(json.dumps(state), encoding="utf-8")
            build_data["force_include"][str(path)] = "anatolab/commit.json"
