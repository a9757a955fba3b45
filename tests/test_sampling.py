"""Which pixels are drawn: of the right class, hard ones only, as often as the class graph says."""

import itertools
import math

import pytest
import torch

from anatolab.sampling import (
    Strata,
    bin_pixels,
    flatten_pixels,
    label_probability,
    negative_class_odds,
    pool_pixels,
    sample_anchors,
    sample_negatives,
    sample_pixels,
)


@pytest.fixture
def pixels() -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of 5 classes, of which class 3 is absent and class 1 has no hard pixel, with invalid pixels between."""
    label = torch.randint(-1, 5, (500,))
    label[label == 3] = 0
    return label, (torch.rand(500) < 0.3) & (label != 1)


def test_hard_and_easy_are_the_valid_pixels_of_a_class_and_disjoint(pixels: tuple) -> None:
    label, hard = pixels
    pool = pool_pixels(label, 5, hard)
    for c in range(5):
        run = pool.order[pool.start[c] : pool.start[c] + pool.count[c]]
        assert set(run.tolist()) == set((label == c).nonzero().flatten().tolist())
        assert set(run[: pool.hard[c]].tolist()) == set(((label == c) & hard).nonzero().flatten().tolist())
    assert pool.present.tolist() == [True, True, True, False, True]
    assert pool.queried.tolist() == [True, False, True, False, True]
    assert set(pool.order[pool.count.sum() :].tolist()) == set((label < 0).nonzero().flatten().tolist())


def test_anchors_are_hard_pixels_of_their_class_each_about_equally_often(pixels: tuple) -> None:
    label, hard = pixels
    pool = pool_pixels(label, 5, hard)
    anchors = sample_anchors(pool, 20_000)
    for c in (0, 2, 4):
        assert bool((label[anchors[c]] == c).all())
        assert bool(hard[anchors[c]].all())
        counts = anchors[c].bincount(minlength=500)[(label == c) & hard]
        share = 20_000 / len(counts)
        assert (counts - share).abs().max() < 5 * share**0.5


def test_negatives_come_from_other_classes_as_often_as_the_odds_say(pixels: tuple) -> None:
    label, hard = pixels
    pool = pool_pixels(label, 5, hard)
    odds = negative_class_odds(torch.randn(5, 8), pool.present, 0.5)
    negatives = sample_negatives(pool, odds, 50_000)
    for c in range(5):
        drawn = label[negatives[c]].bincount(minlength=5) / 50_000
        torch.testing.assert_close(drawn, odds[c], atol=0.012, rtol=0)


def test_odds_sum_to_one_never_name_the_own_or_an_absent_class_and_follow_the_graph() -> None:
    prototypes = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-3.0, 0.0], [0.0, 1.0]])
    present = torch.tensor([True, True, True, False])
    odds = negative_class_odds(prototypes, present, 0.5)
    torch.testing.assert_close(odds.sum(1), torch.ones(4))
    assert odds.diagonal().tolist() == [0.0] * 4
    assert odds[:, 3].tolist() == [0.0] * 4
    assert (odds[0, 1] / odds[0, 2]).item() == pytest.approx(math.exp(4), rel=1e-4)  # cos 1 against -1: 54.6 to 1


def test_where_no_other_class_is_present_there_are_no_odds_and_drawing_does_not_fail() -> None:
    label = torch.full((10,), 2)
    pool = pool_pixels(label, 4)
    odds = negative_class_odds(torch.randn(4, 3), pool.present, 0.5)
    assert odds[2].tolist() == [0.0] * 4
    assert sample_negatives(pool, odds, 6).shape == (4, 6)


def test_without_a_single_valid_pixel_drawing_does_not_fail() -> None:
    pool = pool_pixels(torch.full((10,), -1), 3)
    assert not pool.present.any()
    assert sample_anchors(pool, 4).max() < 10


def test_a_generator_repeats_a_draw() -> None:
    pool = pool_pixels(torch.randint(0, 3, (100,)), 3)
    one, two = (sample_anchors(pool, 9, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("sides", [(8, 12), (4, 6, 8)])
def test_maps_are_read_at_the_pixel_nearest_to_the_center_of_each_representation(sides: tuple[int, ...]) -> None:
    fine = torch.arange(math.prod(sides)).reshape(1, *sides)
    representation = torch.randn(1, 5, *[s // 2 for s in sides])
    features, read = flatten_pixels(representation, fine)
    assert features.shape == (math.prod(sides) // 2 ** len(sides), 5)
    expected = fine[
        (0, *[slice(1, None, 2)] * len(sides))
    ]  # centers of pairs lie between pixels; the later one is read
    assert torch.equal(read, expected.flatten())
    assert torch.equal(features[1], representation[(0, slice(None), *[0] * (len(sides) - 1), 1)])


def test_label_probability_is_the_softmax_at_the_label_without_gradient() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    label = torch.randint(0, 3, (2, 4, 4))
    own = label_probability(logits, label)
    assert not own.requires_grad
    assert own[1, 2, 3].item() == pytest.approx(torch.softmax(logits[1, :, 2, 3], 0)[label[1, 2, 3]].item())


# --- draws from cells ---------------------------------------------------------------------------------------------


def masks(seed: int, sides: tuple[int, ...] = (9, 13), images: int = 2) -> torch.Tensor:
    """Ragged regions of three classes; class 1 is in one image only, and some pixels are no candidates."""
    label = torch.randint(-1, 3, (images, *sides), generator=torch.Generator().manual_seed(seed))
    label[1:][label[1:] == 1] = 2
    return label


def cells_of(label: torch.Tensor, c: int, grid: int) -> list[list[int]]:
    """Pixel numbers of each cell of a class that is not empty, by image, cell and raster."""
    cells: dict[tuple[int, ...], list[int]] = {}
    for number, at in enumerate(itertools.product(*map(range, label.shape))):
        if label[at] == c:
            where = (label[at[0]] == c).nonzero()
            low, high = where.min(0).values.tolist(), where.max(0).values.tolist()
            cell = ((v - a) * grid // (b - a + 1) for v, a, b in zip(at[1:], low, high, strict=True))
            cells.setdefault((at[0], *cell), []).append(number)
    return [cells[key] for key in sorted(cells)]


def rows_of(strata: Strata, c: int) -> list[list[int]]:
    bounds = zip(strata.start[c].tolist(), strata.count[c].tolist(), strict=True)
    return [strata.order[start : start + n].tolist() for start, n in bounds if n]


@pytest.mark.parametrize("sides", [(9, 13), (4, 6, 5)])
@pytest.mark.parametrize("grid", [1, 3, 4])
def test_cells_are_those_of_a_literal_grid(sides: tuple[int, ...], grid: int) -> None:
    label = masks(0, sides)
    hard = torch.rand(label.shape) < 0.5
    assert [rows_of(bin_pixels(label, 3, grid=grid), c) for c in range(3)] == [
        cells_of(label, c, grid) for c in range(3)
    ]
    kept = torch.where(hard, label, -1)
    assert [rows_of(bin_pixels(label, 3, hard, grid=grid), c) for c in range(3)] == [
        cells_of(kept, c, grid) for c in range(3)
    ]


@pytest.mark.parametrize(("kind", "slices"), [("stratified", 11), ("antithetic", 6)])
def test_draws_are_those_of_the_literal_slices(kind: str, slices: int) -> None:
    label = masks(1)
    strata, generator = bin_pixels(label, 3), torch.Generator().manual_seed(7)
    drawn = sample_pixels(strata, 11, kind, torch.Generator().manual_seed(7))  # type: ignore[arg-type]
    point = torch.rand(strata.count.shape, generator=generator).double()
    pixel_chance = torch.rand(3, slices, generator=generator).double()
    for c in range(3):
        literal: list[int] = []
        cells, chance = cells_of(label, c, 4), [0.5] * (slices + 1)  # any number where no border cuts the slice
        borders = strata.count[c].double().cumsum(0) / strata.count[c].sum() * slices
        for border, u in reversed(list(zip(borders.tolist(), point[c].tolist(), strict=True))):
            chance[int(border)] = u  # that of the first border in a slice
        for i in range(slices):
            left, m = int((i + chance[i]) / slices * sum(map(len, cells))), 0
            while left >= len(cells[m]):
                left, m = left - len(cells[m]), m + 1
            rank = int(pixel_chance[c, i] * len(cells[m]))
            literal += [cells[m][rank]] if kind == "stratified" else [cells[m][rank], cells[m][::-1][rank]]
        assert drawn[c].tolist() == literal[:11]


def test_a_pair_is_mirrored_in_the_raster_of_its_cell() -> None:
    label = masks(3)
    strata = bin_pixels(label, 3, grid=2)
    for c in range(3):
        mirror = {p: q for cell in rows_of(strata, c) for p, q in zip(cell, cell[::-1], strict=True)}
        pairs = sample_pixels(strata, 400, "antithetic")[c].reshape(-1, 2)
        assert all(mirror[p] == q for p, q in pairs.tolist())
