"""Reads PNG, JPEG, TIFF and BMP as scans, one page per slice: gray values, or red, green and blue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from anatolab.data import checks
from anatolab.data.files import DAMAGE, PICTURES, check_budget, check_file, unreadable
from anatolab.types import Case, InputError


def is_picture(path: Path) -> bool:
    """Returns whether the name is that of a picture."""
    return path.name.lower().endswith(PICTURES)


def read_picture(path: Path) -> np.ndarray:
    """Reads a picture without changing values; palette indices stay indices, and an opaque alpha channel is dropped.

    Args:
        path: The file; TIFF may have several pages of one size, which become slices.

    Returns:
        ``(c, z, y, x)``, with one channel of gray values or class numbers, or three of color.

    Raises:
        InputError: The file is missing, damaged, too large, or has transparent pixels or pages of several sizes.
    """
    from PIL import Image

    check_file(path)
    try:
        with Image.open(path) as picture:
            pages = int(getattr(picture, "n_frames", 1))
            check_budget(path, (pages, *picture.size), 4 * len(picture.getbands()))
            slices = []
            for page in range(pages):
                picture.seek(page)
                slices.append(np.asarray(picture))
    except InputError:
        raise
    except (*DAMAGE, SyntaxError, Image.DecompressionBombError) as error:
        raise unreadable(path, error, "a picture") from error
    if len({values.shape for values in slices}) > 1:
        raise InputError(f"{path}: its pages differ in size; save each case as pages of one size.")
    stack = np.stack(slices)
    stack = stack.astype(np.uint8) if stack.dtype == bool else stack
    channels = np.moveaxis(stack, -1, 0) if stack.ndim == 4 else stack[None]
    if len(channels) in (2, 4):
        if (channels[-1] != channels[-1].max()).any() or channels[-1].max() != 255:
            raise InputError(f"{path}: has transparent pixels; save it without an alpha channel.")
        channels = channels[:-1]
    return np.ascontiguousarray(channels)


def load_case(
    patient: str,
    images: tuple[Path, ...],
    label: Path | None,
    classes: Sequence[str],
    *,
    codes: Mapping[int, int] | None,
    window: tuple[float, float] | None,
    channels: int,
) -> Case:
    """Reads a case of pictures, which have no geometry; see :func:`anatolab.data.pairs.load_case`.

    Args:
        patient: Its id.
        images: A file per channel, or one color picture.
        label: The picture of class numbers, if any.
        classes: Class names, background first.
        codes: Class number of each value in the label.
        window: Range that intensities are clipped to.
        channels: Expected number; a color picture whose channels are equal counts as gray where it is 1.

    Raises:
        InputError: A file is wrong, or two of them differ in size.
    """
    parts = [read_picture(path) for path in images]
    for path, part in zip(images, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            raise InputError(f"{path}: has shape {part.shape[1:]}, the first of its case {parts[0].shape[1:]}.")
    volumes = np.concatenate(parts)
    if channels == 1 and len(volumes) == 3 and (volumes == volumes[:1]).all():
        volumes = volumes[:1]
    if len(volumes) != channels:
        count = len(volumes)
        raise InputError(
            f"{images[0]}: holds {count} channel{'s (color)' if count == 3 else 's' * (count > 1)}, and {channels} "
            f"{'is' if channels == 1 else 'are'} expected; give {'gray ' * (channels == 1)}{'color ' * (channels == 3)}"
            f"pictures, or name {count} in the dataset.json of a training."
        )
    image = checks.check_image(volumes, images[0])
    mask = None
    if label is not None:
        if label.suffix.lower() in (".jpg", ".jpeg"):
            raise InputError(f"{label}: is a JPEG, which does not keep class numbers; save the annotation as PNG.")
        values = read_picture(label)
        if len(values) > 1 and (values != values[:1]).any():
            raise InputError(f"{label}: is a color picture where class numbers are expected; save one channel of them.")
        checks.check_pair(image[0], values[0], images[0], label)
        plane = values[0]
        mask = checks.map_label(plane, label, codes, classes) if codes else checks.check_label(plane, label, classes)
    return Case(patient, "", image, mask, None, None, images[0], {}, window)


def write_label(label: np.ndarray, path: Path, *, overwrite: bool = False) -> None:
    """Writes class numbers ``(z, y, x)`` uint8 as PNG, or as TIFF with one page per slice.

    Raises:
        InputError: Several slices as PNG, or the file exists or cannot be written.
    """
    from PIL import Image

    from anatolab.files import write_atomically

    if path.suffix != ".tif" and len(label) > 1:
        raise InputError(f"{path}: PNG has no room for {len(label)} slices; name a .tif.")
    first, *others = [Image.fromarray(plane) for plane in label.astype(np.uint8)]
    kind = "TIFF" if path.suffix == ".tif" else "PNG"
    more = {"save_all": True, "append_images": others} if others else {}
    write_atomically(path, lambda file: first.save(file, kind, **more), overwrite=overwrite)
