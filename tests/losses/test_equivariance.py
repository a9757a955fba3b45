"""The equivariance term: closed forms, and networks that are equivariant by construction."""

import math

import pytest
import torch
from torch import nn

from anatolab.losses import equivariance
from anatolab.transforms import Affine, Augmentation

RIGID = Augmentation(rotate=0, scale=0, translate=0, flip=True, quarter_turns=True)  # flips and quarter turns alone


@pytest.mark.parametrize("symmetric", [True, False])
def test_two_classes_in_closed_form(symmetric: bool) -> None:
    p, q = torch.tensor([0.8, 0.2]), torch.tensor([0.5, 0.5])
    forward = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    backward = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    logits = [x.log()[None, :, None, None].expand(3, 2, 4, 4) for x in (p, q)]
    mask = torch.zeros(3, 4, 4)
    mask[:, :2] = 1
    found = equivariance(logits[0], logits[1], mask, symmetric=symmetric).item()
    assert found == pytest.approx(forward + backward if symmetric else forward, rel=1e-5)


def test_masked_pixels_and_an_empty_mask_count_nothing() -> None:
    a, b = torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5)
    mask = torch.rand(2, 5, 5) > 0.5
    changed = torch.where(mask[:, None], b, torch.randn_like(b))
    torch.testing.assert_close(equivariance(a, b, mask), equivariance(a, changed, mask))
    for symmetric in (True, False):
        assert equivariance(a, b, torch.zeros(2, 5, 5), symmetric=symmetric).item() == 0


def test_gradient_flows_to_both_sides_or_to_one() -> None:
    for symmetric in (True, False):
        a, b = torch.randn(2, 3, 5, 5, requires_grad=True), torch.randn(2, 3, 5, 5, requires_grad=True)
        equivariance(a, b, torch.ones(2, 5, 5), symmetric=symmetric).backward()
        assert b.grad is not None
        assert (a.grad is not None) is symmetric


@pytest.mark.parametrize("dims", [2, 3])
def test_a_pointwise_network_is_equivariant_to_flips_and_quarter_turns(dims: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d if dims == 2 else nn.Conv3d
    point, wide = conv(1, 4, 1), conv(1, 4, 3, padding=1)
    image = torch.rand(6, 1, *[8] * dims)
    move = Affine.sample(image, RIGID)
    inside = move.warp_image(torch.ones_like(image))[:, 0]
    assert inside.min() > 0.999
    loss = {
        net: equivariance(move.warp_image(net(image)), net(move.warp_image(image)), inside).item()
        for net in (point, wide)
    }
    assert loss[point] == pytest.approx(0, abs=1e-8)
    assert loss[wide] > 1e-4
