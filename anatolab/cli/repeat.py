"""``anatolab train --config run.json``: repeats a run with all its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from anatolab.cli.common import Json, check_sides
from anatolab.errors import InputError, Notice
from anatolab.types import Cohort, Split


def repeat(config: Path, data: Path, out: Path, init: Path | None = None, json: Json = False) -> int:
    """Repeat a run as its run.json describes it.

    On a CPU, with the same data, package versions and number of threads, the weights are bitwise the same. A note names
    versions that differ.

    Args:
        config: The run.json of a run.
        data: The folder of patients it was trained on, which run.json does not name.
        out: Folder for the new run.
        init: The run it started from, where it was fine-tuned.
        json: Print the result as JSON.
    """
    import warnings

    from anatolab import records
    from anatolab.cli.fit import fit
    from anatolab.data import FieldOfView, open_cohort, prepare
    from anatolab.data.files import read_json
    from anatolab.data.splits import present
    from anatolab.files import check_target
    from anatolab.methods import METHODS
    from anatolab.nn import NETWORKS
    from anatolab.ranges import check_ranges
    from anatolab.training import Settings
    from anatolab.training.folder import RunInfo, from_plain
    from anatolab.training.start import start_from

    check_target(out / "last.pt", overwrite=True)
    described = read_json(config)
    cohort = present(open_cohort(data))
    split = _split(described.get("split"), cohort, config)
    state = ("format", "finished")
    try:
        info = from_plain(
            RunInfo, {k: v for k, v in described.items() if k not in (*state, "split")} | {"split": split}
        )
        settings = from_plain(Settings, {**info.settings, **info.loop})
        view = FieldOfView(**info.field_of_view) if info.field_of_view is not None else None
        method = from_plain(METHODS[info.method].Config, info.config)
        if info.network not in NETWORKS:
            raise KeyError(info.network)
        check_ranges(info, types_only=True)
        check_ranges(settings)
        check_ranges(method)
        check_sides(("side", info.side) if info.patch is None else ("patch", *info.patch), info.network, len(info.size))
        for part, given in ((settings, {**info.settings, **info.loop}), (method, info.config)):
            if absent := sorted(asdict(part).keys() - given.keys()):
                raise ValueError(f"no {absent[0]}")
    except (TypeError, ValueError, KeyError) as error:
        reason = str(error).rstrip(".")
        raise InputError(f"{config}: not the run.json of this version of anatolab ({reason}); name one.") from error
    for name in ("classes", "window", "orientation"):
        ours, due = getattr(cohort, name), getattr(info, name)
        if ours != due:
            raise InputError(f"{data}: its {name} is {ours} and that of the run {due}; give the data of the run.")
    rows = prepare(cohort, info.split.train, size=info.size, field_of_view=view)
    if rows.channels != info.in_channels:
        raise InputError(
            f"{data}: has {rows.channels} channels and the run {info.in_channels}; give the data of the run."
        )
    if info.rows and rows.sha256 != info.rows:
        raise InputError(f"{data}: its prepared images are not those of the run; give the data it was trained on.")
    weights = None
    if (init is None) != (info.start is None):
        raise InputError(
            f"{config}: the run {'did not start' if info.start is None else 'started'} from another one; "
            f"{'leave --init out' if info.start is None else 'give it with --init'}."
        )
    if init is not None:
        weights, start = start_from(init, info)
        if start != info.start:
            raise InputError(f"{init}: is not the run that this one started from; give that one.")
    for name, version in info.versions.items():
        if (here := records.installed_version(name)) != version:
            warnings.warn(f"{name} is {here} here and was {version}; numbers may differ.", Notice, stacklevel=2)
    info = replace(info, data=str(data.resolve()), step=0)
    return fit(info, settings, cohort, rows, out, weights, json=json)


def _split(held: Any, cohort: Cohort, config: Path) -> dict[str, Any]:
    """Returns the split of a description, with a cohort's patients in place of their pseudonyms."""
    from anatolab.training.folder import pseudonym

    known = {pseudonym(patient): patient for patient in cohort.patients}

    def names(pseudonyms: Sequence[str]) -> list[str]:
        if missing := [p for p in pseudonyms if p not in known]:
            raise InputError(
                f"{config}: {len(missing)} of the patients of its split are not in {cohort.root}; "
                "give the data it was trained on."
            )
        return [known[p] for p in pseudonyms]

    if not isinstance(held, dict) or held.keys() != asdict(Split((), 0)).keys():
        raise InputError(f"{config}: describes no split; name the run.json of a run.")
    return {k: names(v) if isinstance(v, list) else v for k, v in held.items()}
