"""Every entry of the bibliography leads somewhere, and no two citations look alike."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from pybtex.database import Entry, parse_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
ENTRIES = parse_file(str(ROOT / "book" / "references.bib")).entries
FORMS = {
    "doi": r"10\.\d{4,5}/\S+",
    "eprint": r"\d{4}\.\d{4,5}|math/\d{7}",
    "pmcid": r"PMC\d+",
    "url": r"https://\S+",
    "code": r"https://github\.com/[\w.-]+/[\w.-]+",
}


def label(entry: Entry) -> str:
    """How a citation names an entry."""
    names = [" ".join(person.last_names) for person in entry.persons["author"]]
    who = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
    return f"{who}, {entry.fields['year']}"


@pytest.mark.parametrize("key", ENTRIES)
def test_an_entry_has_a_doi_or_a_full_text_and_links_of_the_right_form(key: str) -> None:
    fields = ENTRIES[key].fields
    assert {"doi", "url", "code"} & set(fields), "no DOI, no full text, no code"
    for name, form in FORMS.items():
        if name in fields:
            assert re.fullmatch(form, fields[name]), (name, fields[name])
    if "eprint" in fields and fields.get("doi", "").startswith("10.48550"):
        assert fields["doi"].endswith(fields["eprint"])
    assert "arXiv" not in fields.get("note", "")


def test_no_two_citations_look_alike() -> None:
    labels = [label(entry) for entry in ENTRIES.values()]
    assert sorted({name for name in labels if labels.count(name) > 1}) == []


def test_the_style_prints_each_link_once() -> None:
    from anatolab_bibliography import Style
    from pybtex.backends.html import Backend

    (formatted,) = Style().format_entries([ENTRIES["you2023actionpp"]])
    html = formatted.text.render(Backend())
    assert html.count("https://doi.org/10.1007/978-3-031-43901-8_19") == 1
    assert html.count("https://arxiv.org/abs/2304.02689") == 1
    assert html.count("https://pmc.ncbi.nlm.nih.gov/articles/PMC11136572") == 1
    (formatted,) = Style().format_entries([ENTRIES["liu2022reco"]])
    assert 'href="https://github.com/lorenmt/reco">code</a>' in formatted.text.render(Backend())
