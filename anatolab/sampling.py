"""Samples pixels for contrastive losses: hard anchors, and negatives from classes that look alike.

Everything is sampled on the device, without a loop over pixels or classes and without host synchronization: pixels are
sorted by class once, and a sample is an offset into its class.

ARCO samples from cells of each class's region, so that a few hundred pixels represent all of them. The allocation is
fractional, which the paper leaves open: sample i of n takes its cell at a uniform point of the i-th of n equal slices
of the class's pixels, cell after cell, and then any pixel of that cell. If the shares of the cells are whole numbers of
samples, this is proportional allocation. Otherwise every pixel still has the same probability, so a plain mean is
unbiased on any mask, without weights, without a minimum per cell and with any number of cells. Its variance is at most
that of naive samples *for every field*, because it is the mean of the slices' variances. Rounding with at least one
sample per cell and correcting weights is unbiased, too, and has even less variance on smooth fields. With many cells,
however, it has more variance than naive sampling on some fields, by its largest weight (2.3 with 40 samples from 40
cells of a ring).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

PixelSampler = Literal["naive", "stratified", "antithetic", "released"]


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
    """Returns the pixels of a representation as rows, and the values of maps of the image's size at each of them.

    Args:
        representation: ``(b, d, *s)``, with gradient, on a grid that may be coarser than the image's.
        maps: ``(b, *t)``, such as labels or confidences; read at the nearest pixel.

    Returns:
        Features ``(n, d)`` and each map as ``(n,)``, n = b times the pixels of the representation's grid.
    """
    grid = representation.shape[2:]
    columns = [representation.movedim(1, -1).flatten(0, -2)]
    for map_ in maps:
        for axis, side in enumerate(grid, 1):
            step = map_.shape[axis] / side
            nearest = ((torch.arange(side, device=map_.device) + 0.5) * step).long()
            map_ = map_.index_select(axis, nearest)
        columns.append(map_.flatten())
    return tuple(columns)


@torch.no_grad()
def label_probability(logits: Tensor, label: Tensor) -> Tensor:
    """Returns a network's probability of each pixel's label, without gradient.

    Args:
        logits: ``(b, classes, *s)``.
        label: ``(b, *s)`` int64; where it is negative, the result is undefined.

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


def sample_anchors(pool: PixelPool, num: int, generator: torch.Generator | None = None) -> Tensor:
    """Samples ``num`` hard pixels of each class, uniformly and with replacement.

    Returns:
        Pixel numbers ``(classes, num)``; undefined in a class without a hard pixel (see ``pool.queried``).
    """
    chance = torch.rand(len(pool.count), num, device=pool.order.device, generator=generator)
    return _pixel_at_share(pool, pool.start[:, None], pool.hard[:, None], chance)


