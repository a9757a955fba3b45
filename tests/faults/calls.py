"""Counts the calls that reach the disk below a folder, and makes the k-th of them fail, or the last one of its process.

Files that are written get a raw layer in Python, so that an error comes up where the system would raise it: in a
``write``, a ``flush`` or a ``close``, and through torch, gzip and json alike. What C++ writes by itself is not reached.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYSTEM = ("open", "read", "write", "fsync", "rename", "link", "mkdir", "unlink")
Act = Callable[[], None]


class Calls:
    """Counts calls by their place: one of :data:`SYSTEM` below a folder, or a function that is watched.

    It changes this process for good, so it belongs into a child.

    Args:
        folder: Calls that concern other files are let through.
        places: Which places count.
        number: The call, from 1, at which something happens; 0 for none.
        before: Happens in place of the call where it raises, before it otherwise.
        after: Happens after the call.
        lasting: Whether ``before`` happens at every later call, too.
    """

    def __init__(
        self,
        folder: Path,
        places: tuple[str, ...] = SYSTEM,
        number: int = 0,
        *,
        before: Act | None = None,
        after: Act | None = None,
        lasting: bool = False,
    ) -> None:
        self.folder, self.places, self.number = os.path.realpath(folder), places, number
        self.before, self.after, self.lasting = before, after, lasting
        self.counted = 0

    def reached(self, place: str, call: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        """Makes a call of a place, or what is to happen there; ``half`` does a part of it before a process dies."""
        if place not in self.places:
            return call()
        self.counted += 1
        due = self.counted == self.number
        if self.before is not None and (due or (self.lasting and self.number and self.counted > self.number)):
            if half is not None and self.before is die:
                half()
            self.before()
        try:
            return call()
        finally:  # also where the system refuses, as for a folder whose parent is not there yet
            if due and self.after is not None:
                self.after()

    def watch(self, owner: Any, name: str) -> None:
        """Counts the calls of a function under the place ``name``."""
        original = getattr(owner, name)
        setattr(owner, name, lambda *args, **kwargs: self.reached(name, lambda: original(*args, **kwargs)))

    def watch_system(self) -> None:
        """Counts what reaches the disk."""
        opened, names = builtins.open, {"rename": ("replace", "rename"), "link": ("link",)}
        names |= {"mkdir": ("mkdir",), "unlink": ("unlink", "remove", "rmdir")}

        def open_watched(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
            if not self.concerns(file):
                return opened(file, mode, *more, **options)
            if not set(mode) & set("wax+"):
                return self.reached("read", lambda: opened(file, mode, *more, **options))
            raw = self.reached("open", lambda: _Raw(os.fspath(file), mode.replace("b", "").replace("t", ""), self))
            whole: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            if "b" in mode:
                return whole
            keys = ("encoding", "errors", "newline")
            return io.TextIOWrapper(whole, **{k: options[k] for k in keys if k in options})

        builtins.open = io.open = open_watched
        for place, functions in names.items():
            for function in functions:
                setattr(os, function, self._wrapped(place, getattr(os, function)))
        descriptor_of, synced = os.open, os.fsync

        def os_open(path: Any, flags: int, *more: Any, **options: Any) -> int:  # of locks
            if not flags & os.O_CREAT or not self.concerns(path):
                return descriptor_of(path, flags, *more, **options)
            return self.reached("open", lambda: descriptor_of(path, flags, *more, **options))

        os.open = os_open
        os.fsync = lambda number: (  # type: ignore[assignment]
            self.reached("fsync", lambda: synced(number)) if self.concerns(_name_of(number)) else synced(number)
        )

    def concerns(self, file: Any) -> bool:
        """Returns whether a path lies below the folder."""
        try:
            return os.path.realpath(os.fspath(file)).startswith(self.folder)
        except (TypeError, ValueError):
            return False

    def _wrapped(self, place: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **options: Any) -> Any:
            if not self.concerns(path):
                return function(path, *args, **options)
            return self.reached(place, lambda: function(path, *args, **options))

        return call


class _Raw(io.FileIO):
    """A file whose writes are counted."""

    def __init__(self, name: str, mode: str, calls: Calls) -> None:
        super().__init__(name, mode)
        self.calls = calls

    def write(self, data: Any) -> int:
        piece = memoryview(data).cast("B")
        return self.calls.reached(
            "write", lambda: super(_Raw, self).write(data), lambda: super(_Raw, self).write(piece[: len(piece) // 2])
        )


def die() -> None:
    """Ends this process at once, as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Fault:
    """An error of the system and the calls that it can come from."""

    name: str
    number: int | None  # of the system's error; None: memory runs out
    places: tuple[str, ...]
    lasting: bool = False  # a full disk stays full

    def act(self) -> None:
        """Raises it."""
        if self.number is None:
            raise MemoryError
        raise OSError(self.number, os.strerror(self.number))


FAULTS = (
    Fault("a full disk", errno.ENOSPC, ("open", "write", "fsync", "rename", "link", "mkdir"), lasting=True),
    Fault("a failing disk", errno.EIO, ("read", "write", "fsync", "rename")),
    Fault("no permission", errno.EACCES, ("open", "read", "rename", "link", "mkdir")),
    Fault("too many open files", errno.EMFILE, ("open", "read"), lasting=True),
    Fault("no memory", None, ("read", "write")),
)


def _name_of(number: Any) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
    except OSError:
        return ""
