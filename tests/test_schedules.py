"""Temperatures over training: the table of the method sheet, bounds, symmetry, mean, dips, and the alternatives."""

import itertools
import math

import numpy as np
import pytest

from anatolab.schedules import SHAPES, Temperature
from anatolab.types import InputError


@pytest.mark.parametrize(
    ("t", "tau"), [(0, 1.0), (1 / 8, 0.8682), (1 / 4, 0.55), (1 / 2, 0.1), (3 / 4, 0.55), (1, 1.0)]
)
def test_the_cosine_takes_the_values_of_the_table(t: float, tau: float) -> None:
    assert Temperature("cosine", 1.0, 0.1)(t) == pytest.approx(tau, abs=1e-4)


@pytest.mark.parametrize("periods", [0.5, 1, 2, 5, 10])
def test_the_cosine_stays_in_its_range_and_dips_once_a_period(periods: float) -> None:
    t = np.linspace(0, 1, 10_001)
    tau = np.array([Temperature("cosine", 1.0, 0.1, periods)(x) for x in t])
    assert tau.min() == pytest.approx(0.1, abs=1e-6)
    assert tau.max() == pytest.approx(1.0)
    lowest = (tau[1:-1] < tau[:-2]) & (tau[1:-1] <= tau[2:])
    assert lowest.sum() == math.floor(periods)


def test_one_period_is_symmetric_about_its_middle_with_the_mean_of_its_range() -> None:
    tau = np.array([Temperature("cosine", 1.0, 0.1)(x) for x in (np.arange(1000) + 0.5) / 1000])
    np.testing.assert_allclose(tau, tau[::-1])
    assert tau.mean() == pytest.approx(0.55)


@pytest.mark.parametrize("shape", ["linear", "exponential", "step"])
def test_the_alternatives_fall_from_high_to_low_and_never_rise(shape: str) -> None:
    tau = [Temperature(shape, 1.0, 0.1)(x) for x in np.linspace(0, 1, 101)]
    assert (tau[0], tau[-1]) == pytest.approx((1.0, 0.1))
    assert all(a >= b for a, b in itertools.pairwise(tau))


def test_half_way_they_are_the_arithmetic_and_the_geometric_mean_and_the_end() -> None:
    found = [Temperature(shape, 1.0, 0.1)(0.5) for shape in ("linear", "exponential", "step")]
    assert found == pytest.approx([0.55, math.sqrt(0.1), 0.1])


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_ends_are_constant_in_any_shape(shape: str) -> None:
    assert {Temperature(shape, 0.5, 0.5)(x) for x in (0, 0.3, 1)} == {0.5}


@pytest.mark.parametrize("fields", [{"shape": "sine"}, {"low": 0.0}, {"low": 0.6}])
def test_a_schedule_that_is_none_is_refused(fields: dict) -> None:
    with pytest.raises(InputError, match="temperature: shape"):
        Temperature(**{"shape": "cosine", "high": 0.5, "low": 0.1, **fields})
