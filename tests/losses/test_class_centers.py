"""Class centers: simplex, uniformity, assignment, running means, and the contrast, against the sheet's values."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from anatolab.losses import (
    assign_centers,
    center_contrast,
    optimized_centers,
    sampled_center_contrast,
    simplex_centers,
    uniformity,
    update_means,
)
from anatolab.types import InputError

NO_KEYS = {"keys": torch.empty(0, 16), "key_label": torch.empty(0, dtype=torch.long)}


@pytest.mark.parametrize(("classes", "dim"), [(2, 2), (2, 128), (4, 16), (9, 64), (14, 14)])
def test_simplex_centers_are_unit_balanced_and_all_at_the_same_angle(classes: int, dim: int) -> None:
    centers = simplex_centers(classes, dim).double()
    gram = centers @ centers.T
    ideal = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(gram, ideal, atol=1e-6, rtol=0)
    torch.testing.assert_close(centers.sum(0), torch.zeros(dim, dtype=torch.float64), atol=1e-6, rtol=0)
    nearest = torch.pdist(centers).min().item()
    assert nearest == pytest.approx(math.sqrt(2 * classes / (classes - 1)), abs=1e-6)


def test_too_few_dimensions_or_classes_is_said() -> None:
    with pytest.raises(InputError, match="4 classes in 3 dimensions"):
        simplex_centers(4, 3)
    with pytest.raises(InputError, match="at least 2 classes"):
        simplex_centers(1, 3)


@pytest.mark.parametrize(("classes", "expected"), [(4, 2.189339), (2, 2.018150), (8, 2.537610)])
def test_descent_finds_the_simplex(classes: int, expected: float) -> None:
    centers = optimized_centers(classes, 32)
    assert uniformity(centers, 0.5).item() == pytest.approx(expected, abs=2e-6)
    closed = simplex_centers(classes, 32).double()
    torch.testing.assert_close(centers @ centers.T, closed @ closed.T, atol=1e-4, rtol=0)


def test_at_the_released_temperature_the_loss_looks_converged_while_the_centers_are_not() -> None:
    stalled = optimized_centers(2, 128, temperature=0.07, lr=1e-3, steps=2_000)
    assert uniformity(stalled, 0.07).item() == pytest.approx(14.285714, abs=1e-4)
    assert (stalled[0] @ stalled[1]).item() > -0.9  # the simplex has -1


def test_uniformity_at_orthogonal_and_coincident_vectors_and_under_rotation() -> None:
    tau = 0.5
    assert uniformity(torch.eye(4), tau).item() == pytest.approx(math.log(math.exp(1 / tau) + 3), abs=1e-5)
    assert uniformity(torch.ones(4, 3), tau).item() == pytest.approx(1 / tau + math.log(4), abs=1e-5)
    centers, rotation = simplex_centers(4, 6), torch.linalg.qr(torch.randn(6, 6)).Q
    torch.testing.assert_close(uniformity(centers @ rotation, tau), uniformity(centers, tau))


@pytest.mark.parametrize("cost", ["cosine", "l2"])
@pytest.mark.parametrize("classes", [2, 3, 4, 5, 6])
def test_assignment_is_the_best_of_all_permutations(classes: int, cost: str) -> None:
    for seed in range(10):
        torch.manual_seed(seed)
        centers, means = simplex_centers(classes, 8), F.normalize(torch.randn(classes, 8), dim=1)
        price = -means @ centers.T if cost == "cosine" else torch.cdist(means, centers)
        every = [sum(price[c, p[c]].item() for c in range(classes)) for p in itertools.permutations(range(classes))]
        found = assign_centers(centers, means, cost=cost)
        assert sorted(found.tolist()) == list(range(classes))
        assert price[torch.arange(classes), found].sum().item() == pytest.approx(min(every), abs=1e-5)


def test_assignment_finds_a_permutation_follows_relabeling_and_leaves_the_rest_to_unseen_classes() -> None:
    centers, order = simplex_centers(5, 16), torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(assign_centers(centers, centers[order]), order)
    relabel = torch.randperm(5)
    assert torch.equal(assign_centers(centers, centers[order][relabel]), order[relabel])
    observed = torch.tensor([True, True, False, True, True])
    means = torch.where(observed[:, None], centers[order], torch.zeros(16))
    assert torch.equal(assign_centers(centers, means, observed=observed), order)


def test_running_means_approach_a_constant_batch_mean_and_leave_an_absent_class_alone() -> None:
    start, target = F.normalize(torch.randn(3, 8), dim=1), F.normalize(torch.randn(8), dim=0)
    means, observed = start, torch.tensor([True, True, False])
    label = torch.zeros(4, dtype=torch.long)
    unnormalized = start[0]
    for _ in range(10):
        means, observed = update_means(means, observed, target.expand(4, 8) * 3, label, 0.1)
        unnormalized = F.normalize(0.9 * unnormalized + 0.1 * target, dim=0)
    torch.testing.assert_close(means[0], unnormalized)
    torch.testing.assert_close(means[1], start[1])
    torch.testing.assert_close(means.norm(dim=1), torch.ones(3))
    means, observed = update_means(means, observed, target.expand(2, 8), torch.tensor([2, 2]), 0.1)
    torch.testing.assert_close(means[2], target)  # observed first: starts at its batch mean
    assert observed.tolist() == [True, True, True]


@pytest.mark.parametrize(
    ("tau", "inside", "expected"),
    [(0.07, False, 5.541264), (1, False, 6.125651), (0.07, True, 5.545177), (1, True, 6.129559)],
)
def test_class_term_has_its_floor_where_classes_are_collapsed_on_the_simplex(
    tau: float, inside: bool, expected: float
) -> None:
    centers, label = simplex_centers(4, 16).double(), torch.arange(4).repeat_interleave(256)
    phi = centers[label]
    parts = center_contrast(
        phi, label, phi, label, centers, torch.arange(4), tau, centers_in_denominator=inside, exclude_self=True
    )
    assert parts["class"].item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("classes", "tau", "expected"),
    [(4, 0.1, 4.86e-6), (4, 0.5, 0.18934), (4, 1, 0.58266), (2, 0.5, 0.01815), (2, 1, 0.12693)],
)
def test_center_term_alone_at_its_optimum(classes: int, tau: float, expected: float) -> None:
    centers, label = simplex_centers(classes, 16, seed=1).double(), torch.arange(classes)
    parts = center_contrast(
        centers, label, **NO_KEYS, centers=centers, assignment=torch.arange(classes), temperature=tau, center_weight=1.0
    )
    assert parts["center"].item() == pytest.approx(expected, abs=5e-6 if tau > 0.1 else 1e-8)
    assert parts["class"].item() == 0


def test_center_term_has_no_tangential_gradient_at_its_center_and_pulls_to_it_elsewhere() -> None:
    centers = F.normalize(torch.eye(4, 16, dtype=torch.float64) - 0.25 * (torch.arange(16) < 4), dim=1)  # in float64
    at = {**NO_KEYS, "centers": centers, "assignment": torch.arange(4), "temperature": 0.5}
    phi = centers.clone().requires_grad_()
    center_contrast(phi, torch.arange(4), **at)["center"].backward()
    assert phi.grad.abs().max() < 1e-12
    phi = torch.randn(4, 16, dtype=torch.float64, requires_grad=True)
    center_contrast(phi, torch.arange(4), **at)["center"].backward()
    moved = phi.detach() - 0.1 * phi.grad
    assert bool((F.cosine_similarity(moved, centers) > F.cosine_similarity(phi.detach(), centers)).all())


def supcon(phi: torch.Tensor, label: torch.Tensor, tau: float) -> torch.Tensor:
    """Khosla et al., Supervised contrastive learning, NeurIPS 2020, eq. (2), one anchor after the other."""
    phi = F.normalize(phi, dim=1)
    losses = []
    for i in range(len(phi)):
        others = [j for j in range(len(phi)) if j != i]
        z = sum(torch.exp(phi[i] @ phi[j] / tau) for j in others)
        same = [j for j in others if label[j] == label[i]]
        losses.append(-sum(torch.log(torch.exp(phi[i] @ phi[p] / tau) / z) for p in same) / len(same))
    return torch.stack(losses).mean()


def test_without_center_and_with_batch_keys_it_is_supcon() -> None:
    phi, label = torch.randn(24, 16, dtype=torch.float64), torch.arange(3).repeat(8)
    parts = center_contrast(
        phi, label, phi, label, simplex_centers(3, 16), torch.arange(3), 0.3,
        center_weight=0.0, centers_in_denominator=False, exclude_self=True,
    )  # fmt: skip
    torch.testing.assert_close(parts["class"] + parts["center"], supcon(phi, label, 0.3))


def test_a_hot_temperature_makes_every_answer_equally_likely() -> None:
    phi, label = torch.randn(24, 16), torch.arange(3).repeat(8)
    parts = center_contrast(phi, label, phi, label, simplex_centers(3, 16), torch.arange(3), 1e6, center_weight=1.0)
    assert parts["class"].item() == pytest.approx(math.log(24 + 3), abs=1e-3)
    assert parts["center"].item() == pytest.approx(math.log(24 + 3), abs=1e-3)


def test_joint_normalization_dilutes_the_center_among_all_positives() -> None:
    phi, label = torch.randn(6, 16), torch.zeros(6, dtype=torch.long)
    keys, of = torch.randn(3074, 16), torch.zeros(3074, dtype=torch.long)
    at = {"keys": keys, "key_label": of, "centers": simplex_centers(3, 16), "assignment": torch.arange(3)}
    mean, joint, total = (
        center_contrast(phi, label, **at, temperature=0.5, norm=norm) for norm in ("mean", "joint", "sum")
    )
    torch.testing.assert_close(joint["center"] * 3075, mean["center"])
    torch.testing.assert_close(joint["class"] * 3075, total["class"])
    torch.testing.assert_close(mean["class"] * 3074, total["class"])


def test_keys_and_anchors_of_negative_label_change_nothing() -> None:
    phi, label = torch.randn(6, 16, requires_grad=True), torch.arange(3).repeat(2)
    keys, of = torch.randn(9, 16), torch.arange(3).repeat(3)
    at = {"centers": simplex_centers(3, 16), "assignment": torch.arange(3), "temperature": 0.5}
    plain = center_contrast(phi, label, keys, of, **at)
    padded = center_contrast(
        torch.cat([phi, torch.randn(2, 16)]), torch.cat([label, torch.tensor([-1, -1])]),
        torch.cat([keys, torch.randn(4, 16)]), torch.cat([of, torch.full((4,), -1)]), **at,
    )  # fmt: skip
    torch.testing.assert_close(plain, padded)
    nothing = center_contrast(phi, torch.full((6,), -1), keys, torch.full((9,), -1), **at, centers_in_denominator=False)
    (nothing["class"] + nothing["center"]).backward()
    assert nothing["class"].item() == nothing["center"].item() == 0
    assert bool(torch.isfinite(phi.grad).all())


def test_gradient_reaches_the_anchors_only() -> None:
    phi, keys, centers = (torch.randn(6, 16, requires_grad=True) for _ in range(3))
    label = torch.arange(3).repeat(2)
    parts = center_contrast(phi, label, keys, label, centers[:3], torch.arange(3), 0.5)
    sum(parts.values()).backward()
    assert phi.grad.abs().max() > 0
    assert keys.grad is None
    assert centers.grad is None


# --- sampled keys ---------------------------------------------------------------------------------------------------


def every_key(label: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers of all keys of each class, and of all others; classes have equally many keys."""
    rows = [(label == c).nonzero()[:, 0] for c in range(classes)]
    others = [((label != c) & (label >= 0)).nonzero()[:, 0] for c in range(classes)]
    return torch.stack(rows), torch.stack(others)


