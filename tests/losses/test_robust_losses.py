"""Losses of the robust methods: closed forms, invariances, gradients, and no overflow at a small temperature."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from anatolab.losses import (
    calibration_loss,
    cosine_separation,
    group_dro,
    group_losses,
    hardness_weights,
    simplex_centers,
    targeted_contrast,
)

Z = torch.tensor([[1.0, 0.0]])
NEAR = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
FAR = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]])


@pytest.mark.parametrize(
    ("tau", "joint", "expected"),
    [(1.0, False, 0.483813), (0.1, False, 0.00126060), (1.0, True, 0.976355), (0.1, True, 2.018195)],
)
def test_calibration_loss_equals_values_worked_out_by_hand(tau: float, joint: bool, expected: float) -> None:
    assert calibration_loss(Z, NEAR, FAR, tau, joint=joint).item() == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize(("tau", "expected"), [(1.0, 0.444202), (0.1, 1.30480e-4)])
def test_with_the_centroid_as_the_one_positive(tau: float, expected: float) -> None:
    centroid = NEAR.mean(1, keepdim=True)
    assert calibration_loss(Z, centroid, FAR, tau).item() == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize("tau", [0.01, 0.1, 1.0, 7.0])
def test_equal_similarities_give_the_logarithm_of_17_at_any_temperature(tau: float) -> None:
    one = torch.ones(3, 5)
    loss = calibration_loss(one, one[:, None].repeat(1, 4, 1), one[:, None].repeat(1, 16, 1), tau)
    assert loss.item() == pytest.approx(math.log(17), abs=1e-5)


def test_a_small_temperature_overflows_nowhere() -> None:
    z = torch.randn(8, 6, requires_grad=True)
    loss = calibration_loss(z, torch.randn(8, 4, 6), torch.randn(8, 16, 6), 0.01)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


def literal(z: torch.Tensor, near: torch.Tensor, far: torch.Tensor, tau: float, joint: bool) -> torch.Tensor:
    """Anchor by anchor and positive by positive, as printed."""
    terms = []
    for i in range(len(z)):
        a = F.normalize(z[i], dim=0)
        e_near = [torch.exp(a @ F.normalize(p, dim=0) / tau) for p in near[i]]
        e_far = sum(torch.exp(a @ F.normalize(n, dim=0) / tau) for n in far[i])
        terms += [-torch.log(e / ((sum(e_near) if joint else e) + e_far)) / len(e_near) for e in e_near]
    return sum(terms) / len(z)


@pytest.mark.parametrize("joint", [False, True])
def test_calibration_loss_equals_its_literal_form(joint: bool) -> None:
    z, near, far = torch.randn(3, 4).double(), torch.randn(3, 2, 4).double(), torch.randn(3, 5, 4).double()
    ours = calibration_loss(z, near, far, 0.3, joint=joint)
    torch.testing.assert_close(ours, literal(z, near, far, 0.3, joint))


def test_calibration_loss_knows_no_order_of_positives_and_no_length_of_features() -> None:
    z, near, far = torch.randn(4, 5), torch.randn(4, 6, 5), torch.randn(4, 7, 5)
    one = calibration_loss(z, near, far, 0.2)
    torch.testing.assert_close(one, calibration_loss(3 * z, 0.1 * near.flip(1), 9 * far.flip(1), 0.2))


def test_gradients_equal_finite_differences() -> None:
    z, near, far = (torch.randn(*s, dtype=torch.double, requires_grad=True) for s in ((2, 3), (2, 2, 3), (2, 3, 3)))
    y = torch.tensor([0, 1])
    assert torch.autograd.gradcheck(lambda *a: calibration_loss(*a, 0.5), (z, near, far))
    assert torch.autograd.gradcheck(lambda *a: calibration_loss(*a, 0.5, joint=True), (z, near, far))
    assert torch.autograd.gradcheck(lambda a: cosine_separation(a, y), (z,))
    queue, targets = F.normalize(torch.randn(4, 3).double(), dim=1), simplex_centers(2, 3).double()
    label, assignment = torch.tensor([0, 1, 1, 0]), torch.tensor([1, 0])

    # The own key is a constant: its similarity is at its largest, so that its gradient is 0 either way.
    assert torch.autograd.gradcheck(lambda a: targeted_contrast(a, y, queue, label, targets, assignment, 0.5), (z,))
    q = torch.full((3,), 1 / 3, dtype=torch.double)
    losses = torch.rand(3, dtype=torch.double, requires_grad=True)
    _, moved = group_dro(losses, q, 0.1)
    assert torch.autograd.gradcheck(lambda a: (moved * a).sum(), (losses,))


@pytest.mark.parametrize(
    ("second", "expected"),
    [((0.0, 1.0), -0.5), ((1.0, 0.0), 0.0), ((-1.0, 0.0), -1.0)],
    ids=["right angle", "same", "opposite"],
)
def test_cosine_separation_of_two_classes(second: tuple[float, float], expected: float) -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], second, second])
    assert cosine_separation(features, torch.tensor([0, 0, 1, 1])).item() == pytest.approx(expected, abs=1e-6)


def test_cosine_separation_divides_by_the_batch_and_not_by_the_class() -> None:
    z, y = F.normalize(torch.randn(6, 3), dim=1), torch.tensor([0, 0, 0, 0, 1, 1])
    total = sum((-1 if y[i] == y[j] else 1) * float(z[i] @ z[j]) for i in range(6) for j in range(6))
    assert cosine_separation(z, y).item() == pytest.approx(total / 36, abs=1e-6)


def test_targeted_contrast_equals_its_literal_form() -> None:
    z, y = F.normalize(torch.randn(3, 4), dim=1), torch.tensor([0, 1, 0])
    queue, label = F.normalize(torch.randn(5, 4), dim=1), torch.tensor([0, 1, 1, 0, 1])
    targets, assignment = simplex_centers(2, 4), torch.tensor([1, 0])
    total = 0.0
    for i in range(3):
        keys = [z[i], *queue, *targets]
        log_p = torch.log_softmax(torch.stack([z[i] @ k for k in keys]) / 0.07, 0)
        mine = [0] + [1 + j for j in range(5) if label[j] == y[i]]
        target = 6 + int(assignment[y[i]])
        total += float(-(log_p[mine].sum() + 0.2 * log_p[target]) / (len(mine) + 1) - log_p[0])
    ours = targeted_contrast(z, y, queue, label, targets, assignment)
    assert ours.item() == pytest.approx(total / 3, rel=1e-5)


def test_group_dro_takes_the_step_of_the_paper() -> None:
    losses = torch.tensor([0.1, 0.5, 2.0, 0.1])
    loss, q = group_dro(losses, torch.full((4,), 0.25), 0.01)
    torch.testing.assert_close(q, torch.tensor([0.248559, 0.249555, 0.253327, 0.248559]), atol=1e-6, rtol=0)
    assert loss.item() == pytest.approx(0.681143, abs=1e-6)
    assert not q.requires_grad


def test_group_dro_without_a_step_is_the_mean_of_group_losses() -> None:
    losses = group_losses(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2]), 3)
    assert losses.tolist() == [2.0, 0.0, 5.0]  # the group without rows counts as 0
    assert group_dro(losses, torch.full((3,), 1 / 3), 0.0)[0].item() == pytest.approx(7 / 3)


def test_hardness_weights_equal_those_worked_out_by_hand() -> None:
    mu = hardness_weights(torch.tensor([0.99, 0.9, 0.2, 0.6]), torch.tensor([0, 0, 0, 1]), 10.0)
    torch.testing.assert_close(mu, torch.tensor([0.000351, 0.000863, 0.946764, 0.052022]), atol=1e-6, rtol=0)


def test_hardness_weights_at_gamma_0_balance_classes() -> None:
    mu = hardness_weights(torch.rand(5), torch.tensor([0, 0, 0, 0, 1]), 0.0)
    torch.testing.assert_close(mu, torch.tensor([0.125, 0.125, 0.125, 0.125, 0.5]))
