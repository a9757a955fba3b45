"""Files that claim, expand or point to what they should not: headers, bombs, links, paths and records.

Right is: one sentence that names the file, in seconds, with little memory, and nothing read from elsewhere.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from tests.data import image_trees, trees
from tests.faults.child import fork, refused, refusing
from tests.faults.tally import Tally

KIND = "hostile files"
MEMORY = 1 << 30  # bytes that reading one of them may take, of which a volume may have half
SECRET = b"not for you"
Write = Callable[[Path], Any]
HUGE = (30_000, 30_000, 1_000)  # almost 1e12 voxels


def read(path: Path) -> None:
    """Reads a file by what it is called, as the readers of data sets do."""
    from anatolab.data.arrays import read_h5, read_npz
    from anatolab.data.chexpert import read_xlsx
    from anatolab.data.files import read_json
    from anatolab.data.formats import read_volume
    from anatolab.data.labeled import read_csv, read_picture
    from anatolab.records import read as read_record

    kinds: dict[str, Callable[[], Any]] = {
        ".h5": lambda: read_h5(path, "image"),
        ".npz": lambda: read_npz(path, "image"),
        ".xlsx": lambda: read_xlsx(path),
        ".csv": lambda: read_csv(path, "filename"),
        ".json": lambda: (read_record if path.name.startswith("seed") else read_json)(path),
    }
    pictures = (".png", ".jpg", ".gif", ".tif", ".webp", ".bmp")
    kind = (lambda: read_picture(path)) if path.suffix in pictures else (lambda: read_volume(path))
    kinds.get(path.suffix, kind)()


# --- NIfTI -----------------------------------------------------------------------------------------------------------


def nifti(shape: tuple[int, ...], values: bytes = b"", code: int = 2, bits: int = 8, offset: float = 352.0) -> bytes:
    """A NIfTI-1 header of this shape, and what follows it."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(shape), *shape, *(1,) * (7 - len(shape)))
    struct.pack_into("<2h", header, 70, code, bits)
    struct.pack_into("<8f", header, 76, 1, *(1.0,) * 7)
    struct.pack_into("<3f", header, 108, offset, 1, 0)
    header[123] = 2
    header[344:348] = b"n+1\0"
    return bytes(header) + values


def nifti2(shape: tuple[int, ...]) -> bytes:
    header = bytearray(544)
    struct.pack_into("<i", header, 0, 540)
    header[4:12] = b"n+2\0\r\n\x1a\n"
    struct.pack_into("<2h", header, 12, 2, 8)
    struct.pack_into("<8q", header, 16, len(shape), *shape, *(1,) * (7 - len(shape)))
    struct.pack_into("<8d", header, 104, 1, *(1.0,) * 7)
    struct.pack_into("<q", header, 168, 544)
    return bytes(header)


def zeros(gigabytes: float, pack: Callable[[bytes], bytes] = gzip.compress) -> bytes:
    """A stream that unpacks to so many zeros, made of members of 16 MB."""
    return pack(bytes(1 << 24)) * round(gigabytes * 64)


# --- other formats ---------------------------------------------------------------------------------------------------


def nrrd(sizes: str, encoding: str, values: bytes = b"", more: str = "") -> bytes:
    return f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {sizes}\nencoding: {encoding}\n{more}\n".encode() + values


def meta(size: str, data: str, packed: bool = False, more: str = "") -> bytes:
    lines = f"ObjectType = Image\nNDims = 3\nDimSize = {size}\nElementType = MET_UCHAR\n{more}"
    return f"{lines}CompressedData = {packed}\nElementDataFile = {data}\n".encode()


def png(width: int, height: int, values: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A gray PNG of this size with these packed values, and chunks before them."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", values), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(width: int, height: int) -> bytes:
    entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 4)]
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<I", 12) + bytes(4) + struct.pack("<H", len(entries)) + table + bytes(4)


def h5(path: Path, make: Callable[[h5py.File], Any]) -> None:
    with h5py.File(path, "w") as file:
        make(file)


def virtual(file: h5py.File, source: Path) -> None:
    layout = h5py.VirtualLayout((4, 4), np.uint8)
    layout[:] = h5py.VirtualSource(str(source), "image", (4, 4))
    file.create_virtual_dataset("image", layout)


def npz(path: Path, header: dict[str, Any], values: bytes, name: str = "image.npy") -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w", force_zip64=True) as file:
        file.write(buffer.getvalue())
        for _ in range(max(1, len(values) >> 24)):
            file.write(values[: 1 << 24])


