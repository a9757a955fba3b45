"""How a page reads: `lint_reading.py [FILE ...]`. Columns, folded cells, length, words and sentences."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from lint_pages import pages, read, without_literals
from tidy_notebooks import COLUMNS, FOLDED, to_fold

WORDS = 2500  # a page
LINES = 240  # of code that is not folded: about a third of the height of a page
SENTENCE = 35  # words
REFERENCE = {  # pages to look things up in, which nobody reads through: reason
    "api": "a table of the library",
    "bibliography": "a list of papers",
    "changelog": "a list of releases",
    "contributing": "the rules of the repository",
    "glossary": "a list of terms",
    "solutions": "made from the chapters",
    "records-page": "a table of runs",
}
HABITS = {  # what the style guide of the book refuses: what to write instead
    r"\bthe teacher's class(?:es)?\b": "pseudo-label",
    r"\b(?:is|are) (?-i:none)\b": "name what was given and what is expected",
    r"\b(?:is|are) due\b(?! to)": "name what is missing",
    r"\brecalled\b": "from memory, unverified",
    r"\b(?:loss|Dice|entropy|network|gradient) hears?\b": "say what depends on what",
    r"\b(?:is|are) told by\b": "is measured by",
    r"\bmoved (?:image|slice)\b": "transformed image",
    r"\bneeds the brake\b": "needs early stopping",
    r"\bin whose\b": "one idea a sentence",
    r"\bwhoever\b": "the field's term",
    r"\bthis is (?:very )?(?:easy|simple|obvious)\b": "leave it out",
}


DROPDOWN = r"^([`:]{3,})\{\w+\}[^\n]*\n(?::[\w-]+:[^\n]*\n)*?:class: dropdown.*?^\1[ \t]*$"


def text_of(path: Path, *, folded: bool = True) -> str:
    """Returns the running text of a page: no fences, options, tables, formulas or literals; with what is folded."""
    prose = read(path).prose
    text = without_literals(prose if folded else re.sub(DROPDOWN, "", prose, flags=re.MULTILINE | re.DOTALL))
    text = re.sub(r"^[`:]{3,}.*$|^:[\w-]+:.*$|^<.*$|^\|.*$|^\([\w-]+\)=$", "", text, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)


def sentences(text: str) -> list[str]:
    """Splits running text into sentences; headings, list items, paragraphs and a raised dot end one."""
    return [s.strip() for s in re.split(r"(?<=[.!?:])\s+|\n\s*\n|\n(?=\s*[-*#]|\d+\. )| · ", text) if s.strip()]


def broken(path: Path) -> dict[str, list[str]]:
    """Returns the rules that a page breaks, each with its cases."""
    cases: dict[str, list[str]] = {}
    text = text_of(path)
    fences = re.findall(r"^```(?:python|bash|yaml|json)\n(.*?)^```", read(path).prose, re.MULTILINE | re.DOTALL)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.suffix == ".ipynb" else []
    code = [c for c in cells if c["cell_type"] == "code"]
    lines = [line for source in (*fences, *("".join(c["source"]) for c in code)) for line in source.splitlines()]
    cases["columns"] = [line.strip()[:60] for line in lines if len(line) > COLUMNS]
    folded = [c for c in to_fold(cells) if not FOLDED & set(c["metadata"].get("tags", []))]
    cases["unfolded"] = ["".join(c["source"])[:60] for c in folded]
    open_code = [c for c in code if not FOLDED & set(c["metadata"].get("tags", []))]
    count = sum(len("".join(c["source"]).splitlines()) for c in open_code)
    cases["code"] = [f"{count} open lines"] * max(0, -(-(count - LINES) // 20))  # scores of lines too many
    if path.stem not in REFERENCE:
        count = len(text_of(path, folded=False).split())
        cases["length"] = [f"{count} words"] * max(0, -(-(count - WORDS) // 100))  # hundreds of words too many
        cases["sentences"] = [s[:80] for s in sentences(text) if len(s.split()) > SENTENCE]
        cases["semicolons"] = [s[:80] for s in sentences(text) if s.count(";") > 1]
        cases["habits"] = [
            f"{m[0]!r}: {instead}" for habit, instead in HABITS.items() for m in re.finditer(habit, text, re.IGNORECASE)
        ]
    return {rule: each for rule, each in cases.items() if each}


def main(arguments: list[str]) -> int:
    """Lints the pages named, or all of them; the exit status."""
    chosen = [Path(a) for a in arguments] or pages()
    messages = [
        f"{path.name}: {rule}: {len(cases)}: {cases}" for path in chosen for rule, cases in broken(path).items()
    ]
    print("\n".join([*messages, f"{len(chosen)} pages, {len(messages)} problems"]))
    return bool(messages)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
