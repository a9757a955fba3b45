"""Makes the records of the book's trainings, on this machine, a cluster or a GPU, and packs data for such a machine.

    python studies/trainings.py list                      # the wanted runs, and which are recorded
    python studies/trainings.py records acdc-3-action     # what is missing or stale; all where none is named
    python studies/trainings.py records --ray --address auto  # the same, on a cluster
    python studies/trainings.py gpu --limit 3600          # tests, benchmarks and missing records, within an hour
    python studies/trainings.py pack-data                 # ACDC at one size, for a machine without the data

`anatolab/experiments.py` says which runs are wanted; `make records` runs this in a checkout of its own.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cohorts import COHORTS
from lent import gpu
from recording import processor, rounded

from anatolab import experiments, records
from anatolab.errors import InputError
from anatolab.experiments import Experiment, by_id, config_of, method_config, stands
from anatolab.presets import SIZES

if TYPE_CHECKING:
    from anatolab.types import Cohort

PACKED = "PACKED.txt"  # in a folder that pack_data wrote


def run(experiment: Experiment, seed: int, *, out: Path | None = None, progress: bool | None = None) -> records.Record:
    """Trains, evaluates and records one run; continues from ``out`` where that was interrupted.

    Metrics are those of the validation patients on the native grid after the last update: nothing is selected.
    """
    import fingerprints  # imports torch
    import torch

    from anatolab.data import find_field_of_view, prepare, split_sha256
    from anatolab.inference import evaluate
    from anatolab.methods import METHODS
    from anatolab.metrics import summarize
    from anatolab.nn import NETWORKS
    from anatolab.training import Settings, train
    from anatolab.training.settings import resolve_precision

    started, before = datetime.now(UTC).isoformat(timespec="seconds"), records.git_state()
    code = records.code_of(METHODS[experiment.method].__module__)  # of the code that runs, whatever lies there later
    size = experiment.budget
    cohort, split_of = COHORTS[experiment.cohort]()
    split = split_of(experiment.labeled)
    if experiment.labeled_by_seed:  # seed k labels the k-th patients of the list
        first = seed * experiment.labeled
        split = replace(split, train=(*split.train[first:], *split.train[:first]))
    view = None
    if experiment.field_of_view == "auto":
        view = find_field_of_view(cohort, split.labeled_patients, dims=experiment.dims)
    rows = prepare(cohort, split.train, size=size.image, field_of_view=view)

    torch.manual_seed(seed)
    kind = METHODS[experiment.method]
    network = NETWORKS[size.network](rows.channels, len(cohort.classes), spatial_dims=experiment.dims)
    method = kind(network, method_config(experiment))
    settings = Settings(seed=seed, **experiment.settings)
    trained = train(method, rows, split, settings, out=out, progress=progress)
    if not trained.finished:
        raise KeyboardInterrupt

    device = next(method.parameters()).device
    refs = cohort.of(split.validation)
    volumes: dict[str, np.ndarray] = {}
    measure = partial(
        evaluate,
        method,
        refs,
        cohort.classes,
        size.image,
        field_of_view=view,
        largest_component=experiment.largest_component,
        device=device,
        precision=resolve_precision(settings.precision, settings.accelerator, experiment.dims),
    )
    cases = measure(volumes=volumes)
    summary = summarize(cases, {ref.name: ref.patient for ref in refs})
    extra: dict[str, Any] = {}
    if hasattr(method, "predict_coarse"):  # what rendering changed
        method.predict = method.predict_coarse
        extra["coarse"] = summarize(measure(), {ref.name: ref.patient for ref in refs})
    if "LV" in cohort.classes:
        extra["LV"] = left_ventricle(cohort, split.validation, volumes)
    if experiment.cohort == "acdc" and seed == experiment.seeds[0]:
        picture(experiment, cohort, volumes, summary["per_patient"]["dice"])
    record = records.Record(
        experiment=experiment.id,
        seed=seed,
        title=experiment.title,
        config=config_of(experiment),
        values=rounded(
            {
                **summary,
                **extra,
                "cases": cases,
                "curve": trained.log[:: max(1, len(trained.log) // 25)],
                "parameters": sum(p.numel() for p in network.parameters()),
                "train_s": trained.wall_s,
                "train_cpu_s": trained.cpu_s,
                "field_of_view": asdict(view) if view else None,
                "unlabeled_patients": len(split.unlabeled_patients),
            }
        ),
        provenance={
            **records.provenance(
                started=started,
                wall_s=trained.wall_s,
                device=_device_name(device),
                threads=torch.get_num_threads(),
                before=before,
            ),
            "precision": measure.keywords["precision"],
            "data": f"{cohort.name}, {cohort.layout}{', packed as uint8' if (cohort.root / PACKED).exists() else ''}",
        },
        code={**code, **fingerprints.entry(experiment)},
        split_sha256=split_sha256(split),
    )
    records.write(record)
    return record


def left_ventricle(cohort: Cohort, patients: Sequence[str], volumes: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns predicted and annotated volume and ejection fraction of each left ventricle, and their errors."""
    from anatolab.metrics import beats, volume

    number = cohort.classes.index("LV")
    refs = cohort.of(patients)
    predicted, reference = {}, {}
    for ref in refs:
        case = ref.load()
        assert case.label is not None
        predicted[ref.name] = volume(volumes[ref.name] == number, case.spacing)
        reference[ref.name] = volume(case.label == number, case.spacing)
    per_patient = beats(predicted, reference, {ref.name: ref.patient for ref in refs})
    wrong = {
        key: [abs(p - r) / (r if key == "edv" else 1) for p, r in (b[key] for b in per_patient.values())]
        for key in ("edv", "ef")
    }
    return {
        "unit": "ml" if case.spacing else "voxels",
        "beats": per_patient,
        "edv_error": float(np.mean(wrong["edv"])),  # share of the annotated volume
        "ef_error": float(np.mean(wrong["ef"])),  # in [0, 1]
    }