def archive(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


SPACE = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
SHEET = "xl/worksheets/sheet1.xml"
LAUGHS = (
    "<!DOCTYPE a [<!ENTITY x0 'ha'>" + "".join(f"<!ENTITY x{i} '{f'&x{i - 1};' * 10}'>" for i in range(1, 10)) + "]>"
)
CELL = "<row r='1'><c r='A1' t='inlineStr'><is><t>{}</t></is></c></row>"
ROW = f"<worksheet {SPACE}><sheetData>{CELL}</sheetData></worksheet>"
LAUGHING = LAUGHS + ROW.format("&x9;")


def record(path: Path, **changes: Any) -> None:
    """A record as it is written, with changes by hand."""
    from anatolab.records import Record, write

    os.environ["ANATOLAB_RECORDS"] = str(path.parent.parent)
    made = write(Record("toy", 0, {"dice": 0.5}))
    held = json.loads(made.read_text()) | changes
    made.unlink()
    path.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n", encoding="utf-8")


PLAIN = {"descr": "|u1", "fortran_order": False}
FILES: dict[str, Write] = {  # what reads as a file of this name
    "1e12 voxels.nii": lambda p: p.write_bytes(nifti(HUGE, bytes(64))),
    "1e12 voxels.nii.gz": lambda p: p.write_bytes(gzip.compress(nifti(HUGE, bytes(64)))),
    "1e15 voxels of NIfTI-2.nii": lambda p: p.write_bytes(nifti2((100_000,) * 3) + bytes(64)),
    "negative sides.nii": lambda p: p.write_bytes(nifti((-8, -8, 8), bytes(512))),
    "no sides.nii": lambda p: p.write_bytes(nifti((0, 4, 4), bytes(64))),
    "values at 1e30.nii": lambda p: p.write_bytes(nifti((4, 4, 4), bytes(64), offset=1e30)),
    "values at NaN.nii": lambda p: p.write_bytes(nifti((4, 4, 4), bytes(64), offset=float("nan"))),
    "values before the header.nii": lambda p: p.write_bytes(nifti((4, 4, 4), bytes(64), offset=-64.0)),
    "an unknown number type.nii": lambda p: p.write_bytes(nifti((4, 4, 4), bytes(64), code=999)),
    "complex numbers.nii": lambda p: p.write_bytes(nifti((4, 4, 4), bytes(512), code=32, bits=64)),
    "a bomb behind the values.nii.gz": lambda p: p.write_bytes(gzip.compress(nifti((4, 4, 4), bytes(64))) + zeros(4)),
    "a bomb that is the values.nii.gz": lambda p: p.write_bytes(gzip.compress(nifti((2_048, 2_048, 1_024))) + zeros(4)),
    "gigabytes before the values.nii.gz": lambda p: p.write_bytes(
        gzip.compress(nifti((4, 4, 4), offset=4e9)) + zeros(4)
    ),
    "a bomb in a bomb.nii.gz": lambda p: p.write_bytes(gzip.compress(gzip.compress(nifti((4, 4, 4))) + zeros(1))),
    "a pipe.nii": os.mkfifo,
    "an endless device.nii": lambda p: p.symlink_to("/dev/zero"),
    "1e12 voxels.nrrd": lambda p: p.write_bytes(nrrd("30000 30000 1000", "raw", bytes(64))),
    "1e12 packed voxels.nrrd": lambda p: p.write_bytes(nrrd("30000 30000 1000", "gzip", gzip.compress(bytes(64)))),
    "sizes that overflow.nrrd": lambda p: p.write_bytes(nrrd("4294967297 4294967296 4", "raw", bytes(64))),
    "a size of a thousand digits.nrrd": lambda p: p.write_bytes(nrrd("9" * 5_000 + " 4 4", "raw", bytes(64))),
    "words for sizes.nrrd": lambda p: p.write_bytes(nrrd("four four four", "raw", bytes(64))),
    "a bomb.nrrd": lambda p: p.write_bytes(nrrd("4 4 4", "gzip", gzip.compress(bytes(64)) + zeros(4))),
    "a bomb of bzip2.nrrd": lambda p: p.write_bytes(nrrd("4 4 4", "bzip2", zeros(4, bz2.compress))),
    "an endless header.nrrd": lambda p: p.write_bytes(b"NRRD0004\n" + b"# x\n" * (1 << 22)),
    "values elsewhere.nrrd": lambda p: p.write_bytes(nrrd("11 1 1", "raw", more="data file: ../secret\n")),
    "values in a list.nrrd": lambda p: p.write_bytes(nrrd("11 1 1", "raw", more="data file: LIST\n../secret\n")),
    "values in files by number.nrrd": lambda p: p.write_bytes(
        nrrd("11 1 1", "raw", more="data file: ../secret%d 0 1 1\n")
    ),
    "values at an absolute path.mhd": lambda p: p.write_bytes(
        meta("11 1 1", str(p.parent.resolve().parent / "secret"))
    ),
    "values elsewhere.mhd": lambda p: p.write_bytes(meta("11 1 1", "../secret")),
    "values in a list.mhd": lambda p: p.write_bytes(meta("11 1 1", "LIST") + b"../secret\n"),
    "1e12 voxels.mha": lambda p: p.write_bytes(meta("30000 30000 1000", "LOCAL") + bytes(64)),
    "a bomb.mha": lambda p: p.write_bytes(meta("4 4 4", "LOCAL", packed=True) + zlib.compress(bytes(1 << 30))),
    "1e9 channels.mha": lambda p: p.write_bytes(
        meta("4 4 4", "LOCAL", more="ElementNumberOfChannels = 1000000000\n") + bytes(64)
    ),
    "1e12 values.h5": lambda p: h5(
        p, lambda f: f.create_dataset("image", (1 << 20, 1 << 20), np.uint8, chunks=(64, 64)).__setitem__((0, 0), 1)
    ),
    "no values.h5": lambda p: h5(p, lambda f: f.create_dataset("image", (64, 64), np.uint8, chunks=(8, 8))),
    "a bomb.h5": lambda p: h5(
        p,
        lambda f: f.create_dataset(
            "image", (1 << 16, 1 << 16), np.uint8, chunks=(1 << 12, 1 << 16), compression="gzip", fillvalue=1
        ).__setitem__(slice(0, 1 << 12), 0),
    ),
    "a link elsewhere.h5": lambda p: h5(
        p, lambda f: f.__setitem__("image", h5py.ExternalLink(str(p.parent.parent / "secret.h5"), "image"))
    ),
    "a group that is a link elsewhere.h5": lambda p: h5(
        p, lambda f: f.__setitem__("image", h5py.ExternalLink("../secret.h5", "/"))
    ),
    "a soft link to a link elsewhere.h5": lambda p: h5(
        p,
        lambda f: (
            f.__setitem__("far", h5py.ExternalLink(str(p.parent.parent / "secret.h5"), "image")),
            f.__setitem__("image", h5py.SoftLink("/far")),
        ),
    ),
    "a soft link through a link elsewhere.h5": lambda p: h5(
        p,
        lambda f: (
            f.__setitem__("far", h5py.ExternalLink(str(p.parent.parent / "secret.h5"), "/")),
            f.__setitem__("image", h5py.SoftLink("/far/image")),
        ),
    ),
    "values of another file.h5": lambda p: h5(p, lambda f: virtual(f, p.parent.parent / "secret.h5")),
    "bytes of another file.h5": lambda p: h5(
        p, lambda f: f.create_dataset("image", (11,), np.uint8, external=[(str(p.parent.parent / "secret"), 0, 11)])
    ),
    "a link to itself.h5": lambda p: h5(p, lambda f: f.__setitem__("image", h5py.SoftLink("/image"))),
    "1e12 values.npz": lambda p: npz(p, {**PLAIN, "shape": (1 << 20, 1 << 20)}, bytes(64)),
    "a bomb.npz": lambda p: npz(p, {**PLAIN, "shape": (1 << 30,)}, _Zeros(1 << 30)),
    "objects.npz": lambda p: np.savez(p, image=np.array([{}, print], dtype=object)),
    "code in its header.npz": lambda p: archive(
        p, {"image.npy": b"\x93NUMPY\x01\x00\x46\x00" + b"__import__('os').system('true')".ljust(69) + b"\n"}
    ),
    "a text.npz": lambda p: archive(p, {"image.npy": b"hello"}),
    "a path in an archive.npz": lambda p: archive(p, {"../image.npy": b"hello"}),
    "1e18 pixels.png": lambda p: p.write_bytes(png(1 << 30, 1 << 30, zlib.compress(bytes(64)))),
    "a bomb.png": lambda p: p.write_bytes(png(60_000, 60_000, zlib.compress(bytes(1 << 26)))),
    "a text that expands.png": lambda p: p.write_bytes(
        png(4, 4, zlib.compress(bytes(20)), (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 28))))
    ),
    "a profile that expands.png": lambda p: p.write_bytes(
        png(4, 4, zlib.compress(bytes(20)), (b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 28))))
    ),
    "4e9 pixels.tif": lambda p: p.write_bytes(tiff(1 << 16, 1 << 16)),
    "4e9 pixels.gif": lambda p: p.write_bytes(
        b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x4c\x01\0;"
    ),
    "1e12 pixels.bmp": lambda p: p.write_bytes(
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 64, 0, 54, 40, 1 << 20, 1 << 20, 1, 24, 0, 0, 0, 0, 0, 0)
    ),
    "entities.xlsx": lambda p: archive(p, {SHEET: LAUGHING.encode()}),
    "entities in UTF-16.xlsx": lambda p: archive(
        p, {SHEET: f"<?xml version='1.0' encoding='utf-16'?>{LAUGHING}".encode("utf-16")}
    ),
    "a bomb.xlsx": lambda p: archive(p, {SHEET: b" " * (1 << 29)}),
    "a far column.xlsx": lambda p: archive(p, {SHEET: ROW.replace("A1", "ZZZZZZ1").format("x").encode()}),
    "a deep sheet.xlsx": lambda p: archive(p, {SHEET: (f"<a {SPACE}>" + "<a>" * 200_000).encode()}),
    "a text.xlsx": lambda p: p.write_text("patient,sex\n"),
    "a field of 1e7 letters.csv": lambda p: p.write_text("filename\n" + "x" * 10_000_000 + "\n"),
    "an open quote.csv": lambda p: p.write_text('filename\n"' + "x\n" * 1_000_000),
    "a deep table.json": lambda p: p.write_text("[" * 1_000_000),
    "a number of 1e6 digits.json": lambda p: p.write_text('{"a": ' + "9" * 1_000_000 + "}"),
    "a name twice.json": lambda p: p.write_text('{"a": 1, "a": 2}'),
    "a device.json": lambda p: p.symlink_to("/dev/zero"),
}
RECORDS: dict[str, dict[str, Any]] = {  # what is changed by hand in a record
    "another value": {"values": {"dice": 0.9}},
    "another commit": {"provenance": {"commit": "0" * 40}},
    "another experiment": {"experiment": "other"},
    "another seed": {"seed": 1},
    "values that are a list": {"values": [1]},
    "provenance that is a word": {"provenance": "mine"},
    "a schema of the future": {"schema": 99},
    "a field that no record has": {"note": "x"},
}


