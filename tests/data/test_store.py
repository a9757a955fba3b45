"""Caches verified block by block: what is read is what was written, however it is read, or an error names the file."""

from __future__ import annotations

import errno
import os
import resource
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trees

from anatolab.data import Rows, Volumes, open_cohort, prepare, store
from anatolab.data.blocks import BLOCK, Checksums, VerifiedMap, checksums, open_verified
from anatolab.types import Case, CaseRef, Cohort, InputError

ROWS, SIDE = 40, 256  # float32: 256 KiB a row, four rows a block


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).random((ROWS, SIDE, SIDE), dtype=np.float32)


def mapped(path: Path, array: np.ndarray) -> VerifiedMap:
    np.save(path, array)
    layout = [array.dtype.str, list(array.shape)]
    return open_verified(path, checksums(array), layout, lambda what: InputError(f"{path}: {what}; remove it."))


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("pieces", [[0], [1], [BLOCK - 1, 1], [BLOCK], [BLOCK + 1], [5, 2 * BLOCK, 7, 3 * BLOCK - 1]])
def test_checksums_are_those_of_the_blocks_however_the_bytes_come(pieces: list[int]) -> None:
    content = np.random.default_rng(1).bytes(sum(pieces))
    sums, start = Checksums(), 0
    for size in pieces:
        sums.update(content[start : start + size])
        start += size
    due = [zlib.crc32(content[k : k + BLOCK]) for k in range(0, len(content), BLOCK)]
    assert sums.values == due
    assert checksums(np.frombuffer(content, np.uint8)) == due


INDEX: dict[str, Any] = {
    "a row": 17,
    "from the end": -3,
    "a slice": slice(5, 9),
    "a slice backwards": slice(30, 3, -2),
    "a stepped slice": slice(None, None, 7),
    "an empty slice": slice(9, 5),
    "rows": np.array([3, 39, 3, -1]),
    "no rows": np.array([], np.int64),
    "a list": [1, 2],
    "a mask": np.arange(ROWS) % 9 == 0,
    "a tuple": (slice(2, 4), 5, slice(None, None, 3)),
    "an entry": (7, 8, 9),
    "all": slice(None),
    "ellipsis": (..., 4),
    "a new axis": None,
    "an empty tuple": (),
}


