r"""Stochastic experts: one expert per decoder scale, fused with weights for each pixel.

An expert is a small network on the pixels of one scale of the decoder. A gate reads all scales and gives each pixel
weights that sum to 1; the fused feature is the weighted sum, through a small head. During training some experts are
dropped at random, so that the fusion does not rely on one of them:

.. math:: F = \psi\Big(\sum_n m_n\, W_n \odot \mathrm{Up}(\phi_n(f_n))\Big), \qquad \sum_n W_n = 1,\ m_n \in \{0, 1\}

The fused map is never built: experts stay on the grids of their scales, weights on the gate's, and sums and head are
computed only at requested points. At pixel centers this equals reading the map there, because head and sum act on each
pixel alone. Between centers the head sees interpolated inputs, where the released code interpolates outputs.
:func:`fused_map` builds the map in chunks.

Gates are soft and there is no balance loss, as in the paper's abstract and the released code. :class:`Router`, a noisy
choice of the k best experts with balance losses, is *not part of the paper*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.nn.heads import CONV, MODE
from anatolab.nn.rendering import Padding, pixel_centers, point_sample
from anatolab.types import InputError

NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
Strategy = Literal["dense", "uniform_count", "bernoulli"]
Rescale = Literal["none", "renorm", "inverted"]


@dataclass(frozen=True)
class Fused:
    """The dense intermediate results from which fused features are sampled."""

    maps: Sequence[Tensor]  # of each expert, (b, d, *s / stride), with gradient
    gate: Tensor | None = None  # (b, experts, *g) in [0, 1], sums to 1 over experts; None without a gate
    weights: Tensor | None = None  # (b, experts, *g), the gate of the experts that are kept
    keep: Tensor | None = None  # (experts,), 1 where an expert is kept
    balance: Tensor | None = None  # scalar, losses of a router


class ExpertMask(nn.Module):
    """Samples which experts are kept, for all pixels and images of a call; at least one is kept.

    It samples how many are dropped, then which, without host synchronization.

    Args:
        experts: N.
        strategy: ``uniform_count`` drops 0 to ``most`` of them with equal probability, as released; ``bernoulli`` drops
            each with probability ``drop`` and samples again if none is left; ``dense`` drops none.
        most: K, largest number dropped; all but one where None.
        drop: Probability of ``bernoulli``.

    Raises:
        InputError: The settings could drop all experts, or are unknown.

    Example:
        >>> ExpertMask(5).expected
        0.6
    """

    steps: Tensor

    def __init__(
        self, experts: int, strategy: Strategy = "uniform_count", *, most: int | None = None, drop: float = 0.3
    ) -> None:
        super().__init__()
        most = experts - 1 if most is None else most
        if not 0 <= most < experts or not 0 <= drop < 1 or strategy not in ("dense", "uniform_count", "bernoulli"):
            raise InputError(
                f"experts: cannot drop by {strategy!r} up to {most} of {experts} with probability {drop}; "
                "use 'dense', 'uniform_count' or 'bernoulli', and keep at least one."
            )
        counts = range(experts)
        odds = {
            "dense": [float(n == 0) for n in counts],
            "uniform_count": [float(n <= most) for n in counts],
            "bernoulli": [math.comb(experts, n) * drop**n * (1 - drop) ** (experts - n) for n in counts],
        }[strategy]
        self.experts, total = experts, sum(odds)
        self.expected = 1 - sum(n * o for n, o in zip(counts, odds, strict=True)) / (total * experts)  # share kept
        steps = torch.tensor(odds, dtype=torch.float64).cumsum(0)[:-1] / total  # the last number needs no step
        self.register_buffer("steps", steps.float(), persistent=False)

    def forward(self, generator: torch.Generator | None = None) -> Tensor:
        """Samples ``(experts,)`` of zeros and ones, on this module's device, without gradient."""
        device = self.steps.device
        dropped = (torch.rand(1, device=device, generator=generator) >= self.steps).sum()
        rank = torch.rand(self.experts, device=device, generator=generator).argsort().argsort()
        return (rank >= dropped).float()


