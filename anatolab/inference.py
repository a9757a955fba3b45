"""From a trained method to label volumes and metrics, on the grid of the input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab import postprocess
from anatolab.data import FieldOfView
from anatolab.data.cache import slices_of
from anatolab.data.volumes import volume_of
from anatolab.metrics import evaluate_volume
from anatolab.types import Case, CaseRef, InputError

PUBLISHED_STRIDE = (4, 18, 18)  # (z, y, x) voxels, of Yu et al., UA-MT, MICCAI 2019, on the left atrium
Window = Literal["constant", "gaussian"]
CERTAIN = 20.0  # logit of the background, and minus that of every organ, outside the field of view


@torch.no_grad()
def predict_logits(
    predict: Callable[[Tensor], Tensor],
    case: Case,
    size: tuple[int, int],
    *,
    field_of_view: FieldOfView | None = None,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    batch: int = 16,
) -> Iterator[Tensor]:
    """Predicts a volume slice by slice, at the training size, and resizes the logits to the native grid.

    Args:
        predict: From images ``(b, c, h, w)`` in [0, 1] to logits ``(b, classes, h, w)``, e.g. ``method.predict``.
        case: The volume.
        size: Height and width that the network was trained at.
        field_of_view: That of the training; outside of it the background is certain.
        device: Where to compute.
        precision: Precision of the network, "32-true" or "bf16-mixed"; logits are resized in fp32.
        batch: Slices at a time.

    Yields:
        Logits ``(<=batch, classes, y, x)`` of consecutive slices, fp32 on ``device``, without gradient.
    """
    images, _ = slices_of(case, size, field_of_view)
    rims = [(stored - side) // 2 for stored, side in zip(images.shape[2:], size, strict=True)]
    view = (slice(None), slice(None), *(slice(rim, rim + side) for rim, side in zip(rims, size, strict=True)))
    native = case.image.shape[-2:]
    for start in range(0, len(images), batch):
        image = torch.from_numpy(images[start : start + batch][view]).to(device)
        logits = _compute(predict, image, precision)
        if field_of_view is None:
            yield F.interpolate(logits, native, mode="bilinear", align_corners=False)
            continue
        box, _ = field_of_view.boxes(case)
        (rows, columns), (box_rows, box_columns) = box.overlap(native)
        stored, plane = _background(logits, images.shape[2:]), _background(logits, native)
        stored[view] = logits
        inside = F.interpolate(stored, box.size, mode="bilinear", align_corners=False)
        plane[:, :, rows, columns] = inside[:, :, box_rows, box_columns]
        yield plane


def _background(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Returns logits at another size, for as many images and classes, in which the background is certain."""
    result = logits.new_full((*logits.shape[:2], *size), -CERTAIN)
    result[:, 0] = CERTAIN
    return result


def _compute(predict: Callable[[Tensor], Tensor], image: Tensor, precision: str) -> Tensor:
    """Runs a network in a precision and returns fp32 logits; slices are passed with channels last."""
    if precision not in ("32-true", "bf16-mixed"):
        raise InputError(f"precision must be '32-true' or 'bf16-mixed' at prediction, not {precision!r}.")
    if image.ndim == 4:
        image = image.contiguous(memory_format=torch.channels_last)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        logits = predict(image)
    return logits.float()


