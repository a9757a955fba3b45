"""A U-Net that starts with a pixel unshuffle, so that no convolution runs at full resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StemUNet(nn.Module):
    """Segments with double convolutions from half the resolution down; the head shuffles channels back to pixels.

    Every pixel of the image reaches the first convolution, and every pixel of the output has weights of its own in
    the head, so labels are resolved at full resolution (unlike with a strided first convolution).
    """

    def __init__(self, in_channels: int, classes: int, spatial_dims: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.in_channels = in_channels
        conv = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        block = 2**spatial_dims
        self.stem = conv(block * in_channels, widths[0], 3, padding=1, bias=False)
        inputs = (widths[0], *widths[:-1])
        self.down = nn.ModuleList(_DoubleConv(a, b, spatial_dims) for a, b in zip(inputs, widths, strict=True))
        steps = zip(widths[:0:-1], widths[-2::-1], strict=True)
        self.up = nn.ModuleList(_Up(a, b, spatial_dims) for a, b in steps)
        self.head = conv(widths[0], block * classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Computes logits ``(b, classes, *s)`` of images ``(b, in_channels, *s)``."""
        pool = F.max_pool2d if image.ndim == 4 else F.max_pool3d
        x, skips = self.stem(unshuffle(image)), []
        for level, convs in enumerate(self.down):
            x = convs(pool(x, 2) if level else x)
            skips.append(x)
        for up, skip in zip(self.up, skips[-2::-1], strict=True):
            x = up(x, skip)
        return shuffle(self.head(x))


class _DoubleConv(nn.Sequential):
    """Two 3-wide convolutions, each with batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int) -> None:
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if spatial_dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [
                conv(channels, out_channels, 3, padding=1, bias=False),
                norm(out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class _Up(nn.Module):
    """Doubles the resolution of a map and joins it with the skip of that resolution."""

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int) -> None:
        super().__init__()
        transposed = nn.ConvTranspose2d if spatial_dims == 2 else nn.ConvTranspose3d
        self.up = transposed(in_channels, out_channels, 2, stride=2)
        self.convs = _DoubleConv(2 * out_channels, out_channels, spatial_dims)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.convs(torch.cat([skip, self.up(x)], 1))


def unshuffle(image: Tensor) -> Tensor:
    """Moves each block of 2 x 2 (x 2) pixels into channels: ``(b, c, *s)`` to ``(b, 4 c or 8 c, *s / 2)``.

    Channel ``c * 2**dims + k`` holds the ``k``-th pixel of its block, the last axis fastest, as
    :func:`torch.nn.functional.pixel_unshuffle` orders them in 2-D.

    Example:
        >>> unshuffle(torch.arange(8.0).reshape(1, 1, 2, 2, 2)).flatten().tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    """
    if image.ndim == 4:
        return F.pixel_unshuffle(image, 2)
    b, c, z, y, x = image.shape
    blocks = image.reshape(b, c, z // 2, 2, y // 2, 2, x // 2, 2)
    return blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, 8 * c, z // 2, y // 2, x // 2)


def shuffle(maps: Tensor) -> Tensor:
    """Moves channels back into blocks of pixels, the inverse of :func:`unshuffle`, in 2-D and 3-D.

    Example:
        >>> image = torch.rand(2, 3, 4, 6, 8)
        >>> torch.equal(shuffle(unshuffle(image)), image)
        True
    """
    if maps.ndim == 4:
        return F.pixel_shuffle(maps, 2)
    b, c, z, y, x = maps.shape
    blocks = maps.reshape(b, c // 8, 2, 2, 2, z, y, x)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c // 8, 2 * z, 2 * y, 2 * x)
