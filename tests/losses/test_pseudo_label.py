"""Cross-entropy with the teacher's classes: 0 where it is unsure, plain where it is sure, never 0/0."""

import pytest
import torch
import torch.nn.functional as F

from anatolab.losses import share_weighted_pseudo_label_loss


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