def sliding_window(
    predict: Callable[[Tensor], Tensor],
    image: Tensor,
    patch: Sequence[int],
    *,
    stride: Sequence[int] | None = None,
    window: Window = "constant",
    precision: str = "32-true",
    batch: int = 4,
    device: torch.device | str | None = None,
) -> Tensor:
    """Averages the network's class probabilities over all windows that cover a voxel.

    Windows start at multiples of the stride; the last one along each axis ends where the volume ends. Volumes smaller
    than the patch are zero-padded symmetrically, as in training.

    Args:
        predict: From images ``(b, c, *patch)`` in [0, 1] to logits ``(b, classes, *patch)``, e.g. ``method.predict``.
        image: ``(c, z, y, x)`` in [0, 1]; sums are kept on its device.
        patch: Sides (z, y, x) that the network was trained at.
        stride: Steps (z, y, x) between windows, at most the patch; half the patch where None.
            :data:`PUBLISHED_STRIDE` is the papers' on the left atrium, with patches of 80 x 112 x 112.
        window: Weights of a window's voxels in the mean: ``constant``, or ``gaussian``, with a standard deviation of an
            eighth of the side, as in MONAI and nnU-Net.
        precision: Precision of the network, "32-true" or "bf16-mixed"; probabilities are averaged in fp32.
        batch: Windows per forward pass.
        device: Device of the network; that of the image where None.

    Returns:
        Probabilities ``(classes, z, y, x)``, fp32, on the device of the image, without gradient.

    Raises:
        InputError: The stride leaves voxels out, or is not positive; or the window is unknown.

    Example:
        >>> volume = torch.rand(1, 3, 9, 7)
        >>> probability = sliding_window(lambda x: torch.cat([x, -x], 1), volume, (4, 4, 4))
        >>> torch.allclose(probability[0], torch.sigmoid(2 * volume[0]))
        True
    """
    settings: dict[str, Any] = {"stride": stride, "window": window, "precision": precision}
    return torch.cat(list(slabs(predict, image, patch, **settings, batch=batch, device=device)), 1)


