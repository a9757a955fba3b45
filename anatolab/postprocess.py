"""Post-processing of predicted label volumes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def largest_component(label: np.ndarray, classes: Iterable[int] | None = None) -> np.ndarray:
    """Keeps the largest connected component of each class; everything else of these classes becomes background.

    Voxels are connected through their faces. Of components of equal size the first in array order is kept. A class with
    two organs, such as both lungs, loses one of them, so this is off by default.

    Args:
        label: ``(z, y, x)`` class numbers.
        classes: Class numbers to clean; all but 0, the background, where None.

    Returns:
        A copy, of the same shape and type.

    Example:
        >>> largest_component(np.array([[[1, 1, 0, 1, 2, 0, 2]]])).tolist()
        [[[1, 1, 0, 0, 2, 0, 0]]]
    """
    from scipy import ndimage

    result = label.copy()
    boxes = ndimage.find_objects(label)
    for number in range(1, len(boxes) + 1) if classes is None else classes:
        if number > len(boxes) or (box := boxes[number - 1]) is None:
            continue
        components, count = ndimage.label(label[box] == number)
        if count > 1:
            largest = 1 + np.bincount(components.ravel())[1:].argmax()
            result[box][(components > 0) & (components != largest)] = 0
    return result
