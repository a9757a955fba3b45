"""Gives every setting of a method a command-line flag of its own."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections import Counter
from dataclasses import field, fields, is_dataclass, make_dataclass
from typing import Annotated, Any

import tyro


@functools.cache  # one class per kind, which tyro's caches know again
def with_distinct_flags(kind: type) -> Any:
    """Returns a subclass of a ``Config`` in which every setting, nested ones included, has its own flag.

    A flag is named like its field. If the ``Config`` or another part has the same name, the flag of the nested setting
    begins with the name of its part: ``--noise`` and ``--augmentation-noise``.

    Args:
        kind: A frozen dataclass, which may hold frozen dataclasses.
    """
    hints = typing.get_type_hints(kind)
    parts = {f.name: hints[f.name] for f in fields(kind) if is_dataclass(hints[f.name])}
    taken = Counter(f.name for part in (kind, *parts.values()) for f in fields(part))
    inner: list[Any] = []
    for name, part in parts.items():
        part_hints, comments = typing.get_type_hints(part), comments_of(part)
        renamed: list[Any] = [
            (
                f.name,
                Annotated[
                    part_hints[f.name],
                    tyro.conf.arg(name=f"{name}-{f.name}".replace("_", "-"), help=comments.get(f.name, "")),
                ],
                field(default=f.default, default_factory=f.default_factory),
            )
            for f in fields(part)
            if taken[f.name] > 1
        ]
        if renamed:
            distinct = _subclass(part, renamed)
            inner.append((name, distinct, field(default_factory=distinct)))
    return _subclass(kind, inner) if inner else kind


def converted(value: Any, kind: type) -> Any:
    """Returns the same settings as an instance of ``kind``, a class with the same fields."""
    hints = typing.get_type_hints(kind)
    entries = {f.name: getattr(value, f.name) for f in fields(kind)}
    return kind(**{k: converted(v, hints[k]) if is_dataclass(v) else v for k, v in entries.items()})


def comments_of(kind: type) -> dict[str, str]:
    """Returns the comment behind each field of a dataclass, those it inherits included."""
    comments: dict[str, str] = {}
    for base in reversed([base for base in kind.__mro__ if is_dataclass(base)]):
        for line in inspect.getsource(base).splitlines():
            if match := re.fullmatch(r"\s+(\w+): .*?  # (.*)", line):
                comments[match[1]] = match[2]
    return comments


def _subclass(kind: type, changed: list[Any]) -> type:
    return make_dataclass(kind.__name__, changed, bases=(kind,), frozen=True, namespace={"__doc__": kind.__doc__})