class Router(nn.Module):
    r"""A noisy choice of the k best experts for every pixel, with losses that balance them; not part of the paper.

    .. math::

        G = \mathrm{softmax}(\mathrm{TopK}(H, k)),\quad H = xW_g + \epsilon\,\mathrm{softplus}(xW_{noise}),\quad
        \epsilon \sim N(0, 1)

    The losses are :math:`\mathrm{CV}^2` of importance, :math:`\sum_x G(x)`, and of load, the expected number of pixels
    that choose an expert. There is noise in training only.

    Args:
        channels: Channels of the input.
        experts: N.
        k: Experts per pixel, at most N.
        dims: 2 or 3.

    Reference:
        Shazeer et al., Outrageously large neural networks: the sparsely-gated mixture-of-experts layer, ICLR 2017,
        equations 3 to 11.
    """

    def __init__(self, channels: int, experts: int, k: int, dims: int) -> None:
        super().__init__()
        if not 1 <= k <= experts:
            raise InputError(f"experts: a router of {experts} experts cannot choose {k}; use 1 to {experts}.")
        self.k = k
        self.choose = CONV[dims](channels, experts, 1, bias=False)
        self.noise = CONV[dims](channels, experts, 1, bias=False)
        nn.init.zeros_(self.choose.weight)
        nn.init.zeros_(self.noise.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``(b, channels, *g)`` to gates ``(b, experts, *g)``, k of them nonzero, and the scalar balance loss."""
        clean = self.choose(x).float()
        scale = F.softplus(self.noise(x).float()) + 1e-2
        noisy = clean + torch.randn_like(clean) * scale if self.training else clean
        best = noisy.topk(min(self.k + 1, noisy.shape[1]), 1)
        chosen = torch.full_like(noisy, -math.inf).scatter(1, best.indices[:, : self.k], best.values[:, : self.k])
        gate = chosen.softmax(1)
        importance = squared_variation(gate.transpose(0, 1).flatten(1).sum(1))
        if not self.training or self.k == noisy.shape[1]:
            return gate, importance
        # An expert is chosen if it exceeds the k-th best of the others: the (k+1)-th of all for chosen experts.
        bar = torch.where(
            noisy >= best.values[:, self.k - 1, None], best.values[:, self.k, None], best.values[:, self.k - 1, None]
        )
        load = torch.special.ndtr((clean - bar) / scale).transpose(0, 1).flatten(1).sum(1)
        return gate, importance + squared_variation(load)


def squared_variation(amounts: Tensor) -> Tensor:
    """Returns the squared coefficient of variation of ``(n,)`` amounts: 0 where all are equal, n - 1 where one has all.

    Example:
        >>> round(float(squared_variation(torch.tensor([0.0, 0.0, 7.0, 0.0, 0.0]))), 5)
        4.0
    """
    return amounts.var(correction=0) / amounts.mean().square().clamp_min(1e-10)


class Experts(nn.Module):
    """Fuses decoder maps by experts and a gate; see the head of this file.

    Args:
        channels: Channels of each map, coarse to fine.
        strides: Strides of each map.
        dim: d, width of an expert.
        out: Channels of the fused features, and of the gate's hidden layer.
        hidden: Width of the head after the sum; ``dim`` where None.
        dims: 2 or 3.
        gate_stride: Stride of the gate's grid; 1 as released. Finer maps are averaged to it, and weights interpolated.
        mask: Which experts are kept in training.
        rescale: How kept weights are rescaled: ``none``, not at all, as released, so that sums are larger in
            evaluation; ``renorm``, to a sum of 1; ``inverted``, by the inverse of the mean share kept.
        router: Experts per pixel of a :class:`Router` in place of the gate; 0 for the gate, as in the paper.
        dropout: Dropout of whole channels, before the last layer.
        padding: As in :func:`anatolab.nn.rendering.point_sample`.

    Reference:
        You et al., MORSE, MICCAI 2023, stochastic mixture of experts.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        dim: int = 256,
        out: int = 256,
        *,
        hidden: int | None = None,
        dims: int = 2,
        gate_stride: int = 1,
        mask: ExpertMask | None = None,
        rescale: Rescale = "none",
        router: int = 0,
        dropout: float = 0.1,
        padding: Padding = "border",
    ) -> None:
        super().__init__()
        if rescale not in ("none", "renorm", "inverted"):
            raise InputError(f"experts: rescale must be 'none', 'renorm' or 'inverted', not {rescale!r}.")
        n, hidden = len(channels), hidden or dim
        self.strides, self.gate_stride, self.rescale, self.padding = tuple(strides), gate_stride, rescale, padding
        self.mask = mask or ExpertMask(n)
        conv = CONV[dims]
        self.experts = nn.ModuleList(
            nn.Sequential(conv(c, dim, 1), nn.ReLU(inplace=True), conv(dim, dim, 1), nn.ReLU(inplace=True))
            for c in channels
        )

        def layer(a: int, b: int) -> list[nn.Module]:
            return [CONV[dims](a, b, 3, padding=1, bias=False), NORM[dims](b), nn.ReLU(inplace=True)]

        self.gate: nn.Module = (
            Router(n * dim, n, router, dims) if router else nn.Sequential(*layer(n * dim, out), *layer(out, n))
        )
        self.head = nn.Sequential(
            nn.Conv1d(dim, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv1d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Dropout1d(dropout),
            nn.Conv1d(hidden, out, 1),
        )

    def forward(self, maps: Sequence[Tensor], keep: Tensor | None = None) -> Fused:
        """Computes experts and gate, each on its grid.

        Args:
            maps: ``(b, channels[i], *s / strides[i])``, coarse to fine, with gradient.
            keep: ``(experts,)``, 1 for an expert that is kept; None: sampled in training, all ones in evaluation.
        """
        expert_maps = [expert(map_) for expert, map_ in zip(self.experts, maps, strict=True)]
        grid = [max(1, side * self.strides[-1] // self.gate_stride) for side in maps[-1].shape[2:]]
        gate_input = torch.cat([_resize(map_, grid) for map_ in expert_maps], 1)
        if isinstance(self.gate, Router):
            gate, balance = self.gate(gate_input)
        else:
            gate, balance = self.gate(gate_input).float().softmax(1), None
        if keep is None:
            keep = self.mask() if self.training else gate.new_ones(len(expert_maps))
        weights = gate * keep.reshape(-1, *[1] * (gate.ndim - 2))
        if self.rescale == "renorm":
            weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-8)
        elif self.rescale == "inverted" and self.training:
            weights = weights / self.mask.expected
        return Fused(expert_maps, gate, weights, keep, balance)

    def sample(self, fused: Fused, points: Tensor) -> Tensor:
        """Returns fused features ``(b, out, p)`` at points ``(b, p, d)`` in [0, 1], with gradient."""
        assert fused.weights is not None
        weights = point_sample(fused.weights, points, self.padding)
        mixed = torch.zeros((), device=points.device)
        for n, map_ in enumerate(fused.maps):
            mixed = torch.addcmul(mixed, point_sample(map_, points, self.padding), weights[:, n, None])
        return self.head(mixed)


class Concatenation(nn.Module):
    """Fuses decoder maps without experts: one linear map of all of them, concatenated.

    The released baseline fuses scales by residual 1 x 1 convolutions and resizes with aligned corners, which shifts
    maps by half a pixel. All its steps are linear per pixel, so together they are one linear map, as here.

    Args:
        channels: Channels of each map, coarse to fine.
        out: Channels of the fused features.
        padding: As in :func:`anatolab.nn.rendering.point_sample`.
    """

    def __init__(self, channels: Sequence[int], out: int = 256, *, padding: Padding = "border") -> None:
        super().__init__()
        self.padding: Padding = padding
        self.linear = nn.Conv1d(sum(channels), out, 1, bias=False)

    def forward(self, maps: Sequence[Tensor]) -> Fused:
        """Returns the maps unchanged."""
        return Fused(maps)

    def sample(self, fused: Fused, points: Tensor) -> Tensor:
        """Returns fused features ``(b, out, p)`` at points ``(b, p, d)`` in [0, 1], with gradient."""
        return self.linear(torch.cat([point_sample(map_, points, self.padding) for map_ in fused.maps], 1))


def fused_map(fusion: Experts | Concatenation, fused: Fused, sides: Sequence[int], *, chunk: int = 1 << 14) -> Tensor:
    """Returns the fused features of all pixels, ``(b, out, *sides)``, ``chunk`` pixels at a time, in evaluation mode.

    Memory holds the result and ``chunk`` points; the released code holds all experts at full size.
    """
    b, pixels = len(fused.maps[0]), math.prod(sides)
    parts = []
    for start in range(0, pixels, chunk):
        index = torch.arange(start, min(start + chunk, pixels), device=fused.maps[0].device)
        parts.append(fusion.sample(fused, pixel_centers(index.expand(b, -1), sides)))
    return torch.cat(parts, 2).unflatten(2, tuple(sides))


def _resize(map_: Tensor, grid: Sequence[int]) -> Tensor:
    """Returns a map on another grid: means of its pixels on a coarser one, linear between them on a finer one."""
    if list(map_.shape[2:]) == list(grid):
        return map_
    if map_.shape[-1] > grid[-1]:
        factor = map_.shape[-1] // grid[-1]
        if list(map_.shape[2:]) == [factor * side for side in grid]:
            return F.avg_pool2d(map_, factor) if map_.ndim == 4 else F.avg_pool3d(map_, factor)
        return F.interpolate(map_, grid, mode="area")
    return F.interpolate(map_, grid, mode=MODE[map_.ndim - 2], align_corners=False)
