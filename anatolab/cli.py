"""The command ``anatolab``: generate or check patients, train on few labels, evaluate a run, predict new images."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from anatolab.types import Cohort, InputError, Split


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a wrong input ends with one sentence and exit code 1.

    ``ANATOLAB_SIZE`` (``tiny``, ``demo`` or ``full``; ``demo`` where unset) decides the defaults that ``--help`` shows.
    """
    import tyro

    os.environ.setdefault("ANATOLAB_SIZE", "demo")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = tyro.extras.subcommand_cli_from_dict(
            {
                "cohort": _cohort_command(),
                "check": _check_command(),
                "train": _train_command(_dims(arguments)),
                "evaluate": evaluate,
                "predict": predict,
            },
            prog="anatolab",
            description=(
                "Segment anatomy from few labeled patients. Data are recognized from disk: ACDC, LA, LiTS, MM-WHS and "
                "Synapse as released or as widely prepared, and your own in the layout of the Decathlon or nnU-Net."
            ),
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        )
    except (InputError, FloatingPointError) as error:  # the second: training was stopped by a non-finite update
        print(f"anatolab: {error}", file=sys.stderr)
        return 1
    return int(command or 0)


def _check_command() -> Any:
    import tyro

    def check(data: Any, json_: Any = False) -> int:
        """Say what a folder of patients is, and all that is wrong with it; exit code 1 where anything is.

        Args:
            data: Folder of patients.
            json_: Print the report as JSON.
        """
        from anatolab.data import check_folder, describe
        from anatolab.records import plain

        report = check_folder(data)
        print(json.dumps(plain(report), indent=1, ensure_ascii=False) if json_ else describe(report))
        return 0 if report.ok else 1

    flag = tyro.conf.arg(name="json", help="Print the report as JSON.")
    check.__annotations__ |= {
        "data": tyro.conf.Positional[Path],
        "json_": Annotated[tyro.conf.FlagCreatePairsOff[bool], flag],
    }
    return check


def _dims(arguments: Sequence[str]) -> int:
    """Whether ``train`` is asked to work on slices (2) or volumes (3), on which the defaults of its flags depend.

    It is what ``--dims`` says; where that is ``auto``, the spacing of the first case of ``--data`` decides, and a
    single slice is one.
    """
    import argparse

    from anatolab.data import dims_for, open_cohort

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--dims", nargs="?")
    parser.add_argument("--data", nargs="?")
    given, _ = parser.parse_known_args(arguments)
    if list(arguments[:1]) != ["train"] or given.dims in ("2", "3") or given.data is None:
        return 3 if given.dims == "3" else 2
    case = open_cohort(given.data).refs[0].load()
    return 2 if case.image.shape[1] == 1 else dims_for(case.spacing)


