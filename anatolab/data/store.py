"""Caches arrays cut from cases: memory-mapped, verified as they are read, rebuilt when a source changes.

A cache is a folder named by a hash of the recipe and of every source file's path, size and modification time. Contents
are not hashed, so that opening a cache does not read the data again; an edit within the clock's resolution that keeps
the size goes unnoticed. The cached arrays have a checksum per block: small ones are verified when they are opened,
large ones as their rows are read, so that opening is fast.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from anatolab.data.blocks import Checksums, VerifiedMap, open_verified
from anatolab.data.files import system_error, unreadable
from anatolab.types import CaseRef, Cohort, InputError

Opened = TypeVar("Opened")  # what is read from a cache

FORMAT = 2  # of the files of a cache, part of every key
EAGER = 128 << 20  # bytes of an array up to which it is verified, and rebuilt if damaged, when it is opened
BESIDE = ("arrays", "blocks", "layout", "sha256", "recipe")  # entries of an index that are not columns

Cut = tuple[np.ndarray, np.ndarray, dict[str, list]]  # of one case: image rows, label rows, columns of the index


def cache_root() -> Path:
    """Returns the folder of all caches: ``ANATOLAB_CACHE``, else ``~/.cache/anatolab``."""
    return Path(os.environ.get("ANATOLAB_CACHE") or "~/.cache/anatolab").expanduser()


def cached(
    cohort: Cohort,
    patients: Sequence[str],
    recipe: dict[str, Any],
    cut: Callable[[CaseRef], Cut],
    cache: str | Path | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[str, list], str]:
    """Returns the stacked results of ``cut`` for the cases of some patients, computed on the first call and cached.

    A damaged cache is rebuilt with a warning. Damage of a large array is noticed when its rows are read; it raises an
    ``InputError`` and removes the cache, so that the same command rebuilds it.

    Args:
        cohort: The patients' cohort.
        patients: Patients in the order of their cases.
        recipe: Describes everything that ``cut`` does; part of the key.
        cut: Reads a case; returns image rows, label rows and columns of the index, such as names and patients.
        cache: The folder of the caches; by default ``cache_root()``.

    Returns:
        Image rows and label rows, memory-mapped and verified as they are indexed, the columns, and the sha256 of all
        of these as they were written.

    Raises:
        InputError: As for :func:`anatolab.data.prepare`.
    """
    if not patients or len(set(patients)) < len(patients):
        raise InputError(f"{cohort.root}: patients to prepare must be at least one, each named once.")
    refs = cohort.of(patients)
    if len({ref.name for ref in refs}) < len(refs):
        twice = next(ref for i, ref in enumerate(refs) if ref.name in {other.name for other in refs[:i]})
        raise InputError(f"{twice.source}: its case is named {twice.name}, as is another; rename one of the two.")
    recipe = {**recipe, "format": FORMAT, **({"window": list(cohort.window)} if cohort.window else {})}
    recipe |= {"orientation": cohort.orientation} if cohort.orientation else {}
    folder = Path(cache or cache_root()).expanduser() / f"{_slug(cohort.name)}-{_key(cohort, refs, recipe)}"
    return open_or_build(
        folder,
        lambda: _build(folder, cohort, refs, recipe, cut),
        lambda: _open(folder),
        name="a cache",
        damaged="this cache is damaged",
        again="building it",
        stacklevel=4,
    )


def open_or_build(
    folder: Path,
    build: Callable[[], None],
    read: Callable[[], Opened],
    *,
    name: str,
    damaged: str,
    again: str,
    stacklevel: int,
) -> Opened:
    """Reads a folder, which is built if it is missing and rebuilt if it is damaged.

    Args:
        folder: The folder that ``build`` writes and ``read`` reads.
        build: Writes the folder, unless another process was first.
        read: Reads the folder; on damage raises whatever its parsers raise.
        name: What the folder holds, for messages: "a cache".
        damaged: The start of a message: "this cache is damaged".
        again: The remedy in it: "building it".
        stacklevel: Stack level of the warning, counted from here.

    Raises:
        InputError: The system refuses to read, or the folder stays damaged.
    """
    for _ in range(3):  # a third time only where another process replaces a damaged folder meanwhile
        if not folder.is_dir():
            build()
        try:
            return read()
        except Exception as error:  # whatever a damaged file makes its parser raise
            if isinstance(error, MemoryError) or system_error(error) not in (None, errno.ENOENT, errno.EINVAL):
                raise unreadable(folder, error, name) from error  # it may be intact
            if folder.is_dir():
                warnings.warn(f"{folder}: {damaged} ({error}); {again} again.", stacklevel=stacklevel)
                remove(folder)
    raise InputError(f"{folder}: {damaged} and cannot be replaced; remove the folder.")


def _build(
    folder: Path, cohort: Cohort, refs: Sequence[CaseRef], recipe: dict[str, Any], cut: Callable[[CaseRef], Cut]
) -> None:
    """Writes a cache under a temporary name and renames it, unless another process was first."""
    from tqdm.auto import tqdm

    columns: dict[str, list] = {}
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
        part.chmod(0o755)  # people of one machine may share a cache
        with GrowingArray(part / "images.npy") as images, GrowingArray(part / "labels.npy") as labels:
            still = bool(os.environ.get("ANATOLAB_BOOK"))  # a bar is a widget, for which a page loads scripts of a CDN
            for ref in tqdm(refs, desc=f"reading {cohort.name}", unit="case", delay=2, disable=still):
                image, label, beside = cut(ref)
                images.append(image, ref.source)
                labels.append(label, ref.source)
                for name, values in beside.items():
                    columns.setdefault(name, []).extend(values)
        sha256 = {"images": images.sha256, "labels": labels.sha256}
        blocks = {"images": images.blocks, "labels": labels.blocks}
        index = {**columns, "arrays": sha256, "sha256": _join(sha256["images"], sha256["labels"], columns)}
        index |= {"blocks": blocks, "layout": {"images": images.layout, "labels": labels.layout}}
        (part / "index.json").write_text(json.dumps({**index, "recipe": recipe}), encoding="utf-8")
        with suppress(OSError):  # not empty: another process was first, and its cache is as good as this one
            part.rename(folder)
        if not folder.is_dir():
            part.rename(folder)
    except OSError as error:
        raise InputError(
            f"{folder}: the cache cannot be written ({error.strerror or error}); "
            "free some space there, or set ANATOLAB_CACHE to a folder that has it."
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _open(folder: Path) -> tuple[np.ndarray, np.ndarray, dict[str, list], str]:
    """Returns the content of a cache after verifying its index; raises what its parsers raise on damage."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    columns = {name: values for name, values in index.items() if name not in BESIDE}
    arrays = index["arrays"]
    opened = False  # what a file lacks from then on is the user's to know
    if _join(arrays["images"], arrays["labels"], columns) != index["sha256"]:
        raise ValueError("its index is not as it was written")

    def mapped(name: str) -> VerifiedMap:
        def damaged(what: str) -> InputError:
            if opened:
                remove(folder)
            return InputError(
                f"{folder / name}.npy: {what}, so this cache is removed; start the same command again, which builds it."
            )

        array = open_verified(folder / f"{name}.npy", index["blocks"][name], index["layout"][name], damaged)
        if array.nbytes <= EAGER:
            array.verify()
        return array

    images, labels = mapped("images"), mapped("labels")
    opened = True
    return images, labels, columns, index["sha256"]