@pytest.mark.parametrize("norm", ["mean", "sum", "joint"])
@pytest.mark.parametrize("inside", [True, False])
def test_with_every_key_sampled_it_is_the_full_form_with_its_gradient(norm: str, inside: bool) -> None:
    features = torch.randn(40, 16, dtype=torch.float64, requires_grad=True)
    keys, key_label = torch.randn(28, 16, dtype=torch.float64), torch.arange(4).repeat(7)
    anchors, (positives, negatives) = torch.randint(40, (4, 9)), every_key(key_label, 4)
    common = {"center_weight": 0.3, "norm": norm, "centers_in_denominator": inside}
    fixed = {"centers": simplex_centers(4, 16), "assignment": torch.tensor([2, 0, 3, 1]), "temperature": 0.4}
    full = center_contrast(
        features[anchors].flatten(0, 1), torch.arange(4).repeat_interleave(9), keys, key_label, **fixed, **common
    )
    every = torch.ones(4, dtype=torch.bool)
    fast = sampled_center_contrast(features, anchors, positives, negatives, **fixed, present=every, keys=keys, **common)
    torch.testing.assert_close(fast, full)
    gradients = [torch.autograd.grad(sum(parts.values()), features)[0] for parts in (fast, full)]
    torch.testing.assert_close(*gradients)