def _train_command(space: int = 2) -> Any:
    """``train`` with one sub-command a method, whose flags are the fields of its Config at the current size."""
    import tyro

    from anatolab.methods import METHODS
    from anatolab.nn import NETWORKS
    from anatolab.presets import current_size
    from anatolab.training import Settings

    size = current_size(space)
    kinds: Any = None
    for name, kind in METHODS.items():
        default = kind.Config().for_size(size)
        option: Any = Annotated[
            kind.Config,
            tyro.conf.subcommand(name.replace("_", "-"), default=default, description=f"Train {kind.title}."),
        ]
        kinds = option if kinds is None else kinds | option

    def train(
        method: Any,
        data: Path,
        out: Path,
        labeled_patients: int = 3,
        split_seed: int | None = None,
        held_out: int | None = None,
        dims: Literal["auto", "2", "3"] = "auto",
        side: int = size.side,
        patch: tuple[int, int, int] | None = size.image if space == 3 else None,  # type: ignore[assignment]
        network: str = size.network,
        settings: Any = Settings(),  # noqa: B008
    ) -> int:
        """Train a method; the same command continues a run that was interrupted.

        Args:
            method: The method and its settings.
            data: Folder of patients.
            out: Folder for the checkpoint, the log and the description of the run.
            labeled_patients: How many patients are labeled; the labels of all others are never read.
            split_seed: Draw the split with this seed; the published patient lists where not given.
            held_out: Patients held out for evaluation, with a seed; a fifth of all where not given.
            dims: Train on 2-D slices or on 3-D patches; where auto, the spacing of the first case decides: slices
                more than three times thicker than the pixels are wide, or without spacing, are taken one by one.
            side: In 2-D, slices are resized to side x side pixels.
            patch: In 3-D, patches have these sides, in voxels, z (the slice axis) first.
            network: The backbone.
            settings: Optimizer, precision, devices.
        """
        import torch

        from anatolab.data import open_cohort, prepare
        from anatolab.training import train as fit
        from anatolab.training.folder import RunInfo, build, save_info

        if space == 2 and patch is not None:
            raise InputError("--patch: slices are not cut into patches; give --dims 3, or leave it out.")
        if space == 3 and side != size.side:
            raise InputError(
                "--side: volumes are not resized; give the sides of the patches with --patch, or --dims 2."
            )
        _check_sides(("--side", side) if patch is None else ("--patch", *patch), network, space)
        cohort = open_cohort(data)
        split = _split(cohort, labeled_patients, split_seed, held_out)
        rows = prepare(cohort, split.train, size=patch or (side, side))
        name = next(key for key, kind in METHODS.items() if isinstance(method, kind.Config))
        info = RunInfo(
            name,
            asdict(method),
            network,
            in_channels=rows.channels,
            classes=cohort.classes,
            side=side,
            split=split,
            data=str(data.resolve()),
            patch=patch,
            window=cohort.window,
        )
        torch.manual_seed(settings.seed)
        trained = build(info)
        shown = f"{'slices' if patch is None else 'patches'} of {' x '.join(map(str, info.size))}"
        share = f"{labeled_patients} of {len(split.train)} training patients labeled"
        print(f"{cohort.name} ({cohort.layout}): {share}, {shown}")
        save_info(info, out)
        run = fit(trained, rows, split, settings, out=out)
        state = "finished" if run.finished else "stopped; the same command continues"
        print(f"{state} at step {run.step}: {out}")
        return 0 if run.finished else 3

    names: Any = Literal[tuple(NETWORKS)]
    train.__annotations__ |= {"method": kinds, "network": names, "settings": Settings}
    return train


def evaluate(
    run: Path,
    data: Path | None = None,
    on: Literal["validation", "test"] = "validation",
    json_file: Path | None = None,
    stride: tuple[int, int, int] | None = None,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
) -> int:
    """Measure a run on held-out patients: Dice, Jaccard, HD95, ASSD and NSD a class, with an interval over patients.

    Args:
        run: Folder of a run, the --out of train.
        data: Folder of patients; the one the run was trained on where not given.
        on: Which held-out patients.
        json_file: Write every case's values there.
        stride: Of a run on 3-D patches: steps z y x of its sliding window, half a patch where not given; the papers' on
            the left atrium is 4 18 18.
        accelerator: Where to compute.
    """
    from anatolab.data import open_cohort
    from anatolab.inference import evaluate as measure
    from anatolab.metrics import bootstrap_interval, summarize
    from anatolab.records import plain
    from anatolab.training.folder import open_run

    method, info = open_run(run, device := _device(accelerator))
    cohort = open_cohort(data or info.data)
    patients = getattr(info.split, on)
    if not patients:
        raise InputError(f"{run}: its split holds out no {on} patients; train with --split-seed and --held-out.")
    refs = cohort.of(patients)
    cases = measure(method, refs, info.classes, info.size, device=device, stride=_stride(stride, info.patch))
    summary = summarize(cases, {ref.name: ref.patient for ref in refs})
    unit = "mm" if refs[0].load().spacing else "voxels"
    print(f"{len(patients)} {on} patients, {len(cases)} volumes; distances in {unit}")
    print(f"{'':12} {'Dice':>7} {'Jaccard':>8} {'HD95':>8} {'ASSD':>8} {'NSD':>7}")
    for name in (*info.classes[1:], "mean"):
        values = [summary[metric][name] for metric in ("dice", "jaccard", "hd95", "assd", "nsd")]
        dice, jaccard, hd95, assd, nsd = (f"{v:.3f}" if math.isfinite(v) else "-" for v in values)
        print(f"{name:12} {dice:>7} {jaccard:>8} {hd95:>8} {assd:>8} {nsd:>7}")
    per_patient = [v for v in summary["per_patient"]["dice"].values() if math.isfinite(v)]
    low, high = bootstrap_interval(per_patient)
    print(f"mean Dice over patients {sum(per_patient) / len(per_patient):.3f}, 95 % interval {low:.3f} to {high:.3f}")
    missed, invented = summary["counts"]["missed"]["total"], summary["counts"]["invented"]["total"]
    if missed or invented:
        print(f"missed organs: {missed}, invented: {invented} (Dice 0, distance not counted)")
    if json_file is not None:
        json_file.write_text(json.dumps(plain({"summary": summary, "cases": cases}), indent=1) + "\n", encoding="utf-8")
    return 0


