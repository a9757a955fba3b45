import math

import pytest
import torch

from anatolab.losses import consistency, predictive_entropy


def test_mask_selects_pixels_and_an_empty_mask_is_exactly_zero() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    target = torch.softmax(torch.randn(2, 3, 4, 4), 1)
    mask = torch.rand(2, 4, 4) < 0.5
    squared = (torch.softmax(logits, 1) - target).square().mean(1)
    torch.testing.assert_close(consistency(logits, target, mask), squared[mask].mean())
    torch.testing.assert_close(consistency(logits, target), squared.mean())
    nothing = consistency(logits, target, torch.zeros(2, 4, 4, dtype=torch.bool))
    assert nothing.item() == 0
    assert torch.isfinite(torch.autograd.grad(nothing, logits)[0]).all()


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = torch.rand(1, 2, 3, 3, requires_grad=True)
    student = torch.randn(1, 2, 3, 3, requires_grad=True)
    consistency(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0


@pytest.mark.parametrize("classes", [2, 4])
def test_entropy_runs_from_zero_to_log_classes(classes: int) -> None:
    sure = torch.eye(classes)[:1, :, None]
    assert predictive_entropy(sure).item() == 0
    assert predictive_entropy(torch.full((1, classes, 1), 1 / classes)).item() == pytest.approx(math.log(classes))
