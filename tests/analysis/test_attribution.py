"""Attribution maps: explicit attention equals torch's, and models whose answer is known score what they must."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anatolab.analysis.attribution import (
    _explicit_attention,
    attention_rollout,
    counterfactual_margins,
    grad_cam,
    integrated_gradients,
    margin_of,
    margin_through,
    outside_share,
)
from anatolab.data.phantoms import counterfactual_scenes, finch_or_duck
from anatolab.metrics import counterfactual_scores
from anatolab.robust import Dfr, ErmProjection, FeatureSet, Sgd, load_clip, start_of
from anatolab.types import InputError


@pytest.fixture(scope="module", params=["scenes-vit", "scenes-rn"])
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    clip = load_clip(request.param)
    images = clip.preprocess(finch_or_duck((8, 4, 4), seed=2).pixels)
    return {
        "clip": clip,
        "images": images,
        "margin": margin_of(clip.model, clip.text_head(("finch", "duck")), clip.scale),
    }


def test_explicit_attention_gives_the_same_margin_and_is_taken_back(case) -> None:
    plain = case["margin"](case["images"])
    with _explicit_attention(case["clip"].model) as kept:
        torch.testing.assert_close(case["margin"](case["images"]), plain, atol=1e-4, rtol=1e-5)
    for attention in kept:
        torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention[..., 0]))
    assert len(kept) == (1 if "rn" in case["clip"].name else 3)
    assert torch.equal(case["margin"](case["images"]), plain)
    for block in getattr(case["clip"].model.visual, "transformer", torch.nn.Module()).modules():
        assert "attention" not in vars(block)


@pytest.mark.parametrize("method", [grad_cam, attention_rollout])
def test_maps_have_the_size_of_the_image_and_say_something(case, method) -> None:
    maps = method(case["clip"].model, case["margin"], case["images"])
    assert maps.shape == (16, case["clip"].size, case["clip"].size)
    assert (maps >= 0).all()
    assert (maps.flatten(1).amax(1) > 0).float().mean() > 0.5
    assert not any(p.requires_grad for p in case["clip"].model.parameters())


def test_grad_cam_of_a_known_feature_map_is_the_weighted_sum() -> None:
    """A model whose last stage is the image itself, and whose margin is a known sum over it."""
    weight = torch.tensor([1.0, -2.0, 0.5])

    class Toy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = torch.nn.Module()
            self.visual.layer4 = torch.nn.Identity()

    toy, images = Toy(), torch.randn(2, 3, 4, 4)

    def margin(x: Tensor) -> Tensor:
        return (toy.visual.layer4(x).mean((2, 3)) * weight).sum(1)

    expected = torch.relu((images * weight.view(3, 1, 1) / 16).sum(1))
    torch.testing.assert_close(grad_cam(toy, margin, images.clone()), expected)


def known(part: str, sets: Any) -> Any:
    """A hand-made model that reads the background or the foreground alone, given the masks that it needs."""
    masks = torch.from_numpy(sets.masks)[:, :, None].expand(-1, -1, 2, -1, -1).reshape(-1, 32, 32)

    def margin(x: Tensor) -> Tensor:
        at = ~masks if part == "background" else masks
        at = at[: len(x)]
        if part == "background":  # water is blue, land is green
            return ((x[:, 2] - x[:, 1]) * at).sum((1, 2)) / at.sum((1, 2)) * 10
        return (torch.ones_like(x[:, 0]) * at).sum((1, 2)) * 0 + at[:, :, :].any(1).sum(1).float() - 14 + x.sum() * 0

    return margin


def test_a_model_of_the_background_has_srr_near_1_and_one_of_the_foreground_0() -> None:
    sets, clip = counterfactual_scenes(40), load_clip("scenes-vit")
    found = {
        part: counterfactual_scores(counterfactual_margins(known(part, sets), clip, sets.images))
        for part in ("background", "foreground")
    }
    assert found["background"]["srr"] > 0.95  # the two objects leave other pixels of it to see
    assert found["background"]["flips"] == 1.0
    assert found["foreground"]["srr"] == 0.0
    assert found["foreground"]["flips"] == 0.0


def test_all_of_a_map_on_the_background_has_share_1_and_on_the_object_0() -> None:
    masks = finch_or_duck((6, 4, 4)).masks
    outside, inside = outside_share(1.0 * ~masks, masks), outside_share(1.0 * masks, masks)
    assert (outside["share"] == 1).all()
    assert not outside["pointing"].any()
    assert (inside["share"] == 0).all()
    assert inside["pointing"].all()
    np.testing.assert_allclose(outside_share(np.ones(masks.shape), masks)["lift"], 1.0)


def test_integrated_gradients_sum_to_the_difference_of_margins(case) -> None:
    pytest.importorskip("captum")
    images, margin = case["images"][:4], case["margin"]
    baseline = torch.zeros_like(images)
    found = integrated_gradients(margin, images, baseline, steps=512)  # a ResNet bends at every ReLU
    with torch.no_grad():
        difference = margin(images) - margin(baseline)
    assert ((found.sum((1, 2, 3)) - difference).abs() < 0.01 * difference.abs().clamp_min(1)).all()


def test_integrated_gradients_of_a_linear_margin_are_weight_times_input() -> None:
    pytest.importorskip("captum")
    weight, images = torch.randn(3, 4, 4), torch.randn(2, 3, 4, 4)
    found = integrated_gradients(lambda x: (x * weight).sum((1, 2, 3)), images, torch.zeros(1, 1, 1, 1))
    torch.testing.assert_close(found, images * weight, atol=1e-5, rtol=1e-4)


def test_without_captum_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(InputError, match="pip install captum"):
        integrated_gradients(lambda x: x.sum((1, 2, 3)), torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))


def test_maps_that_do_not_fit_their_masks_are_said() -> None:
    with pytest.raises(InputError, match="must be"):
        outside_share(np.ones((2, 4, 4)), np.ones((2, 5, 5), bool))
    with pytest.raises(InputError, match="not negative"):
        outside_share(-np.ones((1, 2, 2)), np.ones((1, 2, 2), bool))


@pytest.mark.parametrize("kind", ["projection", "linear"])
def test_the_margin_through_the_whole_model_is_that_of_the_head_and_its_gradient_reaches_the_pixels(case, kind) -> None:
    clip, birds = case["clip"], finch_or_duck((64, 32, 4), seed=2)
    h, y = clip.trunk(clip.preprocess(birds.pixels)), torch.from_numpy(birds.y)
    groups, start = torch.from_numpy(birds.group), start_of(clip, birds.classes)
    generator = torch.Generator().manual_seed(0)
    if kind == "projection":
        head: Any = ErmProjection(start, ErmProjection.Config(sgd=Sgd(epochs=1, batch=32))).fit(
            h, y, generator=generator
        )
    else:
        rows = FeatureSet(h[64:96], y[64:96], groups[64:96])
        head = Dfr(start, Dfr.Config(strengths=(1.0,), refits=1)).fit(h, y, groups, generator, rows)
    model, margin = margin_through(clip, head)
    images = case["images"].clone().requires_grad_()
    found = margin(images)
    with torch.no_grad():
        logits = head.logits(clip.trunk(case["images"]))
    torch.testing.assert_close(found.detach(), logits[:, 1] - logits[:, 0], atol=1e-3, rtol=1e-4)
    (gradient,) = torch.autograd.grad(found.sum(), images)
    assert gradient.abs().sum() > 0
    assert grad_cam(model, margin, case["images"]).sum() > 0


def test_a_head_that_cannot_be_explained_is_said() -> None:
    class Other:
        def logits(self, h: Tensor) -> Tensor:
            return h

    with pytest.raises(InputError, match="Other: only projections and linear heads"):
        margin_through(load_clip("scenes-vit"), Other())


def test_the_output_of_the_last_vit_block_gets_no_gradient_at_the_patches_and_its_first_norm_does() -> None:
    clip = load_clip("scenes-vit")
    images = clip.preprocess(finch_or_duck((8, 4, 4), seed=2).pixels).requires_grad_()
    block: Any = clip.model.visual.transformer.resblocks[-1]  # type: ignore[union-attr, index]
    caught: list[Tensor] = []
    hooks = [part.register_forward_hook(lambda *call: caught.append(call[-1])) for part in (block.ln_1, block)]
    value = margin_of(clip.model, clip.text_head(("finch", "duck")), clip.scale)(images).sum()
    for hook in hooks:
        hook.remove()
    norm, output = torch.autograd.grad(value, caught)
    assert (output[:, 1:] == 0).all()
    assert output[:, 0].abs().sum() > 0
    assert norm[:, 1:].abs().sum() > 0
