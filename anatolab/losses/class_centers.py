r"""Class centers: fixed, evenly spread targets for the features of each class, and the contrast with them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anatolab.types import InputError


def simplex_centers(classes: int, dim: int, *, seed: int = 0) -> Tensor:
    r"""Returns a regular simplex, the most evenly spread unit vectors: all pairs have cosine :math:`-1/(K-1)`.

    .. math:: \Psi = \sqrt{\tfrac{K}{K-1}}\,\big(I_K - \tfrac1K \mathbf 1 \mathbf 1^\top\big)\, Q^\top

    with a random orthonormal :math:`Q \in \mathbb R^{d \times K}`. These minimize :func:`uniformity` for any
    temperature.

    Args:
        classes: K, background included, at least 2.
        dim: d, at least K.
        seed: Seed of the rotation.

    Returns:
        ``(classes, dim)`` float32, rows of norm 1 and sum 0; without gradient.

    Raises:
        InputError: Fewer than two classes, or fewer dimensions than classes.

    Reference:
        The optimum of You et al., ACTION++, MICCAI 2023, anatomical-aware class centers.

    Example:
        >>> centers = simplex_centers(4, 16)
        >>> sorted({round(float(v), 4) for v in (centers @ centers.T).flatten()})
        [-0.3333, 1.0]
    """
    if classes < 2 or dim < classes:
        raise InputError(
            f"class centers: {classes} classes in {dim} dimensions; use at least 2 classes and as many dimensions."
        )
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(dim, classes, generator=generator, dtype=torch.float64)).Q
    spread = torch.eye(classes, dtype=torch.float64) - 1 / classes
    return ((classes / (classes - 1)) ** 0.5 * spread @ q.T).float()


def uniformity(centers: Tensor, temperature: float) -> Tensor:
    r"""Returns the uniformity of unit vectors in nats; smaller is more evenly spread.

    .. math:: \frac1K \sum_c \log \sum_{c'} \exp(\psi_c \cdot \psi_{c'} / \tau)

    Args:
        centers: ``(classes, d)``, normalized here; gradient flows.
        temperature: :math:`\tau`, above 0.

    Reference:
        You et al., ACTION++, MICCAI 2023 (its sum, divided by K).
    """
    unit = F.normalize(centers, dim=1)
    return (unit @ unit.T / temperature).logsumexp(1).mean()


def optimized_centers(
    classes: int, dim: int, *, temperature: float = 0.5, steps: int = 2_000, lr: float = 0.05, seed: int = 0
) -> Tensor:
    """Computes class centers by gradient descent on :func:`uniformity`, as in the paper; agrees with the closed form.

    Computed in float64 at a temperature of 0.5. At 0.07, as released, the constant self-term dominates, and the descent
    stalls before the simplex while its loss looks converged.

    Returns:
        ``(classes, dim)`` float64 unit rows, without gradient.
    """
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, dim, generator=generator, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([centers], lr)
    for _ in range(steps):
        optimizer.zero_grad()
        uniformity(centers, temperature).backward()
        optimizer.step()
    return F.normalize(centers.detach(), dim=1)


def assign_centers(
    centers: Tensor, means: Tensor, *, cost: Literal["cosine", "l2"] = "cosine", observed: Tensor | None = None
) -> Tensor:
    r"""Returns the one-to-one assignment of classes to centers that brings class means nearest to their centers.

    Args:
        centers: ``(classes, d)``.
        means: Unit class means ``(classes, d)``.
        cost: ``cosine`` maximizes the sum of cosines, which minimizes squared distances; ``l2`` minimizes the sum of
            distances, as printed.
        observed: ``(classes,)`` bool; classes without a mean get the remaining centers.

    Returns:
        For each class the number of its center ``(classes,)`` int64, a permutation, on the CPU.

    Reference:
        You et al., ACTION++, MICCAI 2023, adaptive allocation; Kuhn's Hungarian algorithm.

    Example:
        >>> centers = simplex_centers(3, 8)
        >>> assign_centers(centers, centers[[2, 0, 1]]).tolist()
        [2, 0, 1]
    """
    from scipy.optimize import linear_sum_assignment

    centers, means = centers.detach().cpu().double(), means.detach().cpu().double()
    price = -means @ centers.T if cost == "cosine" else torch.cdist(means, centers)
    if observed is not None:
        price = torch.where(observed.cpu()[:, None], price, 0.0)
    return torch.from_numpy(np.asarray(linear_sum_assignment(price.numpy())[1])).long()


def update_means(
    means: Tensor, observed: Tensor, features: Tensor, label: Tensor, rate: float
) -> tuple[Tensor, Tensor]:
    r"""Updates running unit means of classes: :math:`(1-\eta)\,\phi_c + \eta\,\phi_c(\mathcal B)`, normalized.

    A class that the batch lacks keeps its mean; one observed for the first time starts at its batch mean.

    Args:
        means: ``(classes, d)`` unit rows.
        observed: ``(classes,)`` bool, classes that have a mean.
        features: ``(n, d)``, normalized here; no gradient flows.
        label: ``(n,)`` int64; negative labels are left out.
        rate: :math:`\eta` in [0, 1].

    Returns:
        Means and observed classes after the batch.

    Reference:
        You et al., ACTION++, MICCAI 2023.
    """
    member = (label == torch.arange(len(means), device=label.device)[:, None]).to(means.dtype)
    with torch.autocast(features.device.type, enabled=False):
        batch = F.normalize(member @ F.normalize(features.detach().to(means.dtype), dim=1), dim=1)
    in_batch = member.any(1)
    updated = torch.where(observed[:, None], F.normalize((1 - rate) * means + rate * batch, dim=1), batch)
    return torch.where(in_batch[:, None], updated, means), observed | in_batch


def center_contrast(
    anchors: Tensor,
    anchor_label: Tensor,
    keys: Tensor,
    key_label: Tensor,
    centers: Tensor,
    assignment: Tensor,
    temperature: float,
    *,
    center_weight: float = 0.2,
    norm: Literal["mean", "sum", "joint"] = "mean",
    centers_in_denominator: bool = True,
    exclude_self: bool = False,
) -> dict[str, Tensor]:
    r"""Returns the supervised contrast of labeled pixels to keys of their class and to the center assigned to it.

    .. math::

        \frac1n\sum_i\Big[-\frac1{|P_i|}\sum_{p\in P_i}\log\frac{e^{\phi_i\cdot\phi_p/\tau}}{Z_i}
        -\lambda_a\log\frac{e^{\phi_i\cdot\nu_i/\tau}}{Z_i}\Big],\quad
        Z_i=\sum_{j}e^{\phi_i\cdot\phi_j/\tau}+\sum_{c}e^{\phi_i\cdot\psi_c/\tau}

    With ``norm="sum"`` the class part is summed over positives, as printed. With ``"joint"`` both parts are divided by
    the number of all positives, center included, as released; among thousands of keys the center then hardly counts.
    Gradient flows through the anchors only; in float32 also under autocast.

    Args:
        anchors: ``(n, d)``, normalized here.
        anchor_label: ``(n,)`` int64; a negative label leaves the anchor out.
        keys: ``(m, d)``, normalized here; detached.
        key_label: ``(m,)`` int64; keys of negative label are left out.
        centers: Unit rows ``(classes, d)``.
        assignment: Number of each class's center, ``(classes,)`` int64.
        temperature: :math:`\tau`, above 0.
        center_weight: :math:`\lambda_a`.
        norm: Normalization of positives and center.
        centers_in_denominator: Whether :math:`Z_i` includes all centers.
        exclude_self: Whether to leave out the pair of anchor i and key i, if they are the same feature.

    Returns:
        ``class`` and ``center``, scalars in nats; the loss is their sum (the weight is in ``center``).

    Reference:
        You et al., ACTION++, MICCAI 2023, adaptive anatomical contrast.
    """
    dtype = torch.promote_types(anchors.dtype, torch.float32)
    with torch.autocast(anchors.device.type, enabled=False):
        phi, key = (F.normalize(x.to(dtype), dim=1) for x in (anchors, keys.detach()))
        out = torch.finfo(dtype).min / 4  # finite, so that gradients stay so where every key is left out
        to_keys = (phi @ key.T / temperature).masked_fill(key_label < 0, out)
        to_centers = phi @ centers.detach().to(dtype).T / temperature
        positive = (anchor_label[:, None] == key_label) & (anchor_label >= 0)[:, None]
        if exclude_self:
            self_pair = torch.eye(len(phi), len(key), dtype=torch.bool, device=phi.device)
            to_keys, positive = to_keys.masked_fill(self_pair, out), positive & ~self_pair
        parts = [to_keys, to_centers] if centers_in_denominator else [to_keys]
        log_z = torch.cat(parts, 1).logsumexp(1)
        count = positive.sum(1)
        to_class = torch.where(positive, log_z[:, None] - to_keys, 0.0).sum(1)
        target = assignment[anchor_label.clamp_min(0)][:, None]
        to_center = log_z - to_centers.gather(1, target)[:, 0]
        if norm == "mean":
            to_class = to_class / count.clamp_min(1)
        elif norm == "joint":
            to_class, to_center = to_class / (count + 1), to_center / (count + 1)
        used = (anchor_label >= 0).to(dtype)
        n = used.sum().clamp_min(1)
        return {"class": (used * to_class).sum() / n, "center": center_weight * (used * to_center).sum() / n}


def sampled_center_contrast(
    features: Tensor,
    anchors: Tensor,
    positives: Tensor,
    negatives: Tensor,
    centers: Tensor,
    assignment: Tensor,
    present: Tensor,
    temperature: float,
    *,
    keys: Tensor | None = None,
    key_count: Tensor | None = None,
    center_weight: float = 0.2,
    norm: Literal["mean", "sum", "joint"] = "mean",
    centers_in_denominator: bool = True,
) -> dict[str, Tensor]:
    r"""Estimates :func:`center_contrast` from a fixed number of sampled keys per class, at a cost linear in classes.

    Anchors of class *c* share *p* keys sampled from its :math:`n_c` and *m* keys sampled from the :math:`N_c` of all
    other classes that are present:

    .. math::

        \hat Z_i=\frac{n_c}{p}\sum_{j\in\text{pos}}e^{\phi_i\cdot\phi_j/\tau}
        +\frac{N_c}{m}\sum_{j\in\text{neg}}e^{\phi_i\cdot\phi_j/\tau}+\sum_{k}e^{\phi_i\cdot\psi_k/\tau}

    With uniform samples :math:`\hat Z_i` and the mean over positives are unbiased; :math:`\log\hat Z_i` lies below
    :math:`\log Z_i` by :math:`\mathrm{Var}(\hat Z_i)/2Z_i^2` on average, which falls as :math:`1/p` and :math:`1/m`.
    With every key listed once the two functions are equal. Exactly 0 where fewer than two classes are present.
    Gradient flows through the anchors only; in float32 also under autocast.

    Args:
        features: ``(n, d)``, normalized here.
        anchors: Row numbers of ``features``, ``(classes, q)``; ignored in a class that is not present.
        positives: Row numbers of ``keys``, ``(classes, p)``, sampled uniformly from the keys of each class.
        negatives: Row numbers of ``keys``, ``(classes, m)``, sampled uniformly from those of all other classes.
        centers: Unit rows ``(classes, d)``.
        assignment: Number of each class's center, ``(classes,)`` int64.
        present: ``(classes,)`` bool, classes with anchors and keys.
        temperature: :math:`\tau`, above 0.
        keys: ``(k, d)``, such as a teacher's pixels or a queue; the features themselves where None. Detached.
        key_count: :math:`n_c`, number of keys per class in the full form, ``(classes,)``; *p* where None.
        center_weight: :math:`\lambda_a`.
        norm: Normalization of positives and center, as in :func:`center_contrast`.
        centers_in_denominator: Whether :math:`Z_i` includes all centers.

    Returns:
        ``class`` and ``center``, scalars in nats; the loss is their sum (the weight is in ``center``).

    Reference:
        You et al., ACTION++, MICCAI 2023; few positives per class as in Kang et al., Exploring balanced feature spaces,
        ICLR 2021.
    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        phi = F.normalize(features[anchors].to(dtype), dim=2)  # (classes, q, d)
        rows, unit_centers = (features if keys is None else keys).detach(), centers.detach().to(dtype)
        sampled = [F.normalize(rows[numbers].to(dtype), dim=2) for numbers in (positives, negatives)]
        to_positives, to_negatives = (torch.einsum("cqd,ckd->cqk", phi, k) / temperature for k in sampled)
        to_centers = phi @ unit_centers.T / temperature  # (classes, q, classes)
        every = torch.full_like(present, positives.shape[1], dtype=dtype) if key_count is None else key_count.to(dtype)
        count = torch.where(present, every, 0)
        others = (count.sum() - count) / max(negatives.shape[1], 1)  # keys that each negative stands for
        parts = [
            to_positives + (count / positives.shape[1]).clamp_min(1e-30).log()[:, None, None],
            to_negatives + others.clamp_min(1e-30).log()[:, None, None],
        ]
        log_z = torch.cat([*parts, to_centers] if centers_in_denominator else parts, 2).logsumexp(2)
        to_class = (log_z - to_positives.mean(2)).mean(1)
        target = assignment[:, None, None].expand(-1, phi.shape[1], 1)
        to_center = (log_z - to_centers.gather(2, target)[..., 0]).mean(1)
        if norm != "mean":
            to_class = to_class * count
        if norm == "joint":
            to_class, to_center = to_class / (count + 1), to_center / (count + 1)
        classes = present.sum()
        used = present & (classes > 1)
        pull, center = (torch.where(used, loss, 0.0).sum() / classes.clamp_min(1) for loss in (to_class, to_center))
        return {"class": pull, "center": center_weight * center}
