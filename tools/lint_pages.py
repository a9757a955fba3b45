"""Checks pages: `lint_pages.py [FILE ...]` lists what a page of the book lacks for its kind.

Every page has a `kind`, method, theory or prose (front matter in MyST, metadata in a notebook). The rules are those of
book/page-template.md, as far as they can be checked automatically.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("method", "theory", "prose")
SECTIONS = {  # headings that a page of this kind has, in this order, by how they begin
    "method": (
        "You will learn",
        "Before you start",
        "Setup",
        "The idea in one figure",
        "The method",
        "Run it live",
        "Look inside",
        "Recorded runs",
        "Paper claim against what we measured",
        "What goes wrong",
        "Exercises",
        "Summary",
        "Next",
    ),
    "theory": ("You will learn", "Before you start", "Setup", "What goes wrong", "Exercises", "Summary", "Next"),
    "prose": (),
}
EXERCISES = range(3, 6)
BLIND = re.compile(r"!\[\s*\]\(|^[`:]{3,}\{(?:image|figure)\}[^\n]*\n(?!(?::[\w-]+:[^\n]*\n)*:alt: \S)", re.MULTILINE)
PLACES = re.compile(r"(?<![\w.:/])/(?:home|root|work|tmp|Users|mnt|opt|usr/(?:local|lib))/[\w.]")
METRIC = r"(?:Dice|Jaccard|HD95|ASSD|NSD|accuracy|overhead|speed-?up)"
TYPED = re.compile(
    rf"\b{METRIC}\b[^.|\n]{{0,40}}?(?<![\w{{`$.])(?:0?\.\d{{2,}}|\d+\.\d+ ?(?:%|mm|voxels|x\b))", re.IGNORECASE
)


@dataclass(frozen=True)
class Page:
    """A page as the rules see it."""

    name: str
    kind: str | None
    prose: str  # all MyST text, without front matter
    code: tuple[str, ...] = ()  # cells
    outputs: str = ""


def read(path: Path) -> Page:
    """Reads a MyST page or a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        raw = json.loads(text)
        by_type: dict[str, list[str]] = {"markdown": [], "code": [], "raw": []}
        for cell in raw["cells"]:
            by_type[cell["cell_type"]].append("".join(cell["source"]))
        outputs = json.dumps([cell.get("outputs") for cell in raw["cells"]])
        prose = "\n\n".join(by_type["markdown"])
        return Page(path.name, raw["metadata"].get("kind"), prose, tuple(by_type["code"]), outputs)
    front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    meta = (yaml.safe_load(front[1]) or {}) if front else {}
    return Page(path.name, meta.get("kind"), text[front.end() if front else 0 :])


def without_literals(prose: str) -> str:
    """Returns prose without fenced blocks, inline literals, roles, formulas and quoted tables of a paper."""
    prose = re.sub(
        r"^(`{3,}|:{3,})\{?(?:code|claim|page-card|record|bibl|literal|math).*?^\1\s*$", "", prose, flags=re.M | re.S
    )
    prose = re.sub(r"^(`{3,})(\{?).*?^\1[ \t]*$", lambda m: m[0] if m[2] else "", prose, flags=re.M | re.S)
    return re.sub(r"\{[\w:-]+\}`[^`]*`|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", "", prose, flags=re.S)


def headings(prose: str) -> list[str]:
    """Returns the headings of a page, without marks."""
    return [re.sub(r"[*`]", "", h).strip() for h in re.findall(r"^#{1,4} +(.+?)\s*$", prose, re.M)]


def calls_without_alt(source: str) -> Iterator[str]:
    """Yields calls of show and explorer without alternative text."""
    try:
        tree = ast.parse("\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))))
    except SyntaxError as error:
        yield f"a code cell does not parse: {error}"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("show", "explorer") and "alt" not in {k.arg for k in node.keywords} and node.args:
                yield f"{name}(...) on line {node.lineno} of its cell has no alt="


def problems(page: Page) -> list[str]:
    """Lists the problems of a page, a sentence each."""
    messages: list[str] = []
    if page.kind not in KINDS:
        return [f"{page.name}: kind is {page.kind!r}, not one of {', '.join(KINDS)}"]
    titles = headings(without_literals(page.prose))
    if not re.match(r"\s*(?:\([\w-]+\)=\s*)?(?:# |```\{include\})", page.prose):
        messages.append("does not begin with its title")
    last = -1
    for wanted in SECTIONS[page.kind]:
        place = next((i for i, t in enumerate(titles) if t.lower().startswith(wanted.lower())), None)
        if place is None:
            messages.append(f"has no section {wanted!r}, which a {page.kind} page needs")
        elif place < last:
            messages.append(f"has section {wanted!r} in another place than the template")
        else:
            last = place
    if page.kind != "prose":
        if "{page-card}" not in page.prose:
            messages.append("has no {page-card}")
        count = len(re.findall(r"^[`:]{3,}\{exercise(?:-start)?\}", page.prose, re.M))
        solved = len(re.findall(r"^[`:]{3,}\{solution(?:-start)?\}", page.prose, re.M))
        if count not in EXERCISES:
            messages.append(f"has {count} exercises, not {EXERCISES.start} to {EXERCISES.stop - 1}")
        if (hints := len(re.findall(r"^[`:]{3,}\{hint\}", page.prose, re.M))) < count:
            messages.append(f"has {count} exercises and {hints} hints")
        missing = [kind for kind in ("change the code", "open question") if kind not in page.prose.lower()]
        messages += [f"has no exercise of the kind {kind!r}" for kind in missing]
        if solved < count:
            messages.append(f"has {count} exercises and {solved} solutions")
    if page.kind == "method" and "{claim}" not in page.prose:
        messages.append("has no {claim} box")
    messages += [f"has an image without alternative text: {m[0].strip()!r}" for m in BLIND.finditer(page.prose)]
    for cell in page.code:
        messages += calls_without_alt(cell)
    messages += [
        f"has a role in a table whose bar splits the cell: {m[0][:60]!r}; write \\| for the bar"
        for m in re.finditer(r"(?<=^\|)[^\n]*?\{[\w:-]+\}`[^`\n|]*(?<!\\)\|[^`\n]*`", page.prose, re.MULTILINE)
    ]
    messages += [
        f"types a measured number: {m[0]!r}; print it with {{num}}"
        for m in TYPED.finditer(without_literals(page.prose))
    ]
    for where, text in (("text", page.prose), ("code", "\n".join(page.code)), ("an output", page.outputs)):
        if match := PLACES.search(text):
            messages.append(f"has a path of one machine in its {where}: {match[0]!r}")
    return [f"{page.name}: {problem}" for problem in messages]


def pages(root: Path = ROOT) -> list[Path]:
    """Returns the pages that the table of contents names."""
    toc = root / "_toc.yml"
    names = re.findall(r"(?:root|file): *([\w./-]+)", toc.read_text(encoding="utf-8"))
    chosen = []
    for name in names:
        paths = [root / f"{name}{suffix}" for suffix in (".ipynb", ".md") if (root / f"{name}{suffix}").exists()]
        if not paths:
            raise FileNotFoundError(f"_toc.yml names {name}, which is neither a notebook nor a MyST page")
        chosen += paths[:1]
    return chosen


def main(arguments: list[str]) -> int:
    """Lints the pages named, or all of them; the exit status."""
    chosen = [Path(a) for a in arguments] or pages()
    messages = [problem for path in chosen for problem in problems(read(path))]
    print("\n".join([*messages, f"{len(chosen)} pages, {len(messages)} problems"]))
    return bool(messages)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
