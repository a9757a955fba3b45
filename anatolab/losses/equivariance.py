"""Equivariance: segmenting a warped image is warping the segmentation."""

from __future__ import annotations

import torch
from torch import Tensor


def equivariance(warped_logits: Tensor, logits_of_warped: Tensor, mask: Tensor, *, symmetric: bool = True) -> Tensor:
    r"""Computes the KL divergence between the warped segmentation of an image and the segmentation of the warped image.

    .. math::

        \frac{1}{|M|}\sum_{p\in M}\mathrm{KL}(P_p\,\|\,Q_p)+\mathrm{KL}(Q_p\,\|\,P_p),\qquad
        P=\mathrm{softmax}(T(F(x))),\quad Q=\mathrm{softmax}(F(T(x)))

    Exactly 0 where no pixel is in the mask. Computed in float32 also under autocast.

    Args:
        warped_logits: :math:`T(F(x))`, ``(b, classes, *s)``; with gradient if symmetric, else detached.
        logits_of_warped: :math:`F(T(x))`, ``(b, classes, *s)``, with gradient.
        mask: ``(b, *s)`` bool or weights in [0, 1]: pixels inside the field of view, or some of them.
        symmetric: Whether to add both directions; else only the first, averaged per image and then over images, as
            released.

    Returns:
        A scalar in nats, at least 0.

    Reference:
        You et al., MONA, TPAMI 2024, the equivariance term (formula from memory, unverified); one direction with a
        detached target and a mask is the released code's.

    Example:
        >>> import torch
        >>> logits, inside = torch.randn(2, 4, 8, 8), torch.ones(2, 8, 8)
        >>> float(equivariance(logits, logits, inside))
        0.0
    """
    weight = mask.float().flatten(1)
    if not symmetric:
        warped_logits = warped_logits.detach()
    log_p, log_q = (torch.log_softmax(x.float(), 1).flatten(2) for x in (warped_logits, logits_of_warped))
    p, q = log_p.exp(), log_q.exp()
    if symmetric:
        divergence = ((p - q) * (log_p - log_q)).sum(1)  # both directions in one sum
        return (divergence * weight).sum() / weight.sum().clamp_min(1)
    divergence = (p * (log_p - log_q)).sum(1)
    return ((divergence * weight).sum(1) / (weight.sum(1) + 1e-7)).mean()
