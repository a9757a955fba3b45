"""Reads NIfTI 1 and 2 to the end of their compressed streams, where the checksums are.

nibabel parses the header. The values are read here, because nibabel stops at the last voxel and does not notice a
damaged stream, and because the claimed size must be checked before anything is allocated.
"""

from __future__ import annotations

import gzip
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from anatolab.data import geometry
from anatolab.data.files import DAMAGE, DEFLATE, NUMBERS, PIECE, SLACK, check_budget, check_file, unreadable
from anatolab.data.geometry import Spacing
from anatolab.types import InputError

EXTENSIONS = 64 << 20  # bytes that may lie between header and values
SILENT = logging.Logger("nifti")  # for nibabel's repairs; problems are reported as one InputError
SILENT.addHandler(logging.NullHandler())


def read_nifti(path: Path, ndim: int = 3) -> tuple[np.ndarray, np.ndarray, Spacing]:
    """Reads a NIfTI file in array order, with its geometry and no change of orientation.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file (NIfTI 1 or 2) whose array is stored as (x, y, z), or (x, y, z, channel);
            trailing axes of length 1 are dropped.
        ndim: 3, or 4 for all channels in one file.

    Returns:
        The values as (z, y, x), or (c, z, y, x), scaled as the header says; the affine (4, 4) from voxel (x, y, z) to
        world mm; the spacing (z, y, x) in mm, see :func:`anatolab.data.geometry.agreed_spacing`.

    Raises:
        InputError: The file is missing, empty, truncated, damaged or no NIfTI, claims more than it holds or memory
            holds, has other axes, or has no spacing in mm.
    """
    return read_with_notes(path, ndim)[:3]


def read_with_notes(path: Path, ndim: int = 3) -> tuple[np.ndarray, np.ndarray, Spacing, tuple[str, ...]]:
    """Reads a volume as :func:`read_nifti` does, with a note on each ambiguity of its header."""
    from nibabel.volumeutils import apply_read_scaling

    check_file(path)
    try:
        with _stream(path) as (file, stored):
            header, pixdim = _header(file)
            kind, offset = header.get_data_dtype(), int(header.get_data_offset())
            shape = tuple(int(side) for side in header.get_data_shape())
            if kind.kind in NUMBERS:
                check_budget(path, shape, kind.itemsize, stored)
                _skip(file, offset - file.tell())
                values = _values(file, shape, kind)
                _to_the_end(file)
                values = np.asarray(apply_read_scaling(values, *_slope(header)))
    except InputError:
        raise
    except errors() as error:
        raise unreadable(path, error, "NIfTI") from error
    if kind.kind not in NUMBERS or len(squeezed := _squeezed(shape, ndim)) != ndim:
        expected = "one 3-D volume of numbers" if ndim == 3 else "one 4-D volume, channels last,"
        raise InputError(
            f"{path}: holds {'x'.join(map(str, shape))} values of {kind} where {expected} is expected; "
            "save each frame or channel as a 3-D file of its own."
        )
    unit = header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise InputError(f"{path}: its header gives the spacing in {unit}; save it with spatial units in mm.")
    affine, spacing, notes = _geometry(header, pixdim, path)
    return np.ascontiguousarray(values.reshape(squeezed, order="F").T), affine, spacing, notes


