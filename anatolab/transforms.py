"""Augmentation of whole batches on their device, with parameters sampled per image and no host synchronization.

Positions and intensities are computed in the precision of the images, also under autocast.

All functions work on ``(b, c, h, w)`` and ``(b, c, d, h, w)`` and sample from torch's global generator of the tensor's
device, which the checkpoint saves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anatolab.types import IGNORE, InputError


@dataclass(frozen=True)
class Augmentation:
    """Settings of the augmentation; every method of a table uses the same ones.

    The weak part warps anatomy and is shared by all views of an image; the strong part changes intensities. Anatomy is
    upright in scans, and some classes differ only by side, so flips and quarter turns are off by default.
    """

    rotate: float = 40.0  # degrees, uniform in +-rotate, in the plane of the last two axes
    scale: float = 0.25  # zoom, uniform in 1 +- scale
    translate: float = 0.08  # share of the side of a view, uniform in +-translate
    flip: bool = False  # each in-plane axis with probability 1/2
    quarter_turns: bool = False  # 0, 90, 180 or 270 degrees, where the plane is square
    strong_probability: float = 0.5  # probability of each intensity change, per sample
    contrast: float = 0.3  # factor on the distance to the mean, uniform in 1 +- contrast
    brightness: float = 0.2  # added offset, uniform in +-brightness (images lie in [0, 1])
    gamma: float = 0.3  # logarithm of the exponent, uniform in +-gamma
    blur: tuple[float, float] = (0.4, 1.2)  # range of the Gaussian's sigma, pixels
    noise: float = 0.05  # standard deviation of Gaussian noise, uniform in [0, noise]
    mix: str = "cutmix"  # mixing of unlabeled images: "cutmix", "classmix", "cutout" or "none"


@dataclass(frozen=True)
class Affine:
    """One spatial map per sample, ``output(p) = input(matrix @ p + shift)``, in voxels from the center of each.

    Flips and quarter turns are affine, too, so one resampling applies them all. Axes are in array order. A map of two
    axes acts on the planes of a volume as well: the planes are resampled as channels, which equals the trilinear form
    and takes a seventh of its time.
    """

    matrix: Tensor  # (b, d, d)
    shift: Tensor  # (b, d) voxels

    @classmethod
    def sample(cls, image: Tensor, augmentation: Augmentation, size: Sequence[int] | None = None) -> Affine:
        """Samples one map of the last two axes per sample of ``image`` (b, c, *s).

        Args:
            image: Its number of samples, device and sides are read.
            augmentation: Ranges of the map.
            size: Sides of the view, by which shifts are measured; those of the image where None.
        """
        b = image.shape[0]
        like: dict[str, Any] = {"device": image.device, "dtype": torch.float32}
        height, width = (size or image.shape)[-2:]
        angle = _uniform(b, augmentation.rotate, like) * (math.pi / 180)
        if augmentation.quarter_turns and height == width:
            angle = angle + torch.randint(4, (b,), device=image.device) * (math.pi / 2)
        zoom = 1 / (1 + _uniform(b, augmentation.scale, like))
        cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
        matrix = torch.stack([cos, -sin, sin, cos], -1).reshape(b, 2, 2)
        if augmentation.flip:
            matrix = matrix * (torch.randint(2, (b, 2, 1), **like) * 2 - 1)
        shift = [_uniform(b, augmentation.translate, like) * side for side in (height, width)]
        return cls(matrix, torch.stack(shift, 1))

    def inverse(self) -> Affine:
        """Returns the map that undoes this one (up to what left the field of view and to resampling)."""
        with torch.autocast(self.matrix.device.type, enabled=False):
            matrix = torch.linalg.inv(self.matrix)
            return Affine(matrix, -torch.einsum("b i j, b j -> b i", matrix, self.shift))

    def grid(self, sides: Sequence[int], size: Sequence[int] | None = None) -> Tensor:
        """Returns sampling positions for :func:`torch.nn.functional.grid_sample` (align_corners=False).

        Args:
            sides: Sides of the input, along the axes of the map.
            size: Sides of the output, centered on the input; as the input where None.

        Returns:
            ``(b, *size, d)`` in [-1, 1] inside the input, last axis first.
        """
        size = size or sides
        like: dict[str, Any] = {"device": self.matrix.device, "dtype": self.matrix.dtype}
        half, half_out = (torch.tensor([s / 2 for s in lengths], **like) for lengths in (sides, size))
        matrix = self.matrix * half_out / half[:, None]  # voxels -> [-1, 1]
        theta = torch.cat([matrix.flip(1, 2), (self.shift / half).flip(1)[..., None]], -1)  # grid_sample wants x first
        with torch.autocast(theta.device.type, enabled=False):  # positions in bf16 would be off by a third of a pixel
            return F.affine_grid(theta, [len(theta), 1, *size], align_corners=False)

    def warp(self, image: Tensor, label: Tensor, size: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Resamples an image and its label at the same positions.

        Args:
            image: ``(b, c, *s)``, resampled linearly; 0 where the input ends. Gradient flows to it.
            label: ``(b, *s)`` class numbers, by nearest neighbor; ``IGNORE`` where the input ends.
            size: Sides of the output, centered on the input and no longer than it along a slice axis; as the input
                where None.

        Returns:
            Image ``(b, c, *size)`` and label ``(b, *size)``.
        """
        grid = self._grid_of(image, size)
        return _resampled_image(image, grid, size), _resampled_label(label, grid, size)

    def warp_image(self, image: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Resamples ``(b, c, *s)`` as :meth:`warp` does, to ``(b, c, *size)``."""
        return _resampled_image(image, self._grid_of(image, size), size)

    def warp_label(self, label: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Resamples class numbers ``(b, *s)`` as :meth:`warp` does, to ``(b, *size)``."""
        return _resampled_label(label, self._grid_of(label, size), size)

    def _grid_of(self, values: Tensor, size: Sequence[int] | None) -> Tensor:
        dims = self.shift.shape[1]
        return self.grid(values.shape[-dims:], size and size[-dims:])


def _resampled_image(image: Tensor, grid: Tensor, size: Sequence[int] | None) -> Tensor:
    return _resampled(image, grid, size, "bilinear").to(image.dtype)


def _resampled_label(label: Tensor, grid: Tensor, size: Sequence[int] | None) -> Tensor:
    return _resampled((label - IGNORE)[:, None], grid, size, "nearest")[:, 0].round().to(label.dtype) + IGNORE


def _resampled(values: Tensor, grid: Tensor, size: Sequence[int] | None, mode: str) -> Tensor:
    """Resamples ``(b, c, *s)``; axes that the grid lacks are cropped to the size, and their slices are channels."""
    dims = grid.shape[-1]
    for axis, side in enumerate((size or values.shape[2:])[:-dims], 2):
        values = values.narrow(axis, (values.shape[axis] - side) // 2, side)
    planes = values.flatten(1, -dims - 1).to(grid.dtype)
    warped = F.grid_sample(planes, grid, mode=mode, align_corners=False)  # zeros outside
    return warped.view(*values.shape[:-dims], *grid.shape[1:-1])


def weak_view(
    image: Tensor, label: Tensor, augmentation: Augmentation, size: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Warps image ``(b, c, *s)`` and label ``(b, *s)`` together by one random map per sample.

    Args:
        image: Intensities in [0, 1].
        label: Class numbers.
        augmentation: Ranges of the map.
        size: Sides of the view, in the middle of an image with a margin around its field of view, so that a rotated
            view samples real pixels. Those of the image where None.

    Returns:
        Image ``(b, c, *size)``, 0 where even the margin ends, and label ``(b, *size)``, ``IGNORE`` there.
    """
    return Affine.sample(image, augmentation, size).warp(image, label, size)


def strong_view(image: Tensor, augmentation: Augmentation) -> Tensor:
    """Changes contrast, brightness, gamma, sharpness and noise of ``(b, c, *s)`` in [0, 1], at random per sample.

    Geometry is untouched, so labels stay valid. The result is clipped to [0, 1].
    """
    b = image.shape[0]
    like: dict[str, Any] = {"device": image.device, "dtype": image.dtype}

    def sometimes(changed: Tensor, image: Tensor) -> Tensor:
        return torch.where(_column(torch.rand(b, **like) < augmentation.strong_probability, image), changed, image)

    mean = image.mean(tuple(range(1, image.ndim)), keepdim=True)
    factor = _column(1 + _uniform(b, augmentation.contrast, like), image)
    image = sometimes(mean + factor * (image - mean), image)
    image = sometimes(image + _column(_uniform(b, augmentation.brightness, like), image), image).clamp(0, 1)
    image = sometimes(image.clamp_min(1e-6) ** _column(_uniform(b, augmentation.gamma, like).exp(), image), image)
    low, high = augmentation.blur
    image = sometimes(gaussian_blur(image, low + (high - low) * torch.rand(b, **like)), image)
    sigma = _column(augmentation.noise * torch.rand(b, **like), image)
    return sometimes(image + sigma * torch.randn_like(image), image).clamp(0, 1)


def gaussian_blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Blurs each sample of ``(b, c, *s)`` in its last two axes by its own ``sigma`` (b,) in pixels, at most 2.

    Edges are repeated; a constant image stays constant.
    """
    radius = 4
    x = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (x / sigma[:, None]) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    planes = image.flatten(1, -3)  # (b, c * d, h, w)
    b, n, height, width = planes.shape
    weight = kernel.repeat_interleave(n, 0)  # one row per plane
    flat = planes.reshape(1, b * n, height, width)
    flat = F.pad(flat, (radius, radius, radius, radius), mode="replicate")
    with torch.autocast(flat.device.type, enabled=False):
        flat = F.conv2d(flat, weight[:, None, None, :], groups=b * n)
        flat = F.conv2d(flat, weight[:, None, :, None], groups=b * n)
    return flat.reshape(image.shape)


def cut_mask(image: Tensor, area: float = 0.5) -> Tensor:
    """Samples one box per sample, as a mask ``(b, *s)`` that is true inside and covers about ``area`` of the image.

    The aspect is random: side shares are ``area ** u_i`` with ``u`` uniform on the simplex.

    Reference:
        Yun et al., CutMix, ICCV 2019; French et al., BMVC 2020, for segmentation.
    """
    b, sides = image.shape[0], image.shape[2:]
    like: dict[str, Any] = {"device": image.device, "dtype": torch.float32}
    u = -torch.log(torch.rand(b, len(sides), **like).clamp_min(1e-12))
    return box_mask(image, area ** (u / u.sum(1, keepdim=True)))


def box_mask(image: Tensor, share: float | Tensor) -> Tensor:
    """Samples one box per sample of ``(b, c, *s)``, wholly inside the image, as a mask ``(b, *s)`` true in the box.

    Args:
        image: Its shape and device are read.
        share: Sides of the box as shares of the image's, in [0, 1]: one number, or ``(b, axes)``.
    """
    b, sides = image.shape[0], image.shape[2:]
    like: dict[str, Any] = {"device": image.device, "dtype": torch.float32}
    start = torch.rand(b, len(sides), **like) * (1 - share)
    end = start + share
    mask = torch.ones(b, *sides, dtype=torch.bool, device=image.device)
    for axis, side in enumerate(sides):
        center = (torch.arange(side, **like) + 0.5) / side
        inside = (center >= start[:, axis, None]) & (center < end[:, axis, None])
        mask = mask & inside.reshape(b, *(side if a == axis else 1 for a in range(len(sides))))
    return mask


def class_mask(label: Tensor, classes: int) -> Tensor:
    """Samples half of the classes present in each sample of ``label`` (b, *s), as the mask of the *other* pixels.

    True where the next sample's pixel is taken, so that the sampled classes are pasted onto it.

    Reference:
        Olsson et al., ClassMix, WACV 2021.
    """
    flat = label.flatten(1)
    counts = torch.zeros(len(label), classes, device=label.device).scatter_add_(
        1, flat.clamp_min(0), (flat >= 0).float()
    )
    present = counts > 0
    rank = (torch.rand(present.shape, device=label.device) + ~present).argsort(1).argsort(1)  # absent ones last
    keep = present & (rank < (present.sum(1, keepdim=True) + 1) // 2)
    return ~keep.gather(1, flat.clamp_min(0)).reshape(label.shape)


def mix(mask: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Takes, where ``mask`` (b, *s) is true, the next sample of the batch; all tensors are mixed alike.

    Args:
        mask: From :func:`cut_mask` or :func:`class_mask`.
        tensors: Images ``(b, c, *s)``, probabilities ``(b, classes, *s)``, labels or confidences ``(b, *s)``.
    """
    return mix_pairs(mask, *((t, t.roll(-1, 0)) for t in tensors))


def mix_pairs(mask: Tensor, *pairs: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Takes, where ``mask`` (b, *s) is true, the pixels of a partner; all pairs are mixed alike.

    Args:
        mask: From :func:`cut_mask` or :func:`class_mask`.
        pairs: A tensor and that of its partners, of one shape each: images ``(b, c, *s)``, probabilities
            ``(b, classes, *s)``, labels or confidences ``(b, *s)``.

    Example:
        >>> mask = torch.tensor([[True, False]])
        >>> mix_pairs(mask, (torch.zeros(1, 2), torch.ones(1, 2)))
        (tensor([[1., 0.]]),)
    """
    return tuple(torch.where(mask if t.ndim == mask.ndim else mask[:, None], partner, t) for t, partner in pairs)


def mixing_mask(image: Tensor, label: Tensor, classes: int, kind: str) -> tuple[Tensor, Tensor]:
    """Returns which pixels of each image come from its partner, and which are blanked.

    Args:
        image: ``(b, c, *s)``.
        label: ``(b, *s)`` int64, such as pseudo-labels; negative where unknown.
        classes: Number of classes.
        kind: ``cutmix``, ``classmix``, ``cutout`` or ``none``.

    Returns:
        Two masks ``(b, *s)`` bool.

    Raises:
        InputError: The kind is unknown.
    """
    nothing = torch.zeros_like(label, dtype=torch.bool)
    if kind == "none":
        return nothing, nothing
    if kind == "classmix":
        return class_mask(label, classes), nothing
    if kind == "cutmix":
        return cut_mask(image), nothing
    if kind == "cutout":
        return nothing, cut_mask(image)
    raise InputError(f"mix must be 'cutmix', 'classmix', 'cutout' or 'none', not {kind!r}.")


def _uniform(n: int, half_width: float, like: dict[str, Any]) -> Tensor:
    return (torch.rand(n, **like) * 2 - 1) * half_width


def _column(values: Tensor, image: Tensor) -> Tensor:
    """Shapes ``(b,)`` to broadcast over ``image``."""
    return values.reshape(-1, *[1] * (image.ndim - 1))
