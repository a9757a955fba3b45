"""Writes label volumes, probabilities and maps as NIfTI files with geometry and no other patient data."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from anatolab.files import check_target, write_atomically
from anatolab.types import Case, InputError

SIDES = 32_767  # voxels along an axis that NIfTI-1 can count
SCALE = 65_535  # a probability of 1 where it is stored in 16 bits
ITKSNAP, SLICER = "labels_itksnap.txt", "labels_slicer.ctbl"
# Fields of a NIfTI header that give the geometry; all others (names, comments, extensions) are dropped.
GEOMETRY = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)


def write_nifti(label: np.ndarray, case: Case, path: Path, *, overwrite: bool = False) -> None:
    """Writes a label volume in the geometry of the image it was predicted from: affine, spacing, orientation, codes.

    The header is a new one. A case without geometry gets the identity as its affine.

    Args:
        label: ``(z, y, x)`` uint8, on the grid of the file.
        case: The case as its file has it.
        path: ``.nii`` or ``.nii.gz``; folders above are made.
        overwrite: Whether a file of that name may be replaced.

    Raises:
        InputError: The shape is not that of the image, the file exists, or cannot be written.
    """
    _check_shape(label, case, path, "label")
    volume = np.ascontiguousarray(label.transpose(2, 1, 0).astype(np.uint8))
    content = _image(volume, case).to_bytes()
    _write(path, lambda file: file.write(content), overwrite=overwrite)


def write_map(values: np.ndarray, case: Case, path: Path, *, overwrite: bool = False) -> None:
    """Writes one number per voxel, such as an entropy, as float32; otherwise as :func:`write_nifti`."""
    _check_shape(values, case, path, "map")
    volume = np.ascontiguousarray(values.transpose(2, 1, 0).astype(np.float32))
    content = _image(volume, case).to_bytes()
    _write(path, lambda file: file.write(content), overwrite=overwrite, level=1)


def write_probabilities(
    volumes: Iterable[np.ndarray], count: int, case: Case, path: Path, *, overwrite: bool = False
) -> None:
    """Writes probabilities as 16-bit integers with the scale 1 / 65535 in the header, one volume at a time.

    NIfTI has no 16-bit float. These are read back with an error of at most 8e-6; float16
    would be off by up to 2.4e-4.

    Args:
        volumes: ``(z, y, x)`` uint16 on the grid of the file, in the order of the classes.
        count: How many; more than one make a 4-D file.
        case: The case as its file has it.
        path: ``.nii`` or ``.nii.gz``; folders above are made.
        overwrite: Whether a file of that name may be replaced.

    Raises:
        InputError: A shape is not that of the image, the file exists, or cannot be written.
    """
    shape = case.image.shape[:0:-1] + ((count,) if count > 1 else ())
    header = _image(np.broadcast_to(np.zeros((), np.uint16), shape), case).header
    header.set_slope_inter(1 / SCALE, 0)
    header["vox_offset"] = header.single_vox_offset
    start = io.BytesIO()
    header.write_to(start)

    def write(file: Any) -> None:
        file.write(start.getvalue().ljust(header.single_vox_offset, b"\0"))
        for volume in volumes:
            _check_shape(volume, case, path, "probability")
            for plane in volume:  # C order of (z, y, x) is Fortran order of (x, y, z)
                file.write(np.ascontiguousarray(plane, "<u2").tobytes())

    _write(path, write, overwrite=overwrite, level=1)


def write_label_names(
    classes: Sequence[str], colors: Sequence[str], folder: Path, *, overwrite: bool = False, check: bool = False
) -> None:
    """Writes the names and colors of classes as ITK-SNAP and 3D Slicer read them, beside label volumes.

    The label description of ITK-SNAP is ``labels_itksnap.txt``, the color table of 3D Slicer, in whose names blanks
    become underscores, ``labels_slicer.ctbl``.

    Args:
        classes: Background first.
        colors: ``#rrggbb``, one per class.
        folder: Where the label volumes lie.
        overwrite: Whether files that say something else may be replaced.
        check: Whether to write nothing and only raise the errors of writing.

    Raises:
        InputError: A file exists and says something else, or cannot be written.
    """
    values = [tuple(int(color[k : k + 2], 16) for k in (1, 3, 5)) for color in colors]
    snap = ["# ITK-SnAP Label Description File", "# IDX R G B A VIS MESH LABEL"]
    table = [f"# {SLICER}", f"# {len(classes)} values"]
    for number, (name, (red, green, blue)) in enumerate(zip(classes, values, strict=True)):
        shown = int(number > 0)
        quoted = name.replace('"', "'")
        snap.append(f'{number} {red} {green} {blue} {shown} {shown} {shown} "{quoted}"')
        table.append(f"{number} {'_'.join(name.split())} {red} {green} {blue} {255 * shown}")
    for path, lines in ((folder / ITKSNAP, snap), (folder / SLICER, table)):
        text = "\n".join(lines) + "\n"
        if path.is_file() and path.read_bytes() == text.encode():
            continue
        if check:
            check_target(path, overwrite=overwrite)
        else:
            write_atomically(path, text, overwrite=overwrite)


def _check_shape(volume: np.ndarray, case: Case, path: Path, kind: str) -> None:
    if volume.shape != case.image.shape[1:]:
        raise InputError(f"{path}: the {kind} has shape {volume.shape} and {case.source} {case.image.shape[1:]}.")


def _image(volume: np.ndarray, case: Case) -> Any:
    """Returns a NIfTI image of an array (x, y, z, ...) in the geometry of a case."""
    import nibabel as nib

    affine = np.eye(4) if case.affine is None else case.affine
    source: Any = None
    if case.affine is not None and case.source.name.lower().endswith((".nii", ".nii.gz")):
        source = nib.load(case.source)
    second = isinstance(source, nib.Nifti2Image) or max(volume.shape) > SIDES  # keeps affines in double precision
    image: Any = (nib.Nifti2Image if second else nib.Nifti1Image)(volume, affine)
    image.header.set_xyzt_units("mm")
    if source is not None and np.allclose(source.affine, affine):
        for name in GEOMETRY:
            image.header[name] = source.header[name]
        image.header["pixdim"][:4] = source.header["pixdim"][:4]
        image.header.set_xyzt_units(source.header.get_xyzt_units()[0])
    return image


def _write(path: Path, fill: Callable[[Any], Any], *, overwrite: bool, level: int = 9) -> None:
    """Writes a file, compressed if its name ends in .gz, without a name or a date in the gzip header."""

    def write(file: BinaryIO) -> None:
        if path.suffix != ".gz":
            fill(file)
            return
        with gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=file, mtime=0) as packed:
            fill(packed)

    write_atomically(path, write, overwrite=overwrite)
