"""Geometry of volumes: orientation, spacing, and conversion to one orientation and back.

An orientation is three letters, the directions of the file's axes x, y, z: ``RAS`` runs to the right, to the front and
up. A network learns left and right from positions in the array, so all cases of a cohort are converted to one
orientation before training (:func:`anatolab.data.formats.cohort_orientation`), and to that of the run before
prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from anatolab.data.dims import ANISOTROPY
from anatolab.types import Case, Cohort, InputError

Spacing = tuple[float, float, float]
SIDES = ("LR", "PA", "IS")
AGREES = 0.01  # relative difference of spacings that is attributed to rounding
RIGHT_ANGLE = 0.01  # largest cosine between two axes that are at right angles, about half a degree


def orientation_of(affine: np.ndarray) -> str:
    """Returns the directions in which the axes x, y, z of a file run.

    Args:
        affine: (4, 4) voxel (x, y, z) to world mm, RAS.

    Example:
        >>> orientation_of(np.diag([-1.0, -1.0, 3.0, 1.0]))
        'LPS'
    """
    import nibabel as nib

    return "".join(map(str, nib.orientations.aff2axcodes(affine)))


def spacing_of(affine: np.ndarray) -> Spacing:
    """Returns the lengths (z, y, x) in mm of the edges of a voxel."""
    x, y, z = (float(edge) for edge in np.linalg.norm(affine[:3, :3], axis=0))
    return z, y, x


def agreed_spacing(affine: np.ndarray, pixdim: Spacing, source: object) -> tuple[Spacing, tuple[str, ...]]:
    """Returns the spacing of a file that stores it twice, and a note if the two differ by more than 1 %.

    A spacing of 1 x 1 x 1 mm was never filled in, so the other is used: that of the header in ACDC as released, that of
    the affine in files whose ``pixdim`` a converter left out.

    Args:
        affine: (4, 4) voxel to world mm.
        pixdim: The other one, (z, y, x) in mm.
        source: The file, for the message.

    Raises:
        InputError: They differ, and neither is 1 x 1 x 1 mm.

    Example:
        >>> agreed_spacing(np.diag([1.5, 1.5, 4.0, 1.0]), (1.0, 1.0, 1.0), "a.nii")[0]
        (4.0, 1.5, 1.5)
    """
    edges = spacing_of(affine)
    if np.allclose(edges, pixdim, rtol=AGREES):
        return pixdim, ()
    both = f"its header gives a spacing of {_mm(pixdim)} mm (z, y, x) and its affine one of {_mm(edges)} mm"
    for spacing, other, name in ((pixdim, edges, "header"), (edges, pixdim, "affine")):
        if np.allclose(other, 1, rtol=AGREES):
            return spacing, (f"{both}, and that of the {name} is taken",)
    raise InputError(f"{source}: {both}; repair the header, for example by converting the original images again.")


def axes_note(affine: np.ndarray) -> tuple[str, ...]:
    """Returns a note if two axes of a volume are not orthogonal, as after a gantry tilt."""
    steps = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    largest = float(np.abs(steps.T @ steps - np.eye(3)).max())
    if largest <= RIGHT_ANGLE:
        return ()
    degrees = np.degrees(np.arccos(min(largest, 1.0)))
    return (f"two of its axes meet at {degrees:.3g} degrees, and distances are measured as if it were 90",)


def reoriented(case: Case, codes: str | None) -> Case:
    """Returns the case with its axes reordered and flipped to the orientation ``codes``; nothing is resampled.

    Image, label, spacing and affine change together, so each voxel keeps its place in the patient. Reorienting to
    ``orientation_of(case.affine)`` gives the case again.

    Args:
        case: The volume; one without affine is returned unchanged.
        codes: Orientation such as ``RAS``; None leaves the case unchanged.

    Raises:
        InputError: The codes are not three letters, one of each of LR, PA and IS.

    Example:
        >>> image = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
        >>> case = Case("a", "", image, None, (3.0, 2.0, 1.0), np.diag([1.0, 2, 3, 1]), "a.nii")
        >>> turned = reoriented(case, "LAS")
        >>> turned.image[0, 0].tolist(), turned.affine[0].tolist()
        ([[2.0, 1.0, 0.0], [5.0, 4.0, 3.0]], [-1.0, 0.0, 0.0, 2.0])
    """
    import nibabel as nib

    if codes is None or case.affine is None:
        return case
    check_codes(codes)
    if orientation_of(case.affine) == codes:
        return case
    turn = _turn(case.affine, codes)
    shape = case.image.shape[:0:-1]
    affine = case.affine @ nib.orientations.inv_ornt_aff(turn, shape)
    order = [int(axis) for axis in np.argsort(turn[:, 0])]  # the old axis of each new one
    spacing = case.spacing
    if spacing is not None:
        x, y, z = (spacing[::-1][axis] for axis in order)
        spacing = (z, y, x)
    label = None if case.label is None else _turned(case.label, turn)
    return replace(case, image=_turned(case.image, turn), label=label, spacing=spacing, affine=affine)


def restored(label: np.ndarray, case: Case, source: Case) -> np.ndarray:
    """Returns a label volume (z, y, x) on the grid of ``case = reoriented(source, codes)``, on the grid of ``source``.

    Example:
        >>> image = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
        >>> source = Case("a", "", image, None, (3.0, 2.0, 1.0), np.diag([1.0, 2, 3, 1]), "a.nii")
        >>> case = reoriented(source, "LSA")
        >>> bool((restored(case.image[0], case, source) == image[0]).all())
        True
    """
    if case.affine is None or source.affine is None:
        return label
    codes = orientation_of(source.affine)
    return label if orientation_of(case.affine) == codes else _turned(label, _turn(case.affine, codes))


def slices_last(affine: np.ndarray) -> str:
    """Returns the orientation of a file with the thickest axis last, if one is 3 times thicker than the others.

    Example:
        >>> slices_last(np.diag([8.0, 1.0, 1.0, 1.0])), slices_last(np.diag([1.0, 1.0, 8.0, 1.0]))
        ('ASR', 'RAS')
    """
    codes, edges = orientation_of(affine), spacing_of(affine)[::-1]
    thick = int(np.argmax(edges))
    others = [axis for axis in range(3) if axis != thick]
    if thick == 2 or edges[thick] <= ANISOTROPY * max(edges[axis] for axis in others):
        return codes
    return "".join(codes[axis] for axis in (*others, thick))


def slices_note(affine: np.ndarray, codes: str | None) -> tuple[str, ...]:
    """Returns a note if the slices of a file are stacked along another axis than the last of an orientation.

    That is so if one axis of the file is 3 times thicker than the others, and it is another one.

    Example:
        >>> slices_note(np.diag([8.0, 1.0, 1.0, 1.0]), "RAS")
        ('its slices are stacked along LR, 8 mm apart, and slices are taken along IS; resample it first',)
        >>> slices_note(np.diag([8.0, 1.0, 1.0, 1.0]), "ASR"), slices_note(np.diag([1.0, 1.0, 1.0, 1.0]), "ASR")
        ((), ())
    """
    if codes is None:
        return ()
    edges = spacing_of(affine)[::-1]
    thick = int(np.argmax(edges))
    letters = orientation_of(affine)[thick], codes[2]
    stacked, taken = (next(side for side in SIDES if letter in side) for letter in letters)
    if stacked == taken or edges[thick] <= ANISOTROPY * sorted(edges)[1]:
        return ()
    return (
        f"its slices are stacked along {stacked}, {edges[thick]:.3g} mm apart, and slices are taken along {taken}; "
        "resample it first",
    )


def oriented(cohort: Cohort, codes: str | None) -> Cohort:
    """Returns the cohort with all cases in one orientation; see :func:`reoriented`. None leaves it as it is."""
    if codes is None:
        return cohort
    check_codes(codes)
    refs = tuple(replace(ref, load=partial(_load, ref.load, codes)) for ref in cohort.refs)
    return replace(cohort, refs=refs, orientation=codes)


def check_codes(codes: str) -> None:
    """Checks that codes name an orientation, unlike ``RRS``."""
    if sorted(next((side for side in SIDES if letter in side), "") for letter in codes) != sorted(SIDES):
        raise InputError(
            f"orientation: {codes!r} does not name three directions; give one letter of each of LR, PA and IS."
        )


def _load(load: Callable[[], Case], codes: str) -> Case:
    return reoriented(load(), codes)


def _turn(affine: np.ndarray, codes: str) -> Any:
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    return ornt_transform(io_orientation(affine), axcodes2ornt(tuple(codes)))


def _turned(array: np.ndarray, turn: Any) -> np.ndarray:
    """Returns the last three axes (z, y, x) of an array, reordered and flipped."""
    from nibabel.orientations import apply_orientation

    return np.ascontiguousarray(apply_orientation(array.T, turn).T)  # x, y, z, then what was before them


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{edge:.4g}" for edge in spacing)
