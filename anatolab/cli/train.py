"""``anatolab train``: one sub-command per method, whose flags are the fields of its Config at the current size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from anatolab.cli.common import Json, check_sides
from anatolab.errors import InputError
from anatolab.files import check_target
from anatolab.types import Cohort, Split


def command(arguments: Sequence[str]) -> Any:
    """Returns the function whose parameters are the flags, with the defaults for slices or for volumes."""
    if any(argument.split("=")[0] == "--config" for argument in arguments):
        from anatolab.cli.repeat import repeat

        return repeat

    from anatolab.cli.flags import converted, with_distinct_flags
    from anatolab.methods import METHODS
    from anatolab.nn import NETWORKS
    from anatolab.presets import current_size
    from anatolab.training import Settings

    space = _dims(arguments)
    size = current_size(space)
    kinds: Any = None
    for name, kind in METHODS.items():
        flags = with_distinct_flags(kind.Config)
        option: Any = Annotated[
            flags,
            tyro.conf.subcommand(
                name.replace("_", "-"),
                default=converted(kind.Config().for_size(size), flags),
                description=f"Train {kind.title}.",
            ),
        ]
        kinds = option if kinds is None else kinds | option

    def train(
        method: Any,
        data: Path,
        out: Path,
        labeled_patients: int = 3,
        split_seed: int | None = None,
        held_out: int | None = None,
        held_out_test: int | None = None,
        development: int = 0,
        dims: Literal["auto", "2", "3"] = "auto",
        side: int = size.side,
        patch: tuple[int, int, int] | None = size.image if space == 3 else None,  # type: ignore[assignment]
        field_of_view: Literal["auto", "whole"] = "auto",
        network: str = size.network,
        largest_component: bool = False,
        init: Path | None = None,
        settings: Any = Settings(),  # noqa: B008
        json: Json = False,
    ) -> int:
        """Train a method; the same command resumes an interrupted run.

        `anatolab train --config RUN/run.json --data DATA --out OUT` repeats a run under all its settings.

        Args:
            method: The method and its settings.
            data: Folder of patients.
            out: Folder for the checkpoint, the log and the description of the run.
            labeled_patients: Number of labeled patients. Labels of all others are never read.
            split_seed: Seed of a random split; by default the published lists are used. Published test patients
                are never trained on.
            held_out: With a seed, number of validation patients; by default the published ones, or a fifth.
            held_out_test: With a seed, number of test patients; by default the published ones.
            development: Number of training patients set aside for choices that must not use held-out patients.
            dims: 2 trains on slices, 3 on patches. auto decides by the spacing of the first case: 2 if slices
                are more than three times thicker than pixels are wide, or if no spacing is known.
            side: In 2-D, slices are resized to side x side pixels.
            patch: In 3-D, sides of the patches in voxels, z (the slice axis) first.
            field_of_view: Part of each scan that is used: a box around the organs of labeled patients, or all of it.
            network: The network architecture.
            largest_component: Keep only the largest component of each organ, at evaluation and prediction.
            init: Folder of a run or an export whose network weights to start from; the last layer is replaced if the
                classes differ.
            settings: Optimizer, precision, devices.
            json: Print the result as JSON.
        """
        from anatolab.cli.fit import fit, without_folders
        from anatolab.data import find_field_of_view, open_cohort, prepare
        from anatolab.data.splits import present
        from anatolab.ranges import check_ranges
        from anatolab.training import RunInfo
        from anatolab.training.start import start_from

        name = next(key for key, kind in METHODS.items() if isinstance(method, kind.Config))
        config = converted(method, METHODS[name].Config)
        check_ranges(config, flags=True)
        check_ranges(settings, flags=True)
        if space == 2 and patch is not None:
            raise InputError("--patch: slices are not cut into patches; give --dims 3, or leave it out.")
        if space == 3 and side != size.side:
            raise InputError(
                "--side: volumes are not resized; give the sides of the patches with --patch, or --dims 2."
            )
        check_sides(("--side", side) if patch is None else ("--patch", *patch), network, space)
        check_target(out / "last.pt", overwrite=True)
        cohort = present(open_cohort(data))
        split = split_of(cohort, labeled_patients, split_seed, held_out, held_out_test, development)
        view = None
        if field_of_view == "auto":
            view = find_field_of_view(cohort, split.labeled_patients, dims=space)
        rows = prepare(cohort, split.train, size=patch or (side, side), field_of_view=view)
        info = RunInfo(
            name,
            asdict(config),
            network,
            in_channels=rows.channels,
            classes=cohort.classes,
            side=side,
            split=split,
            data=str(data.resolve()),
            patch=patch,
            window=cohort.window,
            orientation=cohort.orientation,
            field_of_view=asdict(view) if view is not None else None,
            largest_component=largest_component,
            spacing=cohort.of(split.train[:1])[0].load().spacing,
            command=without_folders(arguments),
        )
        weights = None
        if init is not None:
            weights, start = start_from(init, info)
            info = replace(info, start=start)
        return fit(info, settings, cohort, rows, out, weights, json=json)

    names: Any = Literal[tuple(NETWORKS)]
    train.__annotations__ |= {"method": kinds, "network": names, "settings": Settings}
    return train


def split_of(
    cohort: Cohort,
    labeled: int,
    seed: int | None,
    held_out: int | None,
    held_out_test: int | None = None,
    development: int = 0,
) -> Split:
    """Returns the split that the flags ask for.

    Patients who are on a published validation or test list are never trained on, whatever the seed.

    Args:
        cohort: The patients.
        labeled: Number of labeled patients.
        seed: Seed of the order; None for the published lists.
        held_out: Number for validation; None for the published list, or a fifth if there is none.
        held_out_test: Number for the test; None for the published list, if any.
        development: Number taken out of the training patients.

    Raises:
        InputError: Numbers are given without a seed, or are out of range.
    """
    from anatolab.data import split_patients

    counts = {"--held-out": held_out, "--held-out-test": held_out_test}
    for flag, count, least in (
        ("--labeled-patients", labeled, 1),
        ("--development", development, 0),
        *((flag, count, 0) for flag, count in counts.items()),
    ):
        if count is not None and count < least:
            raise InputError(f"{flag} must be a whole number of at least {least}, not {count}.")
    if seed is None:
        if given := [flag for flag, count in counts.items() if count is not None]:
            raise InputError(f"{given[0]}: patients can only be held out with --split-seed; give a seed, such as 0.")
        return split_patients(cohort, labeled, development=development)
    if held_out is None and not cohort.published.get("validation"):
        held_out = max(1, len(cohort.published.get("train", cohort.patients)) // 5)
    return split_patients(cohort, labeled, validation=held_out, test=held_out_test, development=development, seed=seed)


def _dims(arguments: Sequence[str]) -> int:
    """Returns 2 for slices or 3 for volumes, on which the defaults of the flags depend.

    ``--dims`` decides; if it is ``auto``, the spacing of the first case of ``--data`` does. A single slice is 2-D.
    """
    import argparse

    from anatolab.data import dims_for, open_cohort

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--dims", nargs="?")
    parser.add_argument("--data", nargs="?")
    given, _ = parser.parse_known_args(arguments)
    helps = {"-h", "--help"} & {*arguments} and not Path(given.data or "").is_dir()  # of a folder that is not there yet
    if given.dims in ("2", "3") or given.data is None or helps:
        return 3 if given.dims == "3" else 2
    case = open_cohort(given.data).refs[0].load()
    return 2 if case.image.shape[1] == 1 else dims_for(case.spacing)