@torch.no_grad()
def slabs(
    predict: Callable[[Tensor], Tensor],
    image: Tensor,
    patch: Sequence[int],
    *,
    stride: Sequence[int] | None = None,
    window: Window = "constant",
    precision: str = "32-true",
    batch: int = 4,
    device: torch.device | str | None = None,
) -> Iterator[Tensor]:
    """Yields the result of :func:`sliding_window` in slabs, as soon as no later window covers their planes.

    Windows move along z last, so only as many planes as a patch has are kept in memory.

    Args:
        predict: From images to logits, as in :func:`sliding_window`.
        image: ``(c, z, y, x)`` in [0, 1]; sums are kept on its device.
        patch: Sides (z, y, x), as in :func:`sliding_window`.
        stride: Steps (z, y, x), as in :func:`sliding_window`.
        window: ``constant`` or ``gaussian``, as in :func:`sliding_window`.
        precision: Precision of the network.
        batch: Windows per forward pass.
        device: Device of the network; that of the image where None.

    Yields:
        Probabilities ``(classes, n, y, x)`` of the next n planes, fp32, on the device of the image.

    Raises:
        InputError: As for :func:`sliding_window`.
    """
    step = tuple(stride or (max(1, side // 2) for side in patch))
    if not all(0 < s <= side for s, side in zip(step, patch, strict=True)):
        raise InputError(f"stride: {step} is not between 1 and the patch {tuple(patch)}; choose smaller steps.")
    weight = _weight(window, patch).to(image.device)
    short = [max(side - size, 0) for side, size in zip(patch, image.shape[1:], strict=True)]
    pads = [(s // 2, s - s // 2) for s in short]
    padded = F.pad(image, [n for pair in reversed(pads) for n in pair]) if any(short) else image
    starts = [
        [min(i * s, size - side) for i in range(-(-(size - side) // s) + 1)]
        for size, side, s in zip(padded.shape[1:], patch, step, strict=True)
    ]
    inside = tuple(slice(before, size - after) for (before, after), size in zip(pads, padded.shape[1:], strict=True))
    corners, first = list(product(*starts)), 0  # ``first``: the plane that the sums begin with
    total: Any = None
    count = padded.new_zeros(patch[0], *padded.shape[2:])
    for begin in range(0, len(corners), batch):
        some = corners[begin : begin + batch]
        windows = [tuple(slice(a, a + side) for a, side in zip(corner, patch, strict=True)) for corner in some]
        patches = torch.stack([padded[(slice(None), *window)] for window in windows]).to(device or image.device)
        probabilities = torch.softmax(_compute(predict, patches, precision), 1).to(image.device)
        if total is None:
            total = probabilities.new_zeros(probabilities.shape[1], *count.shape)
        for (planes, *plane), probability in zip(windows, probabilities, strict=True):
            if (steps := planes.start - first) > 0:
                yield (total[:, :steps] / count[:steps])[(..., *inside[1:])]  # a volume padded along z is one slab
                _advance(total, 1, steps)
                _advance(count, 0, steps)
                first = planes.start
            total[(slice(None), slice(None), *plane)] += probability if weight.ndim == 0 else probability * weight
            count[(slice(None), *plane)] += weight
    yield (total / count)[(slice(None), inside[0] if short[0] else slice(None), *inside[1:])]


def _weight(window: str, patch: Sequence[int]) -> Tensor:
    """Returns the weights of a window's voxels in the mean, ``(z, y, x)``; a scalar 1 for ``constant``."""
    if window == "constant":
        return torch.ones(())
    if window != "gaussian":
        raise InputError(f"window must be 'constant' or 'gaussian', not {window!r}.")
    from monai.data.utils import compute_importance_map

    return compute_importance_map(tuple(patch), mode="gaussian")


def _advance(sums: Tensor, axis: int, steps: int) -> None:
    """Shifts planes to the front of an axis by ``steps``, in place, and zeroes those that follow."""
    depth = sums.shape[axis]
    for z in range(depth - steps):
        sums.select(axis, z).copy_(sums.select(axis, z + steps))
    sums.narrow(axis, depth - steps, steps).zero_()


def predict_scores(
    predict: Callable[[Tensor], Tensor],
    case: Case,
    size: Sequence[int],
    *,
    field_of_view: FieldOfView | None = None,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    stride: Sequence[int] | None = None,
    window: Window = "constant",
) -> Iterator[Tensor]:
    """Predicts a volume on the native grid, some planes at a time: logits for slices, probabilities for patches.

    Args:
        predict: From images to logits, e.g. ``method.predict``.
        case: The volume.
        size: What the network was trained at: height and width of slices, or sides (z, y, x) of patches.
        field_of_view: That of the training, if any; what lies outside is background.
        device: Where to compute; patches are stitched on the CPU.
        precision: Precision of the network, "32-true" or "bf16-mixed".
        stride: Stride of the patches, see :func:`sliding_window`; not read for slices.
        window: Weighting of the patches, see :func:`sliding_window`; not read for slices.

    Yields:
        ``(n, classes, y, x)`` of the next n planes, fp32.

    Raises:
        InputError: As for :func:`anatolab.data.prepare`, or a setting is unknown.
    """
    if field_of_view is not None and field_of_view.dims != len(size):
        raise InputError(
            f"size: {tuple(size)} and a field of view of {field_of_view.dims} dimensions do not fit; give those of one "
            "training."
        )
    if len(size) == 2:
        yield from predict_logits(
            predict, case, (size[0], size[1]), field_of_view=field_of_view, device=device, precision=precision
        )
        return
    image = torch.from_numpy(volume_of(case, field_of_view))
    parts = slabs(predict, image, size, stride=stride, window=window, precision=precision, device=device)
    if field_of_view is None:
        yield from (part.transpose(0, 1) for part in parts)
        return
    planes, *plane = field_of_view.boxes(case)[0].overlap(case.image.shape[1:])[0]
    native = case.image.shape[1:]
    for number, part in enumerate(parts):
        if not number:
            yield from _outside(planes.start, part, native)
        whole = _certain_background(part.shape[1], part, native)
        whole[(slice(None), slice(None), *plane)] = part.transpose(0, 1)
        yield whole
    yield from _outside(native[0] - planes.stop, part, native)


def _outside(planes: int, like: Tensor, native: Sequence[int]) -> Iterator[Tensor]:
    """Yields planes outside of the field of view, a few at a time."""
    for begin in range(0, planes, 8):
        yield _certain_background(min(8, planes - begin), like, native)


def _certain_background(planes: int, like: Tensor, native: Sequence[int]) -> Tensor:
    """Returns probabilities of planes ``(n, classes, y, x)`` in which the background has probability 1."""
    result = like.new_zeros(planes, len(like), *native[1:])
    result[:, 0] = 1
    return result


def likeliest(scores: Tensor, axis: int = 1) -> np.ndarray:
    """Returns the class with the largest score, uint8, without the axis of classes; the first one of a tie.

    Args:
        scores: Logits or probabilities.
        axis: That of the classes.

    Example:
        >>> likeliest(torch.tensor([[1.0, 3.0, 3.0]]))
        array([1], dtype=uint8)
    """
    return scores.max(axis).indices.to(torch.uint8).cpu().numpy()  # on a CPU six times as fast as argmax


def predict_volume(
    predict: Callable[[Tensor], Tensor],
    case: Case,
    size: Sequence[int],
    *,
    field_of_view: FieldOfView | None = None,
    largest_component: bool = False,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    stride: Sequence[int] | None = None,
    window: Window = "constant",
) -> np.ndarray:
    """Predicts the class of every voxel, ``(z, y, x)`` uint8 on the native grid.

    Args:
        predict: From images to logits, e.g. ``method.predict``.
        case: The volume.
        size: What the network was trained at: height and width of slices, or sides (z, y, x) of patches.
        field_of_view: That of the training, if any; what lies outside is background.
        largest_component: Whether to keep only the largest component of each organ, see
            :func:`anatolab.postprocess.largest_component`.
        device: Where to compute.
        precision: Precision of the network, "32-true" or "bf16-mixed".
        stride: Stride of the patches, see :func:`sliding_window`; not read for slices.
        window: Weighting of the patches, see :func:`sliding_window`; not read for slices.

    Raises:
        InputError: As for :func:`predict_scores`.
    """
    parts = predict_scores(
        predict,
        case,
        size,
        field_of_view=field_of_view,
        device=device,
        precision=precision,
        stride=stride,
        window=window,
    )
    label = np.concatenate([likeliest(part) for part in parts])
    return postprocess.largest_component(label) if largest_component else label


def evaluate(
    method: nn.Module,
    refs: Iterable[CaseRef],
    classes: tuple[str, ...],
    size: Sequence[int],
    *,
    field_of_view: FieldOfView | None = None,
    largest_component: bool = False,
    device: torch.device | str = "cpu",
    precision: str = "32-true",
    stride: Sequence[int] | None = None,
    volumes: dict[str, np.ndarray] | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Predicts and measures every annotated case on its native grid.

    Args:
        method: Has ``predict``; it is put into evaluation mode.
        refs: Cases with annotation.
        classes: Class names, background first.
        size: What the network was trained at: height and width of slices, or sides (z, y, x) of patches.
        field_of_view: That of the training, if any; organs are measured outside of it as well.
        largest_component: As in :func:`predict_volume`.
        device: Where to compute.
        precision: Precision of the network, "32-true" or "bf16-mixed".
        stride: Stride of the patches, see :func:`sliding_window`.
        volumes: If given, filled with the predicted volume of each case, by case name.

    Returns:
        ``{case: {class: {metric: value}}}`` of :func:`anatolab.metrics.evaluate_volume`; distances in mm where the
        case has a spacing, else in voxels.

    Raises:
        InputError: A case has no annotation.
    """
    method.eval()
    values: dict[str, dict[str, dict[str, float]]] = {}
    for ref in refs:
        case = ref.load()
        if case.label is None:
            raise InputError(f"{case.source}: has no annotation to evaluate; use predict, or leave the case out.")
        predicted = predict_volume(
            method.predict,  # type: ignore[arg-type]
            case,
            size,
            field_of_view=field_of_view,
            largest_component=largest_component,
            device=device,
            precision=precision,
            stride=stride,
        )
        values[case.name] = evaluate_volume(predicted, case.label, classes, case.spacing, case=case.name)
        if volumes is not None:
            volumes[case.name] = predicted
    return values
