"""Group accuracies by hand."""

import numpy as np
import pytest

from anatolab.metrics import group_accuracy
from anatolab.types import InputError


def test_by_hand():
    pred = np.array([1, 1, 1, 0, 0, 1, 0, 0])
    target = np.array([1, 1, 1, 1, 0, 0, 0, 1])
    group = np.array([0, 0, 0, 0, 1, 1, 3, 3])
    result = group_accuracy(pred, target, group, train_counts=np.array([70, 20, 0, 10]))
    assert result["mean"] == 5 / 8
    np.testing.assert_array_equal(result["per_group"], [0.75, 0.5, np.nan, 0.5])
    assert result["counts"] == [4, 2, 0, 2]
    assert result["group_mean"] == pytest.approx(1.75 / 3)
    assert (result["worst"], result["worst_group"]) == (0.5, 1)
    assert result["train_weighted"] == pytest.approx(0.7 * 0.75 + 0.2 * 0.5 + 0.1 * 0.5)


def test_train_weights_equal_to_test_shares_give_the_mean():
    rng = np.random.default_rng(0)
    pred, target, group = rng.integers(2, size=(3, 200))
    result = group_accuracy(pred, target, group, train_counts=np.bincount(group))
    assert result["train_weighted"] == pytest.approx(result["mean"])
    assert result["worst"] <= result["group_mean"]
    assert "train_weighted" not in group_accuracy(pred, target, group)


def test_training_group_without_test_samples_is_nan():
    one = np.array([1])
    result = group_accuracy(one, one, np.array([0]), train_counts=np.array([3, 4]))
    assert np.isnan(result["train_weighted"])
    assert result["worst"] == 1


@pytest.mark.parametrize(
    ("arrays", "counts"),
    [
        ((np.zeros(3), np.zeros(2), np.zeros(3, int)), None),
        ((np.zeros(0), np.zeros(0), np.zeros(0, int)), None),
        ((np.zeros(2), np.zeros(2), np.array([0, -1])), None),
        ((np.zeros(2), np.zeros(2), np.array([0.0, 1.0])), None),
        ((np.zeros(2), np.zeros(2), np.array([0, 1])), np.array([5])),
        ((np.zeros(2), np.zeros(2), np.array([0, 1])), np.array([0, 0])),
    ],
)
def test_bad_input_is_refused(arrays, counts):
    with pytest.raises(InputError):
        group_accuracy(*arrays, train_counts=counts)
