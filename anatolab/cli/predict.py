"""``anatolab predict``: label volumes of new images, or of a folder of patients, by one run or by several."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from anatolab.cli.common import Accelerator, Flag, Json, Overwrite, Stride, check_stride, device_of, print_json
from anatolab.cli.jobs import label_name, of_folder, of_images
from anatolab.errors import InputError
from anatolab.files import check_target
from anatolab.types import Case

__all__ = ["Form", "Keep", "KeepAll", "Runs", "command", "label_name", "predict"]

Runs = Annotated[list[Path], tyro.conf.UseAppendAction]
Keep = Annotated[Flag, tyro.conf.arg(name="largest-component", help="Keep the largest component of each organ alone.")]
KeepAll = Annotated[Flag, tyro.conf.arg(name="no-largest-component", help="Keep every component.")]
Form = Literal["4d", "class", "npy"]


def command(arguments: Sequence[str]) -> Any:
    """Returns the function whose parameters are the flags."""
    return predict


def predict(
    run: Runs,
    out: Path,
    images: list[Path] | None = None,
    data: Path | None = None,
    on: Literal["all", "train", "development", "validation", "test"] = "all",
    average: Flag = False,
    probabilities: Form | None = None,
    uncertainty: Flag = False,
    label_names: Flag = False,
    largest_component: Keep = False,
    every_component: KeepAll = False,
    stride: Stride | None = None,
    window: Literal["constant", "gaussian"] = "constant",
    accelerator: Accelerator = "auto",
    overwrite: Overwrite = False,
    json: Json = False,
) -> int:
    """Write a label volume for each image: NIfTI in the image's geometry, or PNG or TIFF for pictures.

    Args:
        run: Folder of a run, the --out of train, or of an export. Several runs predict by their mean probability; they
            must have the same classes and channels.
        out: Folder for the label volumes. They are named like the images, without the channel number; those of the
            atrial challenge, whose images are all called lgemri.nrrd, like their folders.
        images: NIfTI, NRRD or MetaImage files, pictures (PNG, JPEG, TIFF, BMP), DICOM folders, or folders of any of
            these. A run on several channels needs case_0000.nii.gz, case_0001.nii.gz, ..., 4-D files or color pictures.
        data: Instead of images, a folder of patients in any layout that train reads.
        on: Which patients of that folder: a part of the run's split, or all.
        average: Average the probabilities over the flips and quarter turns that the run was trained with.
        probabilities: Write class probabilities, too: one 4-D NIfTI per case, one NIfTI per case and class (both as
            scaled 16-bit integers), or an array (classes, z, y, x) in float16.
        uncertainty: Write the entropy of each voxel in nats and, for several runs, the mutual information, which is
            large where they disagree.
        label_names: Write names and colors of the classes beside the label volumes, for ITK-SNAP and 3D Slicer.
        largest_component: Keep only the largest component of each organ. With neither flag, the run decides.
        every_component: Keep every component.
        stride: For a run on 3-D patches: steps z y x of its sliding window; half a patch where not given.
        window: For a run on 3-D patches: weights of a window's voxels where windows overlap.
        accelerator: Where to compute.
        overwrite: Replace label volumes that exist; an image of the command is never replaced.
        json: Print what was written as JSON.
    """
    from anatolab import postprocess
    from anatolab.data import pictures
    from anatolab.data.geometry import restored
    from anatolab.ensembles import member_of, predict_ensemble
    from anatolab.viz.colors import class_color
    from anatolab.writing import write_label_names, write_map, write_nifti

    if (images is None) == (data is None):
        raise InputError("--images, --data: give one of the two, image files or a folder of patients.")
    if on != "all" and data is None:
        raise InputError("--on: names a part of a folder of patients; give --data.")
    if largest_component and every_component:
        raise InputError("--largest-component, --no-largest-component: give one of the two.")
    if again := [path for k, path in enumerate(run) if path.resolve() in [other.resolve() for other in run[:k]]]:
        raise InputError(f"{again[0]}: is given twice; name each run once.")
    methods, infos = _opened(run, device := device_of(accelerator))
    info = infos[0]
    stride = check_stride(stride, next((i.patch for i in infos if i.patch), None))
    if window != "constant" and not any(i.patch for i in infos):
        raise InputError("--window: this run was trained on slices, over which no window slides; leave it out.")
    keep = largest_component or (not every_component and _agreed_component(run, infos))
    members = [member_of(path, method, i, average=average) for path, method, i in zip(run, methods, infos, strict=True)]
    jobs = of_folder(data, info, on) if data is not None else of_images(images or [], info, out)
    targets = [_targets(out, job.name, info.classes, probabilities, uncertainty, len(run)) for job in jobs]
    if twice := sorted({t["label"].name for t in targets if [u["label"] for u in targets].count(t["label"]) > 1}):
        raise InputError(f"{out}: two images have the name {twice[0]}; predict them into folders of their own.")
    for target in targets:
        for path in target.values():
            check_target(path, overwrite=overwrite)
    colors = [class_color(name, number) for number, name in enumerate(info.classes)]
    if label_names:
        write_label_names(info.classes, colors, out, overwrite=overwrite, check=True)
    notes = [
        f"the run {path} is not finished: step {i.step} of {i.updates} updates."
        if len(run) > 1
        else f"the run is not finished: step {i.step} of {i.updates} updates."
        for path, i in zip(run, infos, strict=True)
        if not i.finished
    ]
    written = []
    for target, job in zip(targets, jobs, strict=True):
        source = replace(job.load(), window=info.window)
        cases = [i.case(source) for i in infos]
        with _stored(probabilities, len(info.classes), cases[0], out) as stored:
            predicted = predict_ensemble(
                members,
                cases,
                uncertainty=uncertainty,
                probabilities=stored,
                device=device,
                stride=stride,
                window=window,
            )
            label = postprocess.largest_component(predicted.label) if keep else predicted.label
            labels = restored(label, cases[0], source)
            if target["label"].suffix in (".png", ".tif"):
                pictures.write_label(labels, target["label"], overwrite=overwrite)
            else:
                write_nifti(labels, source, target["label"], overwrite=overwrite)
            if label_names:
                write_label_names(info.classes, colors, out, overwrite=overwrite)
            for name in ("entropy", "mutual_information"):
                if name in target:
                    values = restored(getattr(predicted, name), cases[0], source)
                    write_map(values, source, target[name], overwrite=overwrite)
            if stored is not None:
                _write_probabilities(stored, cases[0], source, target, overwrite=overwrite)
        voxels = {name: int((label == k).sum()) for k, name in enumerate(info.classes) if k}
        remarks = info.remarks(source)
        more = {name: path for name, path in target.items() if name != "label"}
        written.append(
            {"file": target["label"], "voxels": voxels, "notes": remarks, **({"more": more} if more else {})}
        )
        if not json:
            for note in (*notes, *remarks) if len(written) == 1 else remarks:
                print(f"note: {note}")
            print(f"{target['label']}: voxels {', '.join(f'{name} {count}' for name, count in voxels.items())}")
    if json:
        about = {"run": run[0] if len(run) == 1 else run, "step": info.step, "finished": all(i.finished for i in infos)}
        print_json({**about, "notes": notes, "written": written})
    return 0


def _opened(run: Sequence[Path], device: str) -> tuple[list[Any], list[Any]]:
    """Opens runs, which must have the same classes and channels; returns their methods and descriptions."""
    from anatolab.training import open_run

    opened = [open_run(path, device) for path in run]
    first = opened[0][1]
    for path, (_, info) in zip(run[1:], opened[1:], strict=True):
        for name, what in (("classes", "classes"), ("in_channels", "channels"), ("orientation", "orientation")):
            ours, others = getattr(first, name), getattr(info, name)
            if ours != others:
                shown = [", ".join(v) if isinstance(v, tuple) else str(v) for v in (others, ours)]
                raise InputError(
                    f"{path}: its {what} ({shown[0]}) are not those of {run[0]} ({shown[1]}); give runs that were "
                    "trained on the same data."
                )
    return [method for method, _ in opened], [info for _, info in opened]


def _agreed_component(run: Sequence[Path], infos: Sequence[Any]) -> bool:
    """Returns whether the runs keep only the largest component; refuses runs that differ in it."""
    rules = [info.largest_component for info in infos]
    if len(set(rules)) > 1:
        path = run[rules.index(not rules[0])]
        raise InputError(
            f"{path}: differs from {run[0]} in whether the largest component of each organ is kept alone; give "
            "--largest-component or --no-largest-component."
        )
    return rules[0]


def _targets(
    out: Path, name: str, classes: Sequence[str], probabilities: str | None, uncertainty: bool, runs: int
) -> dict[str, Path]:
    """Returns the files that are written for a case, by what they hold."""
    targets = {"label": out / name}
    name = f"{name.rpartition('.')[0]}.nii.gz" if name.endswith((".png", ".tif")) else name
    if uncertainty:
        targets["entropy"] = out / "entropy" / name
        if runs > 1:
            targets["mutual_information"] = out / "mutual_information" / name
    if probabilities == "class":
        for number, label in enumerate(classes):
            plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in label)
            targets[f"probability of {label}"] = out / "probabilities" / f"{number}_{plain}" / name
    elif probabilities is not None:
        stem = name.removesuffix(".gz").removesuffix(".nii")
        targets["probabilities"] = out / "probabilities" / (f"{stem}.npy" if probabilities == "npy" else name)
    return targets


@contextmanager
def _stored(form: Form | None, classes: int, case: Case, out: Path) -> Iterator[np.ndarray | None]:
    """Yields an array on disk for the probabilities of a case, or None where they are not wanted."""
    if form is None:
        yield None
        return
    out.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=".probabilities-", dir=out)
    try:
        kind = np.float16 if form == "npy" else np.uint16
        shape = (classes, *case.image.shape[1:])
        yield np.memmap(Path(folder) / "values", dtype=kind, mode="w+", shape=shape)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_probabilities(
    stored: np.ndarray, case: Case, source: Case, target: dict[str, Path], *, overwrite: bool
) -> None:
    """Writes the probabilities of a case on the grid of its file, a class at a time."""
    from anatolab.data.geometry import restored
    from anatolab.files import write_atomically
    from anatolab.writing import write_probabilities

    volumes = (restored(volume, case, source) for volume in stored)
    path = target.get("probabilities")
    if path is None:
        for place, volume in zip((p for k, p in target.items() if k.startswith("probability")), volumes, strict=True):
            write_probabilities([volume], 1, source, place, overwrite=overwrite)
    elif path.suffix == ".npy":

        def write(file: Any) -> None:
            shape = (len(stored), *source.image.shape[1:])
            header = {"descr": "<f2", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for volume in volumes:
                file.write(np.ascontiguousarray(volume, "<f2").tobytes())

        write_atomically(path, write, overwrite=overwrite)
    else:
        write_probabilities(volumes, len(stored), source, path, overwrite=overwrite)
