"""Runs the fault campaign of `tests/faults` in its long form and records what was tried and what survived.

    python studies/campaign.py                          # every kind, until each has its number
    python studies/campaign.py --limit 2400 kills       # some kinds, for so many seconds at most

The counts of calls add up in `book/records/campaign/seed0.json`; what was interrupted goes on with the next call. Exit
code 1: something did not survive, and the record says what. `make campaign` runs this with nice 10.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from recording import Clock

from anatolab import records
from anatolab.files import lock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.faults.campaign import LONG, Campaign
from tests.faults.tally import Tally

NAME = "campaign"


def write(tally: Tally, clock: Clock, commits: Sequence[str], root: Path) -> None:
    """Writes the record of all counts so far; what is tried names other folders of records."""
    os.environ["ANATOLAB_RECORDS"] = str(root)
    values = {**tally.values(), "wanted": LONG}
    about = "faults that were tried on purpose"
    records.write(records.Record(NAME, 0, values, about, NAME, {"commits": list(commits)}, clock.provenance()))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"some of {', '.join(LONG)}; all where not given")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which nothing more is tried")
    parser.add_argument("--anew", action="store_true", help="count these kinds from 0")
    given = parser.parse_args(arguments)
    clock, begin = Clock(), time.monotonic()
    root, path = records.root(), records.path_of(NAME, 0)
    with lock(path.parent):  # counts of two campaigns at once would be lost
        before = records.read(path) if path.exists() else None
        tally = Tally.from_values(before.values) if before is not None else Tally()
        if given.anew:
            tally.forget(given.kinds or LONG)
        commits = list(before.config["commits"]) if before is not None else []
        commits += [c for c in (clock.before["commit"],) if c not in commits]
        done = sum(tally.of(kind) for kind in LONG)
        campaign = Campaign(tally, seed=done)  # other instants and places than those of the calls before
        failures = len(tally.failures)
        todo = list(given.kinds or LONG)
        while todo := [kind for kind in todo if tally.of(kind) < LONG[kind]]:  # in turns, so that each has its share
            for kind in todo:
                if time.monotonic() - begin >= given.limit:
                    return int(bool(tally.failures))
                campaign.some(kind)
                write(tally, clock, commits, root)
                counted = tally.values()[kind]
                print(f"{kind}: {counted['survived']} of {counted['tried']} survived, {LONG[kind]} wanted", flush=True)
                for wrong in tally.failures[failures:]:
                    print(f"  {wrong}", flush=True)
                failures = len(tally.failures)
    return int(bool(tally.failures))


if __name__ == "__main__":
    raise SystemExit(main())
