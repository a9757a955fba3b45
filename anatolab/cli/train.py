"""``anatolab train``: one sub-command a method, whose flags are the fields of its Config at the current size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from anatolab.cli.common import Json, one_of_these, print_json
from anatolab.errors import InputError
from anatolab.files import check_target
from anatolab.types import Cohort, Split


def command(arguments: Sequence[str]) -> Any:
    """Returns the function whose parameters are the flags, with the defaults for slices or for volumes."""
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
        dims: Literal["auto", "2", "3"] = "auto",
        side: int = size.side,
        patch: tuple[int, int, int] | None = size.image if space == 3 else None,  # type: ignore[assignment]
        field_of_view: Literal["auto", "whole"] = "auto",
        network: str = size.network,
        largest_component: bool = False,
        settings: Any = Settings(),  # noqa: B008
        json: Json = False,
    ) -> int:
        """Train a method; the same command continues a run that was interrupted.

        Args:
            method: The method and its settings.
            data: Folder of patients.
            out: Folder for the checkpoint, the log and the description of the run.
            labeled_patients: How many patients are labeled; the labels of all others are never read.
            split_seed: Split the patients with this seed; the published patient lists where not given. Published test
                patients are never trained on.
            held_out: Patients held out for validation, with a seed; where not given, the published ones, or a fifth.
            held_out_test: Patients held out for the test beside them, with a seed; the published ones where not given.
            dims: Train on 2-D slices or on 3-D patches; where auto, the spacing of the first case decides: slices
                more than three times thicker than the pixels are wide, or without spacing, are taken one by one.
            side: In 2-D, slices are resized to side x side pixels.
            patch: In 3-D, patches have these sides, in voxels, z (the slice axis) first.
            field_of_view: What of each scan is kept: a box around the organs of the labeled patients, or all of it.
            network: The backbone.
            largest_component: Keep the largest component of each organ alone, at evaluation and prediction.
            settings: Optimizer, precision, devices.
            json: Print the result as JSON.
        """
        import torch

        from anatolab.data import find_field_of_view, prepare
        from anatolab.ranges import check_ranges
        from anatolab.training import RunInfo
        from anatolab.training import train as fit
        from anatolab.training.folder import build

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
        _check_sides(("--side", side) if patch is None else ("--patch", *patch), network, space)
        check_target(out / "last.pt", overwrite=True)
        cohort, orientation, notes = _open(data)
        split = split_of(cohort, labeled_patients, split_seed, held_out, held_out_test)
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
            orientation=orientation,
            field_of_view=asdict(view) if view is not None else None,
            largest_component=largest_component,
            spacing=cohort.of(split.train[:1])[0].load().spacing,
        )
        notes += [*_absent(rows, split.labeled_patients, cohort.classes), *_mirrored(cohort.classes, config)]
        shown = f"{'slices' if patch is None else 'patches'} of {' x '.join(map(str, info.size))}"
        share = f"{labeled_patients} of {one_of_these(len(split.train), 'training patient')} labeled"
        if not json:
            print(f"{cohort.name} ({cohort.layout}): {share}, {shown}")
            for note in notes:
                print(f"note: {note}")
        torch.manual_seed(settings.seed)
        run = fit(build(info), rows, split, settings, out=out, info=info)
        state = "finished" if run.finished else "stopped; the same command continues"
        if json:
            counts = {part: len(getattr(split, part)) for part in ("train", "validation", "test")}
            about = {"run": out, "method": name, "step": run.step, "finished": run.finished, "notes": notes}
            print_json({**about, "patients": {**counts, "labeled": split.labeled}})
        else:
            print(f"{state} at step {run.step}: {out}")
        return 0 if run.finished else 3

    names: Any = Literal[tuple(NETWORKS)]
    train.__annotations__ |= {"method": kinds, "network": names, "settings": Settings}
    return train


def split_of(
    cohort: Cohort, labeled: int, seed: int | None, held_out: int | None, held_out_test: int | None = None
) -> Split:
    """Returns the split that the flags ask for.

    With a seed, published lists are taken as far as their patients are here; those of their test list are never
    trained on.

    Args:
        cohort: The patients.
        labeled: How many are labeled.
        seed: Of the order; None for the published lists.
        held_out: For validation; None for the published list, or a fifth where there is none.
        held_out_test: For the test; None for the published list, or nobody.

    Raises:
        InputError: Patients cannot be held out so.
    """
    from anatolab.data import split_patients

    for flag, count in (("--labeled-patients", labeled), ("--held-out", held_out), ("--held-out-test", held_out_test)):
        if count is not None and count < (flag == "--labeled-patients"):
            raise InputError(f"{flag} {count}: must be a whole number of at least {int(flag == '--labeled-patients')}.")
    if seed is None:
        for flag, count in (("--held-out", held_out), ("--held-out-test", held_out_test)):
            if count is not None:
                raise InputError(f"{flag}: patients can only be held out with --split-seed; give a seed, such as 0.")
        return split_patients(cohort, labeled)
    here = set(cohort.patients)
    published = {part: tuple(p for p in listed if p in here) for part, listed in cohort.published.items()}
    cohort = replace(cohort, published={part: listed for part, listed in published.items() if listed})
    if held_out is None and not cohort.published.get("validation"):
        held_out = max(1, len(cohort.published.get("train", cohort.patients)) // 5)
    return split_patients(cohort, labeled, validation=held_out, test=held_out_test, seed=seed)


def _dims(arguments: Sequence[str]) -> int:
    """Whether to train on slices (2) or volumes (3), on which the defaults of the flags depend.

    It is what ``--dims`` says; where that is ``auto``, the spacing of the first case of ``--data`` decides, and a
    single slice is one.
    """
    import argparse

    from anatolab.data import dims_for

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--dims", nargs="?")
    parser.add_argument("--data", nargs="?")
    given, _ = parser.parse_known_args(arguments)
    if given.dims in ("2", "3") or given.data is None:
        return 3 if given.dims == "3" else 2
    case = _open(Path(given.data))[0].refs[0].load()
    return 2 if case.image.shape[1] == 1 else dims_for(case.spacing)


def _open(data: Path) -> tuple[Cohort, str | None, list[str]]:
    """The cohort, its cases turned to one orientation; that orientation; and what is worth knowing of it."""
    from anatolab.data import open_cohort
    from anatolab.data.formats import cohort_orientation
    from anatolab.data.geometry import oriented

    cohort = open_cohort(data)
    codes = cohort_orientation(cohort)
    return oriented(cohort, codes), codes, list(cohort.provenance.get("notes", ()))


def _absent(rows: Any, labeled: Sequence[str], classes: Sequence[str]) -> list[str]:
    """A note for each class that no labeled patient has."""
    import numpy as np

    from anatolab.training.labels import label_of

    index = rows.index_of(labeled).tolist()
    present = set().union(*(np.unique(label_of(rows, row)).tolist() for row in index))
    return [
        f"no labeled patient has {name!r}, so it cannot be learned."
        for k, name in enumerate(classes)
        if k not in present
    ]


def _mirrored(classes: Sequence[str], config: Any) -> list[str]:
    """A note where flips or half turns exchange two classes that differ by side alone."""
    sides = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"))
    pairs = [(a, a.replace(left, right)) for a in classes for left, right in sides if left in a]
    pairs = [pair for pair in pairs if pair[1] in classes]
    moves = config.augmentation
    if not pairs or not (moves.flip or moves.quarter_turns):
        return []
    one, other = pairs[0]
    return [
        f"flips exchange {one!r} and {other!r}, which differ by side alone; train with --no-flip --no-quarter-turns."
    ]


def _check_sides(given: tuple[Any, ...], network: str, dims: int) -> None:
    """Refuses a flag and its sides that the network cannot halve often enough."""
    from anatolab.nn import multiple_of

    flag, *sides = given
    each = multiple_of(network, dims)
    if min(sides) < each or max(sides) > 4_096 or any(side % each for side in sides):
        raise InputError(
            f"{flag} {' '.join(map(str, sides))}: {network} needs multiples of {each}, from {each} to 4096; "
            "choose such sides."
        )
