"""Every backbone that MORSE attaches to, all MONAI's, in 2-D and 3-D by the same code: pyramid, learning, gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anatolab.methods import Morse
from anatolab.nn import tap
from anatolab.transforms import Augmentation
from anatolab.types import Batch, InputError

STILL = Augmentation(rotate=0, scale=0, translate=0, flip=False, quarter_turns=False, strong_probability=0, mix="none")
CLASSES = 3


def networks(dims: int) -> dict[str, tuple[Callable[[], nn.Module], int, tuple[tuple[int, ...], tuple[int, ...]]]]:
    """How to build each network as small as it goes, the side it takes, and its pyramid: channels and strides."""
    from monai.networks import nets

    given: dict[str, Any] = {"spatial_dims": dims, "in_channels": 1, "out_channels": CLASSES}
    three: Any = [3] * 4, [1, 2, 2, 2], [2] * 3
    light = {"depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "norm_name": "batch", "feature_size": 12}
    vit = {"feature_size": 4, "hidden_size": 16, "mlp_dim": 32, "num_heads": 2, "img_size": (32,) * dims}
    return {
        "BasicUNet": (
            lambda: nets.BasicUNet(**given, features=(4, 4, 8, 8, 16, 4)),
            32,
            ((16, 8, 8, 4, 4), (16, 8, 4, 2, 1)),
        ),
        "UNet": (lambda: nets.UNet(**given, channels=(4, 8, 16), strides=(2, 2)), 16, ((16, 4), (4, 2))),
        "AttentionUnet": (
            lambda: nets.AttentionUnet(**given, channels=(4, 8, 16), strides=(2, 2)),
            16,
            ((16, 8, 4), (4, 2, 1)),
        ),
        "UNETR": (lambda: nets.UNETR(**given, **vit), 32, ((32, 16, 8, 4), (8, 4, 2, 1))),
        "SwinUNETR": (lambda: nets.SwinUNETR(**given, **light), 32, ((192, 96, 48, 24, 12, 12), (32, 16, 8, 4, 2, 1))),
        "VNet": (lambda: nets.VNet(**given, dropout_dim=dims), 16, ((256, 256, 128, 64, 32), (16, 8, 4, 2, 1))),
        "SegResNet": (lambda: nets.SegResNet(**given, init_filters=8), 16, ((64, 32, 16, 8), (8, 4, 2, 1))),
        "DynUNet": (
            lambda: nets.DynUNet(dims, 1, CLASSES, *three, filters=[4, 4, 8, 16], deep_supervision=True),
            16,
            ((16, 8, 4, 4), (8, 4, 2, 1)),
        ),
    }


NAMES = ("BasicUNet", "UNet", "AttentionUnet", "UNETR", "SwinUNETR", "VNet", "SegResNet", "DynUNet")


def batch(dims: int, side: int) -> Batch:
    """Images of a bright box in a gray one on a dark ground."""
    label = torch.zeros(2, *[side] * dims, dtype=torch.long)
    label[(slice(None), *[slice(side // 8, 3 * side // 4)] * dims)] = 1
    label[(slice(None), *[slice(side // 4, side // 2)] * dims)] = 2
    return Batch(label[:, None] / 2 + 0.1 * torch.rand(2, 1, *[side] * dims), label, 2)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_morse_attaches_learns_and_reaches_the_backbone(name: str, dims: int) -> None:
    build, side, (channels, strides) = networks(dims)[name]
    torch.manual_seed(0)
    tapped = tap(build(), in_channels=1, spatial_dims=dims, size=side)
    assert (tapped.channels, tapped.strides, tapped.classes) == (channels, strides, CLASSES)

    sizes = {"experts": 8, "fused": 8, "hidden": 8, "head_width": 16, "frequencies": 8, "gate_stride": 4}
    budget = {"points": 128, "render_points": 64, "labeled": 2, "ramp": "constant", "augmentation": STILL}
    method = Morse(tapped, Morse.Config(**sizes, **budget)).train()
    given = batch(dims, side)
    logits, maps = tapped(given.image)
    if name == "DynUNet":  # its deep supervision stacks several outputs in training
        logits = logits[:, 0]
    assert logits.shape == (2, CLASSES, *[side] * dims)
    assert [tuple(m.shape) for m in maps] == [
        (2, c, *[side // s] * dims) for c, s in zip(channels, strides, strict=True)
    ]

    optimizer = torch.optim.Adam(method.parameters(), 1e-2)
    values: list[float] = []
    for step in range(8):
        losses = method.training_step(given, 0.9)
        optimizer.zero_grad()
        losses.total.backward()
        if step == 0:  # the backbone learns from the rendered points too, not from the coarse ones alone
            weights = [p for p in tapped.parameters() if p.requires_grad]
            again = method.training_step(given, 0.9).terms["render"]
            reached = torch.autograd.grad(again, weights, allow_unused=True)
            assert sum(float(g.abs().sum()) for g in reached if g is not None) > 0
            encoder = {id(p) for p in tapped.encoder_parameters()}
            assert any(
                g is not None and g.abs().max() > 0 for w, g in zip(weights, reached, strict=True) if id(w) in encoder
            )
        optimizer.step()
        values.append(losses.total.item())
    assert sum(values[-3:]) < 0.9 * sum(values[:3]), values

    method.eval()
    with torch.no_grad():
        coarse, refined = method.predict_both(given.image)
        assert torch.equal(method.predict(given.image), refined)
    changed = (coarse != refined).any(1).flatten(1).sum(1)
    assert 0 < changed.min() <= changed.max() <= 2 * 64


@pytest.mark.parametrize("dims", [2, 3])
def test_a_network_of_ones_own_is_attached_by_naming_its_modules(dims: int) -> None:
    conv = nn.Conv2d if dims == 2 else nn.Conv3d

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = conv(1, 6, 3, stride=4, padding=1)
            self.up = nn.Upsample(scale_factor=4)
            self.out = conv(6, CLASSES, 1)

        def forward(self, image: Tensor) -> Tensor:
            return self.out(self.up(self.down(image).relu()))

    with pytest.raises(InputError, match="no hook points are known for Own"):
        Morse(Own())
    tapped = tap(Own(), ["down", "up"], spatial_dims=dims, size=16)
    assert (tapped.channels, tapped.strides) == ((6, 6), (4, 1))
    method = Morse(tapped, Morse.Config(experts=4, fused=4, points=32, render_points=16, augmentation=STILL)).train()
    method.training_step(batch(dims, 16), 0.9).total.backward()
    assert method.predict(batch(dims, 16).image).shape == (2, CLASSES, *[16] * dims)


@pytest.mark.parametrize("name", NAMES)
def test_the_maps_are_not_changed_after_they_were_captured(name: str) -> None:
    build, side, _ = networks(2)[name]
    tapped = tap(build(), spatial_dims=2, size=32).eval()
    copies: dict[str, Tensor] = {}
    for path in tapped.paths:
        tapped.net.get_submodule(path).register_forward_hook(lambda _, __, out, p=path: copies.update({p: out.clone()}))
    with torch.no_grad():
        _, maps = tapped(torch.rand(1, 1, max(side, 32), max(side, 32)))
    assert all(torch.equal(copies[p], m) for p, m in zip(tapped.paths, maps, strict=True))
