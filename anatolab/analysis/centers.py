r"""Where class centers can sit at best: bounds on the cosines of unit vectors, and how crowded features really are."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from anatolab.types import InputError


def least_largest_cosine(classes: int, dim: int) -> float | None:
    r"""Returns the smallest possible largest cosine between K unit vectors in d dimensions, where it is known.

    A regular simplex attains :math:`-1/(K-1)` up to :math:`K = d + 1`; from there to :math:`K = 2d` it is 0, attained
    by a part of the cross-polytope; in the plane it is that of a regular polygon.

    Args:
        classes: K, at least 2.
        dim: d, at least 1.

    Returns:
        The cosine; None for more than 2d vectors in three dimensions or more, where there is no general formula.

    Raises:
        InputError: Fewer than two vectors, or more than two on a line.

    Reference:
        Rankin, The closest packing of spherical caps in n dimensions, Proc. Glasgow Math. Assoc. 1955.

    Example:
        >>> [least_largest_cosine(k, 3) for k in (2, 4, 5, 6, 7)]
        [-1.0, -0.3333333333333333, 0.0, 0.0, None]
    """
    if classes < 2 or dim < 1 or (dim == 1 and classes > 2):
        raise InputError(f"centers: {classes} distinct unit vectors in {dim} dimensions; use 2 or more, in 2 or more.")
    if classes <= dim + 1:
        return -1 / (classes - 1)
    if dim == 2:
        return math.cos(2 * math.pi / classes)
    return 0.0 if classes <= 2 * dim else None


def welch_bound(classes: int, dim: int) -> float:
    r"""Returns the least mean of squared cosines over pairs of K unit vectors in d dimensions.

    .. math:: \frac{1}{K(K-1)} \sum_{c \ne c'} (\psi_c \cdot \psi_{c'})^2 \;\ge\; \frac{K - d}{d\,(K - 1)}

    and 0 for :math:`K \le d`. It is attained if and only if the vectors are a tight frame; its root bounds the largest
    *absolute* cosine. Class centers want negative cosines, which it punishes like positive ones.

    Reference:
        Welch, Lower bounds on the maximum cross correlation of signals, IEEE Trans. Inf. Theory 1974.

    Example:
        >>> round(welch_bound(4, 3), 6), welch_bound(4, 128)
        (0.111111, 0.0)
    """
    return max(0.0, (classes - dim) / (dim * (classes - 1)))


def effective_rank(features: Tensor) -> Tensor:
    r"""Returns the effective rank of unit features, from 1 (all equal) to d (isotropic).

    .. math:: \exp\Big(-\sum_i \lambda_i \log \lambda_i\Big), \qquad
        \lambda_i \text{ eigenvalues of } \tfrac1n \sum_j u_j u_j^\top

    The eigenvalues sum to 1. Features are not centered, so that a cloud at one place has rank 1, not that of its noise.

    Args:
        features: ``(..., n, d)`` of any length, normalized here; no gradient flows.

    Returns:
        ``(...)`` float64 in [1, min(n, d)].

    Reference:
        Roy and Vetterli, The effective rank, EUSIPCO 2007, with squared instead of plain singular values.

    Example:
        >>> round(float(effective_rank(torch.eye(4))), 6), round(float(effective_rank(torch.ones(5, 4))), 6)
        (4.0, 1.0)
    """
    unit = F.normalize(features.detach().double(), dim=-1)
    values = torch.linalg.eigvalsh(unit.mT @ unit / unit.shape[-2]).clamp_min(0)
    return torch.special.entr(values / values.sum(-1, keepdim=True)).sum(-1).exp()


def class_similarity(features: Tensor, label: Tensor) -> Tensor:
    r"""Returns the mean cosine between the mean directions of classes, which is 1 where all classes have collapsed.

    The regular simplex, the best that K classes can do, has :math:`-1/(K-1)`.

    Args:
        features: ``(n, d)`` of any length, normalized here; no gradient flows.
        label: Class of each row ``(n,)``.

    Returns:
        Scalar, float64, in [-1, 1].

    Raises:
        InputError: Shapes that do not fit, or fewer than two classes.

    Example:
        >>> round(float(class_similarity(torch.tensor([[1.0, 0], [2, 0], [0, 3]]), torch.tensor([0, 0, 1]))), 6)
        0.0
    """
    if features.ndim != 2 or label.shape != features.shape[:1] or len(label.unique()) < 2:
        raise InputError(
            f"features {tuple(features.shape)} and label {tuple(label.shape)} must be (n, d) and (n,), "
            "of two classes or more."
        )
    unit = F.normalize(features.detach().double(), dim=1)
    means = F.normalize(torch.stack([unit[label == c].mean(0) for c in label.unique()]), dim=1)
    apart = ~torch.eye(len(means), dtype=torch.bool, device=means.device)
    return (means @ means.T)[apart].mean()
