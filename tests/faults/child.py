"""Work in a forked child whose end, messages and result come back; and what a refusal must look like."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 300.0  # after which a child is taken to hang


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int  # exit code, or minus the number of the signal
    text: str  # what it wrote to standard error
    result: Any  # what the work returned, or None


def fork(
    work: Callable[[], Any], *, kill_after: float | None = None, memory: int | None = None, limit: float = SECONDS
) -> Ended:
    """Runs work in a fork.

    Args:
        work: Returns what JSON can hold; an exit code where it is an int.
        kill_after: Seconds after which SIGKILL is sent.
        memory: Bytes of address space that the child may take beyond what it has.
        limit: Seconds after which the child counts as hanging.
    """
    with tempfile.TemporaryFile() as heard, tempfile.TemporaryFile() as result:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _child(work, heard.fileno(), result.fileno(), memory)
        code = _wait(pid, kill_after, limit)
        heard.seek(0)
        result.seek(0)
        text, raw = heard.read().decode(errors="replace"), result.read()
        return Ended(code, text, json.loads(raw) if raw and code >= 0 else None)


def _child(work: Callable[[], Any], heard: int, result: int, memory: int | None) -> None:
    """Never returns."""
    code = 70
    try:
        os.dup2(heard, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        if memory is not None:
            import resource

            pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (pages + memory,) * 2)
        value = work()
        os.write(result, json.dumps(value).encode())
        code = value if isinstance(value, int) else 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, kill_after: float | None, limit: float) -> int:
    """How a child ended, which may be helped."""
    descriptor = os.pidfd_open(pid)
    try:
        begin = time.monotonic()
        due = limit if kill_after is None else kill_after
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(due * 1000):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return 124 if kill_after is None and code == -9 and time.monotonic() - begin >= limit else code
    finally:
        os.close(descriptor)


def refusing(work: Callable[[], Any]) -> Callable[[], int]:
    """Returns work that ends as a command does: an error of ours is a sentence and exit code 1."""

    def command() -> int:
        from anatolab.errors import InputError
        from anatolab.records import RecordError

        try:
            work()
        except (InputError, RecordError) as error:
            print(f"anatolab: {error.args[0]}", file=sys.stderr)
            return 1
        except MemoryError:
            print("anatolab: memory: there is not enough of it; use less.", file=sys.stderr)
            return 1
        return 0

    return command


def command(*arguments: object) -> Callable[[], int]:
    """Returns a command of the command line as work for a child."""

    def run() -> int:
        from anatolab.cli import main

        try:
            return main([str(a) for a in arguments])
        except SystemExit as error:  # of tyro
            return int(error.code or 0)

    return run


def is_sentence(message: str) -> bool:
    """Returns whether a message is one sentence with a remedy."""
    whole = message.endswith(".") and "\n" not in message
    return whole and not re.search(r"[.!?] (?=[A-Z])", message) and ";" in message


def refused(ended: Ended, naming: str = "") -> str | None:
    """Returns what is wrong with a refusal; None where it is one sentence that names a file, with exit code 1."""
    lines = [line for line in ended.text.splitlines() if not line.startswith("anatolab: note: ")]
    if ended.code == 124:
        return "hangs"
    if ended.code != 1:
        return f"exit code {ended.code}: {lines[-1:]}"
    if len(lines) != 1 or not lines[0].startswith("anatolab: "):
        return f"{len(lines)} lines: {lines[-1:]}"
    if not is_sentence(lines[0]):
        return f"no sentence with a remedy: {lines[0]}"
    return None if naming in lines[0] else f"does not name {naming}: {lines[0]}"
