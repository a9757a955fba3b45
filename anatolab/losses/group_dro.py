"""Group DRO: groups with the highest loss get the largest weight."""

from __future__ import annotations

import torch
from torch import Tensor


def group_losses(losses: Tensor, group: Tensor, groups: int) -> Tensor:
    """Returns the mean loss of each group; 0 for a group without rows.

    Args:
        losses: One per row, ``(n,)``; gradient flows.
        group: ``(n,)`` int64.
        groups: Number of groups.

    Returns:
        ``(groups,)``.
    """
    member = (group == torch.arange(groups, device=group.device)[:, None]).to(losses.dtype)
    return member @ losses / member.sum(1).clamp_min(1)


def group_dro(losses: Tensor, q: Tensor, step: float) -> tuple[Tensor, Tensor]:
    r"""Returns the weighted sum of group losses after a step of exponentiated ascent on the weights.

    .. math:: q_g \leftarrow \frac{q_g e^{\eta \ell_g}}{\sum_{g'} q_{g'} e^{\eta \ell_{g'}}},
        \qquad \mathcal L = \sum_g q_g \ell_g

    Args:
        losses: Mean loss of each group, ``(groups,)``; gradient flows.
        q: Weights of sum 1, ``(groups,)``; no gradient.
        step: :math:`\eta`; at 0 and from uniform weights the loss is the mean over groups.

    Returns:
        The loss, a scalar, and the new weights.

    Reference:
        Sagawa et al., Distributionally robust neural networks for group shifts, ICLR 2020, algorithm 1.

    Example:
        >>> loss, q = group_dro(torch.tensor([0.1, 0.5, 2.0, 0.1]), torch.full((4,), 0.25), 0.01)
        >>> round(float(loss), 6), round(float(q[2]), 6)
        (0.681143, 0.253327)
    """
    q = torch.softmax(q.log() + step * losses.detach(), 0)
    return (q * losses).sum(), q
