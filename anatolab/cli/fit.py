"""Trains a described run; shared by ``anatolab train`` with flags and with ``--config``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anatolab.cli.common import one_of_these, print_json
from anatolab.errors import InputError
from anatolab.types import Cohort, Split, Stage

FOLDERS = {"--data": "DATA", "--out": "OUT", "--init": "RUN", "--config": "RUN_JSON"}


def fit(
    info: Any,
    settings: Any,
    cohort: Cohort,
    rows: Any,
    out: Path,
    weights: Mapping[str, Any] | None = None,
    *,
    json: bool = False,
) -> int:
    """Trains a described run, and prints its notes and its result.

    Args:
        info: The description, a ``RunInfo``.
        settings: Settings of the loop.
        cohort: Where the patients are.
        rows: The prepared training patients.
        out: The folder of the run.
        weights: Initial weights; random where None.
        json: Print the result as JSON.

    Returns:
        The exit code: 0, or 3 where it was stopped.
    """
    import torch

    from anatolab.data import shard
    from anatolab.methods import METHODS
    from anatolab.training import Validation, train
    from anatolab.training.folder import build, from_plain

    split = info.split
    config = from_plain(METHODS[info.method].Config, info.config)
    validation = None
    if settings.validate_every:
        if not split.validation:
            raise InputError("--validate-every: the split holds nobody out for validation; give --held-out, or 0.")
        rules = {k: info.rules[k] for k in ("field_of_view", "largest_component")}
        validation = Validation(cohort.of(split.validation), cohort.classes, info.size, rules)
    notes = [*cohort.provenance.get("notes", ()), *_headers(cohort, split), *_mirrored(cohort.classes, config)]
    notes += [*_absent(rows, split.labeled_patients, cohort.classes), *_copies(cohort, split)]
    if info.start is not None:
        fresh = ", ".join(info.start["replaced"])
        replaced = f"; as the classes differ, these start afresh: {fresh}" if fresh else ""
        notes.append(f"the network starts from the weights of a {info.start['method']} run{replaced}.")
    rank = _rank()
    if not json and rank == 0:
        shown = f"{'slices' if info.patch is None else 'patches'} of {' x '.join(map(str, info.size))}"
        share = f"{split.labeled} of {one_of_these(len(split.train), 'training patient')} labeled"
        print(f"{cohort.name} ({cohort.layout}): {share}, {shown}")
        for note in notes:
            print(f"note: {note}")
    torch.manual_seed(settings.seed)
    method = build(info, weights)
    stages: list[Stage] = method.stages()  # type: ignore[operator]
    for stage in stages:  # refuses batches before processes start, each of which would say so
        shard(torch.zeros(sum(stage.batch)), stage.batch[0], 0, settings.devices * settings.nodes)
    run = train(method, rows, split, settings, out=out, info=info, validation=validation)
    state = "finished" if run.finished else "stopped; the same command continues"
    if rank == 0 and json:
        counts = {part: len(getattr(split, part)) for part in ("train", "development", "validation", "test")}
        about = {"run": out, "method": info.method, "step": run.step, "finished": run.finished, "notes": notes}
        print_json({**about, "patients": {**counts, "labeled": split.labeled}})
    elif rank == 0:
        print(f"{state} at step {run.step}: {out}")
    return 0 if run.finished else 3


def _rank() -> int:
    """Returns the rank of this process under torchrun, SLURM or Fabric; 0 for a single process."""
    import os

    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdecimal()), 0)


def without_folders(arguments: Sequence[str]) -> tuple[str, ...]:
    """Returns a command with placeholders in place of folders, for a description that may be shared.

    Example:
        >>> without_folders(["--data", "hearts", "--out=runs/doe", "base"])
        ('anatolab', 'train', '--data', 'DATA', '--out=OUT', 'base')
    """
    words = ["anatolab", "train"]
    for argument, before in zip(arguments, ["", *arguments], strict=False):
        flag, equals, _ = argument.partition("=")
        words.append(FOLDERS.get(before) or (f"{flag}={FOLDERS[flag]}" if equals and flag in FOLDERS else argument))
    return tuple(words)


def _headers(cohort: Cohort, split: Split) -> list[str]:
    """Returns notes on the headers of the training cases: mixed orientations, and what they leave open."""
    from anatolab.data.formats import read_header
    from anatolab.data.geometry import orientation_of, slices_note

    stored: Counter[str] = Counter()
    noted: dict[str, list[str]] = {}
    for ref in cohort.of(split.train) if cohort.orientation else ():
        affine, notes = read_header(ref.source)
        if affine is not None:
            stored[orientation_of(affine)] += 1
            notes += slices_note(affine, cohort.orientation)
        for note in notes:
            noted.setdefault(note, []).append(ref.name)
    sentences = []
    if len(stored) > 1 or cohort.orientation not in (None, *stored):
        shown = ", ".join(f"{codes} in {count}" for codes, count in stored.most_common())
        sentences = [f"the images lie in {shown}; all are brought to {cohort.orientation} before training."]
    return sentences + [
        f"{names[0]}{f' ({len(names)} such)' * (len(names) > 1)}: {note}." for note, names in noted.items()
    ]


def _copies(cohort: Cohort, split: Split) -> list[str]:
    """Returns a note for each held-out image whose file is a copy of a training image; files of one size are read."""
    from anatolab.files import sha256_of_file

    held_out = cohort.of((*split.development, *split.validation, *split.test))
    bytes_of = {ref.name: ref.source.stat().st_size for ref in cohort.refs if ref.source.is_file()}
    held_out_bytes = {bytes_of.get(ref.name) for ref in held_out} - {None}
    trained: dict[str, str] = {}
    notes = []
    for ref in (*cohort.of(split.train), *held_out):
        if bytes_of.get(ref.name) in held_out_bytes:
            digest = sha256_of_file(ref.source)
            if ref.patient in split.train:
                trained.setdefault(digest, ref.name)
            elif digest in trained:
                notes.append(f"{ref.name} is held out, and is a copy of {trained[digest]}, which is trained on.")
    return notes


def _absent(rows: Any, labeled: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Returns a note for each class that no labeled patient has."""
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
    """Returns a note if flips or half turns exchange two classes that differ only by side."""
    from anatolab.data.report import side_pairs

    moves = config.augmentation
    pairs = side_pairs(classes) if moves.flip or moves.quarter_turns else ()
    if not pairs:
        return []
    one, other = pairs[0]
    return [
        f"flips exchange {one!r} and {other!r}, which differ by side alone; train with --no-flip --no-quarter-turns."
    ]