QUICK = tuple(name for name in FILES if not name.startswith(("a bomb", "gigabytes", "an endless", "a text that")))


class _Zeros(bytes):
    """As many zeros as a length says, of which 16 MB exist."""

    length: int

    def __new__(cls, length: int) -> _Zeros:
        made = super().__new__(cls, 1 << 24)
        made.length = length
        return made

    def __len__(self) -> int:
        return self.length


def _dataset(root: Path, image: str) -> None:
    trees.own(root)
    about = json.loads((root / "dataset.json").read_text())
    about["training"][0]["image"] = image
    (root / "dataset.json").write_text(json.dumps(about))


def _archived(root: Path) -> None:
    root.rmdir()
    archive(root, {"dataset.json": b"{}"})


def _row(root: Path, name: str) -> None:
    image_trees.table(root)
    text = (root / "table.csv").read_text()
    (root / "table.csv").write_text(text.replace("1.png", name, 1))


PATHS = (
    "\0",
    "../secret.png",
    "/etc/hostname",
    "a/../../secret.png",
    "..\\secret.png",
    "C:\\secret.png",
    "\\\\host\\secret.png",
)
FOLDERS: dict[str, tuple[Write, str]] = {  # and which file the sentence names
    **{f"a table that names {p}": (partial(_row, name=p), "table.csv") for p in PATHS},
    **{f"a list that names {p}": (partial(_dataset, image=p), "dataset.json") for p in PATHS},
    "an archive in place of a folder": (_archived, ""),
}


