"""Projection heads on a tapped network: embeddings of images, patches and pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
MODE = {2: "bilinear", 3: "trilinear"}


def mlp(*widths: int, linear: bool = False, dims: int = 0) -> nn.Sequential:
    """Builds linear layers with a ReLU between them, on ``(b, widths[0])``, or per pixel on ``(b, widths[0], *s)``.

    Args:
        widths: Features before, between and after the layers.
        linear: Whether to leave out the ReLU, which makes it one linear map.
        dims: 2 or 3 for layers that act on each pixel (1 x 1 convolutions); 0 for vectors.
    """
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [CONV[dims](a, b, 1) if dims else nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*[layer for layer in layers[:-1] if not linear or not isinstance(layer, nn.ReLU)])


class ImageProjector(nn.Module):
    """Projects an image to one embedding: global average of the coarsest map, then two layers.

    Args:
        channels: Channels of the coarsest map; also the width between the layers.
        dim: Width of the embedding.
        linear: Whether to leave out the ReLU between the layers, as in the released code of ACTION.
    """

    def __init__(self, channels: int, dim: int, *, linear: bool = False) -> None:
        super().__init__()
        self.layers = mlp(channels, channels, dim, linear=linear)

    def forward(self, coarsest: Tensor) -> Tensor:
        """Maps ``(b, channels, *s)`` to ``(b, dim)``, with gradient."""
        return self.layers(coarsest.flatten(2).mean(2))


class PatchProjector(nn.Module):
    """Projects each patch to one embedding: logits are pooled to cells, and two layers act on each cell.

    A patch is a square (or cube) of ``share`` of the image's shortest side, with ``cells`` cells along each side.
    Patches lie half a patch apart and cover the last row and column. Pooling and layers act on each cell alone, so they
    are applied once to the whole image, and overlapping patches copy their cells.

    Args:
        classes: Channels of the scores.
        share: Side of a patch, as a share of the image's shortest side.
        cells: Cells of a patch along each axis; even.
        linear: Whether to leave out the ReLU between the layers.
        dims: 2 or 3.
    """

    def __init__(
        self, classes: int, *, share: float = 0.25, cells: int = 8, linear: bool = False, dims: int = 2
    ) -> None:
        super().__init__()
        self.share, self.cells, self.dims = share, cells, dims
        self.layers = mlp(classes, 2 * classes, classes, linear=linear, dims=dims)

    def forward(self, scores: Tensor, predictor: nn.Module | None = None) -> Tensor:
        """Maps logits ``(b, classes, *s)`` to embeddings ``(b, patches, classes * cells ** dims)``, with gradient.

        Args:
            scores: Logits on the image's grid.
            predictor: Further layers on each cell, for the student.
        """
        pooled = self.layers(_pool(scores, self.cell(scores.shape[2:])))
        if predictor is not None:
            pooled = predictor(pooled)
        for axis in range(2, 2 + self.dims):
            pooled = pooled.unfold(axis, self.cells, self.cells // 2)
        b, c = pooled.shape[:2]
        windows = pooled.reshape(b, c, -1, self.cells**self.dims)
        return windows.transpose(1, 2).flatten(2)

    def cell(self, sides: Sequence[int]) -> int:
        """Returns the side of a cell in pixels, at least 1."""
        return max(1, round(self.share * min(sides) / self.cells))


class PixelProjector(nn.Module):
    """Projects each pixel to one embedding: decoder maps on one grid, concatenated, and one linear map per pixel.

    Each map passes its part of the linear map on its own grid and is resized afterwards, which is equivalent, because
    the linear map acts on each pixel alone, and cheaper. Embeddings have channels last in memory, so pixels are rows.

    Args:
        channels: Channels of each map, coarse to fine.
        strides: Strides of each map.
        dim: Width of the embedding.
        stride: Stride of the embedding's grid; finer maps are averaged down to it.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], dim: int, *, stride: int = 4) -> None:
        super().__init__()
        self.channels, self.strides, self.stride = list(channels), tuple(strides), max(stride, min(strides))
        self.linear = nn.Linear(sum(channels), dim, bias=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Projects maps ``(b, channels[i], *s / strides[i])`` to ``(b, dim, *s / stride)``, with gradient."""
        grid = self.grid(maps)
        parts = []
        for weight, stride, map_ in zip(self.linear.weight.split(self.channels, 1), self.strides, maps, strict=True):
            if stride < self.stride:
                map_ = _pool(map_, self.stride // stride)
            parts.append(_resized(F.linear(map_.movedim(1, -1), weight).movedim(-1, 1), grid))
        return sum(parts[1:], parts[0])

    def grid(self, maps: Sequence[Tensor]) -> list[int]:
        """Returns the sides of the embedding's grid."""
        level = next(i for i, stride in enumerate(self.strides) if stride <= self.stride)
        return [side * self.strides[level] // self.stride for side in maps[level].shape[2:]]


class ConvPixelProjector(PixelProjector):
    """Projects each pixel as released with ACTION: decoder maps on one grid, a 3 x 3 and a 1 x 1 convolution.

    Args:
        channels: Channels of each map, coarse to fine.
        strides: Strides of each map.
        dim: Width of the embedding.
        stride: Stride of the embedding's grid; finer maps are averaged down to it.
        dims: 2 or 3.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], dim: int, *, stride: int = 1, dims: int = 2
    ) -> None:
        super().__init__(channels, strides, dim, stride=stride)
        del self.linear
        self.layers = nn.Sequential(CONV[dims](sum(channels), dim, 3, padding=1, bias=False), CONV[dims](dim, dim, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Projects maps ``(b, channels[i], *s / strides[i])`` to ``(b, dim, *s / stride)``, with gradient."""
        pooled = [
            _pool(map_, self.stride // stride) if stride < self.stride else map_
            for map_, stride in zip(maps, self.strides, strict=True)
        ]
        return self.layers(torch.cat([_resized(map_, self.grid(maps)) for map_ in pooled], 1))


def _pool(map_: Tensor, cell: int) -> Tensor:
    """Returns means over cells of side ``cell``, in pixels."""
    return F.avg_pool2d(map_, cell) if map_.ndim == 4 else F.avg_pool3d(map_, cell)


def _resized(map_: Tensor, grid: list[int]) -> Tensor:
    if list(map_.shape[2:]) == grid:
        return map_
    return F.interpolate(map_, grid, mode=MODE[map_.ndim - 2], align_corners=False)
