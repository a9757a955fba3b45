"""Chamber volumes and ejection fraction, against values worked out by hand."""

import math

import numpy as np
import pytest

from anatolab.metrics import beats, ejection_fraction, volume


def test_a_volume_is_in_milliliters_where_the_spacing_is_known() -> None:
    mask = np.zeros((4, 10, 10), np.uint8)
    mask[1:3, :5, :4] = 2
    assert volume(mask) == 40
    assert volume(mask, (10.0, 1.5, 1.5)) == pytest.approx(40 * 22.5 / 1000)


def test_the_ejection_fraction_is_the_share_that_leaves() -> None:
    assert ejection_fraction(150.0, 60.0) == pytest.approx(0.6)
    assert ejection_fraction(150.0, 150.0) == 0
    assert ejection_fraction(100.0, 120.0) == pytest.approx(-0.2)  # a prediction can be wrong that way
    assert math.isnan(ejection_fraction(0.0, 10.0))


def test_the_reference_says_which_scan_is_end_diastole() -> None:
    patient_of = {"a_x": "a", "a_y": "a", "b_x": "b"}
    found = beats({"a_x": 90.0, "a_y": 100.0, "b_x": 1.0}, {"a_x": 120.0, "a_y": 48.0, "b_x": 1.0}, patient_of)
    assert found.keys() == {"a"}
    assert found["a"]["edv"] == [90.0, 120.0]
    assert found["a"]["esv"] == [100.0, 48.0]
    assert found["a"]["ef"] == pytest.approx([1 - 100 / 90, 0.6])
