"""Label volumes as NIfTI files that carry geometry and nothing else of the patient."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from anatolab.files import write_atomically
from anatolab.types import Case, InputError

SIDES = 32_767  # voxels along an axis that NIfTI-1 can count
# Fields of a NIfTI header that say where voxels lie; all others (names, comments, extensions) are left behind.
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
    import nibabel as nib

    if label.shape != case.image.shape[1:]:
        raise InputError(f"{path}: the label has shape {label.shape} and {case.source} {case.image.shape[1:]}.")
    affine = np.eye(4) if case.affine is None else case.affine
    volume = np.ascontiguousarray(label.transpose(2, 1, 0).astype(np.uint8))
    source: Any = None
    if case.affine is not None and case.source.name.endswith((".nii", ".nii.gz")):
        source = nib.load(case.source)
    second = isinstance(source, nib.Nifti2Image) or max(volume.shape) > SIDES  # keeps affines in double precision
    image: Any = (nib.Nifti2Image if second else nib.Nifti1Image)(volume, affine)
    image.header.set_xyzt_units("mm")
    if source is not None and np.allclose(source.affine, affine):
        for name in GEOMETRY:
            image.header[name] = source.header[name]
        image.header["pixdim"][:4] = source.header["pixdim"][:4]
        image.header.set_xyzt_units(source.header.get_xyzt_units()[0])
    content = image.to_bytes()

    def write(file: BinaryIO) -> None:
        if path.suffix != ".gz":
            file.write(content)
            return
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:  # no name, no date
            packed.write(content)

    write_atomically(path, write, overwrite=overwrite)
