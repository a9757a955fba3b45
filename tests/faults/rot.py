"""Bits that flip, and files that end early, in every kind of file that is ours.

Right is: the file is refused with a sentence that names it, or not used at all, as where the checkpoint before it, or a
cache that is built again, takes its place; what comes out is never anything else than what was written.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.child import fork, is_sentence
from tests.faults.tally import Tally
from tests.faults.worlds import World, worlds

KIND = "damaged files"
Read = Callable[[Path], Any]  # of a folder: what is read there, as JSON holds it


def _opened(folder: Path) -> Any:
    """A run as evaluation opens it."""
    from anatolab.training import open_run

    method, info = open_run(folder / "out" / "run")
    return _state(method.state_dict()), repr(info)


def _loaded(name: str) -> Read:
    def read(folder: Path) -> Any:
        from anatolab.training import checkpoint

        held = checkpoint.load(folder / "out" / "run" / name)
        return _state(held["method"]), held["step"]

    return read


def _state(held: dict[str, Any]) -> str:
    import hashlib

    digest = hashlib.sha256()
    for key, value in held.items():
        digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def _rows(folder: Path) -> Any:
    from tests.faults.worlds import prepared

    return prepared(folder)


def _features(folder: Path) -> Any:
    from tests.faults.worlds import extracted

    return extracted(folder)


def _record(folder: Path) -> Any:
    from anatolab import records

    return records.plain(records.read(folder / "out" / "toy" / "seed0.json"))


def _weights(folder: Path) -> Any:
    from anatolab.robust.clip import load_small

    clip = load_small("scenes-vit", folder / "out")
    return _state(clip.model.state_dict()), clip.sha256


# What is damaged: pattern of the file below out, how it is read, the world whose success it comes from.
FILES: dict[str, tuple[str, Read, str]] = {
    "a checkpoint": ("run/last.pt", _loaded("last.pt"), "a training"),
    "a run with a damaged last checkpoint": ("run/last.pt", _opened, "a training"),
    "the description of a run": ("run/run.json", _opened, "a training"),
    "images of a cache": ("cache/*/images.npy", _rows, "a cache"),
    "labels of a cache": ("cache/*/labels.npy", _rows, "a cache"),
    "the index of a cache": ("cache/*/index.json", _rows, "a cache"),
    "features": ("cache/*/features.npy", _features, "features"),
    "the index of features": ("cache/*/index.json", _features, "features"),
    "a record": ("toy/seed0.json", _record, "a record"),
    "packaged weights": ("scenes-vit.safetensors", _weights, "weights"),
    "the description of packaged weights": ("scenes-vit.json", _weights, "weights"),
}
MAY_SAY_LESS = ("a run with a damaged last checkpoint",)  # the checkpoint before it is used, which is said


def damage(path: Path, draw: random.Random) -> str:
    """Flips one bit of a file, or cuts it, and returns what was done."""
    raw = bytearray(path.read_bytes())
    if draw.random() < 0.25:
        length = draw.choice((0, len(raw) // 2, len(raw) - 1, draw.randrange(len(raw))))
        path.write_bytes(bytes(raw[:length]))
        return f"cut to {length} of {len(raw)} bytes"
    place, bit = draw.randrange(len(raw)), draw.randrange(8)
    raw[place] ^= 1 << bit
    path.write_bytes(bytes(raw))
    return f"bit {bit} of byte {place} of {len(raw)}"


def reading(read: Read, folder: Path) -> Callable[[], Any]:
    """Returns work that gives what is read, the sentences of warnings, and the sentence of a refusal."""

    def work() -> Any:
        from anatolab.errors import InputError
        from anatolab.records import RecordError

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                value = json.loads(json.dumps(read(folder)))
            except (InputError, RecordError) as error:
                return {"refusal": str(error.args[0])}
        return {"value": value, "warned": [str(w.message) for w in caught]}

    return work


def judged(name: str, file: Path, ended: Any, due: Any) -> str | None:
    """Returns what is wrong."""
    if ended.result is None:
        return f"exit code {ended.code}: {ended.text.splitlines()[-1:]}"
    if "refusal" in ended.result:
        sentence = ended.result["refusal"]
        return None if is_sentence(sentence) and file.name in sentence else f"refused by: {sentence}"
    if ended.result["value"] == due["value"]:
        return None
    if name in MAY_SAY_LESS and any("is used in its place" in w for w in ended.result["warned"]):
        return None
    return f"is used: {str(ended.result['value'])[:80]}"


def run(tally: Tally, draw: random.Random, each: int, only: tuple[str, ...] | None = None) -> None:
    """Damages each kind of file ``each`` times."""
    with tally.timed(KIND), tempfile.TemporaryDirectory() as root:
        made = worlds()
        for name, (pattern, read, source) in FILES.items():
            if only is not None and name not in only:
                continue
            folder, pristine = Path(root) / "work" / "w", Path(root) / "pristine"
            shutil.rmtree(pristine, ignore_errors=True)
            _start(made.get(source), folder)
            shutil.copytree(folder, pristine)
            due = fork(reading(read, folder)).result
            for _ in range(each):
                shutil.rmtree(folder)
                shutil.copytree(pristine, folder)
                file = next((folder / "out").glob(pattern))
                stat = file.stat()
                done = damage(file, draw)
                os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
                ended = fork(reading(read, folder))
                wrong = judged(name, file, ended, due)
                tally.count(KIND, name, wrong and f"{done}: {wrong}")


def _start(world: World | None, folder: Path) -> None:
    """Fills a folder with what a world leaves, or with packaged weights."""
    if world is None:
        from anatolab.robust.clip import WEIGHTS

        shutil.rmtree(folder, ignore_errors=True)
        (folder / "out").mkdir(parents=True)
        for path in WEIGHTS.glob("scenes-vit.*"):
            shutil.copy(path, folder / "out")
        return
    world.copy(folder)
    ended = fork(world.work(folder))
    if ended.code:
        print(ended.text, file=sys.stderr)
        raise RuntimeError(world.name)
