"""InfoNCE: identifies the positive among negatives by cosine similarity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(query: Tensor, positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    r"""Returns the mean cross-entropy, in nats, of picking the positive among ``1 + n`` keys by cosine similarity.

    .. math::

        \frac1q \sum_{i=1}^{q} -\log\frac{\exp(\cos(q_i, k_i^+)/\tau)}
        {\exp(\cos(q_i, k_i^+)/\tau) + \sum_{j=1}^{n}\exp(\cos(q_i, k_{ij}^-)/\tau)}

    It is :math:`\log(1+n)` where all cosines are equal, and exactly 0 without queries or without negatives. Computed
    in float32 also under autocast (in float64 where the query is), with ``logsumexp``, so that no temperature
    overflows.

    Args:
        query: ``(q, d)`` of any length; the only argument that gradient reaches.
        positive: ``(q, d)``, or ``(d,)`` for one key shared by all queries; detached.
        negatives: ``(q, n, d)``, or ``(n, d)`` shared by all queries; detached.
        temperature: Above 0; cosines are divided by it.

    Returns:
        A scalar, the mean over queries.

    Reference:
        Oord et al., Representation learning with contrastive predictive coding, 2018, eq. (4), with cosine similarity
        and a temperature as in Chen et al., SimCLR, ICML 2020, eq. (1).

    Example:
        >>> import torch
        >>> same = torch.ones(3, 8)
        >>> round(float(info_nce(same, same, torch.ones(512, 8), temperature=0.5)), 4)
        6.2403
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        q, k, n = (F.normalize(x.to(dtype), dim=-1) for x in (query, positive.detach(), negatives.detach()))
        negative_cosine = torch.einsum("qd,nd->qn" if n.ndim == 2 else "qd,qnd->qn", q, n)
        logits = torch.cat([(q * k).sum(-1, keepdim=True), negative_cosine], 1) / temperature
        return (logits.logsumexp(1) - logits[:, 0]).sum() / max(len(q), 1)
