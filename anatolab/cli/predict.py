"""``anatolab predict``: label volumes of new images, or of a folder of patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from anatolab.cli.common import Accelerator, Json, Overwrite, Stride, check_stride, device_of, print_json
from anatolab.errors import InputError
from anatolab.files import check_target
from anatolab.types import Case

FIRST = "_0000"  # the end of the name of a case's first channel


class Job(NamedTuple):
    """One case: the name of its label volume, and the function that reads it."""

    name: str
    load: Callable[[], Case]


def command(arguments: Sequence[str]) -> Any:
    """Returns the function whose parameters are the flags."""
    return predict


def predict(
    run: Path,
    out: Path,
    images: list[Path] | None = None,
    data: Path | None = None,
    on: Literal["all", "train", "development", "validation", "test"] = "all",
    stride: Stride | None = None,
    accelerator: Accelerator = "auto",
    overwrite: Overwrite = False,
    json: Json = False,
) -> int:
    """Write the label volume of each image as NIfTI, in the geometry of the image.

    Args:
        run: Folder of a run, the --out of train.
        out: Folder for the label volumes, named as the images, without the number of the channel; those of the atrial
            challenge, whose images are all called lgemri.nrrd, as their folders.
        images: NIfTI, NRRD or MetaImage files, or folders of them; for a run on several channels case_0000.nii.gz,
            case_0001.nii.gz, ... or 4-D files.
        data: Instead of images, a folder of patients in any layout that train reads.
        on: Which patients of that folder: a part of the run's split, or all.
        stride: Of a run on 3-D patches: steps z y x of its sliding window, half a patch where not given.
        accelerator: Where to compute.
        overwrite: Replace label volumes that exist; an image of the command is never replaced.
        json: Print what was written as JSON.
    """
    from anatolab.data.geometry import restored
    from anatolab.inference import predict_volume
    from anatolab.training import open_run
    from anatolab.writing import write_nifti

    if (images is None) == (data is None):
        raise InputError("--images, --data: give one of the two, image files or a folder of patients.")
    if on != "all" and data is None:
        raise InputError("--on: names a part of a folder of patients; give --data.")
    method, info = open_run(run, device := device_of(accelerator))
    stride = check_stride(stride, info.patch)
    jobs = _of_folder(data, info, on) if data is not None else _of_images(images or [], info, out)
    targets = [out / job.name for job in jobs]
    if twice := sorted({target.name for target in targets if targets.count(target) > 1}):
        raise InputError(f"{out}: two images have the name {twice[0]}; predict them into folders of their own.")
    for target in targets:
        check_target(target, overwrite=overwrite)
    notes = [] if info.finished else [f"the run is not finished: step {info.step} of {info.updates} updates."]
    written = []
    for target, job in zip(targets, jobs, strict=True):
        source = replace(job.load(), window=info.window)
        case = info.case(source)
        label = predict_volume(
            method.predict,  # type: ignore[arg-type]
            case,
            info.size,
            device=device,
            stride=stride,
            **info.rules,
        )
        write_nifti(restored(label, case, source), source, target, overwrite=overwrite)
        voxels = {name: int((label == k).sum()) for k, name in enumerate(info.classes) if k}
        remarks = info.remarks(source)
        written.append({"file": target, "voxels": voxels, "notes": remarks})
        if not json:
            for note in (*notes, *remarks) if len(written) == 1 else remarks:
                print(f"note: {note}")
            print(f"{target}: voxels {', '.join(f'{name} {count}' for name, count in voxels.items())}")
    if json:
        print_json({"run": run, "step": info.step, "finished": info.finished, "notes": notes, "written": written})
    return 0


def _of_folder(data: Path, info: Any, on: str) -> list[Job]:
    """The cases of a folder of patients."""
    from anatolab.data import open_cohort

    cohort = open_cohort(data, as_stored=True)
    patients = cohort.patients if on == "all" else getattr(info.split, on)
    if not patients:
        raise InputError(f"{data}: the run's split has no {on} patients; give --on all.")
    return [Job(f"{ref.name}.nii.gz", ref.load) for ref in cohort.of(patients)]


def _of_images(images: Sequence[Path], info: Any, out: Path) -> list[Job]:
    """The cases of image files and of folders of them."""
    from anatolab.data import pairs
    from anatolab.data.files import list_images

    files = [file for path in images for file in list_images(path)]
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
    if replaced := [name for name in groups if (out / name).resolve() in inputs]:
        raise InputError(f"{out}: the label volume would replace the image {replaced[0]}; give another folder.")
    return [
        Job(name, partial(pairs.load_case, name, group, None, info.classes, channels=info.in_channels))
        for name, group in groups.items()
    ]


def label_name(image: Path, case: str | None = None) -> str:
    """Returns the name of the label volume of an image, as nnU-Net names labels: without the number of the channel.

    Args:
        image: The file of the image, or of its first channel.
        case: The name of the case, where it is known.

    Example:
        >>> label_name(Path("case_001_0000.nii.gz")), label_name(Path("scan_2019.nii")), label_name(Path("a.mha"))
        ('case_001.nii.gz', 'scan_2019.nii', 'a.nii.gz')
    """
    from anatolab.data.pairs import ending, stem

    name = case or (image.resolve().parent.name if image.name == "lgemri.nrrd" else stem(image).removesuffix(FIRST))
    return f"{name}{ending(image) if ending(image) in ('.nii', '.nii.gz') else '.nii.gz'}"
