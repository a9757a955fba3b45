"""Features of pixels, patches or slices, as many of each class and of each patient as far as they go."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.data import Rows
from anatolab.data.checks import check_features
from anatolab.nn import Tap, point_sample, tap
from anatolab.types import UNKNOWN, InputError

Level = Literal["decoder", "representation", "patch", "slice"]


@dataclass(frozen=True, eq=False)
class Points:
    """Feature vectors, and what is known of each: its class, its patient, its phase, the slice it lies in."""

    features: np.ndarray  # (n, d) float32
    label: np.ndarray  # (n,) int64, an index of classes
    classes: tuple[str, ...]
    patient: np.ndarray  # (n,) str; of scenes the attribute, which plays the same part
    phase: np.ndarray  # (n,) str, "" where there is none
    names: np.ndarray  # (n,) str, the slice or the image

    def __post_init__(self) -> None:
        check_features(self.features)

    def __len__(self) -> int:
        return len(self.label)


@torch.no_grad()
def read_features(
    method: nn.Module,
    rows: Rows,
    classes: Sequence[str],
    of: Level = "decoder",
    *,
    per_class: int = 100,
    seed: int = 0,
    cells: int = 8,
    batch: int = 16,
) -> Points:
    """Returns features of a trained 2-D method on pixels, patches or slices, balanced over classes and patients.

    The choice of points depends on the labels and the seed alone, so that two methods, or two moments of a training,
    are read at the same places. Maps of the decoder differ in scale; each is divided by its root mean square, so that
    coarse and fine ones count alike.

    Args:
        method: Has ``student``; it is copied, and not changed.
        rows: Slices with their labels.
        classes: Names, background first.
        of: ``decoder``: a pixel's vector in all decoder maps. ``representation``: the unit vector that the contrastive
            losses compare. ``patch``: means of the decoder maps over a cell; its class is what covers most of it
            beside background, if that is a tenth. ``slice``: means over the slice; its class is which organs it shows.
        per_class: Points per class, at most.
        seed: Seed of the choice.
        cells: Patches per side.
        batch: Slices at a time.

    Raises:
        InputError: The method has no representation, or no point has a label.
    """
    student, project = _opened(method, int(rows.images.shape[1]))
    if of == "representation" and project is None:
        raise InputError(f"{type(method).__name__} has no pixel representation; use 'decoder'.")
    places, label, names = _places(rows, classes, of, cells)
    codes = np.unique(np.asarray(rows.patients), return_inverse=True)[1]
    chosen = balanced(label, per_class, seed=seed, groups=codes[places[:, 0]])
    places, label = places[chosen], label[chosen]
    device = next(method.parameters()).device
    result: list[np.ndarray] = [np.empty(0)] * len(places)
    wanted = np.unique(places[:, 0])
    for start in range(0, len(wanted), batch):
        some = wanted[start : start + batch]
        maps: list[Tensor] = student(rows.take(torch.from_numpy(some))[0].to(device))[1]
        if of == "representation":
            assert project is not None
            maps = [project(maps)]
        for i, row in enumerate(some):
            member = np.flatnonzero(places[:, 0] == row)
            for j, vector in zip(member, _read(maps, i, places[member], rows.labels.shape[1:], of, cells), strict=True):
                result[j] = vector
    features = np.stack(result).astype(np.float32)
    if of == "representation":
        features /= np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    else:
        for part in np.split(features, np.cumsum([m.shape[1] for m in maps])[:-1], axis=1):
            part /= math.sqrt((part**2).sum(1).mean()) or 1.0
    patient = np.asarray(rows.patients)[places[:, 0]]
    case = [rows.names[i].split("#")[0] for i in places[:, 0]]
    phase = np.array([c[len(p) + 1 :] for c, p in zip(case, patient, strict=True)])
    return Points(features, label, tuple(names), patient, phase, np.asarray(rows.names)[places[:, 0]])


def balanced(label: np.ndarray, per_class: int, *, seed: int = 0, groups: np.ndarray | None = None) -> np.ndarray:
    """Samples rows without replacement, equally many per class and, as far as possible, per group within a class.

    Args:
        label: ``(n,)`` class numbers.
        per_class: Rows of each class; all of them where a class has fewer.
        seed: Seed of the draws.
        groups: ``(n,)`` such as patients: a class takes turns among them until it has enough.

    Returns:
        Row numbers, ascending.

    Example:
        >>> label = np.array([0] * 90 + [1] * 10)
        >>> np.bincount(label[balanced(label, 8)]).tolist()
        [8, 8]
    """
    rng = np.random.default_rng(seed)
    result = []
    for c in np.unique(label):
        rows = rng.permutation(np.flatnonzero(label == c))
        if groups is not None:  # the first of each group, then the second of each ...
            turn = np.empty(len(rows), dtype=np.int64)
            for g in np.unique(groups[rows]):
                member = groups[rows] == g
                turn[member] = np.arange(member.sum())
            rows = rows[np.argsort(turn, kind="stable")]
        result.append(rows[:per_class])
    return np.sort(np.concatenate(result))


def _opened(
    method: nn.Module, channels: int
) -> tuple[Callable[[Tensor], Any], Callable[[list[Tensor]], Tensor] | None]:
    """Returns a copy of the student in evaluation mode, to logits and decoder maps, and its pixel projector if any."""
    student: Any = copy.deepcopy(method.student)
    student.eval()
    project = getattr(student, "pixel", None)
    net = getattr(student, "net", student)
    if not isinstance(net, Tap):
        with torch.enable_grad():  # the tap's dry run differentiates
            net = tap(student, in_channels=channels)
            net.eval()
    return net, project


def _places(rows: Rows, classes: Sequence[str], of: Level, cells: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns all points of a level: row, y, x ``(n, 3)``, their labels ``(n,)``, and the names of the labels."""
    labels = np.asarray(rows.labels)
    n = len(labels)
    organs = np.stack([(labels == c) for c in range(len(classes))])  # (c, n, h, w)
    if of in ("decoder", "representation"):
        places = np.argwhere(labels != UNKNOWN)
        return places, labels[tuple(places.T)].astype(np.int64), list(classes)
    if of == "slice":
        shown = organs[1:].any((2, 3)).T  # (n, c - 1)
        kinds, label = np.unique(shown, axis=0, return_inverse=True)
        names = ["+".join(c for c, s in zip(classes[1:], kind, strict=True) if s) or "none" for kind in kinds]
        return np.pad(np.arange(n)[:, None], ((0, 0), (0, 2))), label.ravel(), names
    share = F.adaptive_avg_pool2d(torch.from_numpy(organs.astype(np.float32)), cells).numpy()  # (c, n, cells, cells)
    most = share[1:].argmax(0) + 1
    label = np.where(share[1:].max(0) >= 0.1, most, 0).astype(np.int64)
    places = np.argwhere(np.ones(label.shape))
    return places, label.ravel(), list(classes)


def _read(maps: list[Tensor], i: int, places: np.ndarray, size: Sequence[int], of: Level, cells: int) -> np.ndarray:
    """Returns features of the points of one slice, the i-th of the batch, ``(p, d)``."""
    if of == "slice":
        return torch.cat([m[i].flatten(1).mean(1) for m in maps])[None].float().cpu().numpy()
    if of == "patch":
        pooled = torch.cat([F.adaptive_avg_pool2d(m[i], cells) for m in maps])
        return pooled[:, places[:, 1], places[:, 2]].T.float().cpu().numpy()
    points = torch.from_numpy((places[:, [2, 1]] + 0.5) / np.array([size[1], size[0]])).float()[None]
    read = [point_sample(m[i : i + 1].float(), points.to(m.device))[0] for m in maps]
    return torch.cat(read).T.cpu().numpy()