def predict(
    run: Path,
    images: list[Path],
    out: Path,
    stride: tuple[int, int, int] | None = None,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
) -> int:
    """Write the label volume of each image as NIfTI, in the geometry of the image.

    Args:
        run: Folder of a run, the --out of train.
        images: NIfTI or NRRD files, or folders of them; for a run on several channels case_0000.nii.gz,
            case_0001.nii.gz, ... or 4-D files.
        out: Folder for the label volumes, named as the images, without the number of the channel; those of the atrial
            challenge, whose images are all called lgemri.nrrd, as their folders.
        stride: Of a run on 3-D patches: steps z y x of its sliding window, half a patch where not given.
        accelerator: Where to compute.
    """
    from anatolab.data import pairs
    from anatolab.inference import predict_volume, write_nifti
    from anatolab.training.folder import open_run

    method, info = open_run(run, device := _device(accelerator))
    stride = _stride(stride, info.patch)
    files = [file for path in images for file in _image_files(path)]
    groups: list[tuple[Path, ...]] = [(file,) for file in files]
    names = [_label_name(file) for file in files]
    if info.in_channels > 1:
        problems: list[str] = []
        cases = pairs.by_channel(files, info.in_channels, problems)
        if problems:
            raise InputError(problems[0])
        groups = list(cases.values())
        names = [_label_name(Path(f"{name}{pairs.ending(group[0])}")) for name, group in cases.items()]
    targets = [out / name for name in names]
    if len(set(targets)) < len(targets):
        raise InputError(f"{out}: two images have the same name; predict them into folders of their own.")
    for target, group in zip(targets, groups, strict=True):
        if target.exists() and any(target.samefile(file) for file in group):
            raise InputError(f"{out}: the label volume would replace the image {target.name}; give another folder.")
        case = pairs.load_case(target.name, group, None, info.classes, window=info.window, channels=info.in_channels)
        label = predict_volume(method.predict, case, info.size, device=device, stride=stride)  # type: ignore[arg-type]
        write_nifti(label, case, target)
        shares = ", ".join(f"{name} {(label == k).sum()}" for k, name in enumerate(info.classes) if k)
        print(f"{target}: voxels {shares}")
    return 0


def _cohort_command() -> Any:
    """``cohort``, whose kinds are those that ``anatolab.data.phantoms`` writes."""
    import tyro

    from anatolab.data.phantoms import KINDS

    def cohort(kind: Any, out: Any, patients: int = 24, seed: int = 0, json_: Any = False) -> int:
        """Generate patients of a kind and write them as the public data set of that anatomy comes.

        Args:
            kind: Which anatomy.
            out: Folder to write; it must be new or empty.
            patients: How many.
            seed: The same seed gives the same patients; patient 7 is the same in a cohort of 10 and of 100.
            json_: Print what was written as JSON.
        """
        from anatolab.data import open_cohort

        if patients < 1:
            raise InputError(f"--patients {patients}: a cohort has at least one patient; give a number such as 24.")
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise InputError(f"{out}: is there already and is no empty folder; name a new one, or remove it.")
        _write_cohort(kind, out, patients, seed)
        made = open_cohort(out)
        train = f"anatolab train --data {out} --out runs/{kind} --split-seed 0 --labeled-patients 3 mean-teacher"
        if json_:
            said = {"kind": kind, "folder": out, "patients": patients, "seed": seed, "layout": made.layout}
            print(json.dumps({**{k: v if isinstance(v, int) else str(v) for k, v in said.items()}, "next": train}))
        else:
            print(f"{out}: {patients} generated patients, {kind}, seed {seed}, classes {', '.join(made.classes[1:])}")
            print(f"train on three of them: {train}")
        return 0

    flag = tyro.conf.arg(name="json", help="Print what was written as JSON.")
    cohort.__annotations__ |= {
        "kind": tyro.conf.Positional[Literal[tuple(KINDS)]],  # type: ignore[misc]
        "out": tyro.conf.Positional[Path],
        "json_": Annotated[tyro.conf.FlagCreatePairsOff[bool], flag],
    }
    return cohort


