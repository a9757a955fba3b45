"""Lists the image files of a folder, and explains why a file cannot be read.

All readers and ``predict`` list and open files by these functions, so that all commands ignore the same files. Sizes
are checked before anything is allocated (:func:`check_budget`), and a file that cannot be opened is distinguished from
a damaged one (:func:`unreadable`).
"""

from __future__ import annotations

import errno
import json
import os
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from anatolab.errors import InputError

NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".mha", ".mhd")
ENDINGS = (*NIFTI, *ITK)
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
DEFLATE = 1032  # largest compression ratio of deflate
NUMBERS = "biuf"  # kinds of number types that are values of images or labels
PIECE = 1 << 20  # bytes of a stream that are in memory at a time
SLACK = 1 << 16  # bytes of padding that may follow the values
DAMAGE = (OSError, EOFError, ValueError, TypeError, KeyError, OverflowError, MemoryError, zlib.error)  # of parsers
TEXT_BYTES = 256 << 20  # largest size of a list, table or description
A = TypeVar("A")
B = TypeVar("B")


def ending(path: Path) -> str:
    """Returns the ending of an image file's name, such as ``.nii.gz`` of ``a.1.nii.gz`` or of ``A.NII.GZ``."""
    return next((e for e in ENDINGS if path.name.lower().endswith(e)), path.suffix)


def stem(path: Path) -> str:
    """Returns the file's name without its ending, in composed Unicode (NFC): names zipped on a Mac are decomposed."""
    return unicodedata.normalize("NFC", path.name[: len(path.name) - len(ending(path))])


def case_name(path: Path) -> str:
    """Returns the name of a file without its ending, or that of a folder of DICOM, in composed Unicode (NFC)."""
    return unicodedata.normalize("NFC", path.name) if path.is_dir() and not is_image(path) else stem(path)


def natural(name: str) -> tuple[Any, ...]:
    """Sorts ``volume-2`` before ``volume-10``."""
    return tuple((int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name))


def hidden(path: Path) -> bool:
    """Returns whether the file was made by an operating system, such as ``._a.nii.gz`` or ``Thumbs.db``."""
    return path.name.startswith(".") or path.name in ("Thumbs.db", "desktop.ini", "__MACOSX")


def is_image(path: Path) -> bool:
    """Returns whether the name is that of an image volume; the file may still be missing, a folder or damaged."""
    return ending(path) in ENDINGS and not hidden(path)


def entries(folder: Path) -> list[Path]:
    """Returns the entries of a folder in natural order; none if it does not exist.

    Raises:
        InputError: The folder cannot be listed.
    """
    if not folder.is_dir():
        return []
    try:
        return sorted(folder.iterdir(), key=lambda path: natural(path.name))
    except OSError as error:
        raise unreadable(folder, error, "a folder") from error


def list_images(path: Path) -> list[Path]:
    """Returns the image volumes of a folder in natural order, or its pictures if it has none, or the file itself.

    Args:
        path: A folder, or one file.

    Raises:
        InputError: There is no such folder or file, or the folder holds no image.
    """
    if not path.is_dir():
        check_file(path)
        return [path]
    files = [file for file in entries(path) if not hidden(file)]
    images = [file for file in files if is_image(file)] or [f for f in files if f.name.lower().endswith(PICTURES)]
    if not images:
        kinds = ", ".join((*ENDINGS, *PICTURES))
        raise InputError(f"{path}: holds no {kinds} file and no DICOM series; name the images, or their folder.")
    return images


def collect(function: Callable[[A], B], items: Iterable[A], problems: list[str]) -> list[B]:
    """Returns a function's value for each item; refused items are left out and their messages go to ``problems``.

    Example:
        >>> problems = []
        >>> collect(lambda path: check_file(Path(path)), ["no/such/file"], problems), len(problems)
        ([], 1)
    """
    values = []
    for item in items:
        try:
            values.append(function(item))
        except InputError as error:
            problems.append(str(error))
    return values