def test_an_absent_class_is_left_out_and_one_class_alone_costs_nothing() -> None:
    features, label = torch.randn(60, 16, requires_grad=True), torch.arange(3).repeat(20)
    numbers, fixed = every_key(label, 3)[0], {"centers": simplex_centers(3, 16), "assignment": torch.arange(3)}
    negatives = torch.stack([numbers[1], numbers[0], numbers[0]])  # class 2 is absent: its rows mean nothing
    present = torch.tensor([True, True, False])
    sampled = sampled_center_contrast(features, numbers, numbers, negatives, **fixed, present=present, temperature=0.5)
    phi, of = features[numbers[:2].flatten()], torch.arange(2).repeat_interleave(20)
    torch.testing.assert_close(sampled, center_contrast(phi, of, phi, of, **fixed, temperature=0.5))
    for alone in (torch.tensor([True, False, False]), torch.zeros(3, dtype=torch.bool)):
        parts = sampled_center_contrast(features, numbers, numbers, negatives, **fixed, present=alone, temperature=0.5)
        sum(parts.values()).backward()
        assert parts["class"].item() == parts["center"].item() == 0
        assert bool(torch.isfinite(features.grad).all())


def test_the_mean_over_samples_is_the_full_form_up_to_the_bias_of_a_logarithm() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(400, 16, dtype=torch.float64, generator=generator)
    label = torch.arange(4).repeat_interleave(100)
    numbers, others = every_key(label, 4)
    fixed = {"centers": simplex_centers(4, 16), "assignment": torch.arange(4), "temperature": 0.5}
    anchors, every = numbers[:, :10], torch.ones(4, dtype=torch.bool)
    full = center_contrast(
        features[anchors].flatten(0, 1), torch.arange(4).repeat_interleave(10), features, label, **fixed
    )
    gaps = []
    for m in (4, 16, 64):
        values = []
        for _ in range(400):
            near = numbers.gather(1, torch.randint(100, (4, m), generator=generator))
            far = others.gather(1, torch.randint(300, (4, m), generator=generator))
            count = torch.full((4,), 100)
            parts = sampled_center_contrast(features, anchors, near, far, **fixed, present=every, key_count=count)
            values.append(parts["class"])
        values = torch.stack(values)
        error = values.std() / 20
        gaps.append(full["class"] - values.mean())
        assert gaps[-1] > -3 * error  # the logarithm of an unbiased sum lies below
    assert gaps[0] < 0.1
    assert gaps[2].abs() < 4 * error + 0.005


def test_its_cost_grows_linearly_with_the_number_of_classes() -> None:
    def flops(classes: int) -> int:
        features, numbers = (
            torch.randn(classes * 64, 32, requires_grad=True),
            torch.randint(classes * 64, (classes, 64)),
        )
        with FlopCounterMode(display=False) as counter:
            parts = sampled_center_contrast(
                features, numbers, numbers, numbers, simplex_centers(classes, 32), torch.arange(classes),
                torch.ones(classes, dtype=torch.bool), 0.5,
            )  # fmt: skip
            sum(parts.values()).backward()
        return counter.get_total_flops()

    assert math.log2(flops(8) / flops(4)) < 1.1
    assert math.log2(flops(16) / flops(8)) < 1.2  # the centers, one a class, are keys of every class
