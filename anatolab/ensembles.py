"""Ensembles of trained runs, test-time augmentation by flips and quarter turns, and their uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anatolab.data import FieldOfView
from anatolab.inference import Window, likeliest, predict_scores
from anatolab.types import Case, InputError
from anatolab.writing import SCALE

LEAST = 1e-30  # probabilities are clipped to it before a logarithm
Move = tuple[int, bool]  # quarter turns of the last two axes, and whether the last one is flipped afterwards


@dataclass(frozen=True)
class Member:
    """A trained network, with the settings of its training that prediction needs."""

    predict: Callable[[Tensor], Tensor]  # from images in [0, 1] to logits
    size: tuple[int, ...]  # height and width of slices, or sides (z, y, x) of patches
    field_of_view: FieldOfView | None = None
    precision: str = "32-true"

    def probabilities(self, case: Case, **rules: Any) -> Iterator[Tensor]:
        """Yields the probabilities ``(classes, y, x)`` of each plane, fp32 on the CPU."""
        for scores in self.scores(case, **rules):
            yield from (torch.softmax(scores, 1) if len(self.size) == 2 else scores).cpu()

    def scores(self, case: Case, **rules: Any) -> Iterator[Tensor]:
        """Yields the result of :func:`anatolab.inference.predict_scores` for a case prepared for this network."""
        view: dict[str, Any] = {"field_of_view": self.field_of_view, "precision": self.precision}
        return predict_scores(self.predict, case, self.size, **view, **rules)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A label volume and its uncertainty, on the grid of the case."""

    label: np.ndarray  # (z, y, x) uint8
    entropy: np.ndarray | None = None  # (z, y, x) float32 in [0, log classes], nats: of the mean probability
    mutual_information: np.ndarray | None = None  # (z, y, x) float32, nats: entropy minus the members' mean entropy


def predict_ensemble(
    members: Sequence[Member],
    cases: Sequence[Case],
    *,
    uncertainty: bool = False,
    probabilities: np.ndarray | None = None,
    device: torch.device | str = "cpu",
    stride: Sequence[int] | None = None,
    window: Window = "constant",
) -> Prediction:
    """Predicts a volume by the mean probability of several networks, plane by plane.

    A single member gives bitwise the result of :func:`anatolab.inference.predict_volume`.

    Args:
        members: The networks; all have the same classes.
        cases: The volume prepared for each of them: in one orientation, with the member's window.
        uncertainty: Whether to compute the entropy and, for several members, the mutual information.
        probabilities: If given, filled with the mean probabilities: ``(classes, z, y, x)``, a float type, or uint16 in
            units of 1 / 65535.
        device: Where to compute.
        stride: Stride of members on patches, see :func:`anatolab.inference.sliding_window`.
        window: Weighting of members on patches.

    Returns:
        The label volume without any post-processing, and the uncertainty.

    Raises:
        InputError: As for :func:`anatolab.inference.predict_scores`.

    Reference:
        Lakshminarayanan et al., Deep ensembles, NeurIPS 2017; mutual information as Smith and Gal, UAI 2018.
    """
    shape = cases[0].image.shape[1:]
    rules: dict[str, Any] = {"device": device, "stride": stride, "window": window}
    label = np.empty(shape, np.uint8)
    several = len(members) > 1
    entropy = np.empty(shape, np.float32) if uncertainty else None
    mutual = np.empty(shape, np.float32) if uncertainty and several else None
    if not several and not uncertainty and probabilities is None:
        start = 0
        for scores in members[0].scores(cases[0], **rules):
            label[start : start + len(scores)] = likeliest(scores)
            start += len(scores)
        return Prediction(label)
    streams = [member.probabilities(case, **rules) for member, case in zip(members, cases, strict=True)]
    if not several:
        streams = [_labeled(members[0], members[0].scores(cases[0], **rules), label)]
    for z, planes in enumerate(zip(*streams, strict=True)):
        mean = torch.stack(planes).mean(0) if several else planes[0]
        if several:
            label[z] = likeliest(mean, 0)
        if entropy is not None:
            entropy[z] = (total := _entropy(mean)).numpy()
            if mutual is not None:
                apart = torch.stack([_entropy(plane) for plane in planes]).mean(0)
                mutual[z] = (total - apart).clamp_min(0).numpy()
        if probabilities is not None:
            whole = probabilities.dtype == np.uint16
            probabilities[:, z] = (mean * SCALE).round().numpy() if whole else mean.numpy()
    return Prediction(label, entropy, mutual)


