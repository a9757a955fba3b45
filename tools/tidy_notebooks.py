"""Tidies the code of notebooks for readers: `tidy_notebooks.py [FILE ...]`; without names, all notebooks of the book.

Folds imports, cells that draw (they end in `viz.show` or `viz.explorer`) and the checks of exercises, splits string
literals that do not fit a line of 88 columns, and formats with ruff at that width (notebooks/ruff.toml). No statement
changes: a cell whose syntax tree would differ is an error. `lint_pages.py` checks what this makes.
"""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import textwrap
import tokenize
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 88
FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
MAGIC = ("%", "!")


def without_magics(source: str) -> str:
    """Returns a cell with each magic line replaced by ``pass``."""
    return re.sub(rf"^(\s*)[{''.join(MAGIC)}].*$", r"\1pass", source, flags=re.MULTILINE)


def draws(source: str) -> bool:
    """Returns whether a cell draws a figure: its last statement calls ``viz.show`` or ``viz.explorer``."""
    try:
        last = ast.parse(without_magics(source)).body[-1:]
    except SyntaxError:
        return False
    called = last[0].value if last and isinstance(last[0], ast.Expr) else None
    name = called.func.attr if isinstance(called, ast.Call) and isinstance(called.func, ast.Attribute) else ""
    return name in ("show", "explorer")


def imports(source: str) -> bool:
    """Returns whether a cell begins with imports."""
    return bool(re.match(r"\s*(?:import|from)\s", source))


def to_fold(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the cells whose code readers should find folded: imports, plots, and the checks of exercises."""
    chosen = []
    for before, cell in zip([{"cell_type": "", "source": ""}, *cells], cells, strict=False):
        source, text = "".join(cell["source"]), "".join(before["source"])
        asked = before["cell_type"] == "markdown" and re.search(r"^[`:]{3,}\{exercise\}", text, re.MULTILINE)
        checks = asked or re.search(r"^def check", source, re.MULTILINE)  # they hold the numbers that are asked for
        if cell["cell_type"] == "code" and (draws(source) or imports(source) or checks):
            chosen.append(cell)
    return chosen


def fold(cells: list[dict[str, Any]]) -> None:
    """Folds the code of cells that draw, import or check."""
    for cell in to_fold(cells):
        tags = cell["metadata"].get("tags", [])
        if not FOLDED & set(tags):
            cell["metadata"]["tags"] = [*tags, "hide-input"]


def pieces(body: str, width: int) -> list[str]:
    """Cuts the text of a literal into parts of at most ``width``: after a blank, or else between braces."""
    depth, start, blank, brace, parts = 0, 0, 0, 0, []
    for i, letter in enumerate(body):
        depth += (letter == "{") - (letter == "}")
        if i + 1 - start > width and max(blank, brace) > start:
            cut = blank if blank > start + width // 2 else max(blank, brace)
            parts.append(body[start:cut])
            start = cut
        if depth == 0 and letter == " ":
            blank = i + 1
        elif (depth == 0 and letter == "}") or (depth == 0 and body[i + 1 : i + 2] == "{"):
            brace = i + 1
    return [*parts, body[start:]]


def split_strings(source: str, columns: int = COLUMNS) -> str:
    """Splits literals of one line that reach beyond the column, where brackets let the line go on."""
    lines = source.splitlines(keepends=True)
    depth, todo = 0, []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.OP:
                depth += (token.string in "([{") - (token.string in ")]}")
            long = token.type == tokenize.STRING and len(lines[token.end[0] - 1].rstrip("\n")) > columns
            if long and depth and token.start[0] == token.end[0] and not re.match(r"\w*('''|\"\"\")", token.string):
                todo.append(token)
    except (tokenize.TokenError, IndentationError):
        return source
    for token in reversed(todo):
        row, (begin, end) = token.start[0] - 1, (token.start[1], token.end[1])
        mark = re.match(r"\w*", token.string)[0]  # type: ignore[index]
        quote, body = token.string[len(mark)], token.string[len(mark) + 1 : -1]
        indent = len(lines[row]) - len(lines[row].lstrip())
        name = re.search(r"\w*=?$", lines[row][:begin])[0]  # type: ignore[index]
        parts = pieces(body, columns - indent - 8 - len(name) - len(mark) - 3)
        if len(parts) > 1:
            whole = ("\n" + " " * (indent + 4)).join(f"{mark}{quote}{part}{quote}" for part in parts)
            lines[row] = lines[row][:begin] + whole + lines[row][end:]
    return "".join(lines)


def wrapped(line: str, columns: int = COLUMNS) -> list[str]:
    """Wraps a line of words: a docstring, or a comment; one behind code moves above it."""
    indent = line[: len(line) - len(line.lstrip())]
    if comment := re.match(r"(?P<code>[^\"'#]*?)\s*(?P<words>#.*)$", line):
        lines = textwrap.wrap(comment["words"], columns, initial_indent=indent, subsequent_indent=f"{indent}# ")
        return [*lines, comment["code"]] if comment["code"].strip() else lines
    return textwrap.wrap(line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def wrap_words(source: str, columns: int = COLUMNS) -> str:
    """Wraps comments and docstrings that are too long, where that leaves the meaning of the cell alone."""
    lines, i = source.splitlines(), 0
    while i < len(lines):
        shorter = wrapped(lines[i], columns) if len(lines[i]) > columns else [lines[i]]
        if len(shorter) > 1 and same("\n".join([*lines[:i], *shorter, *lines[i + 1 :]]), source):
            lines[i : i + 1] = shorter
        i += 1
    return "\n".join(lines)


def same(one: str, other: str) -> bool:
    """Returns whether two cells mean the same; one that does not parse means nothing."""
    try:
        return tree(one) == tree(other)
    except SyntaxError:
        return False


def tree(source: str) -> str:
    """Returns what a cell means, whatever its layout."""
    parsed = ast.parse(without_magics(source))
    for node in ast.walk(parsed):  # a docstring is words
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and (words := ast.get_docstring(node)):
            node.body[0] = ast.Expr(ast.Constant(" ".join(words.split())))
    return ast.dump(parsed)


def formatted(paths: list[Path]) -> None:
    """Runs ruff's formatter on notebooks."""
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", *map(str, paths)], check=True, cwd=ROOT)


def save(path: Path, notebook: dict[str, Any]) -> None:
    """Writes a notebook as Jupyter does."""
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Tidies the notebooks named, or all of them; the exit status."""
    chosen = [Path(a).resolve() for a in arguments] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    before = {path: json.loads(path.read_text(encoding="utf-8")) for path in chosen}
    formatted(chosen)
    for _ in range(2):  # ruff moves what was split
        for path in chosen:
            notebook = json.loads(path.read_text(encoding="utf-8"))
            fold(notebook["cells"])
            for cell in notebook["cells"]:
                if cell["cell_type"] == "code":
                    code = split_strings("".join(cell["source"]))
                    cell["source"] = wrap_words(code).splitlines(keepends=True)
            save(path, notebook)
        formatted(chosen)
    bad = []
    for path in chosen:
        after = json.loads(path.read_text(encoding="utf-8"))
        for i, (old, new) in enumerate(zip(before[path]["cells"], after["cells"], strict=True)):
            if old["cell_type"] == "code" and not same("".join(old["source"]), "".join(new["source"])):
                bad.append(f"{path.name}: cell {i} would mean something else")
    print("\n".join([*bad, f"{len(chosen)} notebooks, {len(bad)} problems"]))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
