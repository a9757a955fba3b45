"""Compares methods on one data set: the labels that each uses, accuracy per group, intervals over test images."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from anatolab.data import LabeledImages
from anatolab.data.labeled import SPLITS
from anatolab.errors import Notice
from anatolab.metrics import group_accuracy
from anatolab.robust._fit import FeatureSet, Head, Labels, Select, Start, predict
from anatolab.robust.catalog import METHODS as CATALOG
from anatolab.robust.catalog import VARIANTS, Entry, entry_of, selection_score
from anatolab.robust.clip import TEMPLATES, Clip
from anatolab.robust.features import rows_of, start_of, start_of_means
from anatolab.robust.zero_shot import ZeroShot
from anatolab.types import InputError

GROUP_PROMPTS = "group_prompts"
DRAWS = 2000  # of the bootstrap over test images


@dataclass(frozen=True, eq=False)
class Bench:
    """The features of a data set under one frozen model, ready for every method."""

    images: LabeledImages
    clip: Clip
    start: Start
    rows: dict[str, FeatureSet]  # by split; groups are None where no attribute is known
    text: str  # how the text head was made
    group_text: torch.Tensor | None = None  # (d, groups), where prompts of groups were given
    names: dict[str, str] = field(default_factory=dict)  # titles that differ from those of the catalog

    @property
    def zero_shot_labels(self) -> Labels:
        """Returns the labels that zero-shot uses, which are the classes if class means replace the text."""
        return ("y",) if GROUP_PROMPTS not in self.names and "zero_shot" in self.names else ()


def bench(
    clip: Clip,
    images: LabeledImages,
    *,
    prompts: Sequence[str] | None = None,
    group_prompts: Sequence[str] | None = None,
    templates: Sequence[str] = TEMPLATES,
    splits: Sequence[str] = SPLITS,
    **extraction: Any,
) -> Bench:
    """Extracts the features of a data set, and makes the text head.

    Args:
        clip: The frozen model.
        images: The data set.
        prompts: A prompt for each class, in their order; the names of the classes where None. If a small model does not
            know a word, unit class means of the training rows replace the text.
        group_prompts: A prompt for each group, in the order of the images' ``group_names``.
        templates: Sentences with ``{}`` in place of a prompt.
        splits: The splits that are needed.
        **extraction: Arguments of :func:`anatolab.robust.extract`.

    Raises:
        InputError: A split is missing or lacks a class, or prompts do not fit the classes or groups.
    """
    check_splits(images, splits)
    rows = {split: rows_of(clip, images.of(split), groups=images.grouped, **extraction) for split in splits}
    for what, given, wanted in (
        ("class", prompts, images.classes),
        ("group", group_prompts, images.group_names),
    ):
        if given is not None and len(given) != len(wanted):
            raise InputError(
                f"--{what}-prompt: {len(given)} prompts for {len(wanted)} {what}es or groups; give one for each of "
                f"{', '.join(wanted)}, in this order."
            )
    names: dict[str, str] = {}
    try:
        start = start_of(clip, tuple(prompts or images.classes), tuple(templates))
        text = f"prompts {', '.join(prompts or images.classes)} in {len(templates)} templates"
    except InputError:
        if prompts is not None or "train" not in rows or not clip.record:
            raise
        start, text = start_of_means(clip, rows["train"]), "unit class means of the training features, no text"
        names["zero_shot"] = "class means"
    group_text = None if group_prompts is None else clip.text_head(tuple(group_prompts), tuple(templates))
    return Bench(images, clip, start, rows, text, group_text, names)


def check_splits(images: LabeledImages, splits: Sequence[str]) -> None:
    """Refuses a data set in which a split, or a class of a split, has no image."""
    for split in splits:
        absent = sorted(set(range(len(images.classes))) - set(images.of(split).y.tolist()))
        if absent:
            raise InputError(
                f"{images.name}: the split {split!r} has no image of class {images.classes[absent[0]]!r}; add some, or "
                "divide the images anew."
            )


def pick_methods(names: Sequence[str], grouped: bool) -> tuple[dict[str, Select | None], list[str]]:
    """Chooses methods and their rules of selection.

    Args:
        names: Names in the catalog; ``all`` for every method but the variants of CFR.
        grouped: Whether groups are known. Without them, methods that need them are left out of ``all``, and those that
            select by the worst group select by the worst class.

    Returns:
        The selection rule of each method, None for its own; and notes for the report.

    Raises:
        InputError: A method does not exist, or one that was named needs groups.
    """
    wanted = [n for n in CATALOG if n not in VARIANTS] if "all" in names else list(dict.fromkeys(names))
    rules: dict[str, Select | None] = {}
    left_out, changed = [], []
    for name in wanted:
        sees = entry_of(name).sees()
        if grouped or "group" not in sees["training"] + sees["selection"]:
            rules[name] = None
        elif "group" in sees["training"]:
            if "all" not in names:
                raise InputError(f"{name}: needs the group of each image; add a column 'group' to the table.")
            left_out.append(CATALOG[name].title)
        else:
            rules[name] = "val_worst_class"
            changed.append(CATALOG[name].title)
    if grouped:
        return rules, []
    notes = ["no groups are known, so that only mean accuracy and accuracy per class can be measured."]
    if left_out:
        notes.append(f"left out, because they need groups: {', '.join(left_out)}.")
    if changed:
        notes.append(f"selected by the worst class instead of the worst group: {', '.join(changed)}.")
    return rules, notes


@dataclass(frozen=True, eq=False)
class Result:
    """One method on one data set, over seeds."""

    name: str
    title: str
    sees: dict[str, Labels]
    settings: dict[str, Any]
    scores: dict[str, Any]
    seconds: float  # of a fit
    head: Any  # of the first seed


def fit(
    data: Bench, name: str, *, select: Select | None = None, seed: int = 0, tune: bool = False, config: Any = None
) -> tuple[Any, Any, dict[str, Labels]]:
    """Fits one method.

    Args:
        data: The features.
        name: Name of a method in the catalog.
        select: A selection rule in place of the method's own.
        seed: Seed of all random draws.
        tune: Fit every setting of the catalog, and keep the best by the selection rule on validation.
        config: Settings that were chosen before; None for the recommended ones.

    Returns:
        Head, method, and the labels that it used in training and in selection.

    Raises:
        InputError: As for the method.
    """
    entry, train, val = _entry(data, name), data.rows["train"], data.rows["val"]
    best: tuple[float, Any, Any] | None = None
    for settings in entry.settings if tune else (config or entry.settings[0],):
        method = entry.make(_start(data, name), settings, select)
        head = method.fit(train.h, train.y, train.groups, torch.Generator().manual_seed(seed), val)
        score = selection_score(method, head, val) if tune else 0.0
        if best is None or score > best[0]:
            best = score, head, method
    assert best is not None
    sees = entry.sees(select, choosing=tune)
    if name == "zero_shot":
        sees["training"] = data.zero_shot_labels
    return best[1], best[2], sees


def compare(
    data: Bench,
    names: Sequence[str],
    *,
    seeds: int = 3,
    tune: bool = False,
    no_groups: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[list[Result], list[str]]:
    """Fits and measures methods on the test split, each over the same seeds.

    Args:
        data: The features of train, val and test.
        names: As in :func:`pick_methods`.
        seeds: Number of fits of each method; seeds count from 0.
        tune: As in :func:`fit`, with the first seed; the other seeds use the chosen settings.
        no_groups: Treat groups as unknown in training and selection; they still count in the report.
        progress: Called with the title of each method before it is fitted.

    Returns:
        Results, and notes for the report: methods that failed, labels that are missing.
    """
    grouped = data.images.grouped
    rules, notes = pick_methods(names, grouped and not no_groups)
    if grouped and no_groups:
        notes[0] = "groups are used to report accuracy, and by no method."
    if data.group_text is not None:
        rules[GROUP_PROMPTS] = None
    if data.names:
        notes.append(f"the small model does not know the names of these classes; the text head is {data.text}.")
    results = []
    for name, select in rules.items():
        progress(_entry(data, name).title)
        heads: list[tuple[Any, Any, dict[str, Labels]]] = []
        warned: list[Any] = []
        begin = time.perf_counter()
        try:
            for seed in range(seeds):
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    chosen = heads[0][1].config if heads else None
                    heads.append(fit(data, name, select=select, seed=seed, tune=tune and not heads, config=chosen))
                warned += [str(w.message) for w in caught if issubclass(w.category, UserWarning | Notice)]
        except InputError as error:
            notes.append(f"{_entry(data, name).title} refused: {error}")
            continue
        notes += list(dict.fromkeys(warned))
        seconds = (time.perf_counter() - begin) / seeds
        scores = measure([head for head, _, _ in heads], data.rows["test"], data.images)
        _, method, sees = heads[0]  # its labels include those that the choice looked at
        results.append(
            Result(name, _entry(data, name).title, sees, asdict(method.config), scores, seconds, heads[0][0])
        )
    return results, list(dict.fromkeys(notes))


def measure(heads: Sequence[Head], rows: FeatureSet, images: LabeledImages, *, seed: int = 0) -> dict[str, Any]:
    """Measures heads on one split: accuracy of the worst group or class, the mean, and each group.

    Args:
        heads: Heads of one method, one per seed.
        rows: The split; by class where its groups are None.
        images: Names groups and classes.
        seed: Seed of the bootstrap.

    Returns:
        ``mean``, ``worst``, ``gap`` (mean less worst), ``per_group`` by name, ``by_seed`` (``worst`` of each head),
        ``unit`` (``group`` or ``class``) and ``intervals`` (95 % percentile bootstrap over images within groups, of
        the accuracies averaged over seeds).
    """
    part = (rows.y if rows.groups is None else rows.groups).numpy()
    y = rows.y.numpy()
    correct = np.stack([predict(head, rows.h).numpy() == y for head in heads])
    share = correct.mean(0)
    there = np.unique(part)
    counts = np.array([(part == k).sum() for k in there])
    by_seed = np.array([[one[part == k].mean() for k in there] for one in correct])
    mean = by_seed.mean(0)
    rng = np.random.default_rng(seed)
    drawn = np.stack([_resampled_means(share[part == k], rng) for k in there], 1)
    worst, total = drawn.min(1), drawn @ counts / counts.sum()
    names = images.classes if rows.groups is None else images.group_names
    reference = group_accuracy(predict(heads[0], rows.h).numpy(), y, part)
    assert np.isclose(reference["worst"], by_seed[0].min())
    ends = {
        "worst": np.quantile(worst, [0.025, 0.975]),
        "mean": np.quantile(total, [0.025, 0.975]),
        "gap": np.quantile(total - worst, [0.025, 0.975]),
    }
    return {
        "unit": "class" if rows.groups is None else "group",
        "worst": float(mean.min()),
        "mean": float(share.mean()),
        "gap": float(share.mean() - mean.min()),
        "per_group": {names[k]: float(v) for k, v in zip(there, mean, strict=True)},
        "counts": {names[k]: int(n) for k, n in zip(there, counts, strict=True)},
        "by_seed": by_seed.min(1).tolist(),
        "intervals": {key: [float(v) for v in value] for key, value in ends.items()},
    }


def _resampled_means(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the means of bootstrap resamples, ``(DRAWS,)``, computed from counts of the distinct values."""
    kinds, counts = np.unique(values, return_counts=True)
    return rng.multinomial(len(values), counts / len(values), DRAWS) @ kinds / len(values)


def _entry(data: Bench, name: str) -> Entry:
    if name == GROUP_PROMPTS:
        return Entry("zero-shot, group prompts", ZeroShot, (ZeroShot.Config(len(data.images.attributes)),))
    entry = entry_of(name)
    return replace(entry, title=data.names[name]) if name in data.names else entry


def _start(data: Bench, name: str) -> Start:
    if name != GROUP_PROMPTS:
        return data.start
    assert data.group_text is not None
    return replace(data.start, text=data.group_text)