def _labeled(member: Member, parts: Iterator[Tensor], label: np.ndarray) -> Iterator[Tensor]:
    """Yields a single member's probabilities; labels come from its scores, as rounding may tie probabilities."""
    z = 0
    for scores in parts:
        label[z : z + len(scores)] = likeliest(scores)
        z += len(scores)
        yield from (torch.softmax(scores, 1) if len(member.size) == 2 else scores).cpu()


def _entropy(probability: Tensor) -> Tensor:
    return torch.special.entr(probability).sum(0)


def moves_of(augmentation: Mapping[str, Any], size: Sequence[int]) -> list[Move]:
    """Returns the group of flips and quarter turns that a network was trained with; the first is the identity.

    Args:
        augmentation: Fields of :class:`anatolab.transforms.Augmentation`; ``flip`` and ``quarter_turns`` are read.
        size: Image size of the training; quarter turns need equal last two sides, as in training.

    Example:
        >>> moves_of({"flip": True}, (8, 8)), len(moves_of({"flip": True, "quarter_turns": True}, (8, 8)))
        ([(0, False), (0, True), (2, False), (2, True)], 8)
    """
    turns = [0, 1, 2, 3] if augmentation.get("quarter_turns") and size[-2] == size[-1] else [0]
    if augmentation.get("flip"):
        return [(turn, flip) for turn in sorted({*turns, 2}) for flip in (False, True)]
    return [(turn, False) for turn in turns]


def averaged(predict: Callable[[Tensor], Tensor], moves: Sequence[Move]) -> Callable[[Tensor], Tensor]:
    """Returns a predictor of the mean probability over flips and turns of the last two axes of an image.

    Args:
        predict: From images to logits.
        moves: The result of :func:`moves_of`.

    Returns:
        From images ``(b, c, *s)`` to the logarithm of the mean probability ``(b, classes, *s)``, which serves as
        logits.

    Raises:
        InputError: ``moves`` holds the identity alone.
    """
    if len(moves) < 2:
        raise InputError("average: needs flips or quarter turns that the network was trained under; leave it out.")

    def mean(image: Tensor) -> Tensor:
        total: Any = 0
        for turns, flip in moves:
            view = torch.rot90(image, turns, (-2, -1))
            logits = predict(view.flip(-1) if flip else view).float()
            logits = logits.flip(-1) if flip else logits
            total = total + torch.softmax(torch.rot90(logits, -turns, (-2, -1)), 1)
        return (total / len(moves)).clamp_min(LEAST).log()

    return mean


def member_of(run: Path, method: Any, info: Any, *, average: bool = False) -> Member:
    """Returns a trained run as a member of an ensemble, with the rules of its training.

    Args:
        run: Its folder, for the message.
        method: Its trained method.
        info: Its description, as given by :func:`anatolab.training.open_run`.
        average: Average over the flips and turns of its training.

    Raises:
        InputError: ``average``, and the run was trained without flips and turns.
    """
    predict, rules = method.predict, info.rules
    if average:
        moves = moves_of(info.config.get("augmentation") or {}, info.size)
        if len(moves) < 2:
            raise InputError(f"--average: {run} was trained without flips and quarter turns; leave it out.")
        predict = averaged(predict, moves)
    return Member(predict, info.size, rules["field_of_view"], rules["precision"])
