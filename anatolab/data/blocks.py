"""Checksums of a file per block, so that a large array is verified as its rows are read."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anatolab.errors import InputError

BLOCK = 1 << 20  # bytes


class Checksums:
    """Computes the CRC-32 of each block of a stream.

    Example:
        >>> sums = Checksums()
        >>> sums.update(bytes(BLOCK - 1)), sums.update(b"xy")
        (None, None)
        >>> sums.values == [zlib.crc32(bytes(BLOCK - 1) + b"x"), zlib.crc32(b"y")]
        True
    """

    def __init__(self) -> None:
        self._whole: list[int] = []
        self._sum, self._length = 0, 0

    def update(self, data: Any) -> None:
        """Adds bytes to the stream."""
        view = memoryview(data).cast("B")
        while len(view):
            piece, view = view[: BLOCK - self._length], view[BLOCK - self._length :]
            self._sum, self._length = zlib.crc32(piece, self._sum), self._length + len(piece)
            if self._length == BLOCK:
                self._whole.append(self._sum)
                self._sum, self._length = 0, 0

    @property
    def values(self) -> list[int]:
        """Returns one checksum per block; the last block may be shorter."""
        return [*self._whole, *([self._sum] if self._length else [])]


def checksums(array: np.ndarray) -> list[int]:
    """Computes the :class:`Checksums` of a contiguous array in memory."""
    sums = Checksums()
    if array.size:
        sums.update(array.reshape(-1).view(np.uint8).data)
    return sums.values


class VerifiedMap(np.memmap):
    """A mapped ``.npy`` array that compares each block with its checksum when it is first indexed.

    Indexing gives plain arrays, and arithmetic on the whole array verifies all of it. Functions that take the memory
    without indexing (``np.asarray``, ``torch.from_numpy``) verify nothing: call :meth:`verify` before them.
    """

    _sums: np.ndarray | None = None
    _known: np.ndarray
    _damaged: Callable[[str], InputError]

    def __getitem__(self, index: Any) -> Any:
        if self._sums is None:  # a part of the array, verified when it was taken
            return np.asarray(self)[index]
        self.verify(_rows(index, len(self)))
        return self.view(np.ndarray)[index]

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        for value in inputs:
            if isinstance(value, VerifiedMap):
                value.verify()
        plain = [value.view(np.ndarray) if isinstance(value, VerifiedMap) else value for value in inputs]
        return getattr(ufunc, method)(*plain, **options)

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        if isinstance(obj, VerifiedMap) and obj._sums is not None:  # a view or copy, whose places are not these
            obj.verify()

    def verify(self, rows: np.ndarray | slice | None = None) -> None:
        """Compares the blocks of some rows, by default of all, with their checksums.

        Raises:
            InputError: The file is shorter than it was, or a block is not as it was written.
        """
        if self._sums is None or not self.size:
            return
        content = self.view(np.ndarray).reshape(-1).view(np.uint8)
        if self._mmap.size() < self.offset + content.nbytes:  # type: ignore[attr-defined]
            raise self._damaged("another program cut it short while it was read")
        for block in self._blocks(rows):
            if zlib.crc32(content[block * BLOCK : (block + 1) * BLOCK].data) != self._sums[block]:
                raise self._damaged(f"its block {block} is not as it was written")
            self._known[block] = True

    def _blocks(self, rows: np.ndarray | slice | None) -> Sequence[int]:
        """Returns the blocks of these rows that were not verified yet."""
        each = self.nbytes // len(self)
        if rows is None or each == 0:
            wanted = np.arange(len(self._known))
        elif isinstance(rows, slice):
            start, stop = rows.start * each // BLOCK, -(-rows.stop * each // BLOCK)
            wanted = np.arange(start, stop if rows.stop > rows.start else start)
        else:
            spans = -(-each // BLOCK) + 1
            first = np.unique(rows) * each // BLOCK
            last = ((np.unique(rows) + 1) * each - 1) // BLOCK
            wanted = np.unique(np.minimum(first[:, None] + np.arange(spans), last[:, None]))
        return wanted[~self._known[wanted]].tolist()


def open_verified(
    path: Path, sums: Sequence[int], layout: Sequence[Any], damaged: Callable[[str], InputError]
) -> VerifiedMap:
    """Maps a ``.npy`` file, read-only, to be verified as it is read.

    Args:
        path: The file.
        sums: Its checksums, as :class:`Checksums` made them over the array's bytes.
        layout: Its number type, as ``dtype.str``, and shape.
        damaged: Makes the exception from a description of the damage.

    Raises:
        ValueError: The file is not such an array.
        OSError: It cannot be opened.
    """
    plain = np.load(path, mmap_mode="r", allow_pickle=False)
    if [plain.dtype.str, list(plain.shape)] != list(layout) or not plain.flags.c_contiguous:
        raise ValueError(f"{path.name} is not the array that was written")
    if -(-plain.nbytes // BLOCK) != len(sums):
        raise ValueError(f"{path.name} lacks checksums")
    mapped = plain.view(VerifiedMap)
    mapped._sums, mapped._known, mapped._damaged = np.asarray(sums), np.zeros(len(sums), bool), damaged
    return mapped


def _rows(index: Any, length: int) -> np.ndarray | slice | None:
    """Returns which entries of the first axis an index reads; None for all."""
    if isinstance(index, tuple):
        if not index:
            return None
        index = index[0]
    if isinstance(index, slice):
        start, stop, step = index.indices(length)
        if step < 0:
            start, stop = stop + 1, start + 1
        return slice(start, max(start, stop))
    if index is None or index is Ellipsis:
        return None
    rows = np.asarray(index)
    if rows.dtype == bool:
        return np.flatnonzero(rows) if rows.ndim == 1 and len(rows) == length else None
    if rows.dtype.kind not in "iu":
        return None
    rows = rows.ravel().astype(np.int64)
    if ((rows < -length) | (rows >= length)).any():
        return slice(0, 0)  # numpy raises the error
    return np.where(rows < 0, rows + length, rows)
