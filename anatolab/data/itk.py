"""Reads NRRD and MetaImage by SimpleITK, after checks that it does not make itself.

SimpleITK allocates what a header claims, opens whatever file a header names, and does not notice every damaged stream.
"""

from __future__ import annotations

import bz2
import gzip
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from anatolab.data.files import DAMAGE, DEFLATE, PIECE, SLACK, check_budget, check_file, inside, unreadable
from anatolab.data.geometry import Spacing
from anatolab.types import InputError


def read_itk(path: Path) -> tuple[np.ndarray, np.ndarray, Spacing]:
    """Reads a 3-D file of SimpleITK's formats, such as NRRD, as :func:`anatolab.data.nifti.read_nifti` reads NIfTI.

    ITK's world runs to the patient's left and back (LPS), NIfTI's to the right and front (RAS): the affine returned is
    the latter, so its first two rows have the other sign.

    Args:
        path: An ``.nrrd``, ``.mha`` or ``.mhd`` file; values in a file of their own must lie in the same folder.

    Returns:
        The values as (z, y, x); the affine (4, 4) from voxel (x, y, z) to world mm in RAS; the spacing (z, y, x) in mm.

    Raises:
        InputError: The file is missing, empty, truncated, damaged or of no such format, claims more than it holds or
            memory holds, keeps its values outside its folder, or is not one 3-D volume of numbers.
    """
    import SimpleITK as sitk

    check_file(path)
    try:
        _check_stream(path)
        image = sitk.ReadImage(str(path))
    except InputError:
        raise
    except (*DAMAGE, RuntimeError) as error:
        text = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        cause = (
            RuntimeError(text[0].removeprefix("sitk::ERROR: ").strip()) if isinstance(error, RuntimeError) else error
        )
        raise unreadable(path, cause, path.suffix) from error
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
            image, array = image[..., 0], array[0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(
            f"{path}: holds {'x'.join(map(str, image.GetSize()))} pixels of {image.GetNumberOfComponentsPerPixel()} "
            "values where one 3-D volume of numbers is expected; save each frame or channel as a 3-D file of its own."
        )
    x, y, z = (float(s) for s in image.GetSpacing())
    return array, _ras(image), (z, y, x)


def itk_affine(path: Path) -> np.ndarray | None:
    """Returns the affine (4, 4) from the header without reading voxels; None if the header cannot be read."""
    import SimpleITK as sitk

    check_file(path)
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
    except RuntimeError:  # reading its values says what is wrong
        return None
    return _ras(reader) if reader.GetDimension() == 3 else None


def _ras(image: Any) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1
    return affine


_NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t", "double"), 8),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), 8),
}
_META_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 8, "FLOAT": 4, "DOUBLE": 8}


def _check_stream(path: Path) -> None:
    """Checks what SimpleITK does not: claimed sizes, referenced files, checksums of streams."""
    with path.open("rb") as file:
        nrrd = file.read(4) == b"NRRD"
        file.seek(0)
        fields, start = _itk_header(file, ":" if nrrd else "=", nrrd)
    if nrrd:
        data = fields.get("data file", fields.get("datafile", ""))
        shape, each = fields.get("sizes", ""), _NRRD_BYTES.get(fields.get("type", "").lower(), 1)
        encoding = fields.get("encoding", "raw").lower()
        packed = {"gz": "gzip", "bz2": "bzip2"}.get(encoding, encoding)
        text = packed in ("txt", "text", "ascii", "hex")
    else:
        data = fields.get("elementdatafile", "LOCAL")
        data = "" if data.upper() == "LOCAL" else data
        kind = fields.get("elementtype", "").upper().removeprefix("MET_").removeprefix("U").removesuffix("_ARRAY")
        each = _META_BYTES.get(kind, 1) * int(fields.get("elementnumberofchannels", "1"))
        shape, packed, text = fields.get("dimsize", ""), "zlib", False
        packed = "zlib" if fields.get("compresseddata", "").lower() == "true" else "raw"
    if data.upper().startswith("LIST") or "%" in data:
        raise InputError(f"{path}: keeps its values in a list of files; save it as one file.")
    source = inside(path.parent, data, path) if data else path
    if data:
        check_file(source)
        start = 0
    sides = [int(side) for side in shape.split()]
    if not sides:
        raise ValueError("its header gives no size")
    size = source.stat().st_size - start
    room = {"raw": size, "bzip2": None}.get(packed, size * (1 if text else DEFLATE))
    claimed = check_budget(path, sides, each, room)
    if packed in ("gzip", "bzip2", "zlib"):
        with source.open("rb") as file:
            file.seek(start)
            _check_packed(file, packed, claimed, path)


def _itk_header(file: BinaryIO, mark: str, nrrd: bool) -> tuple[dict[str, str], int]:
    """Returns the fields of a text header, and where the values start if they follow it."""
    fields: dict[str, str] = {}
    while (line := file.readline(1 << 16)) and file.tell() < 1 << 20:
        text = line.decode("latin-1").strip()
        if nrrd and not text:
            return fields, file.tell()
        key, marked, value = text.partition(mark)
        if marked:
            fields.setdefault(key.strip().lower(), value.strip().lstrip("="))
        if not nrrd and key.strip().lower() == "elementdatafile":
            return fields, file.tell()
    if not nrrd or not (fields.get("data file") or fields.get("datafile")):
        raise EOFError("ends in its header")
    return fields, file.tell()


def _check_packed(file: BinaryIO, packed: str, claimed: int, path: Path) -> None:
    """Decompresses a stream to its end without keeping it, to verify its checksum and its size."""
    stream: Any
    if packed == "gzip":
        stream = gzip.GzipFile(fileobj=file)
    elif packed == "bzip2":
        stream = bz2.BZ2File(file)
    else:
        stream = _Inflated(file)
    count = 0
    while piece := stream.read(PIECE):
        count += len(piece)
        if count > claimed + SLACK:
            break
    if not claimed <= count <= claimed + SLACK:
        what = "more" if count > claimed else f"{count}"
        raise ValueError(f"its stream holds {what} of the {claimed} bytes that its header says")


class _Inflated:
    """A zlib stream of a file, in pieces; MetaImage's compression. The checksum is verified at its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._inflate = file, zlib.decompressobj()

    def read(self, count: int) -> bytes:
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(PIECE)
            if not packed:
                raise EOFError("its stream is cut short")
            if piece := self._inflate.decompress(packed, count):
                return piece
        return b""
