"""Draws over cells: unbiased on any mask, never worse than naive, exact where the theory is; and the traps."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anatolab.analysis import exact_variance
from anatolab.losses import info_nce
from anatolab.sampling import Strata, bin_pixels, released_positions, sample_pixels
from tests.syncs import Synchronizations

KINDS = ("naive", "stratified", "antithetic")
SIDE = 64
Y, X = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
WHOLE = torch.zeros(1, SIDE, SIDE, dtype=torch.long)
IN_CELL = torch.stack([Y % 16, X % 16]).float() - 7.5  # from the center of each of 4 x 4 cells


def smooth(sigma: float, seed: int = 0, sides: tuple[int, ...] = (SIDE, SIDE)) -> Tensor:
    """White noise blurred by a periodic Gaussian, of variance 1."""
    noise = torch.randn(sides, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    frequency = torch.meshgrid(*[torch.fft.fftfreq(s, dtype=torch.float64) for s in sides], indexing="ij")
    gain = torch.exp(-2 * (math.pi * sigma) ** 2 * torch.stack(frequency).square().sum(0))
    field = torch.fft.ifftn(torch.fft.fftn(noise) * gain).real
    return ((field - field.mean()) / field.std(correction=0)).flatten()


def organ(kind: str) -> Tensor:
    """Class 0 in the shape of an organ, on nothing (``IGNORE``): two images."""
    r = ((Y - 30.5) ** 2 + (X - 33.2) ** 2).float().sqrt()
    masks = {
        "ring": (r > 14) & (r < 21),
        "disc": r < 19.3,
        "crescent": (r < 22) & (((Y - 30) ** 2 + (X - 40) ** 2) > 400),
        "thin": (X == Y // 2 + 9) & (Y > 5),
        "tiny": (r < 1.6),
        "scattered": torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(3)) > 0.97,
    }
    label = torch.full((2, SIDE, SIDE), -1)
    label[0][masks[kind]] = 0
    label[1][masks[kind].roll((5, -11), (0, 1)) & (X < 40)] = 0
    return label


ORGANS = ("ring", "disc", "crescent", "thin", "tiny", "scattered")


def repeated(strata: Strata, num: int, kind: str, generator: torch.Generator, repeats: int) -> Tensor:
    """Samples of the only class, ``(repeats, num)``: at once, as those of as many classes with the same candidates."""
    start, count = (cells.expand(repeats, -1) for cells in (strata.start, strata.count))
    return sample_pixels(Strata(strata.order, start, count), num, kind, generator)  # type: ignore[arg-type]


def moments(field: Tensor, label: Tensor, num: int, kind: str, repeats: int, grid: int = 4) -> tuple[float, float]:
    """Mean and variance of the estimate over many draws."""
    strata = bin_pixels(label, 1, grid=grid)
    generator = torch.Generator().manual_seed(1)
    means = field[repeated(strata, num, kind, generator, repeats)].mean(1)
    return means.mean().item(), means.var().item()


# --- A: the estimator ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ORGANS)
def test_the_mean_over_draws_is_unbiased_on_irregular_masks(shape: str, kind: str) -> None:
    label, field = organ(shape), torch.cat([smooth(4, 1), smooth(4, 2)])
    truth = field[label.flatten() == 0].mean().item()
    repeats = 1500
    mean, variance = moments(field, label, 32, kind, repeats)
    assert abs(mean - truth) < 4 * math.sqrt(variance / repeats) + 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_every_candidate_has_the_same_chance_and_no_other_pixel_is_drawn(kind: str) -> None:
    label = organ("crescent")
    strata, generator = bin_pixels(label, 1), torch.Generator().manual_seed(0)
    drawn = repeated(strata, 250, kind, generator, 2000).flatten()
    count = torch.bincount(drawn, minlength=label.numel())
    inside = label.flatten() == 0
    assert count[~inside].sum() == 0
    expected = len(drawn) / inside.sum()
    chi = ((count[inside] - expected) ** 2 / expected).sum().item()
    freedom = int(inside.sum()) - 1
    assert chi < freedom + 5 * math.sqrt(2 * freedom) * (2 if kind == "antithetic" else 1)  # pairs count twice


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num", [4, 50, 256])
def test_the_exact_variance_is_that_of_many_draws(kind: str, num: int) -> None:
    label = organ("ring")
    field = torch.cat([smooth(3, 1), smooth(3, 2)])
    exact = exact_variance(field, bin_pixels(label, 1), num, kind).item()
    repeats = 3000
    _, variance = moments(field, label, num, kind, repeats)
    assert variance == pytest.approx(exact, rel=5 * math.sqrt(2 / repeats))  # 5 standard errors of a variance


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    grid=st.integers(1, 8),
    num=st.integers(1, 70),
    dims=st.sampled_from([2, 3]),
    share=st.floats(0.02, 1.0),
    heavy=st.booleans(),
)
def test_stratified_is_never_worse_than_naive_for_any_field_mask_grid_and_number(
    seed: int, grid: int, num: int, dims: int, share: float, heavy: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sides = (11, 13) if dims == 2 else (5, 6, 7)
    label = torch.where(torch.rand(2, *sides, generator=generator) < share, 0, -1)
    label[0].view(-1)[0] = 0
    field = torch.randn(label.numel(), generator=generator, dtype=torch.float64)
    field = field**5 if heavy else field
    strata = bin_pixels(label, 1, grid=grid)
    naive, stratified = (exact_variance(field, strata, num, kind).item() for kind in ("naive", "stratified"))
    assert stratified <= naive * (1 + 1e-9) + 1e-15
    even = 2 * num
    assert (
        exact_variance(field, strata, even, "antithetic").item()
        <= 2 * exact_variance(field, strata, num, "stratified").item() * num / even * (1 + 1e-9) + 1e-15
    )


@pytest.mark.parametrize("shape", ORGANS)
@pytest.mark.parametrize("num", [8, 64, 256])
def test_as_shipped_no_field_of_one_cell_has_more_variance_than_naive(shape: str, num: int) -> None:
    strata = bin_pixels(organ(shape), 1)
    for a, k in zip(strata.start[0].tolist(), strata.count[0].tolist(), strict=True):
        if k > 1:
            field = torch.zeros(len(strata.order), dtype=torch.float64)
            field[strata.order[a : a + k : 2]] = 1  # the worst for a cell with too few draws
            naive, ours = (exact_variance(field, strata, num, kind).item() for kind in ("naive", "stratified"))
            assert ours <= naive * (1 + 1e-9)


def test_rounding_with_one_draw_a_cell_and_weights_does_have_more_where_cells_are_many() -> None:
    count = bin_pixels(organ("ring"), 1).count[0]
    share = count[count > 0].double() / count.sum()
    drawn = (share * 64).floor().clamp_min(1)
    drawn[(share * 64 - drawn).argsort(descending=True)[: int(64 - drawn.sum())]] += 1
    assert drawn.sum() == 64
    assert (share * 64 / drawn).max() > 1.1  # against naive draws, for a field that varies in that cell alone


def test_whole_shares_are_proportional_allocation() -> None:
    strata, field = bin_pixels(WHOLE, 1), smooth(3)
    cells = [field[strata.order[a : a + 256]] for a in strata.start[0].tolist()]
    variance = torch.stack([c.var(correction=0) for c in cells])
    mirrored = torch.stack([torch.corrcoef(torch.stack([c, c.flip(0)]))[0, 1] for c in cells])
    expected = {
        "naive": field.var(correction=0) / 256,
        "stratified": variance.mean() / 256,
        "antithetic": (variance * (1 + mirrored)).mean() / 256,
    }
    for kind in KINDS:
        torch.testing.assert_close(exact_variance(field, strata, 256, kind)[0], expected[kind])
    drawn = sample_pixels(strata, 256, "stratified")[0]
    assert torch.bincount(drawn // SIDE // 16 * 4 + drawn % SIDE // 16).tolist() == [16] * 16


def test_cells_get_their_share_of_the_draws_up_to_one_and_on_average_exactly() -> None:
    count = torch.tensor([5, 0, 1, 30, 2, 62])
    start = count.cumsum(0) - count
    strata, generator = Strata(torch.arange(100), start[None], count[None]), torch.Generator().manual_seed(0)
    drawn = repeated(strata, 7, "stratified", generator, 20_000)
    cell = torch.searchsorted(count.cumsum(0), drawn, right=True)
    got = (cell[..., None] == torch.arange(6)).sum(1)
    share = count * 7 / 100
    assert ((got - share).abs() < 2).all()  # a cell may be cut by a slice at both ends
    torch.testing.assert_close(got.float().mean(0), share, atol=0.015, rtol=0)  # 4 standard errors


FIELDS = {
    "ramp": X.double().flatten(),
    "odd": (IN_CELL[0] * IN_CELL[1].square()).double().flatten(),
    "even": IN_CELL.square().sum(0).double().flatten(),
    "anatomy": ((Y - 25) ** 2 + (X - 30) ** 2 < 250).double().flatten(),
    "smooth 8": smooth(8),
    "smooth 3": smooth(3),
    "white": smooth(0),
}


def ratios(field: Tensor) -> tuple[float, float]:
    naive, *ours = (exact_variance(field, bin_pixels(WHOLE, 1), 256, kind).item() for kind in KINDS)
    return ours[0] / naive, ours[1] / naive


def test_fields_of_known_ratio() -> None:
    assert ratios(FIELDS["ramp"]) == pytest.approx(((16**2 - 1) / (64**2 - 1), 0), abs=1e-9)  # .062 and 0
    assert ratios(FIELDS["odd"]) == pytest.approx((1, 0), abs=1e-9)
    assert ratios(FIELDS["even"]) == pytest.approx((1, 2), abs=1e-9)  # the bound 2, attained
    assert ratios(FIELDS["white"]) == pytest.approx((1, 1), abs=0.06)


def test_fields_order_as_their_length_says() -> None:
    (sg8, sag8), (sg3, sag3) = ratios(FIELDS["smooth 8"]), ratios(FIELDS["smooth 3"])
    assert sg8 < 0.5 < sg3 < 1
    assert sag8 < sg8
    assert sag3 < sg3
    sg, sag = ratios(FIELDS["anatomy"])
    assert sag < sg < 1


def test_the_printed_gap_can_give_a_negative_variance() -> None:
    field = FIELDS["ramp"]
    strata = bin_pixels(WHOLE, 1)
    means = torch.stack([field[strata.order[a : a + 256]].mean() for a in strata.start[0].tolist()])
    between = (means - field.mean()).square()
    naive = field.var(correction=0)
    assert ((naive - between.sum()) / naive).item() == pytest.approx(-14.0, abs=0.05)  # without the weights, as printed
    assert ((naive - between.mean()) / naive).item() == pytest.approx(0.062, abs=0.001)


# --- B: a loss and its gradient ------------------------------------------------------------------------------------


def test_the_variance_of_a_contrastive_gradient_is_exact_too_and_falls() -> None:
    torch.manual_seed(0)
    features = torch.stack([smooth(6, s, (32, 32)) for s in range(8)], 1).float()
    positive, negatives = F.normalize(torch.randn(8), dim=0), torch.randn(64, 8)
    weight = torch.eye(8, requires_grad=True)
    rows = []
    for feature in features:
        loss = info_nce((feature @ weight)[None], positive, negatives, 0.5)
        rows.append(torch.autograd.grad(loss, weight)[0].flatten())
    gradient = torch.stack(rows)  # of each pixel's loss
    label = torch.zeros(1, 32, 32, dtype=torch.long)
    strata = bin_pixels(label, 1)
    naive, sg, sag = (exact_variance(gradient, strata, 64, kind).item() for kind in KINDS)
    assert sg < 0.8 * naive
    assert sag < naive
    generator, repeats = torch.Generator().manual_seed(0), 2000
    for kind, exact in zip(KINDS, (naive, sg, sag), strict=True):
        means = gradient[repeated(strata, 64, kind, generator, repeats)].mean(1)
        assert means.var(0).sum().item() == pytest.approx(exact, rel=0.1)
    noise = torch.randn(1024, 64, dtype=torch.float64)
    assert exact_variance(noise, strata, 64, "stratified") == pytest.approx(
        exact_variance(noise, strata, 64, "naive").item(), rel=0.05
    )


# --- C: the grid ---------------------------------------------------------------------------------------------------


def test_one_cell_is_naive_and_nested_grids_lower_the_variance() -> None:
    field = smooth(5)
    variances = [exact_variance(field, bin_pixels(WHOLE, 1, grid=g), 256, "stratified").item() for g in (1, 2, 4, 8)]
    assert variances[0] == pytest.approx(exact_variance(field, bin_pixels(WHOLE, 1), 256, "naive").item())
    assert variances == sorted(variances, reverse=True)
    for grid in (3, 5):
        assert exact_variance(field, bin_pixels(WHOLE, 1, grid=grid), 256, "stratified").item() < variances[0]


def test_more_cells_than_draws_work_without_merging() -> None:
    field, label = smooth(5), WHOLE
    ours, naive = (exact_variance(field, bin_pixels(label, 1, grid=8), 10, kind).item() for kind in KINDS[1::-1])
    assert ours < naive


# --- D: traps ------------------------------------------------------------------------------------------------------


def test_equal_weights_of_unequal_cells_are_biased_and_ours_are_not() -> None:
    label, field = organ("ring"), torch.cat([X, X]).double().flatten()
    strata = bin_pixels(label, 1)
    truth = field[label.flatten() == 0].mean().item()
    cells = [(a, k) for a, k in zip(strata.start[0].tolist(), strata.count[0].tolist(), strict=True) if k]
    trap = sum(field[strata.order[a : a + k]].mean().item() for a, k in cells) / len(cells)  # E of the 1/M estimator
    spread = math.sqrt(exact_variance(field, strata, 256, "stratified").item())
    assert abs(trap - truth) > 4 * spread / math.sqrt(400)
    mean, variance = moments(field, label, 256, "stratified", 400)
    assert abs(mean - truth) < 4 * math.sqrt(variance / 400)


def test_reflecting_in_the_center_of_a_cell_leaves_an_irregular_mask_and_is_biased_there() -> None:
    label = organ("crescent")[:1]
    strata = bin_pixels(label, 1)
    inside = (label[0] == 0).double().flatten()
    field = X.double().flatten()
    chance = torch.zeros_like(field)
    for a, k in zip(strata.start[0].tolist(), strata.count[0].tolist(), strict=True):
        pixels = strata.order[a : a + k]
        if not k:
            continue
        y, x = pixels // SIDE, pixels % SIDE
        mirror = (y.min() + y.max() - y) * SIDE + (x.min() + x.max() - x)
        kept = inside[mirror] > 0  # a mirror outside the mask cannot be used
        chance[pixels] += 1
        chance[mirror[kept]] += 1
    reflected = (chance * field).sum() / chance.sum()
    truth = (inside * field).sum() / inside.sum()
    assert abs(reflected - truth) > 0.05
    assert chance[inside > 0].unique().tolist() == [1.0, 2.0]  # half of the chance where the mirror is lost
    rank_reversed = torch.zeros_like(field)
    for a, k in zip(strata.start[0].tolist(), strata.count[0].tolist(), strict=True):
        rank_reversed[strata.order[a : a + k].flip(0)] += 1
    assert torch.equal(rank_reversed, inside)  # a bijection of each cell


def test_the_mirror_in_a_full_cell_is_the_point_reflection() -> None:
    pairs = sample_pixels(bin_pixels(WHOLE, 1), 64, "antithetic")[0].reshape(32, 2)
    y, x = pairs // SIDE, pairs % SIDE
    assert torch.equal(y.sum(1) % 32, torch.full((32,), 15))  # centers of cells of 16 lie at 7.5, 23.5, ...
    assert torch.equal(x.sum(1) % 32, torch.full((32,), 15))


@pytest.mark.parametrize(
    # 16 blocks give 16 draws each, or 14 and 15 of 256; the rest is drawn from the whole list
    ("count", "low", "high"),
    [
        (100, 100 / 256, 100 / 64),
        (131, 32 / 256, 14 * 131 / 1024 + 32 / 256),
        (5233, 16 / 256, 15 * 5233 / 324 / 256 + 16 / 256),
    ],
)
def test_the_released_positions_do_not_have_equal_chances(count: int, low: float, high: float) -> None:
    torch.manual_seed(0)
    drawn = torch.cat([released_positions(count, 256) for _ in range(3000)])
    share = torch.bincount(drawn, minlength=count) / len(drawn) * count
    spread = 6 * math.sqrt(count / len(drawn))
    assert share.min().item() == pytest.approx(low, abs=spread)
    assert share.max().item() == pytest.approx(high, abs=spread)


@pytest.mark.parametrize("count", [1, 5, 12, 15, 16, 40, 4000])
@pytest.mark.parametrize("mirrored", [False, True])
def test_released_positions_are_as_many_as_asked_and_in_range(count: int, mirrored: bool) -> None:
    drawn = released_positions(count, 100, mirrored=mirrored)
    assert drawn.shape == (100,)
    assert 0 <= drawn.min() <= drawn.max() < count


def test_on_a_ring_cells_of_the_image_beat_positions_of_the_list() -> None:
    label, field = organ("ring")[:1], smooth(6)
    candidates = torch.arange(SIDE * SIDE)[label.flatten() == 0]
    torch.manual_seed(0)
    released = torch.stack([field[candidates[released_positions(len(candidates), 256)]].mean() for _ in range(2000)])
    strata = bin_pixels(label, 1)
    ours = exact_variance(field, strata, 256, "stratified").item()
    naive = exact_variance(field, strata, 256, "naive").item()
    assert ours < 0.6 * released.var().item() < naive


# --- E: what a smaller variance buys, and where the theory ends ----------------------------------------------------


def test_gradient_descent_settles_nearer_with_a_smaller_gradient_variance() -> None:
    field, strata = smooth(8), bin_pixels(WHOLE, 1)
    settled = []
    for kind in KINDS:
        generator, at, squares = torch.Generator().manual_seed(0), 0.0, []
        for _ in range(800):
            gradient = at - field[sample_pixels(strata, 64, kind, generator)[0]].mean().item()
            at -= 0.5 * gradient
            squares.append((at - field.mean().item()) ** 2)
        settled.append(sum(squares[50:]) / 750)
    assert settled[2] < settled[1] < settled[0]
    assert settled[1] / settled[0] == pytest.approx(ratios(field)[0], rel=0.35)


def test_the_log_of_a_subsampled_sum_of_exponentials_is_too_small_by_the_inverse_of_its_size() -> None:
    similarity = torch.randn(4096, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.5
    truth = torch.logsumexp(similarity, 0) - math.log(4096)
    generator, bias = torch.Generator().manual_seed(1), {}
    for k in (1, 4, 16, 64):
        drawn = similarity[torch.randint(4096, (40_000, k), generator=generator)]
        bias[k] = ((torch.logsumexp(drawn, 1) - math.log(k)).mean() - truth).item()
    assert bias[1] < bias[4] < bias[16] < bias[64] < 0
    assert bias[1] == pytest.approx(-0.12, abs=0.02)  # half the variance of the similarities
    assert bias[4] / bias[16] == pytest.approx(4, rel=0.3)


# --- mechanics ------------------------------------------------------------------------------------------------------


def test_cells_are_equal_parts_of_each_class_s_bounding_box_in_each_image() -> None:
    label = torch.full((2, 20, 20), -1)
    label[0, 2:10, 4:12] = 1
    label[1, 10:18, 1:9] = 1
    label[0, 15:, :] = 0
    strata = bin_pixels(label, 3, grid=4)
    assert strata.count[1].tolist() == [4] * 32
    assert strata.count[0].reshape(2, 4, 4).sum((1, 2)).tolist() == [100, 0]
    assert strata.count[2].sum() == 0
    first = strata.order[strata.start[1, 0] : strata.start[1, 0] + 4]
    assert first.tolist() == [2 * 20 + 4, 2 * 20 + 5, 3 * 20 + 4, 3 * 20 + 5]


def test_one_plane_in_3d_is_2d() -> None:
    label = organ("disc")
    flat, deep = bin_pixels(label, 1), bin_pixels(label[:, None], 1)
    filled = deep.count[0] > 0  # in 3-D one plane has 4 cells along depth, of which one is full
    assert torch.equal(flat.order, deep.order)
    assert torch.equal(flat.count[0], deep.count[0, filled])
    assert torch.equal(flat.start[0], deep.start[0, filled])


def test_hard_pixels_alone_are_candidates() -> None:
    label = organ("disc")
    hard = torch.rand(label.shape) > 0.5
    drawn = sample_pixels(bin_pixels(label, 1, hard), 200)[0]
    assert hard.flatten()[drawn].all()
    assert (label.flatten()[drawn] == 0).all()


def test_draws_repeat_from_a_generator_stay_in_range_without_candidates_and_wait_for_nothing() -> None:
    label = torch.full((2, 16, 16), -1)
    label[:, 3:9, 3:9] = 1
    for kind in KINDS:
        with Synchronizations() as mode:
            strata = bin_pixels(label, 3)
            drawn = sample_pixels(strata, 33, kind, torch.Generator().manual_seed(5))
        assert not mode.found, mode.found
        assert torch.equal(drawn, sample_pixels(strata, 33, kind, torch.Generator().manual_seed(5)))
        assert drawn.shape == (3, 33)
        assert 0 <= drawn.min() <= drawn.max() < label.numel()


def test_an_unknown_sampler_is_named() -> None:
    with pytest.raises(ValueError, match="'stratified'"):
        sample_pixels(bin_pixels(WHOLE, 1), 4, "layered")  # type: ignore[arg-type]
