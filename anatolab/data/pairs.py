"""Pairs image and label files by name and reads them into cases; shared by most readers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from anatolab.data import checks, pictures
from anatolab.data.dicom import holds_dicom
from anatolab.data.files import case_name, ending, entries, is_image, natural, stem
from anatolab.data.formats import read_volume
from anatolab.data.pictures import is_picture
from anatolab.types import Case, CaseRef, InputError

_CHANNEL = re.compile(r"(.+)_(\d{4})")  # nnU-Net: case_0000.nii.gz is channel 0 of "case"


def scan(
    folders: Sequence[Path],
    pattern: str,
    root: Path,
    ignored: list[str],
    problems: list[str],
    also: Callable[[Path], bool] = lambda path: False,
) -> dict[str, tuple[re.Match[str], Path]]:
    """Returns the files of some folders whose name without ending matches, by that name, in natural order.

    Args:
        folders: Those that are absent are skipped.
        pattern: Regular expression for the name without ending.
        root: Names in ``ignored`` are relative to it.
        ignored: Each other file is appended to it.
        problems: A message is appended for each name that occurs twice, such as ``a.nii`` beside ``a.nii.gz``.
        also: Whether a path counts as an image, in addition to volumes and DICOM folders.
    """
    named: dict[str, tuple[re.Match[str], Path]] = {}
    for folder in folders:
        if folder.is_file():
            problems.append(f"{folder}: is a file where a folder is expected; rename or remove it.")
        for path in entries(folder):
            name = case_name(path)
            match = re.fullmatch(pattern, name) if is_image(path) or holds_dicom(path) or also(path) else None
            if match is None:
                if path not in folders and not _is_part(path):
                    ignored.append(str(path.relative_to(root)))
            elif (other := named.setdefault(name, (match, path))[1]) != path:
                problems.append(f"{path}: exists twice, also as {other}; keep one of the two.")
    return dict(sorted(named.items(), key=lambda item: natural(item[0])))


def matching(
    folder: Path, pattern: re.Pattern[str], root: Path, ignored: list[str], beside: Sequence[str] = ()
) -> Iterator[tuple[re.Match[str], Path]]:
    """Yields the files of a folder whose whole name matches; all others but ``beside`` go to ``ignored``."""
    for path in entries(folder):
        if match := pattern.fullmatch(path.name):
            yield match, path
        elif path.name not in beside:
            ignored.append(str(path.relative_to(root)))


def left_aside(folder: Path, root: Path, used: Sequence[str]) -> list[str]:
    """Returns the entries of a folder other than these names, relative to ``root``."""
    return [str(path.relative_to(root)) for path in entries(folder) if path.name not in used and not _is_part(path)]


def _is_part(path: Path) -> bool:
    """Returns whether a file is known to lie beside images: a description, or the values of a detached header."""
    if path.name in (checks.NOTE, "dataset.json"):
        return True
    return path.suffix in (".raw", ".zraw") and path.with_suffix(".mhd").is_file()


def refs_of(
    images: Mapping[str, tuple[Path, ...]],
    labels: Mapping[str, Path],
    load: Callable[[str, tuple[Path, ...], Path | None], Callable[[], Case]],
    due: Callable[[str], Path | None],
    problems: list[str],
) -> tuple[CaseRef, ...]:
    """Builds one case per patient; an image or a label without its partner is a problem.

    Args:
        images: The files of each patient, one per channel.
        labels: The label file of each patient that has one.
        load: Makes the function that reads the case.
        due: The expected label file of a patient; None if the patient may be without.
        problems: A message is appended for each label without image, and for each image without an expected label if
            other images have one.
    """
    refs = []
    for patient, files in images.items():
        label = labels.get(patient)
        parts = tuple(part for file in files for part in (entries(file) if file.is_dir() else (file,)))
        read = parts if label is None else (*parts, label)
        refs.append(CaseRef(patient, "", files[0], load(patient, files, label), read, labeled=label is not None))
        if labels and label is None and (place := due(patient)) is not None:
            problems.append(
                f"{files[0]}: has no annotation ({place}{_almost(place)}), though others do; "
                "add it, or keep unannotated patients in a folder of their own."
            )
    problems += [
        f"{label}: has no image that it was drawn on ({patient}); copy the image there, or remove the label file."
        for patient, label in labels.items()
        if patient not in images
    ]
    return tuple(refs)


def load_case(
    patient: str,
    images: tuple[Path, ...],
    label: Path | None,
    classes: Sequence[str],
    *,
    codes: Mapping[int, int] | None = None,
    window: tuple[float, float] | None = None,
    info: Mapping[str, Any] | None = None,
    channels: int = 1,
) -> Case:
    """Reads and checks one case.

    Args:
        patient: Its id.
        images: A 3-D file per channel, or one 4-D file of all channels.
        label: The label file, if any.
        classes: Class names, background first.
        codes: Class number of each value in the label file; the values are class numbers where not given.
        window: See :class:`anatolab.types.Case`.
        info: Further data of the data set.
        channels: Expected number.

    Raises:
        InputError: A file is invalid, or two of them differ in shape or position.
    """
    path = images[0]
    if is_picture(path):
        rules: dict[str, Any] = {"codes": codes, "window": window, "channels": channels}
        return pictures.load_case(patient, images, label, classes, **rules)
    array, affine, spacing, notes = read_volume(path, 4 if channels > len(images) else 3)
    volumes = [checks.check_image(volume, path) for volume in (array if array.ndim == 4 else array[None])]
    for other in images[1:]:
        array, other_affine, _, _ = read_volume(other)
        if array.shape != volumes[0].shape:
            raise InputError(
                f"{other}: this channel has shape {array.shape}, the first of its case {volumes[0].shape}; "
                "resample the channels to one grid."
            )
        checks.check_affine(affine, other_affine, array.shape, other, "channel")
        volumes.append(checks.check_image(array, other))
    if len(volumes) != channels:
        raise InputError(
            f"{path}: holds {len(volumes)} channels where {channels} are expected; add or remove channels."
        )
    for k, j in combinations(range(channels), 2):
        if np.array_equal(volumes[k], volumes[j]):
            raise InputError(
                f"{images[min(j, len(images) - 1)]}: channel {j} holds the same values as channel {k}; "
                "copy the channel there that belongs there."
            )
    mask = None
    if label is not None:
        values, label_affine, _, _ = read_volume(label)
        checks.check_pair(volumes[0], values, path, label)
        checks.check_affine(affine, label_affine, values.shape, label)
        mask = checks.map_label(values, label, codes, classes) if codes else checks.check_label(values, label, classes)
    return Case(patient, "", np.stack(volumes), mask, spacing, affine, path, dict(info or {}), window, notes)


def load_slices(
    files: Sequence[Path],
    read: Callable[..., tuple[np.ndarray, ...]],
    classes: Sequence[str],
    *,
    stacked: bool,
    places: tuple[str, str],
) -> tuple[np.ndarray, np.ndarray]:
    """Loads image and label of a volume from files without geometry, one slice per file or all in one.

    Args:
        files: The slices in their order, or the file of the volume.
        read: Reads named arrays of a file, such as :func:`anatolab.data.arrays.read_h5`.
        classes: Class names, background first.
        stacked: Whether each file is a slice.
        places: Expected folders of slices and of volumes, for messages.

    Returns:
        ``(z, y, x)``, the image as the files have it and finite, the label uint8.

    Raises:
        InputError: A file is wrong, or slices differ in shape.
    """
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for path in files:
        image, label = read(path, "image", "label")
        if image.ndim != (2 if stacked else 3):
            raise InputError(
                f"{path}: its image has shape {image.shape} where a {'2-D slice' if stacked else '3-D volume'} is "
                f"expected; slices belong in {places[0]}, volumes in {places[1]}."
            )
        checks.check_pair(image, label, path, path)
        if images and image.shape != images[0].shape:
            raise InputError(
                f"{path}: this slice has shape {image.shape}, the first of its volume {images[0].shape}; "
                "write the slices of this case again from one volume."
            )
        if not np.isfinite(image).all():
            checks.check_image(image, path)
        images.append(image)
        labels.append(checks.check_label(label, path, classes))
    return (np.stack(images), np.stack(labels)) if stacked else (images[0], labels[0])


def by_channel(paths: Sequence[Path], channels: int, problems: list[str]) -> dict[str, tuple[Path, ...]]:
    """Groups files in nnU-Net's naming by case.

    Args:
        paths: ``case_0000.nii.gz``, ``case_0001.nii.gz``, ...; or ``case.nii.gz`` that hold all channels.
        channels: Number of channels per case.
        problems: A message is appended for each case with a missing or an extra channel.

    Returns:
        The files of each case in the order of channels, by the case's name; an empty tuple if there is a problem.

    Example:
        >>> by_channel([Path("a_0001.nii.gz"), Path("a_0000.nii.gz"), Path("b.nii.gz")], 2, [])["a"][0].name
        'a_0000.nii.gz'
    """
    by_case: dict[str, dict[int, Path]] = {}
    names = [stem(path) for path in paths]
    if paths and all(map(is_picture, paths)) and not any(name.endswith("_0001") for name in names):
        channels = 1  # files, each of which holds all colors
    for path in paths:
        match = _CHANNEL.fullmatch(name := case_name(path))
        files = by_case.setdefault(match[1] if match else name, {})
        if (other := files.setdefault(int(match[2]) if match else -1, path)) is not path:
            problems.append(f"{path}: exists twice, also as {other}; keep one of the two.")
    cases = {case: tuple(files[k] for k in sorted(files)) for case, files in by_case.items()}
    for case, files in by_case.items():
        if set(files) != {-1} and (wrong := sorted(set(files) ^ set(range(channels)))):
            path = next(iter(files.values()))
            place = files.get(wrong[0], path.with_name(f"{case}_{wrong[0]:04d}{ending(path)}"))
            what = "is one too many" if wrong[0] in files else "is missing"
            problems.append(
                f"{place}: this channel {what}, as {channels} are expected (_0000 to _{channels - 1:04d}); "
                "give each case these files."
            )
            cases[case] = ()
    return cases


def _almost(path: Path) -> str:
    """Returns a hint if the file exists with other capitalization."""
    if not path.parent.is_dir():
        return ""
    near = [p.name for p in path.parent.iterdir() if p.name.casefold() == path.name.casefold() and p.name != path.name]
    return f" is expected, {near[0]} differs in upper and lower case" if near else ""
