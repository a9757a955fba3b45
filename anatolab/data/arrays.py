"""Reads named arrays of HDF5 files and NumPy archives, after checking links and sizes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from anatolab.data.files import DAMAGE, NUMBERS, check_budget, check_file, unreadable
from anatolab.data.geometry import Spacing
from anatolab.errors import InputError

LINKS = 16  # most links that are followed one after the other


def read_npz(path: Path, *keys: str) -> tuple[np.ndarray, ...]:
    """Reads the named arrays of a NumPy archive; arguments and errors as :func:`read_h5`."""
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            held = {name.removesuffix(".npy"): archive.getinfo(name) for name in archive.namelist()}
            if all(key in held for key in keys):
                return tuple(_npy(archive, held[key], path) for key in keys)
    except InputError:
        raise
    except (*DAMAGE, AttributeError, SyntaxError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        refusal = unreadable(path, error, ".npz")
        if "as .npz (" not in str(refusal):
            raise refusal from error
        raise InputError(
            f"{path}: cannot be read as .npz (truncated, not an archive, or not numeric); download or copy it again."
        ) from error
    raise no_array(path, next(key for key in keys if key not in held), held)


def read_h5(path: Path, *keys: str) -> tuple[np.ndarray, ...]:
    """Reads the named arrays of an HDF5 file.

    Args:
        path: The file.
        keys: Names of the arrays, such as ``image`` and ``label``.

    Returns:
        One array per key, in the order of the keys.

    Raises:
        InputError: The file is missing, empty, truncated, damaged or no HDF5, lacks one of the arrays, claims more than
            memory holds, or keeps values in another file.
    """
    return h5_arrays(path, *keys)[0]


def h5_arrays(path: Path, *keys: str) -> tuple[tuple[np.ndarray, ...], Spacing | None]:
    """Returns the arrays of :func:`read_h5` and the attribute ``spacing`` (mm along their axes), None without one."""
    import h5py

    check_file(path)
    try:
        with h5py.File(path, "r") as file:
            for key in keys:
                _check_h5(file, key, path)
            return tuple(np.asarray(file[key]) for key in keys), _h5_spacing(file, path)
    except InputError:
        raise
    except (*DAMAGE, RuntimeError) as error:
        raise unreadable(path, error, "HDF5") from error


def no_array(path: Path, absent: str, held: Iterable[str]) -> InputError:
    """Returns the error for a file without a required array."""
    return InputError(
        f"{path}: holds no array named {absent!r} (it has: {', '.join(held) or 'nothing'}); "
        "write the file again with this array."
    )


def _check_h5(file: Any, key: str, path: Path) -> None:
    """Checks that an HDF5 data set exists in this very file, is not empty and fits into memory."""
    import h5py

    _check_links(file, key, path)
    values = file.get(key)
    if not isinstance(values, h5py.Dataset):
        raise no_array(path, key, file)
    if values.is_virtual:
        raise _elsewhere(path, key, ", ".join(sorted({source.file_name for source in values.virtual_sources()})))
    if values.external:
        raise _elsewhere(path, key, str(values.external[0][0]))
    if values.dtype.kind not in NUMBERS:
        raise InputError(f"{path}: holds {values.dtype} for {key!r} where numbers are expected; write them as numbers.")
    stored = values.id.get_storage_size()
    if values.size and not stored and values.id.get_create_plist().get_layout() != h5py.h5d.COMPACT:
        raise InputError(f"{path}: has a header for {key!r} but no values; write or copy it again.")
    check_budget(path, values.shape, values.dtype.itemsize)


def _check_links(file: Any, key: str, path: Path) -> None:
    """Follows a name through links within its file; refuses a link into another file."""
    import h5py

    group, left, followed = file, [part for part in key.split("/") if part], 0
    while left:
        part = left.pop(0)
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) and part in list(group) else None
        if isinstance(link, h5py.ExternalLink):
            raise _elsewhere(path, key, link.filename)
        if isinstance(link, h5py.SoftLink):
            followed += 1
            if followed > LINKS:
                raise InputError(f"{path}: {key!r} is a link that leads to itself; write the array in its place.")
            group = file if link.path.startswith("/") else group
            left = [piece for piece in link.path.split("/") if piece] + left
        elif link is not None:
            group = group[part]
        else:
            return  # no array of this name


def _elsewhere(path: Path, key: str, place: str) -> InputError:
    return InputError(f"{path}: keeps {key!r} in another file ({place}); write one file that holds its values itself.")


def _h5_spacing(file: Any, path: Path) -> Spacing | None:
    if "spacing" not in file.attrs:
        return None
    try:
        one, two, three = (float(mm) for mm in file.attrs["spacing"])
    except (ValueError, TypeError, OSError):
        one = two = three = np.nan
    if not all(0 < mm < 1e4 for mm in (one, two, three)):
        raise InputError(
            f"{path}: its attribute 'spacing' is {file.attrs['spacing']!r}; write three lengths in mm, one per axis."
        )
    return one, two, three


def _npy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    """Reads an array of an archive; compares its header with the archive's before memory is allocated."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
        size = check_budget(path, shape, kind.itemsize, member.file_size)
        if kind.kind not in NUMBERS or file.tell() + size != member.file_size:
            raise ValueError(f"{member.filename} does not hold what its header says")
    with archive.open(member) as file:  # read to its end, where zipfile verifies the checksum
        return np.lib.format.read_array(file, allow_pickle=False)
