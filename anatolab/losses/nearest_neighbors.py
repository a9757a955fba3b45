"""Diversity: pulls an image's embedding to those of the images that the teacher finds most similar."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def nearest_neighbors(student: Tensor, teacher: Tensor, bank: Tensor, neighbors: int = 5) -> Tensor:
    r"""Returns the squared distance on the sphere from a student's embedding to its nearest ones in the teacher's bank.

    .. math::

        \frac1b\sum_i\frac1k\sum_{z\in N_k(t_i)}\left(2-2\cos(q_i, z)\right)

    The teacher's embedding selects the neighbors, and the student's distance to them is the loss. (The released code
    swaps the two, so that its term has no gradient.) Exactly 0 if the bank is empty; with fewer than k rows, all are
    neighbors.

    Args:
        student: :math:`q`, ``(b, d)`` of any length, with gradient.
        teacher: :math:`t`, ``(b, d)`` of the same images; detached.
        bank: Past teacher embeddings ``(rows, d)``; detached.
        neighbors: :math:`k`.

    Returns:
        A scalar in [0, 4].

    Reference:
        Koohpayegani, Tejankar and Pirsiavash, Mean shift for self-supervised learning, ICCV 2021, as the diversity term
        of You et al., MONA, TPAMI 2024, and ARCO, NeurIPS 2023, uses it.

    Example:
        >>> import torch
        >>> east, north = torch.eye(2)
        >>> float(nearest_neighbors(north[None], east[None], torch.stack([east, -east]), neighbors=1))
        2.0
    """
    if not len(bank):
        return student.sum() * 0.0
    dtype = torch.promote_types(student.dtype, torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        q, t, z = (F.normalize(x.to(dtype), dim=-1) for x in (student, teacher.detach(), bank.detach()))
        nearest = (t @ z.T).topk(min(neighbors, len(z)), 1).indices
        return 2 - 2 * (q @ z.T).gather(1, nearest).mean()
