"""Data sets of every layout, each with something wrong that nobody chose.

Right is: the folder reads, or what is wrong with it is one sentence; no traceback, no hanging, no other message;
``check`` lists what loading refuses.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.data import image_trees, trees
from tests.faults.child import Ended, fork, is_sentence
from tests.faults.tally import Tally

KIND = "mutated data sets"
MEMORY = 2 << 30  # bytes that a child may take
VOLUMES: dict[str, Callable[[Path], object]] = {
    "official ACDC": lambda root: trees.official(root, (1, 2)),
    "SSL4MIS ACDC": trees.ssl4mis,
    "LA challenge": trees.la_challenge,
    "UA-MT LA": trees.la_uamt,
    "LiTS": trees.lits,
    "MM-WHS": trees.mmwhs,
    "BTCV": trees.btcv,
    "TransUNet Synapse": trees.transunet,
    "Decathlon": trees.own,
    "nnU-Net": lambda root: trees.own(root, nnunet=True, channels=2),
}
PICTURES: dict[str, Callable[[Path], object]] = {
    "Waterbirds": image_trees.waterbirds,
    "CelebA": image_trees.celeba,
    "MetaShift": image_trees.metashift,
    "CheXpert": lambda root: image_trees.chexpert(root, 20),
    "a table": image_trees.table,
}
WORDS = (
    "-1",
    "1e999",
    "nan",
    "",
    "'",
    '"',
    "\0",
    "\ufeff",
    "ä",
    "../x",
    "9" * 40,
    "[[",
    "{}",
    "null",
    "0x1",
    ",",
    "\n\n",
)


def _flip(path: Path, draw: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 1, 4, 32))):
        raw[draw.randrange(min(len(raw), draw.choice((64, 400, len(raw)))))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(raw))


def _zeros(path: Path, draw: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    start = draw.randrange(len(raw))
    end = min(len(raw), start + draw.choice((8, 64, 512)))
    raw[start:end] = bytes(end - start)
    path.write_bytes(bytes(raw))


def _word(path: Path, draw: random.Random) -> None:
    raw = path.read_bytes()
    place, length = draw.randrange(len(raw)), draw.choice((0, 1, 3))
    path.write_bytes(raw[:place] + draw.choice(WORDS).encode() + raw[place + length :])


def _lines(path: Path, draw: random.Random) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    draw.choice((lines.reverse, lambda: lines.pop(draw.randrange(len(lines))), lambda: lines.extend(lines[:1])))()
    path.write_bytes(b"".join(lines))


def _other(path: Path, draw: random.Random) -> None:
    other = draw.choice(_files(_root(path)))
    if other != path:
        raw = path.read_bytes()
        path.write_bytes(other.read_bytes())
        if draw.random() < 0.5:
            other.write_bytes(raw)


def _folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path, draw: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.symlink_to(draw.choice((path, Path(os.devnull), Path("/dev/zero"), path.parent, path.with_name("nowhere"))))


MUTATIONS: dict[str, Callable[[Path, random.Random], object]] = {
    "bits": _flip,
    "zeros": _zeros,
    "a word": _word,
    "lines": _lines,
    "cut": lambda path, draw: os.truncate(path, draw.randrange(path.stat().st_size)),
    "longer": lambda path, draw: path.write_bytes(path.read_bytes() + draw.randbytes(draw.choice((1, 512, 1 << 18)))),
    "missing": lambda path, draw: path.unlink(),
    "another file": _other,
    "a folder": _folder,
    "a link": _link,
    "a pipe": _pipe,
    "renamed": lambda path, draw: path.rename(path.with_name(draw.choice((path.name.upper(), "x" + path.name, ".x")))),
    "twice": lambda path, draw: shutil.copy(path, path.with_name(draw.choice(("0" + path.name, "._" + path.name)))),
}


def _root(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "data-set")


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_size)


def mutate(root: Path, draw: random.Random) -> str:
    """Mutates one file of a folder, seldom two, and returns what was done."""
    done = []
    for _ in range(draw.choice((1, 1, 1, 2))):
        files = _files(root)
        tables = [path for path in files if path.suffix in (".json", ".csv", ".list", ".cfg", ".xlsx")]
        path = draw.choice(tables if tables and draw.random() < 0.3 else files)
        name = draw.choice(tuple(MUTATIONS))
        MUTATIONS[name](path, draw)
        done.append(f"{name}: {path.relative_to(root)}")
    return ", ".join(done)


def loading(root: Path, name: str) -> Callable[[], dict[str, list[str]]]:
    """Returns work that reads a folder as training does and gives the sentences of what is refused."""

    def work() -> dict[str, list[str]]:
        from anatolab.data import check_folder, open_cohort, scaled
        from anatolab.errors import InputError

        said: dict[str, list[str]] = {"refused": [], "problems": []}
        try:
            if name in PICTURES:
                _look(root, name)
            else:
                for case in open_cohort(root):
                    scaled(case)
        except InputError as error:
            said["refused"].append(str(error))
        if name in VOLUMES:
            try:
                said["problems"] = list(check_folder(root, progress=False).problems)
            except InputError as error:
                said["problems"].append(str(error))
        return said

    return work


def _look(root: Path, name: str) -> None:
    from anatolab.data import read_celeba, read_chexpert, read_metashift, read_table, read_waterbirds

    readers = (read_waterbirds, read_celeba, read_metashift, read_chexpert, read_table)
    images = dict(zip(PICTURES, readers, strict=True))[name](root)
    for row in range(len(images)):
        images.image(row)


def judged(ended: Ended, root: Path) -> str | None:
    """Returns what is wrong."""
    if ended.code == 124:
        return "hangs"
    if ended.result is None:
        return f"exit code {ended.code}: {ended.text.splitlines()[-1:]}"
    if ended.text:
        return f"a library says: {ended.text.splitlines()[0]}"
    for sentence in (*ended.result["refused"], *ended.result["problems"]):
        if not is_sentence(sentence):
            return f"no sentence with a remedy: {sentence}"
        if str(root) not in sentence:
            return f"names no file: {sentence}"
    if ended.result["refused"] and root.name and not ended.result["problems"] and "problems" in ended.result:
        return None if ended.result.get("pictures") else f"check lists nothing: {ended.result['refused'][0]}"
    return None


def run(tally: Tally, draw: random.Random, each: int) -> None:
    """Mutates each layout ``each`` times."""
    with tally.timed(KIND), tempfile.TemporaryDirectory() as folder:
        for name, write in (VOLUMES | PICTURES).items():
            pristine = Path(folder) / "pristine" / name / "data-set"
            pristine.mkdir(parents=True)
            write(pristine)
            for _ in range(each):
                root = Path(folder) / "work" / "data-set"
                shutil.rmtree(root.parent, ignore_errors=True)
                shutil.copytree(pristine, root)
                done = mutate(root, draw)
                ended = fork(loading(root, name), memory=MEMORY)
                if ended.result is not None and name in PICTURES:
                    ended.result["pictures"] = True
                wrong = judged(ended, root)
                tally.count(KIND, name, wrong and f"{done}: {wrong}")
