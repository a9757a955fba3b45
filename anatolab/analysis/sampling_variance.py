"""The exact variance of a mean over drawn pixels, by enumeration of slices and cells instead of by chance."""

from __future__ import annotations

import torch
from torch import Tensor

from anatolab.sampling import PixelSampler, Strata


def exact_variance(field: Tensor, strata: Strata, num: int, kind: PixelSampler) -> Tensor:
    r"""Returns the variance per class of a field's mean over ``num`` pixels of :func:`anatolab.sampling.sample_pixels`.

    With the share :math:`p_{im}` of cell *m* in slice *i*, the moments of its pixels, and its mirror pairs *(h, h')*:

    .. math::

        \mathrm{Var}_{NS}=\frac{\sigma^2}{n},\qquad
        \mathrm{Var}_{SG}=\frac1{n^2}\sum_{i=1}^{n}\mathrm{Var}_{p_i}(h),\qquad
        \mathrm{Var}_{SAG}=\frac1{n^2}\sum_{i=1}^{n/2}\mathrm{Var}_{p_i}(h+h')

    Where every cell's share is a whole number of draws (of pairs), these are :math:`\frac1n\sum_m w_m\sigma_m^2` and
    :math:`\frac1n\sum_m w_m\sigma_m^2(1+\rho_m)` with the correlation :math:`\rho_m` of a pair.

    Args:
        field: One value, or one vector, per pixel: ``(n,)``, or ``(n, k)`` such as a gradient; without gradient.
        strata: The candidates.
        num: Draws; even for antithetic ones.
        kind: ``naive``, ``stratified`` or ``antithetic``.

    Returns:
        ``(classes,)`` float64; of a vector the trace of the covariance. ``nan`` in a class without a candidate.

    Reference:
        You et al., ARCO, NeurIPS 2023, Lemma 3.1 and Theorem 3.2, corrected: weights of the cells, and 1/n.
    """
    h = field.detach().double().reshape(len(field), -1)[strata.order]
    variances = []
    for start, count in zip(strata.start.tolist(), strata.count.tolist(), strict=True):
        cells = [h[a : a + k] for a, k in zip(start, count, strict=True) if k]
        if not cells:
            variances.append(torch.tensor(torch.nan, dtype=torch.float64))
            continue
        if kind == "naive":
            variances.append(torch.cat(cells).var(0, correction=0).sum() / num)
            continue
        if kind == "antithetic":
            cells = [cell + cell.flip(0) for cell in cells]  # of each pixel and its mirror
        slices = num // 2 if kind == "antithetic" else num
        edges = torch.tensor([0, *[len(cell) for cell in cells]], dtype=torch.float64).cumsum(0) * slices
        ends = torch.arange(slices + 1, dtype=torch.float64) * edges[-1] / slices
        low, high = torch.maximum(ends[:-1, None], edges[:-1]), torch.minimum(ends[1:, None], edges[1:])
        share = (high - low).clamp_min(0) * slices / edges[-1]  # (slices, cells), rows of sum 1
        mean = torch.stack([cell.mean(0) for cell in cells])
        square = torch.stack([cell.square().mean(0) for cell in cells])
        variances.append((share @ square - (share @ mean).square()).sum() / num**2)
    return torch.stack(variances)
