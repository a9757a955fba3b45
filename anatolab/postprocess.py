"""What is done to a predicted label volume before it is measured or written."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def largest_component(label: np.ndarray, classes: Iterable[int] | None = None) -> np.ndarray:
    """Keeps the largest connected component of each class; everything else of these classes becomes background.

    Voxels are connected through their faces. Of components of equal size the first in array order is kept. An organ of
    which a patient has two in one class loses one of them, so this is a setting and not a rule.

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
