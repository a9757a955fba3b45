"""Writing is all or nothing, whatever the system answers; a lock names who holds it and dies with its process."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from anatolab.files import lock, sha256_of_file, write_atomically
from anatolab.types import InputError

ROOT = Path(__file__).resolve().parent.parent
FULL = OSError(28, "No space left on device")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("content", ["ä\n", "ä\n".encode(), lambda file: file.write("ä\n".encode())])
def test_text_bytes_and_writers_arrive_whole(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "a" / "b.txt"
    write_atomically(path, content, overwrite=False)
    assert path.read_bytes() == b"\xc3\xa4\n"
    assert names(tmp_path) == ["a", "b.txt"]
    assert sha256_of_file(path) == hashlib.sha256(b"\xc3\xa4\n").hexdigest()


def test_nothing_is_replaced_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    path.write_text("a scan")
    with pytest.raises(InputError, match=r"scan.nii: exists and is not replaced; give --overwrite, or name another"):
        write_atomically(path, "label", overwrite=False)
    assert path.read_text() == "a scan"
    write_atomically(path, "label", overwrite=True)
    assert path.read_text() == "label"
    assert names(tmp_path) == ["scan.nii"]


def test_a_file_that_appears_while_another_is_written_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"

    def slow(file: BinaryIO) -> None:
        path.write_text("first")
        file.write(b"second")

    with pytest.raises(InputError, match="exists and is not replaced"):
        write_atomically(path, slow, overwrite=False)
    assert path.read_text() == "first"
    assert names(tmp_path) == ["a"]


def test_the_file_that_is_replaced_is_kept_and_has_its_name_until_then(tmp_path: Path) -> None:
    path, previous = tmp_path / "last", tmp_path / "previous"
    for text in "abc":
        write_atomically(path, text, overwrite=True, previous=previous)
    assert (path.read_text(), previous.read_text()) == ("c", "b")
    assert names(tmp_path) == ["last", "previous"]


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_failure_at_any_call_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").write_text("old")

    def fails(*args: object) -> None:
        raise FULL

    monkeypatch.setattr(call, fails)
    with pytest.raises(InputError, match=r"could not be written \(No space left on device\)"):
        write_atomically(tmp_path / "new" / "deep" / "a", "text", overwrite=True)
    with pytest.raises(InputError, match="No space left on device"):
        write_atomically(tmp_path / "old", "text", overwrite=True)
    assert names(tmp_path) == ["old"]
    assert (tmp_path / "old").read_text() == "old"


@pytest.mark.skipif(os.name == "nt", reason="folders are not opened there")
@pytest.mark.parametrize("call", ["os.open", "os.fsync"])
@pytest.mark.parametrize(("code", "written"), [(errno.EINVAL, True), (errno.EACCES, True), (errno.EIO, False)])
def test_folders_that_cannot_be_flushed_are_left_alone(
    tmp_path: Path, call: str, code: int, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open, real_sync = os.open, os.fsync

    def opens(path: object, *more: int) -> int:
        if call == "os.open" and path == tmp_path:
            raise OSError(code, os.strerror(code))
        return real_open(path, *more)  # type: ignore[arg-type]

    def flushes(descriptor: int) -> None:
        if call == "os.fsync" and stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real_sync(descriptor)

    monkeypatch.setattr(os, "open", opens)
    monkeypatch.setattr(os, "fsync", flushes)
    if written:
        write_atomically(tmp_path / "a", "text", overwrite=False)
    else:
        with pytest.raises(InputError, match="could not be written"):
            write_atomically(tmp_path / "a", "text", overwrite=False)
    assert (tmp_path / "a").read_text() == "text"  # the rename was done before


@pytest.mark.skipif(os.name == "nt", reason="sizes of files are not limited there")
def test_a_full_disk_under_torch_is_the_same_sentence(tmp_path: Path) -> None:
    code = f"""
import resource, torch
from pathlib import Path
from anatolab.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
write_atomically(Path({str(tmp_path / "a.pt")!r}), lambda f: torch.save(torch.zeros(1 << 16), f), overwrite=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stderr.splitlines()[-1].startswith("anatolab.errors.InputError")
    assert "a.pt: could not be written (File too large)" in done.stderr
    assert names(tmp_path) == []


def test_no_memory_under_torch_is_not_an_error_of_torch(tmp_path: Path) -> None:
    def fails(self: Any, data: Any) -> int:
        raise MemoryError

    def write(file: BinaryIO) -> None:
        file._file = type("Full", (), {"write": fails, "flush": lambda self: None})()  # type: ignore[attr-defined]
        torch.save(torch.zeros(1 << 16), file)

    with pytest.raises(MemoryError):
        write_atomically(tmp_path / "a.pt", write, overwrite=True)
    assert names(tmp_path) == []


def test_an_error_of_the_writer_itself_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    def wrong(file: BinaryIO) -> None:
        torch.zeros(2) + torch.zeros(3)

    with pytest.raises(RuntimeError, match="size of tensor"):
        write_atomically(tmp_path / "a", wrong, overwrite=True)
    assert names(tmp_path) == []


@pytest.mark.parametrize("target", ["file/below", ".", "null\0byte", "n" * 400])
def test_a_place_that_cannot_be_is_named_before_anything_is_written(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"name (a file in it|another place)\.$"):
        write_atomically(tmp_path / target, "text", overwrite=True)
    assert names(tmp_path) == ["file"]


HOLDER = """
import sys, time
from pathlib import Path
from anatolab.files import lock
with lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_holder_and_is_lifted_when_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, encoding="utf-8")
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    (folder / ".last.pt.1-a.partial").write_text("half")
    with pytest.raises(InputError, match=rf"run: process {holder.pid} on .* is writing there"), lock(folder):
        pass
    assert (folder / ".last.pt.1-a.partial").exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    begun = time.monotonic()
    with lock(folder):
        assert time.monotonic() - begun < 5
        assert names(folder) == [".lock"]  # what the killed one left half written is gone
        with pytest.raises(InputError, match=f"process {os.getpid()} on"), lock(folder):
            pass
    assert names(tmp_path) == ["run"]


def test_a_lock_makes_the_folder_and_removes_it_where_nothing_was_written(tmp_path: Path) -> None:
    with lock(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert names(tmp_path) == []
    with lock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "log").write_text("x")
    assert names(tmp_path) == ["a", "b", "log"]
    with pytest.raises(InputError, match="is a file"), lock(tmp_path / "a" / "b" / "log"):
        pass


def test_files_are_written_without_torch() -> None:
    code = "import anatolab.files, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8").stdout == "False\n"


def test_text_is_utf_8_whatever_the_locale() -> None:
    """A library may set the locale of a process to "C", in which text without an encoding is read as ASCII."""
    text_call = re.compile(r"\.(?:read|write)_text\((?![^\n]*encoding)(?!\s*\n[^\n]*encoding)|text=True")
    for folder in ("anatolab", "benchmarks", "book/_ext", "studies", "tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            found = text_call.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path.relative_to(ROOT)}: {found}"
