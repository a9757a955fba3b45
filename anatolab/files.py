"""Atomic writes, checksums of files, and a lock on a folder.

Nothing here imports torch.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from anatolab.errors import InputError

PARTIAL = ".partial"  # ending of a file that is being written
LOCK = ".lock"  # in a folder that one process writes to
NO_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}  # of some folders


def write_atomically(
    path: Path,
    write: Callable[[BinaryIO], None] | bytes | str,
    *,
    overwrite: bool,
    previous: Path | None = None,
) -> None:
    """Writes a file atomically: after a crash at any instant it is complete, or as before.

    The bytes go to a temporary file beside it, which is flushed to the disk and then renamed. Parent folders are
    created.

    Args:
        path: The file.
        write: Writes the content to an open file; or the content itself, text as UTF-8.
        overwrite: Whether a file of that name may be replaced.
        previous: Path to keep a replaced file under; an older file of that name is dropped.

    Raises:
        InputError: The file exists and must not be replaced, or the system refuses (a full disk, no permission);
            no partial file remains.
        MemoryError: Memory runs out while a library writes, whichever exception the library raises.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "new" / "a.txt"
        >>> write_atomically(path, "text", overwrite=False)
        >>> path.read_text(encoding="utf-8"), [p.name for p in path.parent.iterdir()]
        ('text', ['a.txt'])
    """
    check_target(path, overwrite=overwrite)
    partial = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}{PARTIAL}")
    made = [folder for folder in path.parents if not folder.exists()]
    watched = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            watched = _Watched(file)
            if callable(write):
                write(watched)  # type: ignore[arg-type]
            else:
                watched.write(write.encode() if isinstance(write, str) else write)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            _keep(path, previous)
        _rename(partial, path, overwrite=overwrite)
        made = []
        _flush_folder(path.parent)
    except FileExistsError as error:
        raise _exists(path) from error
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else watched and watched.error
        if cause is None:  # a RuntimeError that no failed write led to
            raise
        if isinstance(cause, MemoryError):
            raise cause from error
        raise InputError(
            f"{path}: could not be written ({cause.strerror or cause}); free space there, or name another place."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def check_target(path: Path, *, overwrite: bool) -> None:
    """Checks, before any work is done, that a file can be written afterwards.

    Args:
        path: The file that will be written.
        overwrite: Whether a file of that name may be replaced.

    Raises:
        InputError: The file exists and must not be replaced, is a folder, or cannot be created in its folder.
    """
    try:
        if "\0" in str(path):
            raise ValueError("embedded null byte")
        if path.is_dir():
            raise InputError(f"{path}: is a folder where a file should be written; name a file in it.")
        if not overwrite and (path.exists() or path.is_symlink()):
            raise _exists(path)
        folder = next(parent for parent in (path.parent, *path.parent.parents) if parent.exists())
        if not folder.is_dir():
            raise InputError(f"{path}: cannot be written, because {folder} is a file; name another place.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{path}: cannot be written, because {folder} may not be written to; name another place.")
    except (OSError, ValueError) as error:  # a name that is too long, or holds a null byte
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be written ({error}); name another place.") from error


def sha256_of_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes as hexadecimal digits; passes an ``OSError`` on."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Locks a folder against other writers; the system releases the lock when the process dies.

    Partial files of a killed writer are removed, because the holder of the lock is the only writer.

    Args:
        folder: Created if it does not exist; removed again if it is empty at the end.

    Raises:
        InputError: Another process holds the lock, and the message names it; or the folder cannot be written to.
    """
    path = folder / LOCK
    check_target(path, overwrite=True)
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path)
    except OSError as error:
        raise InputError(
            f"{folder}: could not be locked ({error.strerror or error}); name a folder on a disk of this machine."
        ) from error
    try:
        for partial in folder.glob(f".*{PARTIAL}"):
            partial.unlink(missing_ok=True)
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while the lock is held; not on Windows, where the file stays
        os.close(descriptor)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()


def _locked(path: Path) -> int:
    """Returns a file descriptor that holds the lock, after checking that the file still has its name."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _acquire(descriptor)
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return descriptor
            os.close(descriptor)  # its holder removed it between the two lines above
        except BlockingIOError as error:
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise InputError(
                f"{path.parent}: {holder} is writing there; wait for it, or give another folder."
            ) from error
        except BaseException:
            os.close(descriptor)
            raise


def _acquire(descriptor: int) -> None:
    """Takes the lock or raises ``BlockingIOError``."""
    if os.name == "nt":
        import msvcrt

        api: Any = msvcrt
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # beyond the text, which others may read
        try:
            api.locking(descriptor, api.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class _Watched:
    """An open file that remembers the error of a write, which libraries replace by their own exceptions."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | MemoryError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except (OSError, MemoryError) as error:
            self.error = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _keep(path: Path, previous: Path) -> None:
    """Adds a second name to a file, so that the first always exists; renames it on disks without hard links."""
    previous.unlink(missing_ok=True)
    try:
        previous.hardlink_to(path)
    except (OSError, NotImplementedError):
        path.replace(previous)


def _rename(partial: Path, path: Path, *, overwrite: bool) -> None:
    if not overwrite:
        try:
            path.hardlink_to(partial)  # fails where the name was taken meanwhile; a rename would replace
            return
        except FileExistsError:
            raise
        except (OSError, NotImplementedError):
            if path.exists():
                raise FileExistsError(path) from None
    partial.replace(path)


def _flush_folder(folder: Path) -> None:
    """Flushes the rename to the disk, on systems that can open and flush folders."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in NO_FSYNC:
            raise
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FSYNC:
            raise
    finally:
        os.close(descriptor)


def _exists(path: Path) -> InputError:
    return InputError(f"{path}: exists and is not replaced; give --overwrite, or name another place.")
