"""Staleness: a hash of the meaning of code that ignores names and layout.

:func:`closure_sha256` ties a record to the code that made it. The hash covers every definition of anatolab that a
module reaches by name. These do not count:

- names of local variables, of functions, classes and constants, and the modules in which they lie: locals are numbered
  in order of appearance, and a reference to a definition stands for the content of that definition;
- docstrings, comments, type annotations, and imports that are not used;
- the arguments of a ``raise`` and the message of an ``assert``: a recorded run raised nothing;
- the class attributes named in :data:`NOT_HASHED`.

Numbers, operators, the order of statements, which function is called, and the names of parameters, methods, attributes
and dataclass fields count. Nothing here imports torch.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# Of a class: what a table shows, and what a record stores as its configuration.
NOT_HASHED = frozenset({"title", "color", "for_size", "widths", "head_widths", "paper", "official"})
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
UNHASHED_FIELDS = frozenset({"annotation", "returns", "ctx", "kind", "type_comment", "type_params", "type_ignores"})

Key = tuple[str, str]  # module and top-level name in it; the name "" stands for the statements that bind none
Binding = tuple[str, str]  # what an import binds: module and name in it; the name "" stands for the module


@cache
def closure_sha256(module: str, package: Path | None = None) -> str:
    """Returns the hash of a module and of every definition of anatolab that it reaches by name.

    Re-exports of a package's ``__init__`` count as its own definitions. The hash is that of the *set* of definitions,
    each described by its content, with names replaced by the content of what they refer to. Definitions in a circle of
    references are distinguished as far as their content and that of their neighbors differ.

    Args:
        module: Dotted name, such as ``anatolab.methods.mona``.
        package: Folder of the package; that of the running code where None.

    Returns:
        64 hexadecimal digits; the empty string if the module does not exist, so that its records are stale.
    """
    return _closure(_source(package or PACKAGE), module)


def _closure(source: _Source, module: str) -> str:
    if source.path(module) is None:
        return ""
    described: dict[Key, list[str | Key]] = {}
    todo = list(source.contents(module))
    while todo:
        key = todo.pop()
        if key not in described:
            described[key] = source.described(key)
            todo += [piece for piece in described[key] if isinstance(piece, tuple)]

    # Colors of definitions are refined by the colors of their references, until no color class splits.
    colors, distinct = dict.fromkeys(described, ""), 0
    while len(set(colors.values())) > distinct:
        distinct = len(set(colors.values()))
        colors = {
            key: _sha256("\0".join(colors[p] if isinstance(p, tuple) else p for p in pieces))
            for key, pieces in described.items()
        }
    return _sha256("\n".join(sorted(set(colors.values()))))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# ------------------------------------------------------------------------------------------------ modules and names
@dataclass
class _Module:
    """The top level of one file."""

    statements: list[ast.stmt]
    imports: dict[str, Binding]  # of anatolab and of other packages
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)  # "": statements that bind no name

    def __post_init__(self) -> None:
        for node in self.statements:
            for name in _defined(node) or {""}:
                self.definitions.setdefault(name, []).append(node)
        self.definitions.pop("__all__", None)


class _Source:
    """The files of a package, parsed and described when they are asked for, and once."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self.modules: dict[str, _Module] = {}
        self.descriptions: dict[Key, list[str | Key]] = {}

    def described(self, key: Key) -> list[str | Key]:
        """Returns a definition as strings and references."""
        if key not in self.descriptions:
            self.descriptions[key] = _Description(self, key).pieces
        return self.descriptions[key]

    def path(self, module: str) -> Path | None:
        """Returns the file of a module of anatolab; None where there is none."""
        first, *parts = module.split(".")
        base = self.package.joinpath(*parts)
        candidates = (base.with_suffix(".py"), base / "__init__.py") if parts else (base / "__init__.py",)
        return next((p for p in candidates if first == "anatolab" and p.is_file()), None)

    def module(self, name: str) -> _Module:
        if name not in self.modules:
            path = self.path(name)
            assert path is not None
            tree = ast.parse(path.read_text(encoding="utf-8"))
            counted = [node for node in tree.body if not _is_silent(node)]
            imports = {k: v for node in tree.body for k, v in _imported(node).items()}
            self.modules[name] = _Module(counted, imports)
        return self.modules[name]

    def contents(self, module: str) -> Iterator[Key]:
        """Yields the definitions of a module, and what a package re-exports."""
        for name in self.module(module).definitions:
            yield module, name
        path = self.path(module)
        if path is not None and path.name == "__init__.py":
            for target in self.module(module).imports.values():
                resolved = self.resolve(*target)
                if resolved is not None and resolved[1]:
                    yield resolved

    def resolve(self, module: str, name: str) -> Key | None:
        """Returns the definition that a module's name refers to (a module: an empty name); None if not ours."""
        if not name:
            return (module, "") if self.path(module) else None
        if self.path(module) is not None:
            parsed = self.module(module)
            if name in parsed.definitions:
                return module, name
            if name in parsed.imports and parsed.imports[name] != (module, name):
                return self.resolve(*parsed.imports[name])
        return (f"{module}.{name}", "") if self.path(f"{module}.{name}") else None


