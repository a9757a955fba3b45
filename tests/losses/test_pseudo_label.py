"""Losses against pseudo-labels: 0 without a confident one, those of labels where all are confident, never 0/0."""

import math

import pytest
import torch
import torch.nn.functional as F

from anatolab.losses import confident_pseudo_label_loss, cross_entropy, dice_loss, share_weighted_pseudo_label_loss
from anatolab.types import IGNORE


def given() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(3, 4, 6, 6), torch.randint(0, 4, (3, 6, 6)), torch.ones(3, 6, 6, dtype=torch.bool)


def test_zero_where_no_pixel_is_sure_and_plain_cross_entropy_where_all_are() -> None:
    logits, label, valid = given()
    assert share_weighted_pseudo_label_loss(logits, label, torch.full((3, 6, 6), 0.9699), valid, 0.97).item() == 0
    sure = share_weighted_pseudo_label_loss(logits, label, torch.full((3, 6, 6), 0.97), valid, 0.97)
    torch.testing.assert_close(sure, F.cross_entropy(logits, label))


def test_equals_the_literal_loop() -> None:
    logits, label, valid = given()
    confidence = 0.9 + 0.1 * torch.rand(3, 6, 6)
    valid[:, :2] = False
    total, count = 0.0, 0
    for b in range(3):
        pixels = [(y, x) for y in range(6) for x in range(6) if valid[b, y, x]]
        share = sum(confidence[b, y, x] >= 0.97 for y, x in pixels) / len(pixels)
        losses = [F.cross_entropy(logits[b, :, y, x], label[b, y, x]) for y, x in pixels]
        total += share * sum(losses)
        count += sum(loss > 0 for loss in losses)
    torch.testing.assert_close(share_weighted_pseudo_label_loss(logits, label, confidence, valid, 0.97), total / count)


def test_no_loss_anywhere_or_no_valid_pixel_is_zero_not_nan() -> None:
    logits, label, valid = given()
    certain = 1e4 * F.one_hot(label, 4).movedim(-1, 1).float()
    confidence = torch.ones(3, 6, 6)
    assert share_weighted_pseudo_label_loss(certain, label, confidence, valid, 0.97).item() == 0
    logits.requires_grad_()
    loss = share_weighted_pseudo_label_loss(logits, label, confidence, ~valid, 0.97)
    loss.backward()
    assert loss.item() == 0
    assert bool(torch.isfinite(logits.grad).all())


def test_a_pixel_without_loss_is_left_out_of_the_mean() -> None:
    logits, label = torch.zeros(1, 2, 1, 2), torch.zeros(1, 1, 2, dtype=torch.long)
    logits[0, 0, 0, 0] = 1e4
    loss = share_weighted_pseudo_label_loss(
        logits, label, torch.ones(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool), 0.97
    )
    assert loss.item() == pytest.approx(0.6931, abs=1e-4)


def test_confident_pixels_of_an_undecided_network_cost_log_2_and_a_dice_of_two_fifths() -> None:
    logits, label = torch.zeros(2, 2, 100, 100), torch.zeros(2, 100, 100, dtype=torch.long)
    confidence, valid = torch.full((2, 100, 100), 0.95), torch.ones(2, 100, 100, dtype=torch.bool)
    loss = confident_pseudo_label_loss(logits, label, confidence, valid, 0.95).item()
    assert loss == pytest.approx((math.log(2) + 1 - 0.8 / 2) / 2, abs=1e-6)  # Dice 1 / 1.25 and 0
    assert confident_pseudo_label_loss(logits, label, confidence - 0.01, valid, 0.95).item() == 0
    assert confident_pseudo_label_loss(logits, label, confidence, ~valid, 0.95).item() == 0


def test_unsure_and_invalid_pixels_are_ignored_in_both_halves() -> None:
    logits, label, valid = given()
    logits.requires_grad_()
    confidence = torch.rand(3, 6, 6)
    valid[:, :2] = False
    kept = valid & (confidence >= 0.5)
    ignored = torch.where(kept, label, IGNORE)
    loss = confident_pseudo_label_loss(logits, label, confidence, valid, 0.5)
    torch.testing.assert_close(loss, (cross_entropy(logits, ignored) + dice_loss(logits, ignored)) / 2)
    changed = torch.where(kept, label, 3 - label)
    assert torch.equal(confident_pseudo_label_loss(logits, changed, confidence, valid, 0.5), loss)
    loss.backward()
    assert torch.equal(logits.grad.abs().sum(1) > 0, kept)
