"""The diversity term against its closed forms, a literal loop, and the released swap that trains nothing."""

import pytest
import torch
import torch.nn.functional as F

from anatolab.losses import nearest_neighbors


def literal(student: torch.Tensor, teacher: torch.Tensor, bank: torch.Tensor, k: int) -> float:
    total = 0.0
    for q, t in zip(student, teacher, strict=True):
        order = sorted(range(len(bank)), key=lambda i: -float(F.cosine_similarity(t, bank[i], dim=0)))
        total += sum(2 - 2 * float(F.cosine_similarity(q, bank[i], dim=0)) for i in order[:k]) / k
    return total / len(student)


def test_equals_a_literal_loop_over_images_and_neighbors() -> None:
    student, teacher, bank = torch.randn(6, 9), torch.randn(6, 9), torch.randn(36, 9)
    for k in (1, 5, 36):
        ours = nearest_neighbors(student, teacher, bank, k).item()
        assert ours == pytest.approx(literal(student, teacher, bank, k), abs=1e-5)


def test_zero_at_the_neighbors_four_opposite_to_them_and_with_an_empty_bank() -> None:
    z = torch.randn(1, 8)
    bank = z.repeat(5, 1)
    assert nearest_neighbors(z, z, bank).item() == pytest.approx(0, abs=1e-6)
    assert nearest_neighbors(-z, z, bank).item() == pytest.approx(4, abs=1e-6)
    empty = nearest_neighbors(z.requires_grad_(), z, bank[:0])
    empty.backward()
    assert empty.item() == 0
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_fewer_rows_than_neighbors_are_all_neighbors() -> None:
    student, teacher, bank = torch.randn(3, 4), torch.randn(3, 4), torch.randn(2, 4)
    assert nearest_neighbors(student, teacher, bank, 5).item() == pytest.approx(literal(student, teacher, bank, 2))


def test_gradient_reaches_the_student_alone_so_that_the_released_swap_trains_nothing() -> None:
    q, t, bank = (torch.randn(n, 8, requires_grad=True) for n in (4, 4, 12))
    nearest_neighbors(q, t, bank).backward()
    assert q.grad is not None
    assert q.grad.norm() > 1e-3
    assert t.grad is None
    assert bank.grad is None
    swapped = nearest_neighbors(t.detach(), q, bank)  # picked by the student, measured on the teacher
    assert not swapped.requires_grad
