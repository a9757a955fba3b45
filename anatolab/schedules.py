"""Schedules over training; each takes the progress of a stage, in [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from anatolab.types import InputError


def poly(progress: float, power: float = 0.9) -> float:
    """Falls from 1 to 0 as ``(1 - progress) ** power``: the learning rate of every method here.

    Example:
        >>> poly(0.0), poly(1.0), round(poly(0.5), 4)
        (1.0, 0.0, 0.5359)
    """
    return (1 - min(max(progress, 0.0), 1.0)) ** power


def warm_up_cosine(progress: float, warm_up: float = 0.05, floor: float = 0.01) -> float:
    """Rises linearly to 1 within ``warm_up``, then falls along half a cosine to ``floor`` at the end.

    Reference:
        Loshchilov and Hutter, SGDR, ICLR 2017; warm-up of Goyal et al., 2017.

    Example:
        >>> [round(warm_up_cosine(t), 4) for t in (0.0, 0.025, 0.05, 1.0)]
        [0.0, 0.5, 1.0, 0.01]
    """
    rise = min(progress / warm_up, 1.0) if warm_up else 1.0
    share = min(max((progress - warm_up) / (1 - warm_up), 0.0), 1.0)
    return rise * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share)))


def sigmoid_ramp(progress: float) -> float:
    """Rises from exp(-5) to 1 as ``exp(-5 (1 - progress)**2)``: weights of consistency terms.

    Reference:
        Laine and Aila, Temporal ensembling, ICLR 2017.

    Example:
        >>> round(sigmoid_ramp(0.0), 6), sigmoid_ramp(1.0), sigmoid_ramp(2.0)
        (0.006738, 1.0, 1.0)
    """
    return math.exp(-5 * (1 - min(max(progress, 0.0), 1.0)) ** 2)


SHAPES = ("constant", "cosine", "linear", "exponential", "step")


@dataclass(frozen=True)
class Temperature:
    r"""A temperature over training: call it with the progress of a stage, in [0, 1].

    ``cosine`` oscillates, :math:`\tau_t = \tau^- + \frac12 (1 + \cos 2\pi t)(\tau^+ - \tau^-)` with ``periods`` dips to
    :math:`\tau^-`; large temperatures favor groups, small ones single instances. The others fall once, from
    :math:`\tau^+` to :math:`\tau^-`: ``linear``, ``exponential`` (linear in the logarithm), ``step`` (half-way).
    ``constant`` is :math:`\tau^+` throughout.

    Raises:
        InputError: The shape is unknown, a temperature is not above 0, or ``low`` is above ``high``.

    Reference:
        You et al., ACTION++, MICCAI 2023, the anatomical-aware temperature scheduler, after Kukleva et al., Temperature
        schedules for self-supervised contrastive methods on long-tail data, ICLR 2023.

    Example:
        >>> [round(Temperature("cosine", 1.0, 0.1)(t), 4) for t in (0, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)]
        [1.0, 0.8682, 0.55, 0.1, 0.55, 1.0]
    """

    shape: Literal["constant", "cosine", "linear", "exponential", "step"] = "constant"
    high: float = 0.5  # tau+
    low: float = 0.5  # tau-
    periods: float = 1.0  # dips over training, of the cosine: updates / T

    def __post_init__(self) -> None:
        if self.shape not in SHAPES or not 0 < self.low <= self.high:
            raise InputError(
                f"temperature: shape {self.shape!r} from {self.high} to {self.low} is invalid; "
                f"use one of {', '.join(SHAPES)}, and 0 < low <= high."
            )

    def __call__(self, progress: float) -> float:
        high, low = self.high, self.low
        if self.shape == "constant":
            return high
        if self.shape == "cosine":
            return low + 0.5 * (1 + math.cos(2 * math.pi * self.periods * progress)) * (high - low)
        if self.shape == "linear":
            return high + progress * (low - high)
        if self.shape == "exponential":
            return high * (low / high) ** progress
        return high if progress < 0.5 else low


def late_ramp(progress: float) -> float:
    """Is 0 for the first half, then rises linearly to one half: the weight of MORSE's rendering loss.

    Reference:
        You et al., MORSE, MICCAI 2023; the ramp of the released code.

    Example:
        >>> late_ramp(0.0), late_ramp(0.5), late_ramp(0.75), late_ramp(1.0)
        (0.0, 0.0, 0.25, 0.5)
    """
    return min(max(progress - 0.5, 0.0), 0.5)
