"""Relational distillation: the student learns the teacher's similarities between an image and other images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def relational_distillation(
    student: Tensor, teacher: Tensor, anchors: Tensor, *, student_temperature: float, teacher_temperature: float
) -> Tensor:
    r"""Returns the KL divergence between teacher's and student's similarities of an embedding to a set of anchors.

    .. math::

        \frac1{b}\sum_{i}\mathrm{KL}\big(p^t_i \,\|\, p^s_i\big),\qquad
        p^{\bullet}_i = \mathrm{softmax}_j\big(\cos(z^{\bullet}_i, a_j)/\tau_{\bullet}\big)

    With positions, each position is compared with the anchors of that position, and the mean is over both. Exactly 0
    where there is no anchor. Computed in float32 also under autocast.

    Args:
        student: ``(b, d)``, or ``(b, positions, d)``; the only argument that gradient reaches.
        teacher: As ``student``.
        anchors: ``(k, d)``, or ``(k, positions, d)``: past teacher embeddings of other images.
        student_temperature: :math:`\tau_s`, above 0.
        teacher_temperature: :math:`\tau_t`, above 0; the smaller, the more only the nearest anchor counts.

    Returns:
        A scalar in nats, at least 0.

    Reference:
        You et al., ACTION, IPMI 2023, global and local contrastive distillation; after Tejankar et al., ISD, ICCV 2021.

    Example:
        >>> import torch
        >>> z = torch.eye(36)[:1]
        >>> at = {"student_temperature": 0.1, "teacher_temperature": 0.01}
        >>> round(float(relational_distillation(z, z, torch.eye(36), **at)), 6)
        0.001588
    """
    if not len(anchors):
        return student.sum() * 0.0
    dtype = torch.promote_types(student.dtype, torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        s, t, a = (F.normalize(x.to(dtype), dim=-1) for x in (student, teacher.detach(), anchors.detach()))
        a = a.movedim(0, -1)  # (d, k) or (positions, d, k)
        log_s = torch.log_softmax((s[..., None, :] @ a).squeeze(-2) / student_temperature, -1)
        log_t = torch.log_softmax((t[..., None, :] @ a).squeeze(-2) / teacher_temperature, -1)
        return (log_t.exp() * (log_t - log_s)).sum(-1).mean()
