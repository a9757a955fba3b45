"""Cross-entropy with the teacher's classes, heard in the measure in which the teacher is sure of an image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pseudo_label_loss(logits: Tensor, label: Tensor, confidence: Tensor, valid: Tensor, threshold: float) -> Tensor:
    r"""Cross-entropy over the valid pixels of each image, scaled by the share of them that the teacher is sure of.

    .. math::

        \frac{1}{|\{p : \ell_p > 0\}|} \sum_b \eta_b \sum_{p \in b} \ell_p,\qquad
        \ell_p = \mathrm{CE}(F(x)_p, \hat y_p),\quad
        \eta_b = \frac{|\{p \in b : \hat c_p \ge \theta\}|}{|\{p \in b\}|}

    Exactly 0 where no image has a sure pixel, or no pixel any loss.

    Args:
        logits: ``(b, classes, *s)``, with gradient.
        label: The teacher's classes ``(b, *s)`` int64.
        confidence: The probability of that class ``(b, *s)``, in [0, 1].
        valid: ``(b, *s)`` bool, pixels that count.
        threshold: :math:`\theta`; from it on the teacher is sure.

    Returns:
        A scalar in nats.

    Reference:
        Liu et al., ReCo, ICLR 2022; the unsupervised term of You et al., ACTION, IPMI 2023.

    Example:
        >>> import torch
        >>> logits, label = torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
        >>> sure, all_ = torch.full((1, 2, 2), 0.99), torch.ones(1, 2, 2, dtype=torch.bool)
        >>> [round(float(pseudo_label_loss(logits, label, c, all_, 0.97)), 4) for c in (sure, sure * 0.9)]
        [1.3863, 0.0]
    """
    loss = F.cross_entropy(logits.float(), label, reduction="none") * valid
    sure = ((confidence >= threshold) & valid).flatten(1).sum(1) / valid.flatten(1).sum(1).clamp_min(1)
    scaled = loss.flatten(1).sum(1) @ sure.to(loss.dtype)
    return scaled / (loss.detach() > 0).sum().clamp_min(1)
