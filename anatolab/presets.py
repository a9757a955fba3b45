"""The three sizes, for slices and for volumes; ``ANATOLAB_SIZE`` names the current one."""

from __future__ import annotations

import os

from anatolab.types import InputError, Size

SIZES = {
    "tiny": Size("tiny", 64, 300, 4, 4, "stem_unet_small", 24),  # live in a notebook, seconds on a core
    "demo": Size("demo", 96, 5_000, 4, 4, "stem_unet", 100),  # some minutes per run on a core
    "full": Size("full", 256, 30_000, 4, 4, "basic_unet", 100),  # the papers' resolution and network, for a GPU
}
SIZES_3D = {  # the same three for volumes
    "tiny": Size("tiny", 32, 150, 2, 2, "stem_unet_small", 12, depth=24),
    "demo": Size("demo", 64, 2_000, 2, 2, "stem_unet", 60, depth=48),
    "full": Size("full", 112, 15_000, 2, 2, "vnet", 60, depth=80),
}


def current_size(dims: int = 2) -> Size:
    """Returns the size named by ``ANATOLAB_SIZE`` (default ``tiny``), for slices or for volumes.

    Example:
        >>> SIZES["demo"].updates, SIZES_3D["full"].image
        (5000, (80, 112, 112))
    """
    name = os.environ.get("ANATOLAB_SIZE") or "tiny"
    if name not in SIZES:
        raise InputError(f"ANATOLAB_SIZE must be one of {', '.join(SIZES)}, not {name!r}.")
    return (SIZES if dims == 2 else SIZES_3D)[name]