@cache  # methods share most of what they reach
def _source(package: Path) -> _Source:
    return _Source(package)


def _is_silent(node: ast.stmt) -> bool:
    """Returns whether no result can depend on a statement: docstrings, imports, declarations of names."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.Pass | ast.Global | ast.Nonlocal)


def _imported(node: ast.stmt) -> dict[str, Binding]:
    """Returns what one import statement binds; ruff bans relative imports."""
    if isinstance(node, ast.Import):
        return {
            a.asname or a.name.split(".")[0]: (a.name if a.asname else a.name.split(".")[0], "") for a in node.names
        }
    if isinstance(node, ast.ImportFrom):
        return {a.asname or a.name: (str(node.module), a.name) for a in node.names}
    return {}


def _defined(node: ast.stmt) -> set[str]:
    """Returns the names that a top-level statement binds, or whose content it changes."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    stored = [n for n in ast.walk(node) if isinstance(n, ast.Name | ast.Subscript | ast.Attribute)]
    targets: list[ast.expr] = [n for n in stored if isinstance(n.ctx, ast.Store)]
    bases = set()
    for target in targets:
        while isinstance(target, ast.Subscript | ast.Attribute):
            target = target.value
        bases |= {target.id} if isinstance(target, ast.Name) else set()
    return bases


# ------------------------------------------------------------------------------------------------ one definition
@dataclass(eq=False)
class _Scope:
    """The names that a function, comprehension or class binds."""

    kind: str  # "function", "comprehension" or "class"
    bound: set[str]
    parameters: frozenset[str] = frozenset()
    imports: dict[str, Binding] = field(default_factory=dict)


