import pytest
import torch
from torch import nn

from anatolab.nn import Teacher, light_unet


def test_weight_of_the_start_after_100_updates_is_decay_to_the_100() -> None:
    student = nn.Linear(1, 1, bias=False)
    nn.init.ones_(student.weight)
    teacher = Teacher(student, 0.99)
    nn.init.zeros_(student.weight)
    for _ in range(100):
        teacher.update(student)
    assert teacher.net.weight.item() == pytest.approx(0.3660, abs=1e-4)


def test_warm_up_starts_as_the_running_mean() -> None:
    student = nn.Linear(1, 1, bias=False)
    teacher = Teacher(student, 0.99, warm_up=True)
    values = [3.0, 5.0, 10.0]
    start = student.weight.item()
    for value in values:
        nn.init.constant_(student.weight, value)
        teacher.update(student)
    assert teacher.net.weight.item() == pytest.approx((start + sum(values)) / 4, rel=1e-6)


def test_starts_equal_follows_buffers_stays_in_evaluation_mode_and_has_no_gradient() -> None:
    torch.manual_seed(0)
    student = light_unet(1, 2, width=4, depth=3)
    teacher = Teacher(student, 0.0)
    student.train()(torch.rand(2, 1, 16, 16))
    teacher.train().update(student)
    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    for (name, ours), theirs in zip(teacher.net.state_dict().items(), student.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    image = torch.rand(1, 1, 16, 16, requires_grad=True)
    assert not teacher(image).requires_grad


def test_the_warm_up_survives_a_checkpoint() -> None:
    student = nn.Linear(2, 2)
    one, two = Teacher(student, warm_up=True), Teacher(student, warm_up=True)
    for _ in range(3):
        one.update(student)
    two.load_state_dict(one.state_dict())
    nn.init.zeros_(student.weight)
    one.update(student)
    two.update(student)
    assert torch.equal(one.net.weight, two.net.weight)
