"""What is trained, measured, predicted, cached and recorded while something fails: small, and the same each time."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tests.faults.child import command, fork, refusing

FLAGS = ("--split-seed", "0", "--side", "16", "--dims", "2", "--labeled-patients", "2", "--accelerator", "cpu")
METHOD = ("supervised", "--updates", "3", "--labeled", "2")
SETTINGS = (
    "--network",
    "segresnet",
    "--held-out",
    "1",
    "--checkpoint-every",
    "1",
    "--log-every",
    "1",
    "--precision",
    "32-true",
)

WORLDS = (
    *("a training", "a training that continues", "an evaluation", "a prediction"),
    *("a cache", "a record", "features", "a cohort"),
)


def discs(seed: int, shape: tuple[int, int, int] = (16, 16, 3)) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image of a disc within a disc, and its labels."""
    rng = np.random.default_rng(seed)
    x, y, _ = np.meshgrid(*map(np.arange, shape), indexing="ij")
    radius = np.hypot(x - 8 + rng.uniform(-2, 2), y - 8 + rng.uniform(-2, 2))
    label = (radius < 6).astype(np.uint8) + (radius < 3)
    return (100 * label + rng.normal(100, 8, shape)).astype(np.int16), label.astype(np.uint8)


def patients(root: Path, count: int = 4) -> Path:
    """Writes patients in the layout of nnU-Net."""
    for number in range(count):
        for part, array in zip(("images", "labels"), discs(number), strict=True):
            name = f"case_{number:02d}{'_0000' if part == 'images' else ''}.nii.gz"
            (root / f"{part}Tr").mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.5, 8.0, 1.0])), root / f"{part}Tr" / name)
    labels = {"background": 0, "outer": 1, "inner": 2}
    about = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    return root


def hashed(folder: Path, pattern: str = "*") -> dict[str, str]:
    """Returns a hash of every file below a folder, by its path."""
    files = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@dataclass(frozen=True)
