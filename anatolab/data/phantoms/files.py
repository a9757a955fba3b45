"""Writes generated volumes as NIfTI, and whole cohorts once under the cache root."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from anatolab.data.cache import cache_root


def write_nifti(path: Path, volume: np.ndarray, spacing: tuple[float, float, float]) -> None:
    """Writes ``(z, y, x)`` as the file's ``(x, y, z)``: rows to the back, columns to the left, slices upward.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        volume: Array of a number type that NIfTI knows.
        spacing: (z, y, x) mm.
    """
    import nibabel

    dz, dy, dx = spacing
    _, h, w = volume.shape
    affine = np.diag([-dx, -dy, dz, 1.0])
    affine[:2, 3] = (w - 1) / 2 * dx, (h - 1) / 2 * dy
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume.transpose(2, 1, 0)), affine)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)


def written_once(name: str, write: Callable[[Path], object], cache: str | Path | None = None) -> Path:
    """Returns the folder ``<cache>/phantoms/<name>``, written atomically on the first call.

    Args:
        name: Names generator, version, seed and size, which determine the content.
        write: Fills a folder.
        cache: Cache root; by default ``ANATOLAB_CACHE``, else ``~/.cache/anatolab``.
    """
    home = Path(cache or cache_root()) / "phantoms"
    home.mkdir(parents=True, exist_ok=True)
    final = home / name
    if not final.is_dir():
        partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home))
        try:
            write(partial)
            try:
                partial.rename(final)  # atomic
            except OSError:
                if not final.is_dir():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final