def check_file(path: Path) -> None:
    """Refuses a file that is missing, empty or cannot be opened, before a parser reports it as damaged.

    Args:
        path: The file.

    Raises:
        InputError: The file is absent, is a folder, is empty, or the system does not open it.
    """
    try:
        there, size = path.is_file(), path.stat().st_size
    except FileNotFoundError:
        there, size = False, 0
    except OSError as error:
        raise unreadable(path, error) from error
    if path.is_dir():
        raise InputError(f"{path}: is a folder where a file is expected; copy the file there, or rename the folder.")
    if path.is_symlink() and not there:
        raise InputError(
            f"{path}: this file is missing, a link to {path.readlink()} leads nowhere; mount that disk, or copy the "
            "file here."
        )
    if not there:
        raise InputError(f"{path}: this file is missing; check the path, or take its case out of the folder and lists.")
    if size == 0:
        raise InputError(f"{path}: this file has zero bytes; download or copy it again.")
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: BaseException, kind: str = "a file") -> InputError:
    """Returns the error for a file that cannot be read: a system error if there is one, damage otherwise.

    Args:
        path: The file.
        error: What opening or parsing it raised.
        kind: What it was read as, such as ``NIfTI``.

    Returns:
        The error to raise; it asks to download or copy the file again only if the content is damaged.

    Example:
        >>> str(unreadable(Path("a.nii"), OSError(24, "Too many open files")))
        'a.nii: cannot be opened, as too many files are open; close some, or raise the limit (ulimit -n).'
    """
    if isinstance(error, InputError):
        return error
    code = system_error(error)
    if code in (errno.EMFILE, errno.ENFILE):
        return InputError(
            f"{path}: cannot be opened, as too many files are open; close some, or raise the limit (ulimit -n)."
        )
    if isinstance(error, MemoryError) or code == errno.ENOMEM:
        return InputError(
            f"{path}: there is not enough memory to read it; close other programs, or use a larger machine."
        )
    if code in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR):
        return InputError(f"{path}: cannot be read ({os.strerror(code)}); check links and permissions.")
    if code in (errno.EIO, errno.ESTALE, errno.ENXIO, errno.EBUSY, errno.ENODEV, errno.ETIMEDOUT, errno.EHOSTDOWN):
        return InputError(f"{path}: cannot be read from its disk ({os.strerror(code)}); try again, or check the disk.")
    return InputError(f"{path}: cannot be read as {kind} ({reason(error, path)}); download or copy it again.")