class World:
    """Something that writes.

    Before a fault, ``start`` is copied to a folder of its own. What is written lies in its ``out``.
    """

    name: str
    start: Path
    work: Callable[[Path], Callable[[], int]]  # of the folder: what runs in a child
    result: Callable[[Path], Any]  # of the folder: what a success ends with, the same each time
    whole: Callable[[Path], bool]  # whether a new or changed file below out is complete

    def copy(self, folder: Path) -> Path:
        """Returns a fresh copy of what lies there before."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.start, folder, symlinks=True)
        os.environ["ANATOLAB_CACHE"] = str(folder / "out" / "cache" if self.name == "a cache" else folder / "cache")
        os.environ["ANATOLAB_RECORDS"] = str(folder / "out")
        return folder


@cache
def worlds() -> dict[str, World]:
    """Builds, once a process, what a training, an evaluation, a prediction, a cache, a record, features and a cohort
    start from."""
    root = Path(tempfile.mkdtemp(prefix="worlds-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    base = root / "base"
    patients(base / "data")
    (base / "out").mkdir()
    os.environ["ANATOLAB_CACHE"] = str(base / "cache")
    _done(_train(base), base)
    run = base / "run"
    (base / "out" / "run").rename(run)
    starts = {name: root / name for name in ("train", "continue", "evaluate", "predict", "cache", "record")}
    for start in starts.values():
        shutil.copytree(base, start)
    shutil.copytree(run, starts["continue"] / "out" / "run")
    (starts["continue"] / "out" / "run" / "previous.pt").replace(starts["continue"] / "out" / "run" / "last.pt")
    (starts["evaluate"] / "out" / "values.json").write_text("{}")
    _done(_predict(starts["predict"]), starts["predict"])
    for path in (starts["predict"] / "out").rglob("*.nii.gz"):
        path.write_bytes(b"old")
    shutil.rmtree(starts["cache"] / "cache")
    _write_record(starts["record"] / "out", 1)
    made = (
        World("a training", starts["train"], _train, _weights, _is_run_file),
        World("a training that continues", starts["continue"], _train, _weights, _is_run_file),
        World("an evaluation", starts["evaluate"], _evaluate, _values, lambda path: bool(json.loads(path.read_text()))),
        World("a prediction", starts["predict"], _predict, lambda f: hashed(f / "out", "*.gz"), _is_nifti),
        World("a cache", starts["cache"], _cache, _rows, _is_cache_file),
        World("a record", starts["record"], _record, lambda f: hashed(f / "out"), lambda p: bool(_read_record(p))),
        World("features", starts["record"], _features, _feature_values, _is_cache_file),
        World("a cohort", starts["cache"], _cohort, lambda f: sorted(hashed(f / "out" / "made")), lambda path: True),
    )
    return {world.name: world for world in made}


def _done(work: Callable[[], int], folder: Path) -> None:
    ended = fork(work)
    if ended.code:
        raise RuntimeError(f"{folder}: {ended.text}")


def _train(f: Path) -> Callable[[], int]:
    return command("train", "--data", f / "data", "--out", f / "out" / "run", *FLAGS, *SETTINGS, *METHOD)


def _evaluate(f: Path) -> Callable[[], int]:
    file = f / "out" / "values.json"
    where = ("--run", f / "run", "--data", f / "data", "--accelerator", "cpu")
    return command("evaluate", *where, "--json-file", file, "--overwrite")


def _predict(f: Path) -> Callable[[], int]:
    images = (f / "data" / "imagesTr" / f"case_{k:02d}_0000.nii.gz" for k in (0, 1))
    where = ("--run", f / "run", "--out", f / "out" / "labels", "--accelerator", "cpu")
    return command("predict", *where, "--overwrite", "--images", *images)


def _cohort(f: Path) -> Callable[[], int]:
    return command("cohort", "cardiac", f / "out" / "made", "--patients", 1)


def _cache(f: Path) -> Callable[[], int]:
    return refusing(lambda: prepared(f))


def _record(f: Path) -> Callable[[], int]:
    return refusing(lambda: _write_record(f / "out", 2))


def _features(f: Path) -> Callable[[], int]:
    return refusing(lambda: extracted(f))


def _weights(f: Path) -> Any:
    """Weights, step and log of a run; hashed in a child, because the parent computes nothing."""

    def read() -> Any:
        from anatolab.training import checkpoint

        held = checkpoint.load(f / "out" / "run" / "last.pt")
        digest = hashlib.sha256()
        for key, value in held["method"].items():
            digest.update(key.encode() + value.numpy().tobytes())
        return [digest.hexdigest(), held["step"], len((f / "out" / "run" / "log.jsonl").read_text().splitlines())]

    return fork(read).result


def _values(f: Path) -> Any:
    held = json.loads((f / "out" / "values.json").read_text())
    return held["summary"], held["cases"]


def prepared(f: Path) -> str:
    from anatolab.data import open_cohort, prepare

    cohort = open_cohort(f / "data")
    rows = prepare(cohort, cohort.patients, size=(16, 16), cache=f / "out" / "cache")
    return rows.sha256


def _rows(f: Path) -> Any:
    return fork(lambda: prepared(f)).result


def _write_record(root: Path, value: float) -> None:
    from anatolab.records import Record, write

    os.environ["ANATOLAB_RECORDS"] = str(root)
    write(Record("toy", 0, {"dice": value, "cases": [value] * 2_000}))


def _read_record(path: Path) -> Any:
    from anatolab import records

    return records.read(path)


def extracted(f: Path) -> list[float]:
    from anatolab.data.phantoms import finch_or_duck
    from anatolab.robust import load_clip
    from anatolab.robust.features import extract

    images = finch_or_duck((8, 4, 4), aligned=0.8, seed=1).of("train")
    return extract(load_clip("scenes-vit"), images, cache=f / "out" / "cache").double().sum(1).tolist()


def _feature_values(f: Path) -> Any:
    return fork(lambda: extracted(f)).result


def _is_run_file(path: Path) -> bool:
    def read() -> int:
        from anatolab.training import checkpoint

        if path.suffix == ".pt":
            return int("method" not in checkpoint.load(path))
        lines = (
            path.read_text(encoding="utf-8").splitlines()
            if path.suffix == ".jsonl"
            else [path.read_text(encoding="utf-8")]
        )
        return int(not all(isinstance(json.loads(line), dict) for line in lines))

    return fork(read).code == 0


def _is_nifti(path: Path) -> bool:
    from anatolab.data.nifti import read_nifti

    return read_nifti(path)[0].size > 0


def _is_cache_file(path: Path) -> bool:
    if path.suffix == ".npy":
        return np.load(path).size > 0
    return isinstance(json.loads(path.read_text(encoding="utf-8")), dict)
