"""One object that counts what was tried and what survived, kind by kind, and keeps what did not."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """Counts of a campaign; those of several campaigns can be added.

    Example:
        >>> tally = Tally()
        >>> tally.count("kills", "action", None), tally.count("kills", "mona", "weights differ")
        (None, None)
        >>> tally.values()["kills"]["tried"], tally.values()["kills"]["survived"], tally.failures
        (2, 1, ['kills, mona: weights differ'])
    """

    tried: Counter[tuple[str, str]] = field(default_factory=Counter)  # kind and member of it -> how often
    survived: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)  # kind -> wall clock
    failures: list[str] = field(default_factory=list)

    def count(self, kind: str, member: str, wrong: str | None) -> None:
        """Counts one fault, which survived unless something is wrong."""
        self.tried[kind, member] += 1
        if wrong is None:
            self.survived[kind, member] += 1
        else:
            self.failures.append(f"{kind}, {member}: {wrong}")

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Adds the seconds of the block to those of a kind."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[kind] += time.monotonic() - begin  # type: ignore[assignment]

    def forget(self, kinds: Iterable[str]) -> None:
        """Takes the counts of some kinds out, as where a fault lay in the campaign itself."""
        for kind in kinds:
            for member in [member for name, member in self.tried if name == kind]:
                del self.tried[kind, member], self.survived[kind, member]
            del self.seconds[kind]
            self.failures = [wrong for wrong in self.failures if not wrong.startswith(f"{kind},")]

    def of(self, kind: str) -> int:
        """Returns how many faults of a kind were tried."""
        return sum(count for (name, _), count in self.tried.items() if name == kind)

    def values(self) -> dict[str, Any]:
        """Returns the counts as a record holds them, a dictionary a kind and the sum of all under ``total``."""
        kinds = sorted({kind for kind, _ in self.tried})
        values: dict[str, Any] = {}
        for kind in kinds:
            members = sorted(member for name, member in self.tried if name == kind)
            values[kind] = {
                "tried": self.of(kind),
                "survived": sum(self.survived[kind, member] for member in members),
                "seconds": round(self.seconds[kind], 1),
                "members": {m: [self.tried[kind, m], self.survived[kind, m]] for m in members},
            }
        total = {k: sum(values[kind][k] for kind in kinds) for k in ("tried", "survived", "seconds")}
        return {**values, "total": total, "failures": sorted(self.failures)}

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Tally:
        """Returns the tally that a record holds, to go on counting."""
        tally = cls(failures=list(values["failures"]))
        for kind, held in values.items():
            if "members" not in held:  # sums, and what a record says beside
                continue
            tally.seconds[kind] = held["seconds"]
            for member, (tried, survived) in held["members"].items():
                tally.tried[kind, member], tally.survived[kind, member] = tried, survived
        return tally
