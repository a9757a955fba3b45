"""How a number changes over training; each takes the share done, in [0, 1]."""

from __future__ import annotations

import math


def poly(done: float, power: float = 0.9) -> float:
    """Falls from 1 to 0 as ``(1 - done) ** power``: the learning rate of every method here.

    Example:
        >>> poly(0.0), poly(1.0), round(poly(0.5), 4)
        (1.0, 0.0, 0.5359)
    """
    return (1 - min(max(done, 0.0), 1.0)) ** power


def sigmoid_ramp(done: float) -> float:
    """Rises from exp(-5) to 1 as ``exp(-5 (1 - done)**2)``: weights of consistency terms.

    Reference:
        Laine and Aila, Temporal ensembling, ICLR 2017.

    Example:
        >>> round(sigmoid_ramp(0.0), 6), sigmoid_ramp(1.0), sigmoid_ramp(2.0)
        (0.006738, 1.0, 1.0)
    """
    return math.exp(-5 * (1 - min(max(done, 0.0), 1.0)) ** 2)
