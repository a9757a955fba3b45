import math

import pytest
import torch
import torch.nn.functional as F

from anatolab.losses import cross_entropy, dice_loss
from anatolab.types import IGNORE


@pytest.mark.parametrize("sides", [(5, 7), (3, 4, 5)])
def test_cross_entropy_equals_torch_and_leaves_ignored_pixels_out(sides: tuple[int, ...]) -> None:
    logits = torch.randn(2, 4, *sides, requires_grad=True)
    label = torch.randint(-1, 4, (2, *sides))
    expected = F.cross_entropy(logits, label, ignore_index=IGNORE)
    torch.testing.assert_close(cross_entropy(logits, label), expected)
    (gradient,) = torch.autograd.grad(cross_entropy(logits, label), logits)
    known = (label != IGNORE)[:, None].expand_as(gradient)
    assert (gradient[~known] == 0).all()
    assert (gradient[known] != 0).all()


def test_cross_entropy_of_no_labeled_pixel_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 4, 4), IGNORE))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, logits)[0].abs().max() == 0


def test_cross_entropy_of_uniform_logits_is_log_classes() -> None:
    assert cross_entropy(torch.zeros(1, 4, 3, 3), torch.zeros(1, 3, 3).long()).item() == pytest.approx(math.log(4))


def literal_dice(logits: torch.Tensor, label: torch.Tensor, epsilon: float = 1e-5) -> float:
    """The formula of the released code, a class and a pixel at a time."""
    probability = torch.softmax(logits.double(), 1)
    b, classes, *_ = logits.shape
    total = 0.0
    for c in range(classes):
        overlap = size = 0.0
        for i in range(b):
            for p, y in zip(probability[i, c].flatten().tolist(), label[i].flatten().tolist(), strict=True):
                if y == IGNORE:
                    continue
                g = float(y == c)
                overlap += p * g
                size += p * p + g * g
        total += 1 - (2 * overlap + epsilon) / (size + epsilon)
    return total / classes


@pytest.mark.parametrize("sides", [(5, 7), (3, 4, 5)])
def test_dice_equals_the_literal_sum_over_the_whole_batch(sides: tuple[int, ...]) -> None:
    logits, label = torch.randn(3, 4, *sides), torch.randint(-1, 4, (3, *sides))
    assert dice_loss(logits, label).item() == pytest.approx(literal_dice(logits, label), abs=1e-6)


def test_dice_is_0_when_perfect_and_1_when_disjoint() -> None:
    label = torch.randint(0, 2, (2, 6, 6))
    sure = 200.0 * F.one_hot(label, 2).movedim(-1, 1).float()
    assert dice_loss(sure, label).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(-sure, label).item() == pytest.approx(1, abs=1e-6)


def test_a_class_that_is_nowhere_costs_nothing() -> None:
    label = torch.zeros(1, 4, 4, dtype=torch.long)
    logits = torch.stack([torch.full((4, 4), 200.0), torch.full((4, 4), -200.0)])[None]
    assert dice_loss(logits, label).item() == pytest.approx(0, abs=1e-6)


def test_half_precision_logits_are_summed_in_single_precision() -> None:
    logits = torch.randn(2, 4, 64, 64).bfloat16()
    label = torch.randint(0, 4, (2, 64, 64))
    for loss in (cross_entropy, dice_loss):
        assert loss(logits, label).dtype == torch.float32
        torch.testing.assert_close(loss(logits, label), loss(logits.float(), label))
