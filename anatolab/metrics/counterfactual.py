"""Effects of foreground and background on a classifier's margin, from counterfactual 2 x 2 sets."""

from __future__ import annotations

from typing import Any

import numpy as np

from anatolab.types import InputError


def counterfactual_scores(
    margins: np.ndarray, *, level: float = 0.95, seed: int = 0, draws: int = 2_000
) -> dict[str, Any]:
    r"""Computes effects of foreground and background on the margin, and the spurious reliance ratio (SRR).

    A set holds the margins :math:`m_{fb}` of class 1 over class 0 for both foregrounds f on both backgrounds b;
    background 0 is the usual one of class 0, background 1 that of class 1.

    .. math::

        E_{fg}=\tfrac12\sum_b(m_{1b}-m_{0b}),\quad E_{bg}=\tfrac12\sum_f(m_{f1}-m_{f0}),\quad
        I=\tfrac12(m_{11}-m_{10}-m_{01}+m_{00})

    .. math:: SRR=\frac{\overline{|E_{bg}|}}{\overline{|E_{bg}|}+\overline{|E_{fg}|}}

    Args:
        margins: ``(n, 2, 2)``, foreground then background, a set per row, in logits.
        level: Coverage of the intervals.
        seed: Seed of the resampling of sets.
        draws: Number of resamples.

    Returns:
        ``foreground``, ``background``, ``interaction`` (signed means), ``srr`` (1: only the background matters, 0: only
            the foreground; NaN if neither does), ``flips`` (share of foregrounds whose predicted class changes with the
            background), and ``intervals`` (percentile bootstrap over sets) of each.

    Raises:
        InputError: The shape is another, or a value is not finite.

    Example:
        >>> scores = counterfactual_scores(np.array([[[-4.0, -1.0], [1.0, 3.0]]]))
        >>> [round(scores[k], 6) for k in ("foreground", "background", "interaction", "srr", "flips")]
        [4.5, 2.5, -0.5, 0.357143, 0.0]
    """
    m = np.asarray(margins, float)
    if m.ndim != 3 or m.shape[1:] != (2, 2) or not len(m) or not np.isfinite(m).all():
        raise InputError(f"margins {m.shape}: must be finite and (n, 2, 2), foreground then background; n at least 1.")
    each = {
        "foreground": (m[:, 1] - m[:, 0]).sum(1) / 2,
        "background": (m[:, :, 1] - m[:, :, 0]).sum(1) / 2,
        "interaction": (m[:, 1, 1] - m[:, 1, 0] - m[:, 0, 1] + m[:, 0, 0]) / 2,
        "flips": ((m[:, :, 1] > 0) != (m[:, :, 0] > 0)).mean(1),
    }

    def scores(rows: np.ndarray) -> dict[str, np.ndarray]:
        accuracies = {name: values[rows].mean(-1) for name, values in each.items()}
        fg, bg = (np.abs(each[name])[rows].mean(-1) for name in ("foreground", "background"))
        with np.errstate(invalid="ignore"):
            return {**accuracies, "srr": bg / (bg + fg)}

    whole = scores(np.arange(len(m)))
    drawn = scores(np.random.default_rng(seed).integers(len(m), size=(draws, len(m))))
    ends = [(1 - level) / 2, (1 + level) / 2]
    intervals = {k: tuple(float(q) for q in np.quantile(v, ends)) for k, v in drawn.items()}
    return {**{k: float(v) for k, v in whole.items()}, "intervals": intervals}
