"""Heads: what they compute cheaply equals what they mean."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from anatolab.nn import ImageProjector, PatchProjector, PixelProjector, mlp
from anatolab.sampling import flatten_pixels


def test_an_image_is_its_average_through_two_layers() -> None:
    head, coarsest = ImageProjector(8, 5), torch.randn(3, 8, 4, 4)
    one, relu, two = head.layers
    torch.testing.assert_close(head(coarsest), two(relu(one(coarsest.mean((2, 3))))))


@pytest.mark.parametrize("dims", [0, 2, 3])
def test_linear_heads_are_one_linear_map_and_others_are_not(dims: int) -> None:
    x, y = (torch.randn(2, 4, *[3] * dims) for _ in range(2))
    for linear in (True, False):
        head = mlp(4, 6, 5, linear=linear, dims=dims)
        mixed, apart = head(x + y) + head(torch.zeros_like(x)), head(x) + head(y)
        assert torch.allclose(mixed, apart, atol=1e-5) is linear


@pytest.mark.parametrize(("side", "patches"), [(256, 49), (128, 49), (64, 49)])
def test_patches_of_a_quarter_lie_half_a_patch_apart_49_in_a_square(side: int, patches: int) -> None:
    assert PatchProjector(4)(torch.randn(1, 4, side, side)).shape == (1, patches, 4 * 64)


def test_patches_of_the_atrium_are_20_voxels_wide_700_in_all() -> None:
    head = PatchProjector(2, cells=4, dims=3)
    assert head.cell((112, 112, 80)) * head.cells == 20
    assert head(torch.randn(1, 2, 112, 112, 80)).shape == (1, 10 * 10 * 7, 2 * 64)


def test_every_pixel_is_in_a_patch_the_last_row_and_column_too() -> None:
    scores = torch.randn(1, 2, 64, 64, requires_grad=True)
    head = PatchProjector(2)
    head.layers = nn.Sequential()
    head(scores).sum().backward()
    assert bool((scores.grad > 0).all())


@pytest.mark.parametrize("predicted", [False, True])
def test_a_patch_is_cut_pooled_and_projected(predicted: bool) -> None:
    head, predictor = PatchProjector(3), mlp(3, 3, 3, dims=2) if predicted else None
    scores = torch.randn(2, 3, 64, 64)
    found = head(scores, predictor)
    literal = []
    for y in range(0, 49, 8):
        for x in range(0, 49, 8):
            patch = head.layers(F.adaptive_avg_pool2d(scores[:, :, y : y + 16, x : x + 16], 8))
            literal.append((predictor(patch) if predictor else patch).flatten(1))
    torch.testing.assert_close(found, torch.stack(literal, 1))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("stride", [2, 4])
def test_a_pixel_is_one_linear_map_of_the_concatenated_maps(dims: int, stride: int) -> None:
    head = PixelProjector((8, 6, 4), (8, 4, 2), 5, stride=stride)
    maps = [torch.randn(2, c, *[32 // s] * dims) for c, s in zip((8, 6, 4), (8, 4, 2), strict=True)]
    grid = [32 // stride] * dims
    pool = F.adaptive_avg_pool2d if dims == 2 else F.adaptive_avg_pool3d
    mode = "bilinear" if dims == 2 else "trilinear"
    whole = torch.cat(
        [
            pool(m, grid) if m.shape[-1] > grid[-1] else F.interpolate(m, grid, mode=mode, align_corners=False)
            for m in maps
        ],
        1,
    )
    literal = torch.einsum("dc,bc...->bd...", head.linear.weight, whole)
    torch.testing.assert_close(head(maps), literal, atol=1e-5, rtol=1e-4)


def test_the_mean_of_pixels_is_the_head_of_the_mean() -> None:
    head = PixelProjector((8, 4), (4, 2), 5, stride=2)
    maps = [torch.randn(1, 8, 8, 8), torch.randn(1, 4, 16, 16)]
    means = torch.cat([F.interpolate(maps[0], (16, 16), mode="bilinear").mean((2, 3)), maps[1].mean((2, 3))], 1)
    torch.testing.assert_close(head(maps).mean((2, 3)), head.linear(means))


class Copies(TorchDispatchMode):
    """Counts the copies of tensors with more than ``limit`` elements."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.count = limit, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        copies = ("clone" in str(func) or "copy" in str(func)) and args[0].numel() > self.limit
        self.count += copies
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("bf16", [False, True])
def test_channels_last_maps_are_embedded_without_copies_and_in_bf16_to_its_digits(bf16: bool) -> None:
    channels, strides = (64, 32, 16, 8), (16, 8, 4, 2)
    heads = ImageProjector(64, 16), PixelProjector(channels, strides, 32, stride=4)
    maps = [torch.randn(2, c, 128 // s, 128 // s) for c, s in zip(channels, strides, strict=True)]
    plain = heads[0](maps[0]), flatten_pixels(heads[1](maps))[0]
    dtype = torch.bfloat16 if bf16 else torch.float32
    maps = [m.to(dtype, memory_format=torch.channels_last) for m in maps]
    weights = max(p.numel() for head in heads for p in head.parameters())
    with Copies(weights) as copies, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        embedded = heads[0](maps[0]), flatten_pixels(heads[1](maps))[0]
    assert copies.count == 0
    for ours, expected in zip(embedded, plain, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.float(), expected, atol=0.05 if bf16 else 1e-5, rtol=0)
    assert embedded[1].is_contiguous()
