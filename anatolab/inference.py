"""From a trained method to label volumes and metrics, on the grid of the input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product

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
        precision: Of the network, "32-true" or "bf16-mixed"; logits are resized in fp32.
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
    """Logits of as many images and classes at another size, in which the background is certain."""
    result = logits.new_full((*logits.shape[:2], *size), -CERTAIN)
    result[:, 0] = CERTAIN
    return result


def _compute(predict: Callable[[Tensor], Tensor], image: Tensor, precision: str) -> Tensor:
    """The logits of a network in a precision, fp32; images of slices go in as the kernels of a CPU like them."""
    if precision not in ("32-true", "bf16-mixed"):
        raise InputError(f"precision must be '32-true' or 'bf16-mixed' at prediction, not {precision!r}.")
    if image.ndim == 4:
        image = image.contiguous(memory_format=torch.channels_last)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        logits = predict(image)
    return logits.float()


@torch.no_grad()
def sliding_window(
    predict: Callable[[Tensor], Tensor],
    image: Tensor,
    patch: Sequence[int],
    *,
    stride: Sequence[int] | None = None,
    precision: str = "32-true",
    batch: int = 4,
) -> Tensor:
    """Averages the network's class probabilities over all windows that hold a voxel.

    Windows start at multiples of the stride; the last one along each axis ends where the volume ends. Volumes smaller
    than the patch are zero-padded symmetrically, as in training.

    Args:
        predict: From images ``(b, c, *patch)`` in [0, 1] to logits ``(b, classes, *patch)``, e.g. ``method.predict``.
        image: ``(c, z, y, x)`` in [0, 1], on the network's device.
        patch: Sides (z, y, x) that the network was trained at.
        stride: Steps (z, y, x) between windows, at most the patch; half the patch where None. The papers' on the left
            atrium, with patches of 80 x 112 x 112, is :data:`PUBLISHED_STRIDE`.
        precision: Of the network, "32-true" or "bf16-mixed"; probabilities are averaged in fp32.
        batch: Windows at a time.

    Returns:
        Probabilities ``(classes, z, y, x)``, fp32, without gradient.

    Raises:
        InputError: The stride leaves voxels out, or is not positive.

    Example:
        >>> volume = torch.rand(1, 3, 9, 7)
        >>> probability = sliding_window(lambda x: torch.cat([x, -x], 1), volume, (4, 4, 4))
        >>> torch.allclose(probability[0], torch.sigmoid(2 * volume[0]))
        True
    """
    step = tuple(stride or (max(1, side // 2) for side in patch))
    if not all(0 < s <= side for s, side in zip(step, patch, strict=True)):
        raise InputError(f"stride: {step} is not between 1 and the patch {tuple(patch)}; choose smaller steps.")
    short = [max(side - size, 0) for side, size in zip(patch, image.shape[1:], strict=True)]
    pads = [(s // 2, s - s // 2) for s in short]
    padded = F.pad(image, [n for pair in reversed(pads) for n in pair])
    starts = [
        [min(i * s, size - side) for i in range(-(-(size - side) // s) + 1)]
        for size, side, s in zip(padded.shape[1:], patch, step, strict=True)
    ]
    windows = [tuple(slice(a, a + side) for a, side in zip(start, patch, strict=True)) for start in product(*starts)]
    total, count = None, torch.zeros_like(padded[0])
    for first in range(0, len(windows), batch):
        some = windows[first : first + batch]
        patches = torch.stack([padded[(slice(None), *window)] for window in some])
        probabilities = torch.softmax(_compute(predict, patches, precision), 1)
        if total is None:
            total = probabilities.new_zeros(probabilities.shape[1], *padded.shape[1:])
        for window, probability in zip(some, probabilities, strict=True):
            total[(slice(None), *window)] += probability
            count[window] += 1
    assert total is not None  # there is always one window
    inside = tuple(slice(before, size - after) for (before, after), size in zip(pads, count.shape, strict=True))
    return (total / count)[(slice(None), *inside)]


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
        precision: Of the network, "32-true" or "bf16-mixed".
        stride: Of the patches, see :func:`sliding_window`; not read for slices.

    Raises:
        InputError: As :func:`anatolab.data.prepare`, or the precision is unknown.
    """
    if field_of_view is not None and field_of_view.dims != len(size):
        raise InputError(
            f"size: {tuple(size)} and a field of view of {field_of_view.dims} dimensions do not fit; give those of one "
            "training."
        )
    if len(size) == 2:
        parts = predict_logits(
            predict, case, (size[0], size[1]), field_of_view=field_of_view, device=device, precision=precision
        )
        label = np.concatenate([part.argmax(1).to(torch.uint8).cpu().numpy() for part in parts])
    else:
        image = torch.from_numpy(volume_of(case, field_of_view)).to(device)
        probability = sliding_window(predict, image, size, stride=stride, precision=precision)
        label = probability.argmax(0).to(torch.uint8).cpu().numpy()
        if field_of_view is not None:
            part, label = label, np.zeros(case.image.shape[1:], np.uint8)
            field_of_view.boxes(case)[0].paste(part, label)
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
        method: Has ``predict``; put into evaluation mode.
        refs: Cases with annotation.
        classes: Class names, background first.
        size: What the network was trained at: height and width of slices, or sides (z, y, x) of patches.
        field_of_view: That of the training, if any; organs are measured outside of it as well.
        largest_component: As of :func:`predict_volume`.
        device: Where to compute.
        precision: Of the network, "32-true" or "bf16-mixed".
        stride: Of the patches, see :func:`sliding_window`.
        volumes: Filled with the predicted volume of each case, by case name, where given.

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
            raise InputError(f"{case.source}: has no annotation to compare with; use predict, or leave it out.")
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