@pytest.mark.parametrize("name", INDEX)
def test_every_index_gives_what_numpy_gives_and_verifies_what_it_reads(
    name: str, array: np.ndarray, tmp_path: Path
) -> None:
    path, index = tmp_path / "a.npy", INDEX[name]
    plain = array[index]
    read = mapped(path, array)[index]
    np.testing.assert_array_equal(read, plain)
    assert type(read) in (np.ndarray, np.float32)
    touched = {int(row) // 4 for row in np.unique(np.indices(array.shape, np.uint8)[0][index])} if plain.size else set()
    for block in range(ROWS // 4):
        damaged = mapped(path, array)
        flip(path, damaged.offset + block * BLOCK + 12345)
        if block in touched:
            with pytest.raises(InputError, match=rf"a\.npy: its block {block} is not as it was written; remove it"):
                damaged[index]
        elif name not in ("rows", "a slice backwards", "a stepped slice"):  # these may verify what lies between
            np.testing.assert_array_equal(damaged[index], plain)


@pytest.mark.parametrize(
    "use",
    [
        lambda a: a.min(),
        lambda a: a.sum(),
        lambda a: a + 1,
        lambda a: a.astype(np.float64),
        lambda a: a.copy(),
        lambda a: a.reshape(-1),
        lambda a: a.T,
        lambda a: np.square(a),
        lambda a: list(a),
    ],
)
def test_arithmetic_on_the_whole_verifies_the_whole(
    use: Callable[[np.ndarray], object], array: np.ndarray, tmp_path: Path
) -> None:
    np.testing.assert_array_equal(np.asarray(use(mapped(tmp_path / "a.npy", array))), np.asarray(use(array)))
    damaged = mapped(tmp_path / "a.npy", array)
    flip(tmp_path / "a.npy", -1 % (tmp_path / "a.npy").stat().st_size)
    with pytest.raises(InputError, match="is not as it was written"):
        use(damaged)


def test_a_block_is_verified_once(array: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = mapped(tmp_path / "a.npy", array)
    sums: list[int] = []
    real = zlib.crc32
    monkeypatch.setattr(zlib, "crc32", lambda data, *more: (sums.append(len(data)), real(data, *more))[1])
    for _ in range(3):
        rows[np.array([0, 1, 2, 3, 4])]
    assert sums == [BLOCK, BLOCK]


def test_a_file_that_shrinks_while_it_is_mapped_is_said(array: np.ndarray, tmp_path: Path) -> None:
    rows = mapped(tmp_path / "a.npy", array)
    assert rows[1, 2, 3] == array[1, 2, 3]
    os.truncate(tmp_path / "a.npy", 5 * BLOCK)
    with pytest.raises(InputError, match=r"a\.npy: another program cut it short while it was read; remove it"):
        rows[ROWS - 1]  # reading it would end the process by SIGBUS


# --- the cache of a cohort -----------------------------------------------------------------------------------------


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return open_cohort(trees.official(tmp_path / "acdc"))


@pytest.fixture
def lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes every array for a large one, which is verified as it is read."""
    monkeypatch.setattr(store, "EAGER", 0)


@pytest.mark.usefixtures("lazy")
@pytest.mark.parametrize("name", ["images", "labels"])
def test_damage_of_a_large_cache_is_said_when_it_is_read_and_the_next_run_builds_it(
    name: str, cohort: Cohort, tmp_path: Path
) -> None:
    first = prepare(cohort, cohort.patients, size=(8, 8), cache=tmp_path / "cache")
    due = [part.clone() for part in first.take(torch.arange(len(first)))]
    (folder,) = (tmp_path / "cache").iterdir()
    flip(folder / f"{name}.npy", (folder / f"{name}.npy").stat().st_size - 1)
    rows = prepare(cohort, cohort.patients, size=(8, 8), cache=tmp_path / "cache")
    assert rows.sha256 == first.sha256
    with pytest.raises(InputError, match=rf"{name}\.npy: its block 0 is not as it was written, so this cache is rem"):
        rows.take(torch.tensor([0]))
    assert list((tmp_path / "cache").iterdir()) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = prepare(cohort, cohort.patients, size=(8, 8), cache=tmp_path / "cache")
    for one, other in zip(again.take(torch.arange(len(again))), due, strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("lazy")
def test_volumes_are_verified_as_their_patches_are_read(cohort: Cohort, tmp_path: Path) -> None:
    rows = prepare(cohort, cohort.patients, size=(2, 4, 4), cache=tmp_path / "cache")
    file = next((tmp_path / "cache").glob("*/images.npy"))
    os.truncate(file, 300)
    with pytest.raises(InputError, match="another program cut it short while it was read, so this cache is removed"):
        rows.take(torch.tensor([3]))


@pytest.mark.usefixtures("lazy")
def test_no_flipped_bit_of_a_large_cache_reaches_a_row(cohort: Cohort, tmp_path: Path) -> None:
    def read() -> tuple[np.ndarray, ...]:
        rows = prepare(cohort, cohort.patients, size=(8, 8), cache=tmp_path / "cache")
        return (*map(np.array, rows.take(torch.arange(len(rows)))), np.array(rows.names), np.array([rows.sha256]))

    due, rng = read(), np.random.default_rng(0)
    for name in ("images.npy", "labels.npy", "index.json"):
        for _ in range(40):
            (folder,) = (tmp_path / "cache").iterdir()
            flip(folder / name, int(rng.integers((folder / name).stat().st_size)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    parts = read()
                except InputError as error:
                    assert name in str(error) or name == "index.json"  # noqa: PT017
                    parts = read()
            for one, other in zip(parts, due, strict=True):
                np.testing.assert_array_equal(one, other)


def test_a_cache_of_a_thousand_volumes_opens_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "EAGER", 1 << 20)
    image = np.random.default_rng(0).random((1, 16, 16, 16), dtype=np.float32)
    source = tmp_path / "a.h5"
    source.write_bytes(b"x")

    def load(k: int) -> Case:
        return Case(f"p{k}", "", image + k, np.zeros((16, 16, 16), np.uint8), None, None, source)

    refs = tuple(CaseRef(f"p{k}", "", source, lambda k=k: load(k), (source,)) for k in range(1000))
    cohort = Cohort("many", "none", ("background", "organ"), refs, tmp_path)
    prepare(cohort, cohort.patients, size=(8, 8, 8), cache=tmp_path / "cache")
    start = time.process_time()
    rows = prepare(cohort, cohort.patients, size=(8, 8, 8), cache=tmp_path / "cache")
    assert time.process_time() - start < 1
    assert not np.any(rows.images._known)  # type: ignore[attr-defined]
    rows.take(torch.tensor([999]))
    assert 1 <= rows.images._known.sum() <= 2  # type: ignore[attr-defined]


def test_a_row_costs_the_same_in_a_cohort_of_any_size() -> None:
    def seconds(count: int) -> float:
        volume, truth = np.zeros((1, 2, 2, 2), np.float32), np.zeros((2, 2, 2), np.uint8)
        names = [f"p{k}" for k in range(count)]
        rows = Volumes.from_arrays([volume] * count, [truth] * count, names, size=(2, 2, 2))
        rows._row(count - 1)
        start = time.process_time()
        for _ in range(2000):
            rows._row(count - 1)
        return time.process_time() - start

    assert seconds(20_000) < 5 * seconds(20)


def test_rows_of_volumes_of_all_sizes_lie_one_below_the_other() -> None:
    shapes = [(2, 3, 4), (1, 1, 1), (5, 2, 2), (3, 3, 3)]
    volumes = [np.full((2, *shape), k, np.float32) for k, shape in enumerate(shapes)]
    truth = [np.full(shape, k, np.uint8) for k, shape in enumerate(shapes)]
    rows = Volumes.from_arrays(volumes, truth, list("abcd"), size=(1, 1, 1))
    for k, shape in enumerate(shapes):
        image, label = rows._row(k)
        assert (image.shape, label.shape) == ((*shape, 2), shape)
        assert (image == k).all()
        assert (label == k).all()


def test_a_good_cache_is_kept_where_no_file_can_be_opened(cohort: Cohort, tmp_path: Path) -> None:
    due = prepare(cohort, cohort.patients, size=(8, 8), cache=tmp_path / "cache").sha256
    (folder,) = (tmp_path / "cache").iterdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            assert error.errno == errno.EMFILE  # noqa: PT017
        with pytest.raises(InputError, match="too many files are open"):
            prepare(cohort, cohort.patients, size=(8, 8), cache=tmp_path / "cache")
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert folder.is_dir()
    assert prepare(cohort, cohort.patients, size=(8, 8), cache=tmp_path / "cache").sha256 == due


@pytest.mark.parametrize("error", [MemoryError(), PermissionError(errno.EACCES, "x"), OSError(errno.EIO, "x")])
def test_a_cache_that_cannot_be_opened_for_another_reason_is_kept(
    error: Exception, cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(cohort, cohort.patients, size=(8, 8), cache=tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()

    def refuse(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(store, "open_verified", refuse)
    with pytest.raises(InputError) as caught:
        prepare(cohort, cohort.patients, size=(8, 8), cache=tmp_path / "cache")
    assert "damaged" not in str(caught.value)
    assert folder.is_dir()


def test_two_cases_of_one_name_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "a.h5"
    source.write_bytes(b"x")
    refs = tuple(CaseRef(*name, source, lambda: pytest.fail("read")) for name in (("a_ED", ""), ("a", "ED")))
    with pytest.raises(InputError, match=r"a\.h5: its case is named a_ED, as is another; rename one"):
        prepare(Cohort("x", "none", ("background", "y"), refs, tmp_path), ["a_ED", "a"], cache=tmp_path / "cache")


def test_rows_in_memory_are_plain_arrays() -> None:
    rows = Rows.from_arrays(np.zeros((2, 1, 4, 4), np.float32), np.zeros((2, 4, 4), np.uint8), ["a", "b"])
    assert type(rows.images) is np.ndarray
