"""Two forms of the term that separates the features of all training rows by class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_separation(features: Tensor, label: Tensor) -> Tensor:
    r"""Returns the mean cosine between rows of different classes minus that of equal classes, over the batch.

    .. math:: \frac1B\sum_i\Big[\frac1B\sum_j(1-M_{ij})S_{ij}-\frac1B\sum_jM_{ij}S_{ij}\Big]

    Both sums are divided by the batch size, not by the number of rows of a class, as in the released code. A row counts
    as its own neighbor.

    Args:
        features: ``(b, d)``, normalized here; gradient flows.
        label: ``(b,)`` int64.

    Returns:
        A scalar in [-1, 1]; -1 for two opposite classes, 0 where all features are equal and classes as well.

    Reference:
        Yang et al., Mitigating spurious correlations in multi-modal models, ICML 2023, as CFR's code computes it.

    Example:
        >>> cosine_separation(torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]]), torch.tensor([0, 0, 1, 1])).item()
        -1.0
    """
    z = F.normalize(features, dim=1)
    same = (label[:, None] == label).to(z.dtype)
    return (z @ z.T * (1 - 2 * same)).mean()


def targeted_contrast(
    features: Tensor,
    label: Tensor,
    queue: Tensor,
    queue_label: Tensor,
    targets: Tensor,
    assignment: Tensor,
    temperature: float = 0.07,
    *,
    target_weight: float = 0.2,
) -> Tensor:
    r"""Returns the supervised contrast to a queue of past features and to one of a few fixed, evenly spread targets.

    With ``l`` the similarities of row i to its own key, the queue and all targets over :math:`\tau`, ``log p`` their
    log-softmax, and :math:`M_i` own key, queue rows of its class and the target assigned to its class:

    .. math::

        \frac1B\sum_i\Big[-\frac1{|M_i|}\Big(\sum_{\text{own, queue}}\log p+w\log p_{\text{target}}\Big)
        -\log p_{\text{own}}\Big]

    Args:
        features: ``(b, d)``, normalized here; gradient flows, the own key is the detached feature itself.
        label: ``(b,)`` int64.
        queue: Unit rows ``(q, d)``; detached.
        queue_label: ``(q,)`` int64.
        targets: Unit rows ``(classes, d)``.
        assignment: Number of each class's target, ``(classes,)`` int64.
        temperature: :math:`\tau`, above 0.
        target_weight: w.

    Returns:
        A scalar in nats.

    Reference:
        Li et al., Targeted supervised contrastive learning, CVPR 2022, as CFR's code uses it.
    """
    z = F.normalize(features, dim=1)
    self_similarity = (z * z.detach()).sum(1, keepdim=True)
    logits = torch.cat([self_similarity, z @ queue.detach().T, z @ targets.detach().to(z.dtype).T], 1) / temperature
    log_p = logits.log_softmax(1)
    queued = log_p[:, 1 : 1 + len(queue)]
    same = (label[:, None] == queue_label).to(z.dtype)
    to_class = log_p[:, 0] + (same * queued).sum(1)
    to_target = log_p[:, 1 + len(queue) :].gather(1, assignment[label][:, None])[:, 0]
    return (-(to_class + target_weight * to_target) / (2 + same.sum(1)) - log_p[:, 0]).mean()