def negative_class_odds(prototypes: Tensor, present: Tensor, temperature: float) -> Tensor:
    r"""Returns the probability that negatives of class *c* come from class *v*, larger for similar classes.

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
    diagonal = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    with torch.autocast(unit.device.type, enabled=False):
        cosine = unit @ unit.T
    odds = torch.exp((cosine - 1) / temperature).masked_fill(diagonal | ~present, 0.0)
    return odds / odds.sum(1, keepdim=True).clamp_min(torch.finfo(odds.dtype).tiny)


def sample_negatives(pool: PixelPool, odds: Tensor, num: int, generator: torch.Generator | None = None) -> Tensor:
    """Samples ``num`` keys for the anchors of each class: a class by its odds, then a valid pixel of it uniformly.

    Args:
        pool: Sorted pixels.
        odds: ``(classes, classes)`` of :func:`negative_class_odds`.
        num: Keys per class; all anchors of the class are compared with the same ones.
        generator: Generator of the pool's device; torch's global one where None.

    Returns:
        Pixel numbers ``(classes, num)``; undefined for a row of ``odds`` that is all zero.
    """
    chance = torch.rand(2, len(odds), num, device=pool.order.device, generator=generator)
    other = torch.searchsorted(odds.cumsum(1), chance[0], right=True).clamp_max(len(odds) - 1)
    # By rounding the cumulated odds may end below a sample of almost 1: take the last class with any odds then.
    last = (len(odds) - 1 - (odds > 0).int().flip(1).argmax(1))[:, None]
    other = torch.minimum(other, last)
    return _pixel_at_share(pool, pool.start[other], pool.count[other], chance[1])


@dataclass(frozen=True)
class Strata:
    """The candidate pixels of a batch by class, image and cell, from which strata are sampled."""

    order: Tensor  # (n,) int64 pixel numbers by class, image, cell and raster; pixels that are no candidates come last
    start: Tensor  # (classes, cells) int64, where a cell begins in ``order``
    count: Tensor  # (classes, cells) int64, its pixels


def bin_pixels(label: Tensor, classes: int, hard: Tensor | None = None, *, grid: int = 4) -> Strata:
    """Divides the region of each class in each image into cells, ``grid`` along each side of its bounding box.

    Args:
        label: ``(b, *s)`` int64 class numbers, in 2-D or 3-D; negative where a pixel is no candidate.
        classes: Number of classes, background included.
        hard: ``(b, *s)`` bool, pixels that may be drawn; all with a class where None.
        grid: Cells along each side; 1 makes each image one cell.

    Returns:
        Strata of ``b * grid ** d`` cells per class, empty ones included.

    Reference:
        You et al., ARCO, NeurIPS 2023, section 3: groups of a stratified group sampler.
    """
    b, sides = len(label), label.shape[1:]
    valid = label >= 0 if hard is None else (label >= 0) & hard
    images = torch.arange(b, device=label.device).reshape(-1, *[1] * len(sides))
    regions = classes * b
    region = torch.where(valid, label * b + images, regions)
    each = grid ** len(sides)  # cells per region
    small = torch.int16 if (regions + 1) * each < 2**15 else torch.int32  # sorting 16 bits takes a third of the time
    key = (region * each).to(small)
    for axis, side in enumerate(sides):  # the cell along an axis is read from a table of (region, position)
        position = torch.arange(side, device=label.device)
        entry = (region * side + position.reshape(-1, *[1] * (len(sides) - 1 - axis))).flatten()
        occupied = torch.zeros((regions + 1) * side, dtype=torch.int8, device=label.device).index_fill_(0, entry, 1)
        occupied = occupied.view(-1, side)
        low, beyond = occupied.argmax(1, keepdim=True), side - occupied.flip(1).argmax(1, keepdim=True)
        table = (position - low) * grid // (beyond - low) * grid ** (len(sides) - 1 - axis)
        key += _take(table.flatten().to(small), entry).view_as(key)
    key, order = key.flatten().sort(stable=True)  # what is no candidate comes last
    cells = b * each
    bounds = torch.searchsorted(key, torch.arange(classes * cells + 1, device=key.device, dtype=key.dtype))
    return Strata(order, bounds[:-1].reshape(classes, cells), bounds.diff().reshape(classes, cells))


def sample_pixels(
    strata: Strata, num: int, kind: PixelSampler = "stratified", generator: torch.Generator | None = None
) -> Tensor:
    """Samples ``num`` candidates of each class, so that a mean over them is unbiased for the mean over the class.

    Args:
        strata: The result of :func:`bin_pixels`.
        num: Samples per class, with replacement.
        kind: ``naive`` ignores the cells. ``stratified`` (SG) samples each cell in proportion to its share, with random
            rounding; its variance is at most that of naive sampling, for every field and mask. ``antithetic`` (SAG)
            samples half as many pixels and adds their mirrors at the opposite end of the cell's raster, which in a full
            cell is the point reflection. It helps if a field is odd in the cells, and has up to twice the variance if
            it is even.
        generator: Generator of the strata's device; torch's global one where None.

    Returns:
        Pixel numbers ``(classes, num)``; undefined in a class without a candidate.

    Reference:
        You et al., ARCO, NeurIPS 2023, section 3; slices as in Kitagawa, J. Comput. Graph. Stat. 1996 (stratified
        resampling).

    Example:
        >>> label = torch.zeros(1, 8, 8, dtype=torch.long)
        >>> drawn = sample_pixels(bin_pixels(label, 1, grid=2), 64)  # 16 of each quarter
        >>> [int(((drawn // 8 < 4) & (drawn % 8 < 4)).sum()), int((drawn // 8 >= 4).sum())]
        [16, 32]
    """
    if kind not in ("naive", "stratified", "antithetic"):
        raise ValueError(f"pixel_sampler={kind!r} is unknown; use 'naive', 'stratified' or 'antithetic'.")
    last = len(strata.order) - 1
    if kind == "naive":
        share = torch.rand(len(strata.count), num, device=strata.order.device, generator=generator)
        place = share.mul_(strata.count.sum(1, keepdim=True)).int().add_(strata.start[:, :1].int())
        return _take(strata.order, place.clamp_(0, last))
    slices = -(-num // 2) if kind == "antithetic" else num
    draws = _draws_of_cells(strata.count, slices, generator).flatten()
    first, size = (
        torch.repeat_interleave(cell.flatten(), draws, output_size=len(strata.count) * slices)
        for cell in (strata.start.clamp(0, last).int(), strata.count.float())
    )
    # In place and in 32 bits, because memory limits the speed of a hundred thousand samples. A float32 below 1 times a
    # size up to 2^24 rounds to less than the size.
    rank = torch.rand(len(first), device=first.device, generator=generator).mul_(size).int()
    if kind == "antithetic":
        mirror = size.int().sub_(1).clamp_min_(0).sub_(rank)
        rank = torch.stack([rank, mirror], 1).view(-1, 2 * slices)[:, :num]
        first = first.repeat_interleave(2).view(-1, 2 * slices)[:, :num]
    return _take(strata.order, rank.add_(first)).view(-1, num)


def _draws_of_cells(count: Tensor, slices: int, generator: torch.Generator | None) -> Tensor:
    """Samples how many slices ``(classes, cells)`` have their uniform point in each cell; rows sum to ``slices``.

    Only slices that a cell border cuts are random: one uniform number each, shared by all borders in the slice.
    """
    end = count.cumsum(1).double() * slices / count.sum(1, keepdim=True).clamp_min(1)  # of each cell, in slices
    whole = end.floor()
    point = torch.rand(count.shape, device=count.device, generator=generator)
    point = point.gather(1, torch.searchsorted(whole, whole))  # that of the first border in the same slice
    ends = (whole + (point < end - whole)).long()
    ends[:, -1] = slices  # also in a class without a candidate
    return ends.diff(dim=1, prepend=torch.zeros_like(ends[:, :1]))


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Computes ``values[index]`` of a vector in a third of the time of indexing on a CPU."""
    return values.index_select(0, index.flatten()).view_as(index)


def released_positions(count: int, num: int, *, mirrored: bool = False) -> Tensor:
    """Samples positions in a list of candidates as ARCO's released code does; for comparison only, on the host.

    Coordinates are not used. Positions are read as a square picture of side ``round(sqrt(count))``, divided into 4 x 4
    blocks, of which the last row and column are larger. Each block gives equally many samples; the remainder comes from
    the whole list, as does everything if a block would be empty. So probabilities differ between positions, and those
    beyond the square are rarely sampled.

    Args:
        count: Candidates, at least 1.
        num: Number of samples.
        mirrored: Whether to sample half as many, each with its point reflection in its block (``asmc``).

    Returns:
        Positions in [0, count), ``(num,)`` int64.

    Reference:
        Released code of ARCO, ``smc`` and ``asmc``.
    """
    side = round(count**0.5)
    drawn = []
    if step := side // 4:
        picture = torch.arange(side * side).reshape(side, side)
        parts = [slice(i * step, side if i == 3 else (i + 1) * step) for i in range(4)]
        each = num * side**2 // count // 16
        for block in (picture[rows, columns].flatten() for rows in parts for columns in parts):
            first = block[torch.randint(len(block), (each // 2 if mirrored else each,))]
            drawn += [first, block[0] + block[-1] - first] if mirrored else [first]
    kept = torch.cat([torch.zeros(0, dtype=torch.long), *drawn])
    kept = kept[kept < count]
    return torch.cat([kept, torch.randint(count, (num - len(kept),))])


def _pixel_at_share(pool: PixelPool, start: Tensor, count: Tensor, chance: Tensor) -> Tensor:
    """Returns the pixel at a share in [0, 1) of a run of ``order``; float32 is exact enough for counts below 2^24."""
    offset = torch.minimum((chance * count).long(), (count - 1).clamp_min(0))
    return pool.order[(start + offset).clamp_max(len(pool.order) - 1)]