def nifti_geometry(path: Path) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Returns affine (4, 4) and notes from the header, not reading voxels; None if the header cannot be read."""
    check_file(path)
    try:
        with _stream(path) as (file, _):
            affine, _, notes = _geometry(*_header(file), path)
            return affine, notes
    except InputError:  # reading its values says what is wrong
        return None, ()
    except errors():
        return None, ()


def errors() -> tuple[type[BaseException], ...]:
    """Returns the exception types that parsing a damaged file raises."""
    import nibabel as nib

    return (*DAMAGE, nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError)


def _header(file: BinaryIO) -> tuple[Any, tuple[float, ...]]:
    """Returns the header (NIfTI 1 or 2) and its stored spacing, which nibabel alters; ``file`` ends up behind it."""
    import nibabel as nib

    first = file.read(4)
    sizes = {int.from_bytes(first, "little"), int.from_bytes(first, "big")}
    if not sizes & {348, 540}:
        raise ValueError("no NIfTI header")
    kind = nib.nifti2.Nifti2Header if 540 in sizes else nib.nifti1.Nifti1Header
    block = first + file.read(kind.template_dtype.itemsize - 4)
    if len(block) < kind.template_dtype.itemsize:
        raise EOFError("ends in its header")
    header = kind(block, check=False)
    if not header["magic"].item().startswith(b"n+"):
        raise ValueError("its header is that of a pair of files")
    pixdim = tuple(float(edge) for edge in header["pixdim"][1:4])
    header.check_fix(SILENT)
    return header, pixdim


def _slope(header: Any) -> tuple[float, float]:
    slope, inter = header.get_slope_inter()
    return 1.0 if slope is None else slope, 0.0 if inter is None else inter


def _squeezed(shape: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """Returns the shape without trailing axes of length 1, nor the one that NIfTI puts before a vector."""
    if ndim == 4 and len(shape) == 5 and shape[3] == 1:
        return (*shape[:3], shape[4])
    while len(shape) > ndim and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _geometry(header: Any, pixdim: tuple[float, ...], path: Path) -> tuple[np.ndarray, Spacing, tuple[str, ...]]:
    """Returns affine, spacing (z, y, x) and notes."""
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except errors():
        affine = np.zeros((4, 4))
    if not (np.isfinite(affine).all() and np.linalg.det(affine[:3, :3]) and np.isfinite(pixdim).all() and all(pixdim)):
        raise InputError(
            f"{path}: its affine or spacing {pixdim[::-1]} gives voxels no volume; repair the header, "
            "for example by copying that of the original image."
        )
    x, y, z = (abs(edge) for edge in pixdim)
    spacing, notes = geometry.agreed_spacing(affine, (z, y, x), path)
    if not header["qform_code"] and not header["sform_code"]:
        notes += ("its header gives no orientation, and NIfTI's default (LAS) is taken",)
    elif header["qform_code"] and header["sform_code"]:
        corner = np.array([*(max(int(n) - 1, 1) for n in header.get_data_shape()[:3]), 1.0])
        apart = float(np.linalg.norm(((header.get_qform() - affine) @ corner)[:3]))
        if apart > min(spacing) / 2:
            notes += (f"its qform and sform are up to {apart:.3g} mm apart, and the sform is taken",)
    return affine, spacing, notes


@contextmanager
def _stream(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Returns a stream of the content, decompressed if it is gzip (whatever its name), and its maximal size (bytes)."""
    with path.open("rb") as raw:
        size, packed = path.stat().st_size, raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=raw) as file:
                yield io.BufferedReader(file, PIECE), size * DEFLATE
        else:
            yield raw, size


def _values(file: BinaryIO, shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    """Reads an array stored with its first axis fastest."""
    values = np.empty(shape, kind, order="F")
    target = values.reshape(-1, order="F").view(np.uint8).data  # no copy
    filled = 0
    while filled < len(target):
        count = file.readinto(target[filled:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"ends after {filled} of {len(target)} bytes")
        filled += count
    return values


def _skip(file: BinaryIO, count: int) -> None:
    if count < 0:
        raise ValueError("its values start inside its header")
    if count > EXTENSIONS:
        raise ValueError(f"its values start {count} bytes behind its header")
    while count:
        piece = file.read(min(count, PIECE))
        if not piece:
            raise EOFError("ends before its values")
        count -= len(piece)


def _to_the_end(file: BinaryIO) -> None:
    """Reads what is left, so that a compressed stream's checksum is verified; much of it is no padding."""
    left = 0
    while piece := file.read(PIECE):
        left += len(piece)
        if left > SLACK:
            raise ValueError("holds more values than its header says")
