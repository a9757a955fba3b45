"""The largest component of each class, against the study's literal loop."""

import numpy as np
import pytest
from scipy import ndimage

from anatolab.postprocess import largest_component


def literal(label: np.ndarray, classes: tuple[int, ...]) -> np.ndarray:
    result = np.zeros_like(label)
    for c in classes:
        components, count = ndimage.label(label == c)
        if count:
            result[components == 1 + np.argmax(np.bincount(components.ravel())[1:])] = c
    return result


@pytest.mark.parametrize("seed", range(5))
def test_it_equals_the_literal_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.choice(np.array([0, 1, 2, 3], np.uint8), (5, 12, 14), p=[0.4, 0.3, 0.2, 0.1])
    before = label.copy()
    result = largest_component(label)
    np.testing.assert_array_equal(result, literal(label, (1, 2, 3)))
    np.testing.assert_array_equal(label, before)
    assert result.dtype == np.uint8


def test_voxels_are_connected_through_faces_and_across_slices() -> None:
    label = np.zeros((2, 3, 4), np.uint8)
    label[0, 0, 0] = label[1, 0, 0] = 1  # one above the other: a component of two
    label[0, 1, 1] = 1  # touches only along an edge
    assert largest_component(label).sum() == 2
    assert largest_component(label)[0, 1, 1] == 0


def test_only_the_classes_named_are_cleaned_and_absent_ones_are_no_matter() -> None:
    label = np.array([[[1, 0, 1, 1, 0, 3, 0, 3]]], np.uint8)
    np.testing.assert_array_equal(largest_component(label, (1, 2, 9)), [[[0, 0, 1, 1, 0, 3, 0, 3]]])
    np.testing.assert_array_equal(largest_component(np.zeros((1, 2, 2), np.uint8)), np.zeros((1, 2, 2)))
