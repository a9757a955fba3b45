"""Lists the cases of ``anatolab predict``: image files, folders of them, or patients in a known layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from anatolab.errors import InputError
from anatolab.types import Case

FIRST = "_0000"  # the end of the name of a case's first channel


class Job(NamedTuple):
    """One case: the name of its label volume, and the function that reads it."""

    name: str
    load: Callable[[], Case]


def of_folder(data: Path, info: Any, on: str) -> list[Job]:
    """Returns the cases of a folder of patients."""
    from anatolab.data import open_cohort

    cohort = open_cohort(data, as_stored=True)
    patients = cohort.patients if on == "all" else getattr(info.split, on)
    if not patients:
        raise InputError(f"{data}: the run's split has no {on} patients; give --on all.")
    return [Job(f"{ref.name}.nii.gz", ref.load) for ref in cohort.of(patients)]


def of_images(images: Sequence[Path], info: Any, out: Path) -> list[Job]:
    """Returns the cases of image files and of folders of them."""
    from anatolab.data import pairs
    from anatolab.data.dicom import is_dicom

    files = [file for path in images for file in _inputs(path)]
    if single := [file for file in files if file.is_file() and is_dicom(file)]:
        raise InputError(f"{single[0]}: is one file of a DICOM series; name the folder of the series.")
    groups: dict[str, tuple[Path, ...]] = {label_name(file): (file,) for file in files}
    if info.in_channels > 1:
        problems: list[str] = []
        cases = pairs.by_channel(files, info.in_channels, problems)
        if problems:
            raise InputError(problems[0])
        groups = {label_name(group[0], name): group for name, group in cases.items()}
    elif len(groups) < len(files):
        names = [label_name(file) for file in files]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{out}: two images have the name {twice}; predict them into folders of their own.")
    inputs = {file.resolve() for file in files}
    if out.resolve() in inputs:
        raise InputError(f"{out}: holds a DICOM series, which label volumes do not belong to; give another folder.")
    if replaced := [name for name in groups if (out / name).resolve() in inputs]:
        raise InputError(f"{out}: the label volume would replace the image {replaced[0]}; give another folder.")
    return [Job(name, partial(_load, name, group, info)) for name, group in groups.items()]


def _inputs(path: Path) -> list[Path]:
    """Returns the images that a path names: a file, DICOM folders, or the images of a folder."""
    from anatolab.data.dicom import dicom_folders, is_dicom
    from anatolab.data.files import ENDINGS, PICTURES, entries, is_image, list_images
    from anatolab.data.layouts import LAYOUTS
    from anatolab.data.pictures import is_picture

    if not (path.exists() or path.is_symlink()):
        raise InputError(f"{path}: there is no such file or folder; check the path.")
    if path.is_file() and not is_image(path) and not is_picture(path) and not is_dicom(path):
        raise InputError(f"{path}: is no image; name {', '.join((*ENDINGS, *PICTURES))} files, or a DICOM folder.")
    if folders := dicom_folders(path):
        return [*folders, *(file for file in entries(path) if is_image(file) and file.is_file())]
    try:
        return list_images(path)
    except InputError:
        if path.is_dir() and any(layout.recognizes(path) for layout in LAYOUTS):
            raise InputError(
                f"{path}: is a data set whose images lie deeper; give this folder with --data, or name its images."
            ) from None
        raise


def _load(name: str, images: tuple[Path, ...], info: Any) -> Case:
    """Reads a case; refuses one of class numbers, which folders of data sets hold beside the images."""
    import numpy as np

    from anatolab.data import pairs

    case = pairs.load_case(name, images, None, info.classes, channels=info.in_channels)
    most = len(info.classes)
    sparse = len(np.unique(case.image[..., ::7]))  # decides for an image, at a seventh of the time
    if sparse <= most and 1 < (values := len(np.unique(case.image))) <= most:
        raise InputError(
            f"{images[0]}: holds only {values} values, like an annotation; name images alone, or give a data set with "
            "--data."
        )
    return case


def label_name(image: Path, case: str | None = None) -> str:
    """Returns the name of the label volume of an image, as nnU-Net names labels: without the number of the channel.

    Args:
        image: The file of the image, or of its first channel.
        case: The name of the case, where it is known.

    Example:
        >>> label_name(Path("case_001_0000.nii.gz")), label_name(Path("scan_2019.nii")), label_name(Path("a.mha"))
        ('case_001.nii.gz', 'scan_2019.nii', 'a.nii.gz')
        >>> label_name(Path("x_0000.jpg"))
        'x.png'
    """
    from anatolab.data.files import NIFTI, ending, stem
    from anatolab.data.pictures import is_picture

    if image.is_dir():  # of a DICOM series
        return f"{case or image.resolve().name}.nii.gz"
    name = case or (image.resolve().parent.name if image.name == "lgemri.nrrd" else stem(image).removesuffix(FIRST))
    if is_picture(image):
        return f"{name}{'.tif' if image.suffix.lower() in ('.tif', '.tiff') else '.png'}"
    return f"{name}{ending(image) if ending(image) in NIFTI else '.nii.gz'}"
