"""Anatomical contrast: pulls hard pixels to their class mean and pushes them from pixels of similar classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def anatomical_contrast(
    features: Tensor,
    anchors: Tensor,
    negatives: Tensor,
    prototypes: Tensor,
    queried: Tensor,
    present: Tensor,
    temperature: float,
    *,
    keys: Tensor | None = None,
) -> Tensor:
    r"""Returns InfoNCE of each class's anchors with their prototype and sampled negatives, averaged over classes.

    .. math::

        \frac1{|\mathcal C|}\sum_{c}\frac1q\sum_{i=1}^{q} -\log
        \frac{\exp(\cos(r_i, \bar r_c)/\tau)}
        {\exp(\cos(r_i, \bar r_c)/\tau) + \sum_{j}\exp(\cos(r_i, r_j^-)/\tau)}

    over the classes :math:`\mathcal C` present in the batch. A class without a hard pixel contributes 0 and still
    counts in :math:`|\mathcal C|`; with fewer than two classes present the loss is exactly 0. Gradient flows through
    the anchors only. It takes one matrix product per class. Pixels are given by number, so that a literal
    implementation can be tested on the same ones.

    Args:
        features: Representations of all pixels ``(n, d)``, with gradient, of any length.
        anchors: Pixel numbers ``(classes, q)`` of :func:`anatolab.sampling.sample_anchors`.
        negatives: Row numbers of ``keys``, ``(classes, m)`` shared by the anchors of a class, or ``(classes, q, m)``.
        prototypes: Mean representation of each class ``(classes, d)``; detached.
        queried: ``(classes,)`` bool, classes with a hard pixel.
        present: ``(classes,)`` bool, classes with a valid pixel.
        temperature: :math:`\tau`, above 0.
        keys: ``(k, d)``, such as a bank's rows; the features themselves where None. Detached.

    Returns:
        A scalar in nats.

    Reference:
        You et al., ACTION, IPMI 2023, the AnCo loss; keys detached and compared by cosine as in Liu et al., ReCo,
        ICLR 2022.
    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        query = F.normalize(features[anchors].to(dtype), dim=-1)  # (c, q, d)
        rows = (features if keys is None else keys).detach()
        negative = F.normalize(rows[negatives].to(dtype), dim=-1)  # (c, m, d) or (c, q, m, d)
        prototype = F.normalize(prototypes.detach().to(dtype), dim=-1)
        negative_cosine = torch.einsum("cqd,cmd->cqm" if negative.ndim == 3 else "cqd,cqmd->cqm", query, negative)
        positive_cosine = torch.einsum("cqd,cd->cq", query, prototype)
        logits = torch.cat([positive_cosine[..., None], negative_cosine], -1) / temperature
        loss = (logits.logsumexp(-1) - logits[..., 0]).mean(1)
        classes = present.sum()
        used = queried & present & (classes > 1)
        return torch.where(used, loss, 0.0).sum() / classes.clamp_min(1)


def class_means(features: Tensor, label: Tensor, classes: int) -> Tensor:
    """Returns the mean representation of each class, without gradient; zeros where a class is absent.

    Args:
        features: ``(n, d)``.
        label: ``(n,)`` int64; negative labels are left out.
        classes: Number of classes.

    Returns:
        ``(classes, d)`` float32.
    """
    member = (label == torch.arange(classes, device=label.device)[:, None]).float()
    with torch.autocast(features.device.type, enabled=False):
        return member @ features.detach().float() / member.sum(1, keepdim=True).clamp_min(1)
