from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from anatolab.analysis import class_similarity, effective_rank, least_largest_cosine, welch_bound
from anatolab.losses import optimized_centers, simplex_centers
from anatolab.types import InputError


def pairs(centers: torch.Tensor) -> torch.Tensor:
    """The cosines of all pairs, each once."""
    return (centers @ centers.T)[*torch.triu_indices(len(centers), len(centers), 1)]


def polygon(k: int) -> torch.Tensor:
    at = 2 * math.pi * torch.arange(k, dtype=torch.float64) / k
    return torch.stack([at.cos(), at.sin()], 1)


CROSS = torch.cat([torch.eye(5), -torch.eye(5)]).double()


@pytest.mark.parametrize(
    "centers",
    [simplex_centers(4, 16).double(), simplex_centers(9, 9).double(), polygon(3), polygon(7), CROSS, CROSS[:7]],
)
def test_known_best_arrangements_attain_the_least_largest_cosine(centers: torch.Tensor) -> None:
    assert pairs(centers).max().item() == pytest.approx(least_largest_cosine(*centers.shape), abs=1e-6)


def test_no_random_arrangement_beats_either_bound() -> None:
    for k, d in ((3, 2), (5, 2), (4, 3), (5, 3), (6, 3), (7, 4)):
        for centers in F.normalize(torch.randn(200, k, d, dtype=torch.float64), dim=2):
            assert pairs(centers).max() > least_largest_cosine(k, d)
            assert pairs(centers).square().mean() >= welch_bound(k, d)


@pytest.mark.parametrize("centers", [simplex_centers(6, 6).double(), polygon(5), CROSS])
def test_tight_frames_attain_the_welch_bound_in_the_space_that_they_span(centers: torch.Tensor) -> None:
    span = int(torch.linalg.matrix_rank(centers, tol=1e-4))
    assert pairs(centers).square().mean().item() == pytest.approx(welch_bound(len(centers), span), abs=1e-6)


def test_a_descent_attains_the_least_largest_cosine_of_five_in_space() -> None:
    found = optimized_centers(5, 3, steps=1000)
    assert pairs(found).max().item() == pytest.approx(0.0, abs=1e-3)


def test_impossible_arrangements_are_refused_and_unknown_ones_named_so() -> None:
    assert least_largest_cosine(7, 3) is None
    for k, d in ((1, 3), (3, 1)):
        with pytest.raises(InputError, match="unit vectors"):
            least_largest_cosine(k, d)


def test_effective_rank_in_closed_form() -> None:
    assert effective_rank(3 * torch.eye(8)[:5]).item() == pytest.approx(5)
    assert effective_rank(simplex_centers(4, 16)).item() == pytest.approx(3, abs=1e-5)  # a simplex spans K - 1
    assert effective_rank(torch.ones(50, 16)).item() == pytest.approx(1)
    uneven = torch.eye(3)[torch.tensor([0, 0, 0, 1])]  # eigenvalues 3/4, 1/4
    assert effective_rank(uneven).item() == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_effective_rank_neither_sees_a_rotation_nor_lengths_and_takes_a_stack() -> None:
    x = torch.randn(3, 40, 8, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    torch.testing.assert_close(effective_rank(x), effective_rank(x * torch.rand(3, 40, 1) @ turn))
    assert effective_rank(x).shape == (3,)
    assert bool((effective_rank(x) > 6).all())


def test_class_similarity_in_closed_form_and_at_a_collapse() -> None:
    label = torch.arange(4).repeat(5)
    simplex = simplex_centers(4, 16).double()
    assert class_similarity(simplex[label], label).item() == pytest.approx(-1 / 3, abs=1e-6)
    assert class_similarity(torch.eye(4)[label] * (1 + label[:, None]), label).item() == pytest.approx(0)
    noise = torch.randn(20, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    collapsed = simplex[label] + 0.1 * noise + 100
    assert class_similarity(collapsed, label).item() > 0.999
    assert effective_rank(collapsed).item() < 1.01
    for wrong in (label[:3], torch.zeros(20)):
        with pytest.raises(InputError, match="two classes"):
            class_similarity(collapsed, wrong)