def picture(experiment: Experiment, cohort: Cohort, volumes: dict[str, np.ndarray], dice: dict[str, float]) -> Path:
    """Draws the middle slice of the best, the median and the worst patient, reference and prediction as contours.

    Written beside the records, under ``figures``, as a PNG of at most 150 kB.
    """
    from matplotlib.figure import Figure

    from anatolab.viz import overlay

    order = sorted(dice, key=lambda p: dice[p])
    chosen = {"best": order[-1], "median": order[len(order) // 2], "worst": order[0]}
    figure = Figure(figsize=(9, 3.3), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, (rank, patient) in zip(axes, chosen.items(), strict=True):
        case = cohort.of([patient])[-1].load()
        assert case.label is not None
        rows = np.flatnonzero((case.label > 0).any((1, 2)))
        z = int(rows[len(rows) // 2])
        label, predicted = case.label[z], volumes[case.name][z]
        drawn = (label > 0) | (predicted > 0)
        y, x = _around(drawn.any(1)), _around(drawn.any(0))
        overlay(case.image[0, z, y, x], label[y, x], predicted[y, x], classes=cohort.classes, axes=axis)
        axis.set_title(f"{rank}: {patient}, Dice {dice[patient]:.2f}", fontsize=9)
    path = records.root() / "figures" / f"{experiment.id}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    return path


def _around(drawn: np.ndarray, margin: int = 15) -> slice:
    where = np.flatnonzero(drawn)
    return slice(max(0, int(where[0]) - margin), int(where[-1]) + margin + 1)


def make_records(
    only: Sequence[str] = (), *, limit: float | None = None, workdir: Path | None = None, size: str | None = None
) -> list[str]:
    """Makes missing and stale records in order of priority; the next call resumes an interrupted run.

    Args:
        only: Ids, all wanted runs where empty.
        limit: Seconds after which no further run is started.
        workdir: Where unfinished runs keep their checkpoints; ``runs/records`` where None.
        size: Make only runs of this size.

    Returns:
        What was made, as ``id/seed``.
    """
    import shutil

    started, made = time.monotonic(), []
    todo = _todo(only, size)
    for done, (experiment, seed) in enumerate(todo):
        if limit is not None and time.monotonic() - started > limit:
            print(f"time is up: {len(todo) - done} runs are left for the next call", flush=True)
            break
        out = (workdir or Path("runs/records")) / experiment.id / f"seed{seed}"
        record = run(experiment, seed, out=out)
        shutil.rmtree(out, ignore_errors=True)
        made.append(f"{experiment.id}/seed{seed}")
        seconds = record.provenance["wall_s"]
        print(f"{made[-1]}: Dice {records.get(record, 'dice.mean'):.3f} in {seconds:.0f} s", flush=True)
    return made


def make_records_on_ray(
    only: Sequence[str] = (), *, workdir: Path | None = None, size: str | None = None, **share: Any
) -> tuple[list[str], list[str]]:
    """Makes missing and stale records on a Ray cluster, and collects them here.

    Args:
        only: Ids, all wanted runs where empty.
        workdir: As in :func:`make_records`, on a disk that all machines see.
        size: Make only runs of this size.
        share: ``address``, ``cpus`` and ``gpus`` of :func:`cluster.run_all`.

    Returns:
        What was made and what failed, as ``id/seed``.
    """
    import shutil

    from cluster import run_all

    made: list[str] = []
    failed: list[str] = []
    folder = (workdir or Path("runs/records")).resolve()
    for experiment, seed, record in run_all(_todo(only, size), run, workdir=folder, **share):
        name = f"{experiment.id}/seed{seed}"
        if isinstance(record, Exception):
            failed.append(name)
            print(f"{name}: failed ({str(record).strip().splitlines()[-1]})", flush=True)
            continue
        records.write(record)
        shutil.rmtree(folder / experiment.id / f"seed{seed}", ignore_errors=True)
        made.append(name)
        print(f"{name}: Dice {records.get(record, 'dice.mean'):.3f}", flush=True)
    return made, failed


def _todo(only: Sequence[str], size: str | None) -> list[tuple[Experiment, int]]:
    """Returns missing and stale runs in order of priority."""
    import fingerprints

    chosen = [by_id(name) for name in only] if only else sorted(experiments.EXPERIMENTS, key=lambda e: e.priority)
    fingerprints.refresh(e for e in chosen if records.exists(e.id))  # else none of its records can be stale
    todo = [(e, seed) for e in chosen for seed in e.seeds if (size is None or e.size == size) and not stands(e, seed)]
    return sorted(todo, key=lambda pair: (pair[0].priority, pair[1]))


def pack_data(target: Path, *, side: int = 128) -> Path:
    """Writes a small copy of ACDC in the SSL4MIS layout, with intensities as uint8, for a machine without the data.

    Training slices have the training size, validation volumes their own, so that metrics stay on the native grid. It
    holds ACDC's images (CC BY-NC-SA 4.0) and is not for publication; git ignores the default folder.
    """
    import h5py

    from anatolab.data.cache import slices_of

    cohort, _ = COHORTS["acdc"]()
    root = target / "ACDC"
    (root / "data" / "slices").mkdir(parents=True, exist_ok=True)

    def write(path: Path, image: np.ndarray, label: np.ndarray) -> None:
        with h5py.File(path, "w", libver="latest") as file:  # "latest" has the smaller headers
            for name, data in (("image", np.round(image * 255).astype(np.uint8)), ("label", label)):
                file.create_dataset(name, data=data, chunks=data.shape, compression="gzip", compression_opts=9)

    for part, file in (("train", "train.list"), ("validation", "val.list")):
        refs = cohort.of(cohort.published[part])
        (root / file).write_text("".join(f"{ref.name}\n" for ref in refs), encoding="utf-8")
        for ref in refs:
            case = ref.load()
            if part == "train":
                for number, (image, label) in enumerate(zip(*slices_of(case, (side, side)), strict=True), 1):
                    write(root / "data" / "slices" / f"{ref.name}_slice_{number}.h5", image[0], label)
            else:
                assert case.label is not None
                low, high = case.image.min(), case.image.max()
                write(root / "data" / f"{ref.name}.h5", (case.image[0] - low) / (high - low), case.label)
    (root / PACKED).write_text("ACDC, CC BY-NC-SA 4.0; not for publication\n", encoding="utf-8")
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the wanted runs, and which are recorded")
    make = commands.add_parser("records", help="make missing and stale records in order of priority")
    make.add_argument("only", nargs="*", metavar="ID", help="only these")
    make.add_argument("--limit", type=float, help="start no run after this many seconds")
    make.add_argument("--size", choices=list(SIZES), help="only runs of this size")
    make.add_argument("--ray", action="store_true", help="on a Ray cluster, or with Ray on this machine")
    make.add_argument("--address", help="of the cluster, such as auto; with --ray")
    make.add_argument("--cpus", type=float, default=1.0, help="CPUs of each run, with --ray")
    make.add_argument("--gpus", type=float, default=0.0, help="GPUs of each run, with --ray; .5 puts two on one")
    make.add_argument("--workdir", type=Path, help="where unfinished runs lie; with --ray, on a shared disk")
    lent = commands.add_parser("gpu", help="tests, benchmarks and missing records on a GPU, within a time limit")
    lent.add_argument("--limit", type=float, default=3600.0, help="seconds")
    lent.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder for results and the archive")
    lent.add_argument("--dry-run", action="store_true", help="on the CPU, without records")
    pack = commands.add_parser("pack-data", help="ACDC at one size in one file, for a machine without the data")
    pack.add_argument("--out", type=Path, default=Path(".pack"), help="folder to write, the ANATOLAB_DATA there")
    given = parser.parse_args(arguments)
    if given.command == "list":
        for e in sorted(experiments.EXPERIMENTS, key=lambda e: e.priority):
            state = [f"seed{seed}: {'stands' if stands(e, seed) else 'not run'}" for seed in e.seeds]
            print(f"{e.id:28} {', '.join(state)}")
    elif given.command == "records" and given.ray:
        share = {"address": given.address, "cpus": given.cpus, "gpus": given.gpus}
        try:
            _, failed = make_records_on_ray(given.only, workdir=given.workdir, size=given.size, **share)
        except InputError as error:
            print(f"trainings: {error}", file=sys.stderr)
            return 1
        return min(len(failed), 1)
    elif given.command == "records":
        make_records(given.only, limit=given.limit, size=given.size, workdir=given.workdir)
    elif given.command == "pack-data":
        print(pack_data(given.out))
    else:
        return gpu(given.limit, given.out, make_records, dry_run=given.dry_run)
    return 0


def _device_name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {processor()}"


if __name__ == "__main__":
    raise SystemExit(main())
