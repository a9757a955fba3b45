"""Implicit rendering: predicts ambiguous points of a segmentation again, each from features and its position.

A grid decoder blurs boundaries. Where the two largest logits of a coarse prediction are close, a point head predicts
the class again from three inputs: fused features, coarse logits, and an encoding of the coordinates that can express
detail. Coordinates are in [0, 1] along each axis, in the order (x, y) or (x, y, z): the *last* array axis comes first,
as in ``grid_sample``. Pixel ``i`` of ``n`` has its center at ``(i + 0.5) / n``.

Differences to the released code of MORSE: its 3-D inference takes pixel numbers modulo one plane and writes every
rendered value into the first plane (here numbers count through the volume, see :func:`write_back`); its samples are
read with zero padding, which fades them at the border (here border padding; ``padding="zeros"`` reproduces it); its
frequencies are fixed and uniform in [0, 1), which blurs one diagonal more than the other (here Gaussian and trainable;
``kind="fixed"`` reproduces it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.nn.heads import MODE
from anatolab.types import InputError

Padding = Literal["border", "zeros"]


def uncertainty(logits: Tensor) -> Tensor:
    """Returns the uncertainty of each pixel: second largest minus largest logit, at most 0; larger is more ambiguous.

    Compute it from interpolated logits; an interpolated uncertainty map differs.

    Args:
        logits: ``(b, classes, *s)``; of one channel (a binary output) it is minus the absolute value.

    Returns:
        ``(b, *s)``, fp32 or wider, with gradient.

    Example:
        >>> uncertainty(torch.tensor([[[1.0, 5.0], [4.0, 5.0], [2.0, -1.0]]])).tolist()
        [[-2.0, 0.0]]
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    first, *rest = logits.unbind(1)
    if not rest:
        return -first.abs()
    second = torch.full_like(first, -math.inf)
    for channel in rest:  # a few channels: cheaper than a sort of every pixel
        second = torch.maximum(second, torch.minimum(first, channel))
        first = torch.maximum(first, channel)
    return second - first


def point_sample(map_: Tensor, points: Tensor, padding: Padding = "border") -> Tensor:
    """Reads a map at points, linearly between pixel centers.

    Args:
        map_: ``(b, c, *s)`` in 2-D or 3-D, with gradient.
        points: ``(b, p, d)`` in [0, 1], last array axis first; without gradient.
        padding: Values outside the outermost pixel centers: those of the border, or zeros.

    Returns:
        ``(b, c, p)``.
    """
    b, p, dims = points.shape
    grid = (2 * points - 1).to(map_.dtype).reshape(b, p, *[1] * (dims - 1), dims)
    return F.grid_sample(map_, grid, padding_mode=padding, align_corners=False).flatten(2)


def point_labels(label: Tensor, points: Tensor) -> Tensor:
    """Reads labels ``(b, *s)`` of any integer type at points ``(b, p, d)``, from the pixel that holds a point."""
    index = torch.zeros(points.shape[:2], dtype=torch.long, device=points.device)
    for axis, side in enumerate(label.shape[1:], 1):
        index = index * side + (points[..., -axis] * side).long().clamp(0, side - 1)
    return label.flatten(1).gather(1, index)


