"""Which pixels a contrastive loss looks at: anchors that are still hard, negatives from classes that look alike.

Everything is drawn on the device, without a loop over pixels or classes and without asking the device how many pixels
a class has: pixels are sorted by class once, and a draw is an offset into its class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

PixelSampler = Literal["naive"]


@dataclass(frozen=True)
class PixelPool:
    """The valid pixels of a batch, sorted by class and within a class hard ones first.

    Pixel numbers count through the flattened batch. All tensors are on the device of the labels.
    """

    order: Tensor  # (n,) int64 pixel numbers; those of pixels that are not valid come last
    start: Tensor  # (classes,) int64, where a class begins in ``order``
    count: Tensor  # (classes,) int64, its valid pixels
    hard: Tensor  # (classes,) int64, how many of them are hard: the first ones

    @property
    def present(self) -> Tensor:
        """Whether a class has a valid pixel, ``(classes,)`` bool."""
        return self.count > 0

    @property
    def queried(self) -> Tensor:
        """Whether a class has a hard pixel, ``(classes,)`` bool."""
        return self.hard > 0


def flatten_pixels(representation: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
    """The pixels of a representation as rows, and what maps of the image's size say at each of them.

    Args:
        representation: ``(b, d, *s)``, with gradient, on a grid that may be coarser than the image's.
        maps: ``(b, *t)``, such as labels or confidences; read at the nearest pixel.

    Returns:
        Features ``(n, d)`` and each map as ``(n,)``, n = b times the pixels of the representation's grid.
    """
    grid = representation.shape[2:]
    found = [representation.movedim(1, -1).flatten(0, -2)]
    for map_ in maps:
        for axis, side in enumerate(grid, 1):
            step = map_.shape[axis] / side
            at = ((torch.arange(side, device=map_.device) + 0.5) * step).long()
            map_ = map_.index_select(axis, at)
        found.append(map_.flatten())
    return tuple(found)


@torch.no_grad()
def own_probability(logits: Tensor, label: Tensor) -> Tensor:
    """How probable each pixel's own class is to a network; without gradient.

    Args:
        logits: ``(b, classes, *s)``.
        label: ``(b, *s)`` int64; where it is negative, the result means nothing.

    Returns:
        ``(b, *s)`` in [0, 1].
    """
    return torch.softmax(logits.float(), 1).gather(1, label.clamp_min(0)[:, None])[:, 0]


def pool_pixels(label: Tensor, classes: int, hard: Tensor | None = None) -> PixelPool:
    """Sorts the valid pixels of a batch by class.

    Args:
        label: ``(n,)`` int64 class numbers; negative where a pixel is neither anchor nor key.
        classes: Number of classes, background included.
        hard: ``(n,)`` bool, pixels that may be anchors; all valid ones where None.

    Example:
        >>> pool = pool_pixels(torch.tensor([1, -1, 0, 1]), 3, torch.tensor([False, True, True, True]))
        >>> pool.order.tolist(), pool.count.tolist(), pool.hard.tolist()
        ([2, 3, 0, 1], [1, 2, 0], [1, 1, 0])
    """
    easy = 0 if hard is None else (~hard).to(torch.int16)
    key = torch.where(label >= 0, 2 * label.to(torch.int16) + easy, 2 * classes)
    key, order = key.to(torch.int16).sort(stable=True)
    bounds = torch.searchsorted(key, torch.arange(2 * classes + 1, device=key.device, dtype=key.dtype))
    start, middle, end = bounds[:-1:2], bounds[1::2], bounds[2::2]
    return PixelPool(order, start, end - start, middle - start)


def draw_anchors(pool: PixelPool, num: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws ``num`` hard pixels of each class, uniformly and with replacement.

    Returns:
        Pixel numbers ``(classes, num)``; in a class without a hard pixel they mean nothing (see ``pool.queried``).
    """
    chance = torch.rand(len(pool.count), num, device=pool.order.device, generator=generator)
    return _at(pool, pool.start[:, None], pool.hard[:, None], chance)


def negative_class_odds(prototypes: Tensor, present: Tensor, temperature: float) -> Tensor:
    r"""How likely anchors of class *c* draw their negatives from class *v*: the more alike, the likelier.

    .. math:: p(v \mid c) \propto \exp(\cos(\bar r_c, \bar r_v)/\tau), \quad v \ne c \text{ and } v \text{ present}

    Args:
        prototypes: Mean representation of each class, ``(classes, d)``; no gradient flows.
        present: ``(classes,)`` bool.
        temperature: Above 0.

    Returns:
        ``(classes, classes)``, rows of sum 1 with 0 on the diagonal; a row of zeros where no other class is present.

    Reference:
        Active negative sampling of Liu et al., ReCo, ICLR 2022, as ACTION uses it.
    """
    unit = F.normalize(prototypes.detach().float(), dim=1)
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    odds = torch.exp((unit @ unit.T - 1) / temperature).masked_fill(own | ~present, 0.0)
    return odds / odds.sum(1, keepdim=True).clamp_min(torch.finfo(odds.dtype).tiny)


def draw_negatives(pool: PixelPool, odds: Tensor, num: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws ``num`` keys for the anchors of each class: first a class by its odds, then a valid pixel of it uniformly.

    Args:
        pool: Sorted pixels.
        odds: ``(classes, classes)`` of :func:`negative_class_odds`.
        num: Keys a class; all anchors of the class are compared with the same ones.
        generator: Of the pool's device; torch's global one where None.

    Returns:
        Pixel numbers ``(classes, num)``; in a row of ``odds`` that is all zero they mean nothing.
    """
    chance = torch.rand(2, len(odds), num, device=pool.order.device, generator=generator)
    other = torch.searchsorted(odds.cumsum(1), chance[0], right=True).clamp_max(len(odds) - 1)
    # Rounding may leave the last step of the sum under a draw of almost 1: take the last class with any odds then.
    last = (len(odds) - 1 - (odds > 0).int().flip(1).argmax(1))[:, None]
    other = torch.minimum(other, last)
    return _at(pool, pool.start[other], pool.count[other], chance[1])


def _at(pool: PixelPool, start: Tensor, count: Tensor, chance: Tensor) -> Tensor:
    """The pixel at a share in [0, 1) of a run of ``order``; float32 times a count below 2^24 rounds to at most it."""
    offset = torch.minimum((chance * count).long(), (count - 1).clamp_min(0))
    return pool.order[(start + offset).clamp_max(len(pool.order) - 1)]