def _write_cohort(kind: str, out: Path, patients: int, seed: int) -> None:
    """Writes beside ``out`` and moves there when all is written: what was interrupted leaves no half cohort."""
    import shutil
    import tempfile
    from concurrent.futures import ThreadPoolExecutor, wait

    from tqdm import tqdm

    from anatolab.data.phantoms import KINDS

    write, one_each = KINDS[kind]
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with (
            ThreadPoolExecutor(1) as pool,
            tqdm(total=patients, desc=f"drawing {kind}", unit="patient", disable=None) as bar,
        ):
            job = pool.submit(write, part, patients=patients, seed=seed)
            try:
                while wait([job], timeout=0.2).not_done:
                    bar.update(len(list(part.glob(one_each))) - bar.n)
            except KeyboardInterrupt:
                while part.is_dir():
                    shutil.rmtree(part, ignore_errors=True)
                part.touch()  # a file in its place ends the writer at its next patient
                raise
            job.result()
            bar.update(patients - bar.n)
        part.chmod(0o755)
        if out.is_dir():
            out.rmdir()
        part.rename(out)
    finally:
        if part.is_file():
            part.unlink()
        shutil.rmtree(part, ignore_errors=True)


def _split(cohort: Cohort, labeled: int, seed: int | None, held_out: int | None) -> Split:
    from anatolab.data import split_patients

    if seed is None:
        if held_out is not None:
            raise InputError("--held-out: patients can only be held out with --split-seed; give a seed, such as 0.")
        return split_patients(cohort, labeled)
    count = held_out if held_out is not None else max(1, len(cohort.patients) // 5)
    return split_patients(replace(cohort, published={}), labeled, validation=count, seed=seed)


def _check_sides(given: tuple[Any, ...], network: str, dims: int) -> None:
    """Refuses a flag and its sides that the network cannot halve often enough."""
    from anatolab.nn import multiple_of

    flag, *sides = given
    each = multiple_of(network, dims)
    if min(sides) < each or any(side % each for side in sides):
        raise InputError(f"{flag} {' '.join(map(str, sides))}: {network} needs multiples of {each}; choose such sides.")


def _stride(stride: tuple[int, int, int] | None, patch: Sequence[int] | None) -> tuple[int, int, int] | None:
    if stride is not None and patch is None:
        raise InputError("--stride: this run was trained on slices, over which no window slides; leave it out.")
    return stride


ITK = (".nrrd", ".mha", ".mhd")


def _image_files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.name.endswith((".nii", ".nii.gz", *ITK)))
        if not files:
            raise InputError(f"{path}: holds no .nii, .nii.gz or .nrrd file; name the images, or their folder.")
        return files
    return [path]


def _label_name(image: Path) -> str:
    """The file name of the label volume of an image."""
    if image.suffix not in ITK:
        return image.name
    return f"{image.resolve().parent.name if image.name == 'lgemri.nrrd' else image.stem}.nii.gz"


def _device(accelerator: str) -> str:
    import torch

    if accelerator == "cuda" and not torch.cuda.is_available():
        raise InputError("--accelerator cuda: torch sees no CUDA device here; use cpu, or install a CUDA build.")
    return "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    raise SystemExit(main())