class _Description:
    """One top-level definition as strings and references, the same for all ways of naming its locals."""

    def __init__(self, source: _Source, key: Key) -> None:
        self.source, (self.home, self.name) = source, key
        self.pieces: list[str | Key] = []
        self.scopes: list[_Scope] = []
        self.numbers: dict[tuple[_Scope, str], int] = {}  # of locals
        for node in source.module(self.home).definitions[self.name]:
            self.visit(node)

    def visit(self, node: ast.AST) -> None:
        """Appends the description of a node."""
        if isinstance(node, ast.stmt) and (_is_silent(node) or self._is_unhashed(node)):
            return
        if isinstance(node, ast.Attribute):
            self.attribute(node)
            return
        self.pieces.append(type(node).__name__)
        if isinstance(node, ast.Name):
            self.reference(node.id)
        elif isinstance(node, ast.Raise):  # what is raised, not what it says
            called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            self.fields(called=called)
        elif isinstance(node, ast.Assert):
            self.fields(test=node.test)
        elif isinstance(node, FUNCTIONS):
            self.function(node)
        elif isinstance(node, ast.ClassDef):
            self.fields(decorators=node.decorator_list, bases=node.bases, keywords=node.keywords)
            self.binding(node.name)
            self.inside(_scope_of("class", node.body), body=node.body)
        elif isinstance(node, COMPREHENSIONS):
            first, *rest = node.generators
            self.visit(first.iter)  # outside
            elements = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            scope = _scope_of("comprehension", [g.target for g in node.generators])
            self.inside(scope, target=first.target, ifs=first.ifs, rest=rest, elements=elements)
        else:
            if isinstance(node, ast.AnnAssign) and "ClassVar" in ast.unparse(node.annotation):
                self.pieces.append("ClassVar")  # of a dataclass: not a field
            self.fields(**{name: value for name, value in ast.iter_fields(node) if name not in UNHASHED_FIELDS})

    def fields(self, **values: object) -> None:
        """Appends the description of named parts; absent and empty ones are left out, as Python versions differ."""
        for name, value in values.items():
            if value is None or value == []:
                continue
            self.pieces.append(f"{name}=")
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, ast.AST):
                    self.visit(item)
                elif name in ("name", "rest") and isinstance(item, str):  # of an except or a pattern
                    self.binding(item)
                else:
                    self.pieces.append(repr(item))
            self.pieces.append(";")

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        """Describes decorators and defaults outside, parameters by name, and the body in its own scope."""
        a = node.args
        self.fields(decorators=getattr(node, "decorator_list", []), defaults=a.defaults)
        self.fields(kw_defaults=[d if d is not None else ast.Constant(None) for d in a.kw_defaults])
        if not isinstance(node, ast.Lambda):
            self.binding(node.name)
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        star = [x.arg for x in (a.vararg, a.kwarg) if x is not None]
        groups = [[x.arg for x in group] for group in (a.posonlyargs, a.args, a.kwonlyargs)]
        self.pieces.append(f"parameters {groups} {star}")
        parameters = frozenset([*star, *(name for group in groups for name in group)])
        self.inside(_scope_of("function", body, parameters), body=body)

    def inside(self, scope: _Scope, **values: object) -> None:
        self.scopes.append(scope)
        self.fields(**values)
        self.scopes.pop()

    def attribute(self, node: ast.Attribute) -> None:
        """Describes ``module.name`` as a reference to a definition, like an imported name."""
        target = self.module_of(node.value)
        resolved = self.source.resolve(target, node.attr) if target else None
        if resolved is not None and resolved[1]:
            self.pieces += ["Name", resolved]
        else:
            self.pieces.append("Attribute")
            self.fields(value=node.value, attr=node.attr)

    def module_of(self, node: ast.expr) -> str | None:
        """Returns the module of anatolab that an expression names; None where it names something else."""
        if isinstance(node, ast.Name):
            imported = self.imported(node.id)
            resolved = self.source.resolve(*imported) if imported else None
        elif isinstance(node, ast.Attribute) and (outer := self.module_of(node.value)):
            resolved = self.source.resolve(outer, node.attr)
        else:
            return None
        return resolved[0] if resolved is not None and not resolved[1] else None

    def holder(self, name: str) -> _Scope | None:
        """Returns the scope that binds a name; None for a name of the module, of builtins, or of nothing."""
        for depth, scope in enumerate(reversed(self.scopes)):
            if scope.kind == "class" and depth:
                continue  # functions in a class do not see its names
            if name in scope.bound or name in scope.parameters or name in scope.imports:
                return scope
        return None

    def imported(self, name: str) -> Binding | None:
        """Returns what an import, in the innermost scope that binds the name or of the module, binds it to."""
        scope = self.holder(name)
        return self.source.module(self.home).imports.get(name) if scope is None else scope.imports.get(name)

    def binding(self, name: str) -> None:
        """Describes a name that a statement binds, rather than an expression."""
        if self.scopes:
            self.reference(name)

    def reference(self, name: str) -> None:
        """Appends what a name stands for: a number, a definition, or the name itself."""
        scope, imported = self.holder(name), self.imported(name)
        parsed = self.source.module(self.home)
        if imported is not None:
            resolved = self.source.resolve(*imported)
            if resolved is None:  # of another package
                self.pieces.append(".".join(part for part in imported if part))
            elif resolved[1]:
                self.pieces.append(resolved)
            else:  # a module as a whole
                self.pieces += self.source.contents(resolved[0])
        elif scope is None and name in parsed.definitions:
            if name != self.name or self.scopes:
                self.pieces.append((self.home, name))
        elif scope is None or scope.kind == "class" or name in scope.parameters:
            self.pieces.append(name)
        else:
            number = self.numbers.setdefault((scope, name), len(self.numbers))
            self.pieces.append(f"local {number}")

    def _is_unhashed(self, node: ast.stmt) -> bool:
        """Returns whether a statement of a class, or a declaration of a function, is one that does not count."""
        if not self.scopes:
            return False
        if self.scopes[-1].kind != "class":
            return isinstance(node, ast.AnnAssign) and node.value is None
        targets: Sequence[ast.AST] = getattr(node, "targets", [getattr(node, "target", node)])
        names = {getattr(target, "id", getattr(target, "name", "")) for target in targets}
        return names <= NOT_HASHED


def _scope_of(kind: str, body: Sequence[ast.AST], parameters: frozenset[str] = frozenset()) -> _Scope:
    """Returns the scope of a function or class with this body, or of the targets of a comprehension."""
    nodes = list(_of_one_scope(body))
    inner = {id(n) for c in nodes if isinstance(c, COMPREHENSIONS) for g in c.generators for n in ast.walk(g.target)}
    scope, elsewhere = _Scope(kind, set(), parameters), set(parameters)
    for n in nodes:
        if isinstance(n, ast.Name):
            if not isinstance(n.ctx, ast.Load) and id(n) not in inner:  # targets of comprehensions are bound in those
                scope.bound.add(n.id)
        elif isinstance(n, NAMED) and n.name:
            scope.bound.add(n.name)
        elif isinstance(n, ast.MatchMapping) and n.rest:
            scope.bound.add(n.rest)
        elif isinstance(n, ast.Import | ast.ImportFrom):
            scope.imports |= _imported(n)
        elif isinstance(n, ast.Global | ast.Nonlocal):
            elsewhere.update(n.names)
    scope.bound -= elsewhere
    return scope


def _of_one_scope(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Yields all nodes that lie in the scope of these; of functions and classes in it only the outside."""
    todo = list(body)
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, FUNCTIONS):
            todo += [*getattr(node, "decorator_list", []), *node.args.defaults]
            todo += [d for d in node.args.kw_defaults if d is not None]
        elif isinstance(node, ast.ClassDef):
            todo += [*node.decorator_list, *node.bases, *node.keywords]
        elif not isinstance(node, ast.Name | ast.Constant):
            todo += ast.iter_child_nodes(node)
