"""What the studies on frozen features without a text share: where methods start, a fair choice of settings, one report.

The projection starts as the first principal components of standardized features, and the direction of a class is the
unit mean of its training rows: *class means* take the place of zero-shot, and these are no results of CLIP. A method
chooses among the settings of the catalog by its rule, by the mean over draws that are not reported. Data sets are
small, so that epochs are multiplied until a method takes about as many steps as on the generated scenes.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from robust import RUNS, SIZES, TERM_REMOVED, Task, measured

from anatolab.robust import FeatureSet, Sgd, Start
from anatolab.robust.catalog import METHODS, selection_score
from anatolab.robust.clip import Matrix
from anatolab.types import InputError

CHOOSING = (100, 101)  # draws that settings are chosen on
# Class means find the errors of the last two: ERM makes next to none in training on so few rows.
COMPARED = ("zero_shot", "erm", "jtt_no_groups", "cfr", "cfr_zero_shot", TERM_REMOVED, "groupdro", "dfr")


class Rows(Task):
    """Training, validation and test rows of one draw, in place of a world and CLIP."""

    def __init__(self, seed: int, train: FeatureSet, val: FeatureSet, test: FeatureSet, d: int = 64) -> None:
        self.seed, self.shared = seed, None
        self.start, self.mean, self.std = start_without_text(train, d)
        self.train, self.val, self.test = (
            FeatureSet((part.h - self.mean) / self.std, part.y, part.groups) for part in (train, val, test)
        )
        assert train.groups is not None
        self.counts = torch.bincount(train.groups, minlength=int(test.groups.max()) + 1).numpy()  # type: ignore[union-attr]


def start_without_text(train: FeatureSet, d: int) -> tuple[Start, torch.Tensor, torch.Tensor]:
    """Returns principal components as projection, class means as text head, and the standardization of the features."""
    mean, std = train.h.mean(0), train.h.std(0).clamp_min(1e-6)
    h = (train.h - mean) / std
    projection = torch.linalg.svd(h, full_matrices=False).Vh[:d].T
    z = F.normalize(h @ projection, dim=1)
    text = torch.stack([F.normalize(z[train.y == k].mean(0), dim=0) for k in train.y.unique()], 1)
    return Start(Matrix(projection).requires_grad_(), text, 10.0), mean, std


def longer(config: Any, times: int) -> Any:
    """Multiplies the epochs of every training in some settings."""
    changed = {f.name: getattr(config, f.name) for f in fields(config) if isinstance(getattr(config, f.name), Sgd)}
    return replace(config, **{name: replace(sgd, epochs=sgd.epochs * times) for name, sgd in changed.items()})


def settings_of(run: str, rows: Rows) -> list[Any]:
    """Settings that a run chooses among, as many steps long as on the scenes; CFR without its term has CFR's."""
    name = RUNS["cfr_zero_shot" if run == TERM_REMOVED else run][0]
    times = max(round(SIZES[0] / len(rows.train.y)), 1)
    configs = [longer(config, times) for config in METHODS[name].settings]
    if name == "dfr" and len(rows.train.y.unique()) > 2:
        configs = [replace(config, penalty="l2") for config in configs]
    return [replace(config, cal_weight=0.0) if run == TERM_REMOVED else config for config in configs]


def made(rows: Rows, run: str, number: int) -> Any:
    """Makes the method of a run at one of its settings."""
    return rows.made("cfr_zero_shot" if run == TERM_REMOVED else run, settings_of(run, rows)[number])


def choose(draws: list[Rows]) -> dict[str, int]:
    """The setting of each run with the best mean score by its rule over some draws, the first of equals."""
    numbers = {}
    for run in COMPARED:
        if run == TERM_REMOVED:
            continue
        scores = np.zeros(len(settings_of(run, draws[0])))
        for rows in draws if len(scores) > 1 else []:
            for number in range(len(scores)):
                method = made(rows, run, number)
                try:
                    scores[number] += selection_score(method, rows.fit(method), rows.val) / len(draws)
                except InputError:  # no error to calibrate
                    continue
        numbers[run] = int(scores.argmax())
        print(f"choice {run}: {scores.round(3).tolist()}", flush=True)
    return numbers | {TERM_REMOVED: numbers["cfr_zero_shot"]}


def compared(rows: Rows, numbers: dict[str, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fits every run at its chosen setting; returns what was measured, and the fitted methods with their heads."""
    values: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    for run in COMPARED:
        method = made(rows, run, numbers[run])
        values[run] = measured(rows, method, reliance=False, keep=kept.setdefault(run, {}))
        name, select = RUNS["cfr_zero_shot" if run == TERM_REMOVED else run]
        sees = {part: list(labels) for part, labels in METHODS[name].sees(select, choosing=True).items()}
        if run in ("zero_shot", "cfr_zero_shot", TERM_REMOVED):  # class means are made of classes
            sees["training"] = ["y"]
        calibration = getattr(method, "calibration", None)
        values[run] |= {"sees": sees, "setting": numbers[run]}
        if calibration is not None:
            values[run]["anchors"] = len(calibration.anchors)
    return values, kept
