"""Cross-entropy and Dice on labeled pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from anatolab.types import IGNORE


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Returns the mean cross-entropy over labeled pixels, in nats; exactly 0 where a batch has none.

    Args:
        logits: ``(b, classes, *s)``, with gradient.
        label: ``(b, *s)`` int64 class numbers; ``IGNORE`` pixels are left out.

    Example:
        >>> import torch
        >>> round(float(cross_entropy(torch.zeros(1, 4, 2, 2), torch.ones(1, 2, 2, dtype=torch.long))), 4)
        1.3863
    """
    total = F.cross_entropy(logits.float(), label, ignore_index=IGNORE, reduction="sum")
    return total / (label != IGNORE).sum().clamp_min(1)


def dice_loss(logits: Tensor, label: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    r"""Returns one minus soft Dice with squared denominators, over the batch, averaged over classes with background.

    .. math::

        1 - \frac1C \sum_c
        \frac{2\sum_p \pi_{pc}\, g_{pc} + \epsilon}{\sum_p \pi_{pc}^2 + \sum_p g_{pc}^2 + \epsilon}

    Args:
        logits: ``(b, classes, *s)``, with gradient.
        label: ``(b, *s)`` int64 class numbers; ``IGNORE`` pixels are left out of all sums.
        epsilon: Keeps a class that is absent from prediction and label at Dice 1.

    Reference:
        Milletari et al., V-Net, 3DV 2016; in the form of the released code of ACTION.

    Example:
        >>> import torch
        >>> label = torch.tensor([[[0, 1], [1, 0]]])
        >>> sure = 100.0 * torch.nn.functional.one_hot(label, 2).movedim(-1, 1).float()
        >>> bool(dice_loss(sure, label) < 1e-6), bool(dice_loss(-sure, label) > 0.999)
        (True, True)
    """
    known = (label != IGNORE)[:, None]
    probability = torch.softmax(logits.float(), 1) * known
    target = torch.zeros_like(probability).scatter_(1, label.clamp_min(0)[:, None], 1.0) * known
    over = (0, *range(2, logits.ndim))
    overlap = (probability * target).sum(over)
    size = (probability**2).sum(over) + target.sum(over)
    return 1 - ((2 * overlap + epsilon) / (size + epsilon)).mean()
