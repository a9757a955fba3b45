"""Image files and the label file of each, paired by name and read into one case: what most readers share."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anatolab.data import checks
from anatolab.types import Case, CaseRef, InputError

_CHANNEL = re.compile(r"(.+)_(\d{4})")  # nnU-Net: case_0000.nii.gz is channel 0 of "case"
_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


def ending(path: Path) -> str:
    """``.nii.gz`` of ``a.1.nii.gz``."""
    return next((e for e in _ENDINGS if path.name.endswith(e)), path.suffix)


def stem(path: Path) -> str:
    """The file's name without its ending, in composed Unicode, so that a name zipped on a Mac is the same name."""
    return unicodedata.normalize("NFC", path.name[: len(path.name) - len(ending(path))])


def natural(name: str) -> tuple[Any, ...]:
    """Sorts ``volume-2`` before ``volume-10``."""
    return tuple((int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name))


def scan(
    folders: Sequence[Path], pattern: str, root: Path, ignored: list[str], problems: list[str]
) -> dict[str, tuple[re.Match[str], Path]]:
    """The files of some folders whose name without ending matches, by that name, in natural order.

    Args:
        folders: Those that are absent are skipped.
        pattern: Regular expression for the name without ending.
        root: Names in ``ignored`` are relative to it.
        ignored: Grows by each other file.
        problems: Grows by each name that is there twice, such as ``a.nii`` beside ``a.nii.gz``.
    """
    found: dict[str, tuple[re.Match[str], Path]] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            name, ends = stem(path), path.name.endswith(_ENDINGS)
            match = re.fullmatch(pattern, name) if ends and not path.name.startswith(".") else None
            if match is None:
                if not path.is_dir() and path.name not in (checks.NOTE, "dataset.json"):
                    ignored.append(str(path.relative_to(root)))
            elif name in found:
                problems.append(f"{path}: is there twice, also as {found[name][1]}; keep one of the two.")
            else:
                found[name] = (match, path)
    return dict(sorted(found.items(), key=lambda item: natural(item[0])))


def matching(
    folder: Path, pattern: re.Pattern[str], root: Path, ignored: list[str]
) -> Iterator[tuple[re.Match[str], Path]]:
    """The files of a folder, which may be absent, whose whole name matches; all others go to ``ignored``."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := pattern.fullmatch(path.name):
            yield match, path
        elif path.is_file():
            ignored.append(str(path.relative_to(root)))


def refs_of(
    images: Mapping[str, tuple[Path, ...]],
    labels: Mapping[str, Path],
    load: Callable[[str, tuple[Path, ...], Path | None], Callable[[], Case]],
    due: Callable[[str], Path | None],
    problems: list[str],
) -> tuple[CaseRef, ...]:
    """One case a patient; an image or a label whose partner is missing is a problem.

    Args:
        images: The files of each patient, a file a channel.
        labels: The label file of each patient that has one.
        load: Makes the function that reads the case.
        due: Where the label file of a patient belongs; None where the patient may be without.
        problems: Grows by a sentence for each label without image, and each image without label where it is due and
            others have one.
    """
    refs = []
    for patient, files in images.items():
        label = labels.get(patient)
        read = files if label is None else (*files, label)
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
    """Read and check one case.

    Args:
        patient: Its id.
        images: A 3-D file a channel, or one 4-D file of all channels.
        label: The label file, if any.
        classes: Class names, background first.
        codes: Class number of each value in the label file; the values are class numbers where not given.
        window: See :class:`anatolab.types.Case`.
        info: What the data set says beside it.
        channels: How many are due.

    Raises:
        InputError: A file is wrong, or two of them differ in shape or place.
    """
    path = images[0]
    array, affine, spacing = _read(path, 4 if channels > len(images) else 3)
    volumes = [checks.check_image(volume, path) for volume in (array if array.ndim == 4 else array[None])]
    for other in images[1:]:
        array, other_affine, _ = _read(other, 3)
        if array.shape != volumes[0].shape:
            raise InputError(
                f"{other}: this channel has shape {array.shape}, the first of its case {volumes[0].shape}; "
                "resample the channels to one grid."
            )
        checks.check_affine(affine, other_affine, array.shape, other, "channel")
        volumes.append(checks.check_image(array, other))
    if len(volumes) != channels:
        raise InputError(f"{path}: holds {len(volumes)} channels where {channels} are due; add or remove channels.")
    mask = None
    if label is not None:
        values, label_affine, _ = _read(label, 3)
        checks.check_pair(volumes[0], values, path, label)
        checks.check_affine(affine, label_affine, values.shape, label)
        mask = checks.map_label(values, label, codes, classes) if codes else checks.check_label(values, label, classes)
    return Case(patient, "", np.stack(volumes), mask, spacing, affine, path, dict(info or {}), window)


def load_slices(
    files: Sequence[Path],
    read: Callable[..., tuple[np.ndarray, ...]],
    classes: Sequence[str],
    *,
    stacked: bool,
    places: tuple[str, str],
) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of a volume that lies in files without geometry, a slice a file or all in one.

    Args:
        files: The slices in their order, or the file of the volume.
        read: Arrays of a file by their names, as :func:`anatolab.data.checks.read_h5`.
        classes: Class names, background first.
        stacked: Whether each file is a slice.
        places: Where slices and where volumes belong, for messages.

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
                f"{path}: its image has shape {image.shape} where a {'2-D slice' if stacked else '3-D volume'} is due; "
                f"slices belong in {places[0]}, volumes in {places[1]}."
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
    """Files in nnU-Net's naming, grouped by case.

    Args:
        paths: ``case_0000.nii.gz``, ``case_0001.nii.gz``, ...; or ``case.nii.gz`` that hold all channels.
        channels: How many each case has.
        problems: Grows by a sentence for each case that lacks a channel or has one too many.

    Returns:
        The files of each case in the order of channels, by the case's name; none where there is a problem.

    Example:
        >>> by_channel([Path("a_0001.nii.gz"), Path("a_0000.nii.gz"), Path("b.nii.gz")], 2, [])["a"][0].name
        'a_0000.nii.gz'
    """
    found: dict[str, dict[int, Path]] = {}
    for path in paths:
        match = _CHANNEL.fullmatch(stem(path))
        files = found.setdefault(match[1] if match else stem(path), {})
        if (other := files.setdefault(int(match[2]) if match else -1, path)) is not path:
            problems.append(f"{path}: is there twice, also as {other}; keep one of the two.")
    cases = {case: tuple(files[k] for k in sorted(files)) for case, files in found.items()}
    for case, files in found.items():
        if set(files) != {-1} and (wrong := sorted(set(files) ^ set(range(channels)))):
            path = next(iter(files.values()))
            place = files.get(wrong[0], path.with_name(f"{case}_{wrong[0]:04d}{ending(path)}"))
            what = "is one too many" if wrong[0] in files else "is missing"
            problems.append(
                f"{place}: this channel {what}, as {channels} are due (_0000 to _{channels - 1:04d}); "
                "give each case these files."
            )
            cases[case] = ()
    return cases


def _read(path: Path, ndim: int) -> tuple[np.ndarray, np.ndarray, checks.Spacing]:
    if path.name.endswith((".nii", ".nii.gz")):
        return checks.read_nifti(path, ndim)
    return checks.read_itk(path)


def _almost(path: Path) -> str:
    """Where a file of this name exists in other upper and lower case."""
    if not path.parent.is_dir():
        return ""
    near = [p.name for p in path.parent.iterdir() if p.name.casefold() == path.name.casefold() and p.name != path.name]
    return f" is due, {near[0]} differs in upper and lower case" if near else ""