class GrowingArray:
    """A .npy file that is written and hashed in parts, and whose number of rows is known only at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self._sums = Checksums()
        self._rows = 0
        self._shape: tuple[int, ...] = ()
        self._dtype = np.dtype(np.uint8)

    def __enter__(self) -> GrowingArray:
        self._file = self._path.open("wb")
        return self

    def append(self, array: np.ndarray, source: object) -> None:
        """Appends rows; ``source`` names them in the message if their shape differs."""
        if self._rows and array.shape[1:] != self._shape:
            raise InputError(
                f"{source}: gives rows of shape {array.shape[1:]}, the cases before it {self._shape}; "
                "keep cases with another number of channels in a folder of their own."
            )
        if not self._rows:
            self._shape, self._dtype = array.shape[1:], array.dtype
            self._header()
        array = np.ascontiguousarray(array)
        self._hash.update(array.data)
        self._sums.update(array.data)
        self._file.write(array.data)
        self._rows += len(array)

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                end = self._file.tell()
                self._file.seek(0)
                self._header()  # of the same length: numpy leaves room for the first axis to grow
                self._file.seek(end)
        finally:
            self._file.close()

    def _header(self) -> None:
        shape = (self._rows, *self._shape)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    @property
    def layout(self) -> list[Any]:
        return [self._dtype.str, [self._rows, *self._shape]]

    @property
    def blocks(self) -> list[int]:
        return self._sums.values

    @property
    def sha256(self) -> str:
        return _array_sha256(self._hash, (self._rows, *self._shape), self._dtype)


def _array_sha256(content: Any, shape: Sequence[int], dtype: np.dtype) -> str:
    return hashlib.sha256(f"{dtype.str} {list(shape)} {content.hexdigest()}".encode()).hexdigest()


def sha256_of(images: np.ndarray, labels: np.ndarray, columns: dict[str, list]) -> str:
    """Returns the hash over rows and the columns of their index."""
    one, two = (_array_sha256(hashlib.sha256(np.ascontiguousarray(a).data), a.shape, a.dtype) for a in (images, labels))
    return _join(one, two, columns)


def _join(images: str, labels: str, columns: dict[str, list]) -> str:
    text = json.dumps({"images": images, "labels": labels, **columns}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _key(cohort: Cohort, refs: Sequence[CaseRef], recipe: dict[str, Any]) -> str:
    """Returns a key that depends on the recipe, the cases and their order, the folder, and the source files."""
    sources = [(ref.name, *_stamps(ref, cohort.root)) for ref in refs]
    text = json.dumps([recipe, str(cohort.root.resolve()), cohort.classes, sources], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _stamps(ref: CaseRef, root: Path) -> Iterator[tuple[str, int, int]]:
    for path in ref.files or (ref.source,):
        try:
            stat = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); copy it there again.") from error
        yield os.path.relpath(path, root), stat.st_size, stat.st_mtime_ns


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def remove(folder: Path) -> None:
    """Removes a cache in one step, so that no other process sees half of it."""
    with suppress(OSError):  # no longer there: another process took it away first
        aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
        try:
            folder.rename(aside / "old")
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Removes partial caches of killed writers after a day."""
    for part in folder.parent.glob(f"{folder.name}.part-*"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > 86400:
                shutil.rmtree(part, ignore_errors=True)
