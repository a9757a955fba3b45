"""Dice and Jaccard against counting by hand, medpy and the empty cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from medpy.metric import binary as medpy

from anatolab.metrics import dice, jaccard, overlap_counts
from anatolab.types import InputError


def test_counts_by_hand():
    pred = np.array([[0, 1, 1], [2, 2, 0]])
    ref = np.array([[0, 1, 2], [2, 2, 1]])
    counts = overlap_counts(pred, ref, 3)
    assert counts.both.tolist() == [1, 1, 2]
    assert counts.pred.tolist() == [2, 2, 2]
    assert counts.ref.tolist() == [1, 2, 3]
    np.testing.assert_allclose(dice(counts), [2 / 3, 1 / 2, 4 / 5])
    np.testing.assert_allclose(jaccard(counts), [1 / 2, 1 / 3, 2 / 3])


def test_missed_and_invented_are_zero_and_absent_is_nan():
    pred = np.array([1, 0, 0, 0])
    ref = np.array([0, 2, 0, 0])
    counts = overlap_counts(pred, ref, 4)
    for score in (dice(counts), jaccard(counts)):
        np.testing.assert_array_equal(score[1:], [0, 0, np.nan])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equal_to_medpy(data):
    shape = data.draw(array_shapes(min_dims=1, max_dims=3, max_side=6))
    pred, ref = (data.draw(arrays(np.uint8, shape, elements=st.integers(0, 3))) for _ in range(2))
    counts = overlap_counts(pred, ref, 4)
    for k in range(4):
        p, r = pred == k, ref == k
        if p.any() or r.any():
            assert dice(counts)[k] == pytest.approx(medpy.dc(p, r), abs=1e-12)
            assert jaccard(counts)[k] == pytest.approx(medpy.jc(p, r), abs=1e-12)
        else:
            assert np.isnan(dice(counts)[k])
            assert np.isnan(jaccard(counts)[k])


@pytest.mark.parametrize(("dtype", "unknown"), [(np.uint8, 255), (np.int64, 255), (np.int64, -1), (np.int8, -1)])
def test_unknown_reference_voxels_count_nowhere(dtype, unknown):
    pred = np.array([0, 1, 1, 2], dtype)
    ref = np.array([0, 1, unknown, unknown], dtype)
    counts = overlap_counts(pred, ref, 3)
    known = overlap_counts(pred[:2], ref[:2], 3)
    for name in ("both", "pred", "ref"):
        np.testing.assert_array_equal(getattr(counts, name), getattr(known, name))
    assert counts.pred.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("pred", "ref", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"shape \(2, 3\).*\(3, 2\)"),
        (np.zeros(3), np.zeros(3, int), "argmax"),
        (np.zeros(3, int), np.zeros(3, np.float32), "reference holds float32"),
        (np.array([0, 4]), np.array([0, 1]), "prediction holds label 4"),
        (np.array([0, 1]), np.array([0, 7]), "reference holds label 7"),
        (np.array([0, -1]), np.array([0, 1]), "prediction holds label -1"),
        (np.array([0, 255], np.uint8), np.array([0, 1], np.uint8), "prediction holds label 255"),
        (np.zeros((0, 4), int), np.zeros((0, 4), int), "empty"),
    ],
)
def test_bad_labels_are_named(pred, ref, message):
    with pytest.raises(InputError, match=message):
        overlap_counts(pred, ref, 4)