def opening(root: Path) -> None:
    """Opens a folder as what it looks like."""
    from anatolab.data import open_cohort, read_table

    if (root / "table.csv").exists():
        read_table(root)
    else:
        open_cohort(root)


def run(tally: Tally, only: tuple[str, ...] | None = None) -> None:
    """Reads every hostile file and folder once."""
    with tally.timed(KIND), tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANATOLAB_MEMORY_GB", str(MEMORY / 2e9))
        h5(Path(folder) / "secret.h5", lambda file: file.create_dataset("image", data=np.zeros((4, 4), np.uint8)))
        (Path(folder) / "secret").write_bytes(SECRET)
        Image.new("RGB", (4, 4)).save(Path(folder) / "secret.png")

        def judge(name: str, work: Callable[[], Any], naming: str) -> None:
            ended = fork(refusing(work), memory=MEMORY)
            tally.count(KIND, name, refused(ended, naming))

        for number, (name, write) in enumerate(FILES.items()):
            path = Path(folder) / str(number) / name
            if only is None or name in only:
                path.parent.mkdir()
                write(path)
                judge(name, lambda path=path: read(path), name)  # type: ignore[misc]
                path.unlink()
        for name, changes in RECORDS.items():
            path = Path(folder) / "records" / "toy" / "seed0.json"
            if only is None or name in only:
                record(path, **changes)
                judge(f"a record with {name}", lambda path=path: read(path), "seed0.json")  # type: ignore[misc]
        for number, (name, (make, naming)) in enumerate(FOLDERS.items()):
            root = Path(folder) / f"folder{number}"
            if only is None or name in only:
                root.mkdir()
                make(root)
                judge(name, lambda root=root: opening(root), naming)  # type: ignore[misc]
