"""No cost grows faster than its work: with seven times the classes, at most ``7 ** 1.2`` times the CPU time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from anatolab import losses
from anatolab.inference import sliding_window
from anatolab.sampling import negative_class_odds, pool_pixels, sample_anchors, sample_negatives
from anatolab.transforms import Augmentation, strong_view, weak_view

FEW, MANY, EXPONENT = 2, 14, 1.2
Work = Callable[[], Any]


def backward(loss: Tensor) -> None:
    """The cost of a loss is that of its gradient, too."""
    loss.backward()


def maps(classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits of 4 images, a class and a confidence for each pixel, and which pixels are valid."""
    torch.manual_seed(0)
    logits = torch.randn(4, classes, 96, 96, requires_grad=True)
    probability, label = logits.detach().softmax(1).max(1)
    return logits, label, probability, torch.ones_like(label, dtype=torch.bool)


def pixels(classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Any]:
    """Representations of pixels, their classes, 128 anchors and 256 negatives a class, and the pool of both."""
    torch.manual_seed(0)
    features = torch.randn(16_384, 32, requires_grad=True)
    label = torch.arange(len(features)) % classes
    pool = pool_pixels(label, classes)
    odds = negative_class_odds(torch.randn(classes, 32), pool.present, 0.5)
    return features, label, sample_anchors(pool, 128), sample_negatives(pool, odds, 256), pool


def anatomical(classes: int) -> Work:
    features, label, anchors, negatives, pool = pixels(classes)
    means = losses.class_means(features, label, classes)
    given = (features, anchors, negatives, means, pool.queried, pool.present, 0.5)
    return lambda: backward(losses.anatomical_contrast(*given))


def centers(classes: int) -> Work:
    features, _, anchors, negatives, pool = pixels(classes)
    targets = losses.simplex_centers(classes, 32).float()
    given = (features, anchors, anchors, negatives, targets, torch.arange(classes), pool.present, 0.5)
    return lambda: backward(torch.stack(list(losses.sampled_center_contrast(*given).values())).sum())


def on_maps(loss: Callable[..., Tensor]) -> Callable[[int], Work]:
    """A loss of pseudo-labels."""

    def made(classes: int) -> Work:
        given = maps(classes)
        return lambda: backward(loss(*given, 0.5))

    return made


def supervised(loss: Callable[..., Tensor]) -> Callable[[int], Work]:
    def made(classes: int) -> Work:
        logits, label, *_ = maps(classes)
        return lambda: backward(loss(logits, label))

    return made


def between(loss: Callable[..., Tensor]) -> Callable[[int], Work]:
    """A loss between two outputs."""

    def made(classes: int) -> Work:
        logits, _, _, valid = maps(classes)
        other = torch.randn_like(logits).softmax(1)
        return lambda: backward(loss(logits, other, valid))

    return made


def means(classes: int) -> Work:
    features, label, *_ = pixels(classes)
    return lambda: losses.class_means(features.detach(), label, classes)


def running_means(classes: int) -> Work:
    features, label, *_ = pixels(classes)
    unit = torch.eye(32)[:classes]
    return lambda: losses.update_means(unit, torch.ones(classes, dtype=torch.bool), features.detach(), label, 0.1)


def windows(classes: int) -> Work:
    volume = torch.rand(1, 12, 48, 48)
    return lambda: sliding_window(lambda x: x.expand(-1, classes, -1, -1, -1), volume, (8, 32, 32))


def views(classes: int) -> Work:
    image, label = torch.rand(8, 1, 64, 64), torch.randint(classes, (8, 64, 64))
    return lambda: strong_view(weak_view(image, label, Augmentation())[0], Augmentation())


PARTS: dict[str, Callable[[int], Work]] = {
    "cross-entropy": supervised(losses.cross_entropy),
    "Dice": supervised(losses.dice_loss),
    "confident pseudo-labels": on_maps(losses.confident_pseudo_label_loss),
    "share-weighted pseudo-labels": on_maps(losses.share_weighted_pseudo_label_loss),
    "confident cross-entropy": on_maps(losses.confident_cross_entropy),
    "confident Dice": on_maps(losses.confident_dice_loss),
    "consistency": between(losses.consistency),
    "equivariance": between(losses.equivariance),
    "anatomical contrast": anatomical,
    "sampled centers": centers,
    "class means": means,
    "running means": running_means,
    "sliding window": windows,
    "augmentation": views,
}


def seconds(work: Work, rounds: int) -> list[float]:
    """CPU seconds of each of some calls, after one that warms up."""
    work()
    found = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return found


@pytest.mark.parametrize("part", PARTS)
def test_time_grows_with_classes_as_the_work_does(part: str) -> None:
    few, many = (PARTS[part](classes) for classes in (FEW, MANY))
    best = {FEW: math.inf, MANY: math.inf}
    exponent = math.inf
    for _ in range(4):  # the least of interleaved rounds; more of them where another process interferes
        best = {FEW: min(best[FEW], *seconds(few, 3)), MANY: min(best[MANY], *seconds(many, 3))}
        exponent = math.log(best[MANY] / best[FEW]) / math.log(MANY / FEW)
        if exponent <= EXPONENT:
            break
    assert exponent <= EXPONENT


def test_a_cost_that_is_quadratic_in_classes_is_seen() -> None:
    def work(classes: int) -> Work:
        row = torch.rand(200 * classes, 64)
        return lambda: (row @ row.T).exp().sum()

    few, many = (min(seconds(work(classes), 4)) for classes in (FEW, MANY))
    assert math.log(many / few) / math.log(MANY / FEW) > EXPONENT
