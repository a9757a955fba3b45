"""Agreement between student and teacher on unlabeled pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def consistency(student_logits: Tensor, teacher_probability: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Returns the mean squared difference of class probabilities over the pixels of a mask.

    .. math:: \frac{1}{C\,|M|}\sum_{p\in M}\sum_c \left(\pi^s_{pc} - \pi^t_{pc}\right)^2

    Args:
        student_logits: ``(b, classes, *s)``, with gradient.
        teacher_probability: ``(b, classes, *s)``; used without gradient.
        mask: ``(b, *s)`` bool or weights; all pixels where None. An empty mask gives exactly 0.

    Reference:
        Tarvainen and Valpola, NeurIPS 2017; masked as in Yu et al., UA-MT, MICCAI 2019, eq. (3).

    Example:
        >>> import torch
        >>> float(consistency(torch.tensor([[100.0, -100.0]]), torch.tensor([[0.0, 1.0]])))
        1.0
    """
    difference = (torch.softmax(student_logits.float(), 1) - teacher_probability.detach().float()).square().mean(1)
    if mask is None:
        return difference.mean()
    weight = mask.to(difference.dtype)
    return (difference * weight).sum() / weight.sum().clamp_min(1)


def predictive_entropy(probability: Tensor) -> Tensor:
    """Returns the entropy of class probabilities, in nats, from 0 (certain) to ``log(classes)`` (uniform).

    Args:
        probability: ``(b, classes, *s)``, e.g. the mean of several stochastic passes.

    Returns:
        ``(b, *s)``, with gradient.
    """
    return -torch.special.xlogy(probability, probability).sum(1)
