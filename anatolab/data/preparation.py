"""Prepares patients for training: slices for a size of two numbers, patches for three."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import overload

import numpy as np

from anatolab.data import cache as slices
from anatolab.data import volumes
from anatolab.data.cache import Cut, Rows, cached, slices_of
from anatolab.data.field_of_view import FieldOfView
from anatolab.data.volumes import Volumes, volume_of
from anatolab.types import UNKNOWN, CaseRef, Cohort, InputError


@overload
def prepare(
    cohort: Cohort,
    patients: Sequence[str],
    *,
    size: tuple[int, int] = ...,
    field_of_view: FieldOfView | None = ...,
    foreground: float = ...,
    cache: str | Path | None = ...,
) -> Rows: ...
@overload
def prepare(
    cohort: Cohort,
    patients: Sequence[str],
    *,
    size: tuple[int, int, int],
    field_of_view: FieldOfView | None = ...,
    foreground: float = ...,
    cache: str | Path | None = ...,
) -> Volumes: ...
@overload
def prepare(
    cohort: Cohort,
    patients: Sequence[str],
    *,
    size: tuple[int, ...],
    field_of_view: FieldOfView | None = ...,
    foreground: float = ...,
    cache: str | Path | None = ...,
) -> Rows | Volumes: ...
def prepare(
    cohort: Cohort,
    patients: Sequence[str],
    *,
    size: tuple[int, ...] = (128, 128),
    field_of_view: FieldOfView | None = None,
    foreground: float = 1 / 3,
    cache: str | Path | None = None,
) -> Rows | Volumes:
    """Prepares patients for a network on slices or patches: reads and checks them once, then memory-maps the cache.

    With two numbers, every slice becomes a row of that size, see :func:`anatolab.data.cache.slices_of`; with a field of
    view a row includes its margin. With three, volumes stay on their grid, and patches of that size are sampled at
    random positions, see :class:`anatolab.data.Volumes`. Two processes may prepare the same rows at once. A damaged
    cache is rebuilt with a warning.

    Args:
        cohort: The patients' cohort.
        patients: Patients in the order of their rows.
        size: Input size of the network in pixels: height and width of slices, or sides (z, y, x) of patches.
        field_of_view: Part of each scan that is kept, see :func:`anatolab.data.find_field_of_view`; all where None.
        foreground: Share of the labeled patches that must hold a foreground voxel; not read for slices.
        cache: The folder of the caches; by default ``cache_root()``.

    Returns:
        The rows, on disk in ``<cache>/<cohort>-<key>``. The cache of volumes does not depend on ``size`` and
        ``foreground``, but their ``sha256`` does.

    Raises:
        InputError: A patient is unknown or given twice, a case is invalid, cases have different numbers of channels,
            size and field of view do not fit, or the cache cannot be written.

    Reference:
        A third of the patches with foreground is the share of Isensee et al., nnU-Net, Nature Methods 2021.
    """
    if len(size) not in (2, 3) or min(size) < 1:
        raise InputError(
            "size: must be the height and width of slices or the sides (z, y, x) of patches, two or three numbers "
            f"of at least 1, not {size}."
        )
    if field_of_view is not None and field_of_view.dims != len(size):
        raise InputError(
            f"size: {size} and a field of view of {field_of_view.dims} dimensions do not fit; find the field of view "
            f"with dims={len(size)}."
        )
    extra = {"field_of_view": asdict(field_of_view)} if field_of_view is not None else {}
    if len(size) == 2:
        return _slices(cohort, patients, (size[0], size[1]), field_of_view, extra, cache)
    if not 0 <= foreground <= 1:
        raise InputError(f"foreground: the share of patches must lie in [0, 1], not {foreground}.")
    recipe = {**volumes.RECIPE, **extra}
    images, labels, columns, sha256 = cached(
        cohort, patients, recipe, lambda ref: _cut_volume(ref, field_of_view), cache
    )
    return Volumes.from_cache(images, labels, columns, sha256, (size[0], size[1], size[2]), foreground)


def _slices(
    cohort: Cohort,
    patients: Sequence[str],
    size: tuple[int, int],
    field_of_view: FieldOfView | None,
    extra: dict,
    cache: str | Path | None,
) -> Rows:
    def cut(ref: CaseRef) -> Cut:
        images, labels = slices_of(ref.load(), size, field_of_view)
        names = [f"{ref.name}#{i:02d}" for i in range(len(images))]
        return images, labels, {"names": names, "patients": [ref.patient] * len(images)}

    recipe = {**slices.RECIPE, "size": list(size), **extra}
    images, labels, columns, sha256 = cached(cohort, patients, recipe, cut, cache)
    return Rows.from_cache(images, labels, columns, sha256, size)


def _cut_volume(ref: CaseRef, field_of_view: FieldOfView | None) -> Cut:
    case = ref.load()
    image = np.moveaxis(volume_of(case, field_of_view), 0, -1)
    label = np.full(case.image.shape[1:], UNKNOWN, np.uint8) if case.label is None else case.label
    if field_of_view is not None:
        label = field_of_view.boxes(case)[0].cut(label)
    columns: dict[str, list] = {"names": [ref.name], "patients": [ref.patient], "shapes": [list(label.shape)]}
    return image.reshape(-1, image.shape[-1]), label.reshape(-1), columns