def system_error(error: BaseException) -> int | None:
    """Returns the errno behind an exception, also where a library only quotes it in its text; else None."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    match = re.search(r"\berrno = (\d+)", str(error))  # as HDF5 words it
    return int(match[1]) if match and int(match[1]) else None


def reason(error: BaseException, path: Path | None = None) -> str:
    """Returns the first line of an exception in words that fit inside a sentence, or its type where it has none."""
    text = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    if path is not None:
        text = text.replace(str(path), "the file")
    return text.rstrip(".").replace(". ", ", ")[:300]


# --- sizes before anything is allocated --------------------------------------------------------------------------


def memory_budget() -> int:
    """Returns the maximal size of a volume in bytes: half of the memory, or ``ANATOLAB_MEMORY_GB``.

    The memory is the minimum of the machine's, the process's limit and the container's limit; 8 GB if none is known.
    """
    if given := os.environ.get("ANATOLAB_MEMORY_GB"):
        try:
            gigabytes = float(given)
        except ValueError:
            gigabytes = 0.0
        if not 0 < gigabytes < 1e9:
            raise InputError(f"ANATOLAB_MEMORY_GB: {given!r} is not a number of gigabytes; write one such as 16.")
        return int(gigabytes * 1e9)
    known = []
    with suppress(AttributeError, ValueError, OSError):
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ImportError, ValueError, OSError):
        import resource

        known += [limit for limit in (resource.getrlimit(resource.RLIMIT_AS)[0],) if limit != resource.RLIM_INFINITY]
    with suppress(OSError, ValueError):
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8")))
    return min((k for k in known if k > 0), default=16_000_000_000) // 2


def check_budget(path: Path, shape: Sequence[int], bytes_each: int, stored: int | None = None) -> int:
    """Refuses a header that claims more than memory holds, or more than the file can hold.

    Args:
        path: The file, for the message.
        shape: Shape of the array that the header describes.
        bytes_each: Size in bytes of one of its values.
        stored: Bytes of values in the file, which the header must not exceed.

    Returns:
        The bytes of the array.

    Raises:
        InputError: A side is not positive, or the array is too large.
    """
    size = bytes_each
    for side in shape:
        size *= int(side)
    sides = "x".join(str(int(side)) for side in shape)
    if any(int(side) < 1 for side in shape):
        raise InputError(f"{path}: its header claims the impossible size {sides}; download or copy it again.")
    if stored is not None and size > stored:
        raise InputError(
            f"{path}: cannot be read, as its header claims {sides} values, {size} bytes, and the file can hold "
            f"{stored} of them; download or copy it again."
        )
    values = size // max(bytes_each, 1)
    if (needed := size + 4 * values) > (budget := memory_budget()):  # the values, and the same as float32
        raise InputError(
            f"{path}: its header claims {sides} values, {needed / 1e9:.3g} GB in memory where {budget / 1e9:.3g} GB "
            "are allowed; crop or resample the volume, or set ANATOLAB_MEMORY_GB."
        )
    return size


# --- text --------------------------------------------------------------------------------------------------------


def read_text(path: Path) -> str:
    """Reads a text file in UTF-8, with or without a byte-order mark; invalid bytes become U+FFFD.

    Raises:
        InputError: The file is missing, empty, larger than any such text is, or cannot be read.
    """
    check_file(path)
    if path.stat().st_size > TEXT_BYTES:
        raise InputError(f"{path}: has {path.stat().st_size / 1e9:.3g} GB where a text is expected; restore the file.")
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except (OSError, MemoryError) as error:
        raise unreadable(path, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object without duplicate keys.

    Raises:
        InputError: The file is missing, empty, no JSON in UTF-8, names a key twice, or holds something else.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        held: dict[str, Any] = {}
        for key, value in pairs:
            if key in held:
                raise InputError(f"{path}: names {key!r} twice in one table; give each its own name.")
            held[key] = value
        return held

    try:
        values = json.loads(read_text(path), object_pairs_hook=once)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid JSON ({reason(error)}); write it again, or remove the file.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: does not hold a JSON object; write it again, or remove the file.")
    return values


def read_list(path: Path, pattern: str, example: str) -> list[str]:
    """Reads a list of names, one per line, with or without ``.h5``.

    Args:
        path: The text file.
        pattern: Regular expression that each name matches.
        example: A name for the message.

    Raises:
        InputError: The file is missing or empty, or a line does not match or occurs twice.
    """
    names = [line.strip().removesuffix(".h5") for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise InputError(f"{path}: names no case; restore the published list, or remove the file.")
    if wrong := [name for name in names if not re.fullmatch(pattern, name)]:
        raise InputError(f"{path}: the line {wrong[0]!r} names no case such as {example}; restore the published list.")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise InputError(f"{path}: names {twice} twice; remove one of the two lines.")
    return names


def whole(value: Any) -> int | None:
    """Parses a whole number from ``3``, ``3.0`` or ``"3"``; None for anything else.

    Example:
        >>> whole("3"), whole(3.0), whole(3.5), whole(True), whole("three")
        (3, 3, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
        return int(number) if number == int(number) else None
    except (ValueError, OverflowError):
        return None


def inside(folder: Path, text: str, source: Path) -> Path:
    """Returns the file that a table names, which must lie in the table's folder.

    Args:
        folder: Paths are relative to it.
        text: The path as the table has it, possibly with the backslashes of Windows.
        source: The table, for the message.

    Raises:
        InputError: The path is empty, is absolute, or leads out of the folder.

    Example:
        >>> inside(Path("set"), ".\\\\images\\\\a.png", Path("set/table.csv")).as_posix()
        'set/images/a.png'
    """
    path = PurePosixPath(text.strip().replace("\\", "/"))
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and not parts:
            parts = [".."]
            break
        parts = parts[:-1] if part == ".." else [*parts, part]
    if not parts or path.is_absolute() or PureWindowsPath(text.strip()).drive or parts[0] == ".." or "\0" in text:
        raise InputError(
            f"{source}: names {text!r}, which is not a file inside {folder}; write paths relative to this folder."
        )
    return folder.joinpath(*parts)
