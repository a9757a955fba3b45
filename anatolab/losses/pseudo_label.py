"""Losses of unlabeled pixels against pseudo-labels, the teacher's classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from anatolab.losses.supervised import cross_entropy, dice_loss
from anatolab.types import IGNORE


def confident_pseudo_label_loss(
    logits: Tensor, pseudo_label: Tensor, confidence: Tensor, valid: Tensor, threshold: float
) -> Tensor:
    r"""Computes cross-entropy and Dice in equal parts over the confident pixels, as on labeled ones.

    .. math::

        \tfrac12\,\mathrm{CE}(F(x), \hat y) + \tfrac12\,\mathrm{Dice}(F(x), \hat y)
        \quad\text{over}\quad \{p : \hat c_p \ge \theta,\ p \text{ valid}\}

    Exactly 0 where no pixel is confident.

    Args:
        logits: ``(b, classes, *s)``, with gradient.
        pseudo_label: The teacher's classes, or annotations that were mixed in, ``(b, *s)`` int64.
        confidence: The teacher's probability of that class ``(b, *s)``, in [0, 1]; 1 at annotations.
        valid: ``(b, *s)`` bool, pixels that count.
        threshold: :math:`\theta`; from it on a pseudo-label is confident.

    Returns:
        A scalar; cross-entropy in nats.

    Reference:
        Cross-entropy over confident pixels as in Sohn et al., FixMatch, NeurIPS 2020, with Dice beside it.

    Example:
        >>> logits = torch.tensor([[[4.0, 0.0], [0.0, 4.0]]])
        >>> label, confidence, valid = torch.tensor([[0, 0]]), torch.tensor([[0.99, 0.5]]), torch.tensor([[True, True]])
        >>> from anatolab.losses import cross_entropy, dice_loss
        >>> confident = torch.tensor([[0, -1]])
        >>> loss = confident_pseudo_label_loss(logits, label, confidence, valid, 0.9)
        >>> bool(loss == (cross_entropy(logits, confident) + dice_loss(logits, confident)) / 2)
        True
    """
    label = torch.where(valid & (confidence >= threshold), pseudo_label, IGNORE)
    return 0.5 * cross_entropy(logits, label) + 0.5 * dice_loss(logits, label)


def share_weighted_pseudo_label_loss(
    logits: Tensor, pseudo_label: Tensor, confidence: Tensor, valid: Tensor, threshold: float
) -> Tensor:
    r"""Computes cross-entropy over the valid pixels of each image, scaled by the share of confident ones.

    .. math::

        \frac{1}{|\{p : \ell_p > 0\}|} \sum_b \eta_b \sum_{p \in b} \ell_p,\qquad
        \ell_p = \mathrm{CE}(F(x)_p, \hat y_p),\quad
        \eta_b = \frac{|\{p \in b : \hat c_p \ge \theta\}|}{|\{p \in b\}|}

    Exactly 0 where no image has a confident pixel, or no pixel any loss.

    Args:
        logits: ``(b, classes, *s)``, with gradient.
        pseudo_label: The teacher's classes ``(b, *s)`` int64.
        confidence: The teacher's probability of that class ``(b, *s)``, in [0, 1].
        valid: ``(b, *s)`` bool, pixels that count.
        threshold: :math:`\theta`; from it on a pseudo-label is confident.

    Returns:
        A scalar in nats.

    Reference:
        Liu et al., ReCo, ICLR 2022; the unsupervised term of You et al., ACTION, IPMI 2023.

    Example:
        >>> import torch
        >>> logits, label = torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
        >>> confidence, valid = torch.full((1, 2, 2), 0.99), torch.ones(1, 2, 2, dtype=torch.bool)
        >>> round(float(share_weighted_pseudo_label_loss(logits, label, confidence, valid, 0.97)), 4)
        1.3863
        >>> float(share_weighted_pseudo_label_loss(logits, label, confidence - 0.1, valid, 0.97))
        0.0
    """
    loss = F.cross_entropy(logits.float(), pseudo_label, reduction="none") * valid
    confident = ((confidence >= threshold) & valid).flatten(1).sum(1) / valid.flatten(1).sum(1).clamp_min(1)
    scaled = (loss.flatten(1).sum(1) * confident).sum()
    return scaled / (loss.detach() > 0).sum().clamp_min(1)


def confident_cross_entropy(
    logits: Tensor, pseudo_label: Tensor, confidence: Tensor, valid: Tensor, threshold: float
) -> Tensor:
    r"""Computes the cross-entropy of confident pixels, summed over them and divided by the number of valid pixels.

    .. math:: \frac{1}{|V|} \sum_{p \in V} 1[\hat c_p \ge \theta]\, \mathrm{CE}(F(x)_p, \hat y_p)

    Arguments are those of :func:`share_weighted_pseudo_label_loss`. Exactly 0 where no pixel is confident.

    Reference:
        Sohn et al., FixMatch, NeurIPS 2020, the loss of unlabeled images, a pixel in the place of an image.

    Example:
        >>> import torch
        >>> logits, label = torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
        >>> confidence, valid = torch.tensor([[[0.99, 0.5], [0.5, 0.5]]]), torch.ones(1, 2, 2, dtype=torch.bool)
        >>> round(float(confident_cross_entropy(logits, label, confidence, valid, 0.95)), 4)  # log(4) / 4
        0.3466
    """
    known = _confident(pseudo_label, confidence, valid, threshold)
    return cross_entropy(logits, known) * (known != IGNORE).sum() / valid.sum().clamp_min(1)


def confident_dice_loss(
    logits: Tensor, pseudo_label: Tensor, confidence: Tensor, valid: Tensor, threshold: float
) -> Tensor:
    """Computes the Dice loss over the confident valid pixels alone.

    Arguments are those of :func:`share_weighted_pseudo_label_loss`. Exactly 0 where no pixel is confident.

    Reference:
        The unsupervised term of the released code of Yang et al., UniMatch, CVPR 2023, on ACDC.
    """
    return dice_loss(logits, _confident(pseudo_label, confidence, valid, threshold))


def _confident(pseudo_label: Tensor, confidence: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """Returns pseudo-labels ``(b, *s)`` with ``IGNORE`` where they are not confident or not valid."""
    return torch.where(valid & (confidence >= threshold), pseudo_label, IGNORE)
