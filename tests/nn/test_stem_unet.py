"""The default network: shuffles against a literal loop, its pyramid, and features perturbed from outside."""

import copy
import subprocess
import sys
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from anatolab.nn import Tap, basic_unet, light_unet, multiple_of, segresnet, stem_unet, tap
from anatolab.nn.stem_unet import shuffle, unshuffle
from anatolab.nn.tap import drop_channels
from anatolab.types import InputError


def test_the_voxel_shuffle_equals_the_literal_loop_and_is_undone() -> None:
    image = torch.rand(2, 3, 4, 6, 8)
    expected = torch.zeros(2, 24, 2, 3, 4)
    for c, (k, (z, y, x)) in product(range(3), enumerate(product(range(2), repeat=3))):
        expected[:, 8 * c + k] = image[:, c, z::2, y::2, x::2]
    assert torch.equal(unshuffle(image), expected)
    assert torch.equal(shuffle(expected), image)
    plane = torch.rand(2, 3, 6, 8)
    assert torch.equal(unshuffle(plane), F.pixel_unshuffle(plane, 2))
    assert torch.equal(shuffle(unshuffle(plane)), plane)


def test_in_a_volume_of_equal_planes_the_3d_shuffle_is_the_2d_one() -> None:
    plane = torch.rand(1, 1, 6, 8)
    volume = plane[:, :, None].expand(1, 1, 4, 6, 8)
    assert torch.equal(unshuffle(volume)[:, :4, 0], F.pixel_unshuffle(plane, 2))


@pytest.mark.parametrize(
    ("dims", "widths", "channels"),
    [(2, None, (256, 128, 64, 32)), (3, None, (128, 64, 32, 16)), (2, (24, 48, 96, 192), (192, 96, 48, 24))],
)
def test_its_pyramid_and_size_are_as_documented(dims: int, widths: tuple[int, ...] | None, channels: tuple) -> None:
    pyramid = tap(stem_unet(1, 4, spatial_dims=dims, widths=widths), spatial_dims=dims, size=32)
    assert (pyramid.channels, pyramid.strides) == (channels, (16, 8, 4, 2))
    encoder = {id(p) for p in pyramid.encoder_parameters()}
    net = pyramid.net
    assert encoder == {id(p) for part in (net.stem, net.down) for p in part.parameters()}  # type: ignore[union-attr]
    assert multiple_of("stem_unet", dims) == 16


def test_it_has_1_9_million_weights_and_a_full_resolution_path() -> None:
    net = stem_unet(1, 4).eval()
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(1.9e6, rel=0.03)
    image = torch.rand(1, 1, 32, 32)
    one = image.clone()
    one[..., 17, 5] += 1  # a single pixel reaches logits of its own block and beyond
    change = (net(one) - net(image)).abs().sum(1)[0]
    assert change[17, 5] > 0
    assert len(change[16:18, 4:6].unique()) == 4  # each pixel of the block has weights of its own


@pytest.mark.parametrize("dims", [2, 3])
def test_bf16_and_channels_last_change_little(dims: int) -> None:
    torch.manual_seed(0)
    net, image = stem_unet(1, 3, spatial_dims=dims).eval(), torch.rand(2, 1, *[32] * dims)
    expected = net(image)
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    fast = net.to(memory_format=layout)
    torch.testing.assert_close(fast(image.to(memory_format=layout)), expected, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        half = fast(image.to(memory_format=layout))
    assert (half.float() - expected).abs().max() < 0.05 * expected.std() + 0.02


def test_building_and_running_it_imports_no_monai() -> None:
    code = (
        "import sys, torch; from anatolab.nn import stem_unet, tap; "
        "tap(stem_unet(1, 2, widths=(4, 8)))(torch.rand(1, 1, 16, 16)); sys.exit('monai' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_channels_are_dropped_whole_and_the_mean_is_kept() -> None:
    torch.manual_seed(0)
    maps = torch.ones(4, 5000, 2, 3, requires_grad=True)
    p = torch.tensor([0.0, 0.25, 0.5, 0.75])
    result = drop_channels(maps, p)
    assert torch.equal(result[0], maps[0])
    assert (result == result[:, :, :1, :1]).all()
    for image, share in zip(result[1:], p[1:], strict=True):
        assert image.unique().tolist() == pytest.approx([0.0, 1 / (1 - share.item())])
        assert (image == 0).float().mean().item() == pytest.approx(share.item(), abs=0.03)
    result.sum().backward()
    assert torch.equal(maps.grad, result.detach())


NETS = [(stem_unet, 2), (stem_unet, 3), (light_unet, 2), (light_unet, 3), (basic_unet, 2), (basic_unet, 3)]


@pytest.mark.parametrize(("make", "dims"), NETS)
def test_perturbed_features_reach_the_decoder_and_not_the_encoder(make, dims: int) -> None:
    torch.manual_seed(0)
    tapped = tap(make(1, 3, spatial_dims=dims), spatial_dims=dims, size=32).eval()
    image = torch.rand(2, 1, *[32] * dims)
    logits, maps = tapped(image)
    again, perturbed_maps = tapped(image, perturb=torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(again[0], logits[0])  # perturbed in the second image only
    assert (again[1] - logits[1]).abs().max() > 1e-3
    torch.testing.assert_close(perturbed_maps[0], maps[0])  # the encoder itself is left alone
    assert all((a[1] - b[1]).abs().max() > 0 for a, b in zip(perturbed_maps[1:], maps[1:], strict=True))
    torch.testing.assert_close(tapped(image)[0], logits)  # and nothing stays behind
    torch.testing.assert_close(tapped(image, perturb=0.0)[0], logits)


@pytest.mark.parametrize(("make", "dims"), NETS)
def test_the_coarsest_map_and_every_skip_are_dropped_and_nothing_else(make, dims: int) -> None:
    """With every channel dropped the logits cannot depend on the image any more."""
    tapped = tap(make(1, 3, spatial_dims=dims), spatial_dims=dims, size=32).eval()
    image = torch.rand(2, 1, *[32] * dims)
    one, two = tapped(image, perturb=1.0)[0]
    torch.testing.assert_close(one, two)
    assert not torch.equal(*tapped(image)[0])


def test_a_copy_perturbs_its_features_only_and_other_networks_refuse() -> None:
    tapped = tap(stem_unet(1, 2, widths=(4, 8))).eval()
    copied = copy.deepcopy(tapped)
    image = torch.rand(1, 1, 16, 16)
    expected = tapped(image)[0]

    def during(module: object, args: object, output: object) -> None:
        torch.testing.assert_close(copied(image)[0], expected)

    tapped.net.get_submodule("down.1").register_forward_hook(during)
    torch.manual_seed(0)
    assert (tapped(image, perturb=0.5)[0] - expected).abs().max() > 1e-4
    other: Tap = tap(segresnet(1, 2, spatial_dims=2))
    with pytest.raises(InputError, match="features of SegResNet cannot be perturbed; use one of StemUNet"):
        other(image, perturb=0.5)