@torch.no_grad()
def training_points(
    logits: Tensor,
    num: int,
    *,
    oversample: int = 3,
    hard_share: float = 0.75,
    padding: Padding = "border",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Samples training points: the most ambiguous of many uniform candidates, and further uniform ones.

    Args:
        logits: Coarse logits ``(b, classes, *s)``; no gradient flows.
        num: Points per image.
        oversample: Candidates for each point.
        hard_share: Share of ``num`` that is chosen by ambiguity, rounded down.
        padding: As in :func:`point_sample`.
        generator: Generator of the logits' device; torch's global one where None.

    Returns:
        ``(b, num, d)`` in [0, 1), the ambiguous ones first.

    Raises:
        InputError: There are fewer candidates than points to choose.

    Reference:
        Kirillov et al., PointRend, CVPR 2020, section 3.1.
    """
    hard, b, dims = int(hard_share * num), len(logits), logits.ndim - 2
    if not 0 <= hard <= oversample * num:
        raise InputError(f"rendering: {hard} hard points cannot be chosen among {oversample * num}; raise oversample.")
    rand = (b, oversample * num, dims), (b, num - hard, dims)
    candidates, anywhere = (torch.rand(*s, device=logits.device, generator=generator) for s in rand)
    best = uncertainty(point_sample(logits, candidates, padding)).topk(hard, 1).indices
    return torch.cat([candidates.gather(1, best[..., None].expand(-1, -1, dims)), anywhere], 1)


@torch.no_grad()
def uncertain_pixels(logits: Tensor, num: int) -> Tensor:
    """Returns the numbers ``(b, min(num, pixels))`` of each image's most ambiguous pixels, in raster order.

    Pixel ``(z, y, x)`` has the number ``(z * height + y) * width + x``.
    """
    flat = uncertainty(logits).flatten(1)
    return flat.topk(min(num, flat.shape[1]), 1, sorted=False).indices


def pixel_centers(index: Tensor, sides: Sequence[int]) -> Tensor:
    """Returns coordinates ``(b, p, d)`` of the centers of pixels that are numbered ``(b, p)`` on a grid of these sides.

    Example:
        >>> pixel_centers(torch.tensor([[0, 5]]), (2, 4)).tolist()
        [[[0.125, 0.25], [0.375, 0.75]]]
    """
    coordinates = []
    for side in reversed(sides):
        coordinates.append((index % side + 0.5) / side)
        index = index.div(side, rounding_mode="floor")
    return torch.stack(coordinates, -1)


def write_back(logits: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Returns logits ``(b, classes, *s)`` with the values ``(b, classes, p)`` at pixels numbered ``(b, p)``.

    In 3-D as in 2-D a pixel's number counts through the whole grid. The released code takes it modulo the size of a
    plane, so that every value lands in the first plane.
    """
    channel_index = index[:, None].expand(-1, logits.shape[1], -1)
    return logits.flatten(2).scatter(2, channel_index, values.to(logits.dtype)).view_as(logits)


def refine(
    logits: Tensor, render: Callable[[Tensor], Tensor], num: int, *, passes: int = 2, upsample: bool = False
) -> Tensor:
    """Renders the most ambiguous pixels of a prediction, in several passes.

    A later pass ranks pixels by the logits that earlier passes wrote. Most of its pixels were rendered before (eight or
    nine of ten with a trained head); they keep their logits and are not rendered again.

    Args:
        logits: Coarse logits ``(b, classes, *s)``.
        render: From points ``(b, p, d)`` to logits ``(b, classes, p)``; the same for the same point.
        num: Pixels per pass and image; all if there are fewer.
        passes: Number of passes.
        upsample: Whether to double the grid before each pass, as in PointRend; MORSE's logits are at full size.

    Returns:
        ``(b, classes, *s)``, with ``upsample`` on a grid of sides ``s * 2 ** passes``.

    Reference:
        Kirillov et al., PointRend, CVPR 2020, section 3.1, inference.
    """
    rendered = None  # (b, pixels) bool
    for _ in range(passes):
        if upsample:
            logits = F.interpolate(logits, scale_factor=2, mode=MODE[logits.ndim - 2], align_corners=False)
        index = uncertain_pixels(logits, num)
        if rendered is None or upsample:  # after doubling, pixels are others
            rendered = torch.zeros(len(index), logits[0, 0].numel(), dtype=torch.bool, device=logits.device)
        else:
            new = ~rendered.gather(1, index)
            most = int(new.sum(1).max())  # images with fewer new ones fill up with old ones
            if not most:
                break
            index = index.gather(1, new.float().topk(most, 1, sorted=False).indices)
        rendered.scatter_(1, index, True)
        logits = write_back(logits, index, render(pixel_centers(index, logits.shape[2:])))
    return logits


class FourierEncoding(nn.Module):
    r"""Encodes coordinates as waves, so that a small point head can express detail.

    .. math:: \gamma(p) = [\sin(2\pi B^\top \tilde p);\ \cos(2\pi B^\top \tilde p)], \quad \tilde p = 2p - 1

    The encodings of two points at distance :math:`\Delta` (in units of :math:`\tilde p`) have a similarity
    :math:`\gamma(p)\cdot\gamma(q)/L`, which for Gaussian *B* is :math:`e^{-2\pi^2\sigma^2|\Delta|^2}` on average, and
    one half at :math:`0.187/\sigma`. *B* is in the state dict, trainable or not.

    Args:
        dims: 2 or 3.
        frequencies: L, waves; the encoding has 2 L channels.
        kind: ``trainable``, initially Gaussian; ``fixed``, uniform in [0, 1) and not trained, as released; ``none``, no
            encoding.
        sigma: Standard deviation of the Gaussian, in cycles per unit of :math:`\tilde p`.
        spacing: Size of a pixel along each array axis, in mm: coordinates are then scaled by the physical extent of
            the grid, its longest side spanning [-1, 1], so that a wave is as long along all axes. None: each axis
            spans [-1, 1].

    Reference:
        Tancik et al., Fourier features let networks learn high frequency functions, NeurIPS 2020; trainable as in
        Cheng et al., Pointly-supervised instance segmentation, CVPR 2022.
    """

    frequencies: Tensor  # B, (d, L); last array axis first

    def __init__(
        self,
        dims: int,
        frequencies: int = 128,
        *,
        kind: Literal["none", "fixed", "trainable"] = "trainable",
        sigma: float = 1.0,
        spacing: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if kind not in ("none", "fixed", "trainable"):
            raise InputError(f"rendering: encoding must be 'none', 'fixed' or 'trainable', not {kind!r}.")
        if spacing is not None and len(spacing) != dims:
            raise InputError(f"rendering: spacing {tuple(spacing)} has {len(spacing)} axes, the images have {dims}.")
        self.spacing = spacing
        if kind == "trainable":
            self.frequencies = nn.Parameter(sigma * torch.randn(dims, frequencies))
        else:
            self.register_buffer("frequencies", torch.rand(dims, frequencies if kind == "fixed" else 0))

    @property
    def channels(self) -> int:
        """Channels of the encoding, 2 L."""
        return 2 * self.frequencies.shape[1]

    def forward(self, points: Tensor, sides: Sequence[int] | None = None) -> Tensor:
        """Maps points ``(b, p, d)`` in [0, 1] to waves ``(b, 2 L, p)`` in [-1, 1], with gradient to B.

        Args:
            points: Coordinates, last array axis first.
            sides: Sides of the pixel grid, in array order; needed where there is a spacing.
        """
        centered = 2 * points - 1
        if self.spacing is not None:
            if sides is None:
                raise InputError("rendering: an encoding with a spacing needs the sides of the pixel grid.")
            extent = [s * n for s, n in zip(self.spacing, sides, strict=True)]
            axes = zip(centered.unbind(-1), reversed(extent), strict=True)
            centered = torch.stack([x * (e / max(extent)) for x, e in axes], -1)
        with torch.autocast(centered.device.type, enabled=False):  # phases need more digits than bf16 has
            phase = 2 * math.pi * (centered @ self.frequencies).transpose(1, 2)
        return torch.cat([phase.sin(), phase.cos()], 1)


class PointHead(nn.Module):
    """Predicts logits at points from their features; the coarse logits are an input of every layer.

    Args:
        features: Channels of the features, encoding included.
        classes: Number of classes.
        width: Width of the hidden layers.
        layers: Hidden layers.
        init: ``small``, ReLU gain and a last layer near 0, as in PointRend; ``torch``, torch's defaults, as released
            with the encoding.

    Reference:
        Kirillov et al., PointRend, CVPR 2020.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        width: int = 512,
        *,
        layers: int = 3,
        init: Literal["small", "torch"] = "small",
    ) -> None:
        super().__init__()
        widths = [features, *[width] * layers]
        hidden = [nn.Conv1d(a + classes, b, 1) for a, b in pairwise(widths)]
        self.last = nn.Conv1d(widths[-1] + classes, classes, 1)
        if init == "small":
            for layer in hidden:
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.normal_(self.last.weight, std=0.001)
            for layer in (*hidden, self.last):
                nn.init.constant_(layer.bias, 0.0)  # type: ignore[arg-type]
        self.hidden = nn.ModuleList(hidden)

    def forward(self, features: Tensor, coarse: Tensor) -> Tensor:
        """Maps features ``(b, features, p)`` and coarse logits ``(b, classes, p)`` to logits ``(b, classes, p)``."""
        if not (torch.is_grad_enabled() or features.is_cuda or torch.is_autocast_enabled("cpu")):
            return self._inferred(features, coarse)
        size = features.shape[1]
        for layer in (*self.hidden, self.last):  # W [h; z] + b = W_h h + (W_z z + b): nothing is concatenated
            weight = layer.weight[:, :, 0]
            join = torch.baddbmm(layer.bias[:, None], weight[:, size:].expand(len(coarse), -1, -1), coarse)
            features = torch.baddbmm(join, weight[:, :size].expand(len(coarse), -1, -1), features)
            if layer is not self.last:
                features, size = features.relu_(), len(weight)
        return features

    def _inferred(self, features: Tensor, coarse: Tensor) -> Tensor:
        """Computes the same without gradient, image by image (which fits the cache) and with sums in place."""
        size, layers = features.shape[1], []
        for layer in (*self.hidden, self.last):
            weight = layer.weight[:, :, 0]
            layers.append((weight[:, :size].contiguous(), torch.cat([weight[:, size:], layer.bias[:, None]], 1)))
            size = len(weight)
        joins = torch.cat([coarse, torch.ones_like(coarse[:, :1])], 1)
        logits = []
        for x, join in zip(features, joins, strict=True):
            for weight, joined in layers[:-1]:
                x = torch.mm(joined, join).addmm_(weight, x).relu_()
            weight, joined = layers[-1]
            logits.append(torch.mm(joined, join).addmm_(weight, x))
        return torch.stack(logits)
