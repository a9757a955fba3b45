"""Weights of AFR: larger for rows that a frozen head misclassifies, balanced over classes."""

from __future__ import annotations

import torch
from torch import Tensor


def hardness_weights(label_probability: Tensor, label: Tensor, gamma: float) -> Tensor:
    r"""Returns weights of sum 1 that grow as a row's label is less probable, times its class's inverse frequency.

    .. math:: \mu_i \propto \frac{n}{n_{y_i}} \exp(-\gamma\, p_i(y_i))

    Args:
        label_probability: Probability of each row's label under a frozen head, ``(n,)``; no gradient flows.
        label: ``(n,)`` int64.
        gamma: :math:`\gamma`; at 0 classes are balanced and all rows of a class weigh the same.

    Returns:
        ``(n,)``.

    Reference:
        Qiu et al., Simple and fast group robustness by automatic feature reweighting, ICML 2023.

    Example:
        >>> mu = hardness_weights(torch.tensor([0.99, 0.9, 0.2, 0.6]), torch.tensor([0, 0, 0, 1]), 10.0)
        >>> [round(float(w), 6) for w in mu]
        [0.000351, 0.000863, 0.946764, 0.052022]
    """
    count = torch.bincount(label).to(label_probability.dtype)
    weight = torch.exp(-gamma * label_probability.detach()) / count[label]
    return weight / weight.sum()
