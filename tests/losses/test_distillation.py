"""Relational distillation against the closed forms of the method sheet and a literal loop."""

import math

import pytest
import torch
import torch.nn.functional as F

from anatolab.losses import relational_distillation

AT = {"student_temperature": 0.1, "teacher_temperature": 0.01}


@pytest.mark.parametrize(("tau_t", "expected"), [(0.01, math.log(1 + 35 * math.exp(-10))), (0.6, 5.2104)])
def test_36_orthonormal_anchors(tau_t: float, expected: float) -> None:
    z = torch.eye(36, dtype=torch.float64)[:1]
    loss = relational_distillation(z, z, torch.eye(36).double(), student_temperature=0.1, teacher_temperature=tau_t)
    assert loss.item() == pytest.approx(expected, rel=2e-5)


def test_zero_for_equal_embeddings_at_equal_temperatures_and_for_identical_anchors() -> None:
    z, other = torch.randn(5, 8), torch.randn(5, 8)
    same = {"student_temperature": 0.3, "teacher_temperature": 0.3}
    assert relational_distillation(z, z, torch.randn(9, 8), **same).item() == pytest.approx(0, abs=1e-6)
    anchors = torch.ones(9, 1) * torch.randn(1, 8)
    assert relational_distillation(z, other, anchors, **AT).item() == pytest.approx(0, abs=1e-6)


def test_a_cold_teacher_asks_for_the_nearest_anchor() -> None:
    student, teacher, anchors = torch.randn(4, 6), torch.randn(4, 6), torch.randn(12, 6)
    loss = relational_distillation(student, teacher, anchors, student_temperature=0.2, teacher_temperature=1e-5)
    cosine = F.normalize(student, dim=1) @ F.normalize(anchors, dim=1).T
    nearest = (F.normalize(teacher, dim=1) @ F.normalize(anchors, dim=1).T).argmax(1)
    assert loss.item() == pytest.approx(F.cross_entropy(cosine / 0.2, nearest).item(), rel=1e-4)


def test_scale_of_embeddings_and_order_of_anchors_do_not_matter() -> None:
    student, teacher, anchors = torch.randn(4, 6), torch.randn(4, 6), torch.randn(12, 6)
    loss = relational_distillation(student, teacher, anchors, **AT)
    again = relational_distillation(3 * student, teacher / 7, 2 * anchors[torch.randperm(12)], **AT)
    torch.testing.assert_close(loss, again, rtol=1e-4, atol=1e-6)


def test_each_patch_meets_the_anchors_of_its_place_alone() -> None:
    student, teacher, anchors = torch.randn(3, 5, 6), torch.randn(3, 5, 6), torch.randn(7, 5, 6)
    literal = [relational_distillation(student[:, p], teacher[:, p], anchors[:, p], **AT) for p in range(5)]
    torch.testing.assert_close(relational_distillation(student, teacher, anchors, **AT), torch.stack(literal).mean())


def test_only_the_student_has_gradient() -> None:
    student, teacher, anchors = (torch.randn(4, 6, requires_grad=True) for _ in range(3))
    relational_distillation(student, teacher, anchors, **AT).backward()
    assert student.grad is not None
    assert student.grad.abs().max() > 0
    assert teacher.grad is None
    assert anchors.grad is None


def test_no_anchor_yet_is_exactly_zero_and_can_be_differentiated() -> None:
    student = torch.randn(4, 6, requires_grad=True)
    loss = relational_distillation(student, torch.randn(4, 6), torch.empty(0), **AT)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(student.grad, torch.zeros(4, 6))
