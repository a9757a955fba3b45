"""Anatomical contrast against closed forms, InfoNCE a class, and the literal loop over anchors."""

import math

import pytest
import torch
import torch.nn.functional as F

from anatolab.losses import anatomical_contrast, class_means, info_nce

ALL = torch.ones(3, dtype=torch.bool)


def literal(features, anchors, negatives, prototypes, queried, present, temperature):
    """One anchor after the other, as a first implementation would read."""
    if present.sum() < 2:
        return torch.zeros(())
    total = torch.zeros(())
    for c in range(len(anchors)):
        if not (queried[c] and present[c]):
            continue
        losses = []
        for i, a in enumerate(anchors[c]):
            keys = negatives[c] if negatives.ndim == 2 else negatives[c, i]
            near = F.cosine_similarity(features[a], prototypes[c].detach(), dim=0) / temperature
            far = F.cosine_similarity(features[a][None], features[keys].detach(), dim=1) / temperature
            losses.append(-torch.log(near.exp() / (near.exp() + far.exp().sum())))
        total = total + torch.stack(losses).mean()
    return total / present.sum()


@pytest.mark.parametrize("each", [False, True])
def test_equals_the_literal_loop_in_value_and_gradient(each: bool) -> None:
    features = torch.randn(60, 8, dtype=torch.float64, requires_grad=True)
    anchors, shape = torch.randint(0, 60, (3, 5)), (3, 5, 11) if each else (3, 11)
    negatives, prototypes = torch.randint(0, 60, shape), torch.randn(3, 8, dtype=torch.float64)
    queried, present = torch.tensor([True, False, True]), ALL
    given = (features, anchors, negatives, prototypes, queried, present, 0.5)
    ours, theirs = anatomical_contrast(*given), literal(*given)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    one, two = (torch.autograd.grad(loss, features, retain_graph=True)[0] for loss in (ours, theirs))
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
    touched = set(anchors[[0, 2]].flatten().tolist())
    assert set(one.abs().sum(1).nonzero().flatten().tolist()) == touched  # keys stay without gradient


@pytest.mark.parametrize("temperature", [0.07, 0.5, 3.0])
def test_all_cosines_equal_gives_log_513_at_any_temperature(temperature: float) -> None:
    features = torch.ones(10, 4)
    anchors, negatives = torch.zeros(3, 256, dtype=torch.long), torch.zeros(3, 512, dtype=torch.long)
    loss = anatomical_contrast(features, anchors, negatives, torch.ones(3, 4), ALL, ALL, temperature)
    assert loss.item() == pytest.approx(math.log(513), abs=1e-4)


@pytest.mark.parametrize(("cosine", "expected"), [(-1 / 3, 3.5994), (-1.0, 2.3397)])
def test_at_half_the_loss_can_never_approach_zero(cosine: float, expected: float) -> None:
    features = torch.tensor([[1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]])
    anchors, negatives = torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 512, dtype=torch.long)
    prototypes = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = anatomical_contrast(features, anchors, negatives, prototypes, ALL[:2], ALL[:2], 0.5)
    assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_is_the_mean_over_classes_of_info_nce() -> None:
    features, prototypes = torch.randn(40, 6), torch.randn(3, 6)
    anchors, negatives = torch.randint(0, 40, (3, 7)), torch.randint(0, 40, (3, 9))
    each = [info_nce(features[a], p, features[n], 0.5) for a, p, n in zip(anchors, prototypes, negatives, strict=True)]
    loss = anatomical_contrast(features, anchors, negatives, prototypes, ALL, ALL, 0.5)
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_a_class_without_hard_pixel_adds_nothing_and_one_class_alone_is_exactly_zero() -> None:
    features, prototypes = torch.randn(40, 6, requires_grad=True), torch.randn(3, 6)
    anchors, negatives = torch.randint(0, 40, (3, 7)), torch.randint(0, 40, (3, 9))
    only = torch.tensor([True, False, False])
    given = (features, anchors, negatives, prototypes)
    first = anatomical_contrast(features, anchors[:1], negatives[:1], prototypes[:1], ALL[:1], ALL[:1], 0.5)
    assert first.item() == 0  # one class in all
    one = anatomical_contrast(*given, only, ALL, 0.5)
    torch.testing.assert_close(one, info_nce(features[anchors[0]], prototypes[0], features[negatives[0]], 0.5) / 3)
    alone = anatomical_contrast(*given, ALL, only, 0.5)
    alone.backward()
    assert alone.item() == 0
    assert bool(torch.isfinite(features.grad).all())


def test_lengths_of_features_do_not_matter() -> None:
    features, prototypes = torch.randn(40, 6), torch.randn(3, 6)
    anchors, negatives = torch.randint(0, 40, (3, 7)), torch.randint(0, 40, (3, 9))
    scale = torch.rand(40, 1) + 0.5
    one = anatomical_contrast(features, anchors, negatives, prototypes, ALL, ALL, 0.5)
    two = anatomical_contrast(features * scale, anchors, negatives, prototypes * 3, ALL, ALL, 0.5)
    torch.testing.assert_close(one, two)


def test_half_precision_autocast_does_not_reach_the_logits() -> None:
    features, prototypes = torch.randn(40, 6), torch.randn(3, 6)
    anchors, negatives = torch.randint(0, 40, (3, 7)), torch.randint(0, 40, (3, 9))
    plain = anatomical_contrast(features, anchors, negatives, prototypes, ALL, ALL, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(anatomical_contrast(features, anchors, negatives, prototypes, ALL, ALL, 0.1), plain)


def test_class_means_are_means_over_valid_pixels_and_zero_where_there_are_none() -> None:
    features, label = torch.randn(20, 3, requires_grad=True), torch.randint(-1, 2, (20,))
    means = class_means(features, label, 3)
    torch.testing.assert_close(means[1], features[label == 1].mean(0).detach())
    assert means[2].tolist() == [0.0] * 3
    assert not means.requires_grad
