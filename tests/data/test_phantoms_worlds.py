"""Generated worlds beyond finch or duck, and slices of hearts: counts, what the cue changes, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest

from anatolab.data.phantoms.hearts import MARKER, counterfactual_hearts, heart_slices
from anatolab.data.phantoms.worlds import HALVES, generated_world
from anatolab.types import InputError

SIZES = (400, 80, 80)


@pytest.mark.parametrize("kind", ["stripes", "size"])
def test_a_cue_is_aligned_in_training_and_balanced_later(kind: str) -> None:
    world = generated_world(kind, SIZES, seed=1)
    assert world.of("train").counts.tolist() == [285, 15, 5, 95]
    assert world.of("val").counts.tolist() == world.of("test").counts.tolist() == [30, 30, 10, 10]


def test_nothing_gives_the_class_away_where_there_is_no_cue() -> None:
    world = generated_world("none", SIZES, aligned=0.95, seed=1)
    assert world.of("train").counts.tolist() == [150, 150, 50, 50]


def test_two_cues_lie_independently_of_each_other_in_each_of_three_classes() -> None:
    world = generated_world("two-cues", (1200, 120, 120), aligned=0.9, seed=1)
    assert world.classes == ("finch", "duck", "boat")
    assert world.of("train").counts.tolist() == 3 * [324, 36, 36, 4]
    assert world.of("test").counts.tolist() == 3 * [10, 10, 10, 10]


def test_large_objects_cover_more_whatever_their_class() -> None:
    world = generated_world("size", SIZES, seed=2)
    area = world.masks.mean((1, 2))
    expected = (np.mean(HALVES[1]) / np.mean(HALVES[0])) ** 2
    for k in (0, 1):
        large, small = (area[(world.y == k) & (world.a == a)].mean() for a in (1, 0))
        assert large / small == pytest.approx(expected, rel=0.15)


def test_stripes_darken_objects_and_leave_the_background() -> None:
    world = generated_world("stripes", SIZES, seed=2)
    light = world.pixels.astype(float).mean(-1)
    rough = np.array([np.abs(np.diff(np.where(m, p, np.nan), axis=0)) for p, m in zip(light, world.masks, strict=True)])
    inside = np.nanmean(rough, (1, 2))
    assert inside[world.a == 1].mean() > 1.5 * inside[world.a == 0].mean()
    outside = np.array([p[~m].mean() for p, m in zip(light, world.masks, strict=True)])
    assert outside[world.a == 1].mean() == pytest.approx(outside[world.a == 0].mean(), abs=10)


def test_wrong_worlds_and_shares_are_refused() -> None:
    with pytest.raises(InputError, match="'rain' is not a generated world"):
        generated_world("rain")
    with pytest.raises(InputError, match=r"aligned=0\.2: must be a share"):
        generated_world("stripes", aligned=0.2)
    with pytest.raises(InputError, match="'age' is not a cue of generated hearts"):
        heart_slices("age")
    with pytest.raises(InputError, match="each need at least one"):
        heart_slices(patients=(1, 0, 1))


def test_a_marker_is_the_only_difference_of_marked_slices() -> None:
    """The same seed with another share of markers: beyond the square, hearts stay the same but for noise."""
    one, two = (heart_slices("marker", (6, 5, 5), aligned=share, seed=3) for share in (1.0, 0.0))
    np.testing.assert_array_equal(one.y, two.y)
    train = one.split == 0
    assert (one.a[train] == one.y[train]).all()
    assert (two.a[train] == 1 - two.y[train]).all()
    away = np.ones((32, 32), bool)
    away[MARKER] = False
    apart = np.abs(one.pixels[train].astype(int) - two.pixels[train].astype(int))[..., 0]
    assert apart[:, away].max() <= 16
    assert one.pixels[one.a == 1][:, *MARKER].mean() > 245


def test_enlarged_ventricles_cover_more_of_a_slice() -> None:
    slices = heart_slices("scanner", (6, 5, 5), seed=3)
    area = slices.masks.mean((1, 2))
    assert {0, 1} == set(slices.y.tolist())
    assert area[slices.y == 1].mean() > area[slices.y == 0].mean()
    site = slices.pixels.mean((1, 2, 3))
    assert site[slices.a == 1].mean() > site[slices.a == 0].mean() + 20


@pytest.mark.parametrize("cue", ["marker", "scanner"])
def test_the_slices_of_a_set_differ_by_the_cue_alone(cue) -> None:
    sets = counterfactual_hearts(cue, 3, seed=2)
    assert sets.images.shape == (3, 2, 2, 32, 32, 3)
    without, with_cue = (sets.images[:, :, k, ..., 0].astype(int) for k in (0, 1))
    changed = np.abs(with_cue - without) > 12  # more than the noise
    if cue == "marker":
        assert (with_cue[..., 2:7, 25:30] > 240).all()
        changed[..., 2:7, 25:30] = False
        assert not changed.any()
    else:
        assert changed.mean() > 0.2
    assert (sets.masks[:, 1].sum((1, 2)) > sets.masks[:, 0].sum((1, 2))).mean() > 0.5  # enlarged hearts are larger
    with pytest.raises(InputError, match="'age' is not a cue of generated hearts"):
        counterfactual_hearts("age")
