"""The calibration loss of CFR: pulls an anchor to features of its class and pushes it from other classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def calibration_loss(
    anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float, *, joint: bool = False
) -> Tensor:
    r"""Returns the contrast of anchors with positives of their class, each positive against all negatives.

    .. math::

        \frac1B\sum_i\frac1{|P_i|}\sum_{p\in P_i}-\log
        \frac{e^{z_i\cdot z_p/\tau}}{e^{z_i\cdot z_p/\tau}+\sum_{n\in N_i}e^{z_i\cdot z_n/\tau}}

    With ``joint`` one denominator holds all positives and all negatives, as in CnC. Gradient flows through all three;
    computed in logarithms, in float32 also under autocast, so that no temperature overflows. It is
    :math:`\log(1+|N|)` where all similarities are equal.

    Args:
        anchors: ``(b, d)``, normalized here.
        positives: ``(b, p, d)``, normalized here.
        negatives: ``(b, n, d)``, normalized here.
        temperature: :math:`\tau`, above 0.
        joint: Whether positives share one denominator.

    Returns:
        A scalar in nats.

    Reference:
        You et al., Calibrating multi-modal representations, CVPR 2024, in the form of its released code; ``joint``
        after Zhang et al., Correct-N-Contrast, ICML 2022.

    Example:
        >>> round(float(calibration_loss(torch.ones(1, 3), torch.ones(1, 2, 3), torch.ones(1, 16, 3), 0.1)), 6)
        2.833213
    """
    dtype = torch.promote_types(anchors.dtype, torch.float32)
    with torch.autocast(anchors.device.type, enabled=False):
        z, near, far = (F.normalize(x.to(dtype), dim=-1) for x in (anchors, positives, negatives))
        to_near = torch.einsum("bd,bpd->bp", z, near) / temperature
        to_far = torch.einsum("bd,bnd->bn", z, far) / temperature
        if joint:
            return (torch.cat([to_near, to_far], 1).logsumexp(1, keepdim=True) - to_near).mean()
        # log((e^s + F) / e^s) = softplus(log F - s), which keeps its digits where the loss is small.
        return F.softplus(to_far.logsumexp(1, keepdim=True) - to_near).mean()
