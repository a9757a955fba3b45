"""Whether volumes are cut into 2-D slices or 3-D patches."""

from __future__ import annotations

from collections.abc import Sequence

ANISOTROPY = 3.0  # slices this many times thicker than the pixels are wide carry little of their neighbors


def dims_for(spacing: Sequence[float] | None) -> int:
    """Returns 2 if slices are more than three times thicker than pixels are wide, or no spacing is known, else 3.

    Args:
        spacing: ``(z, y, x)`` in mm, slice axis first; None where the files carry none.

    Reference:
        The threshold is that of Isensee et al., nnU-Net, Nature Methods 2021, for anisotropic data.

    Example:
        >>> dims_for((10.0, 1.56, 1.56)), dims_for((0.625, 0.625, 0.625)), dims_for(None)
        (2, 3, 2)
    """
    if spacing is None:
        return 2
    return 2 if spacing[0] > ANISOTROPY * min(spacing[1:]) else 3
