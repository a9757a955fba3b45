"""From a trained method to label volumes, metrics and NIfTI files in the geometry of the input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.data.cache import slices_of
from anatolab.metrics import evaluate_volume
from anatolab.types import Case, CaseRef, InputError


@torch.no_grad()
def predict_logits(
    predict: Callable[[Tensor], Tensor],
    case: Case,
    size: tuple[int, int],
    *,
    device: torch.device | str = "cpu",
    batch: int = 16,
) -> Iterator[Tensor]:
    """Predicts a volume slice by slice, at the training size, and resizes the logits to the native grid.

    Args:
        predict: From images ``(b, c, h, w)`` in [0, 1] to logits ``(b, classes, h, w)``, e.g. ``method.predict``.
        case: The volume.
        size: Height and width that the network was trained at.
        device: Where to compute.
        batch: Slices at a time.

    Yields:
        Logits ``(<=batch, classes, y, x)`` of consecutive slices, fp32 on ``device``, without gradient.
    """
    images, _ = slices_of(case, size)
    for start in range(0, len(images), batch):
        logits = predict(torch.from_numpy(images[start : start + batch]).to(device)).float()
        yield F.interpolate(logits, case.image.shape[-2:], mode="bilinear", align_corners=False)


def predict_volume(
    predict: Callable[[Tensor], Tensor], case: Case, size: tuple[int, int], *, device: torch.device | str = "cpu"
) -> np.ndarray:
    """The class of every voxel, ``(z, y, x)`` uint8 on the native grid; arguments as :func:`predict_logits`."""
    return np.concatenate(
        [part.argmax(1).to(torch.uint8).cpu().numpy() for part in predict_logits(predict, case, size, device=device)]
    )


def evaluate(
    method: nn.Module,
    refs: Iterable[CaseRef],
    classes: tuple[str, ...],
    size: tuple[int, int],
    *,
    device: torch.device | str = "cpu",
    volumes: dict[str, np.ndarray] | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Predicts and measures every annotated case on its native grid.

    Args:
        method: Has ``predict``; put into evaluation mode.
        refs: Cases with annotation.
        classes: Class names, background first.
        size: Height and width that the network was trained at.
        device: Where to compute.
        volumes: Filled with the predicted volume of each case, by case name, where given.

    Returns:
        ``{case: {class: {metric: value}}}`` of :func:`anatolab.metrics.evaluate_volume`; distances in mm where the
        case has a spacing, else in voxels.

    Raises:
        InputError: A case has no annotation.
    """
    method.eval()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for ref in refs:
        case = ref.load()
        if case.label is None:
            raise InputError(f"{case.source}: has no annotation to compare with; use predict, or leave it out.")
        predicted = predict_volume(method.predict, case, size, device=device)  # type: ignore[arg-type]
        found[case.name] = evaluate_volume(predicted, case.label, classes, case.spacing, case=case.name)
        if volumes is not None:
            volumes[case.name] = predicted
    return found


def write_nifti(label: np.ndarray, case: Case, path: Path) -> None:
    """Writes a label volume in the geometry of the image it was predicted from: affine, spacing, orientation, codes.

    Args:
        label: ``(z, y, x)`` uint8.
        case: The case that was predicted; its source must be a NIfTI file or it must carry an affine.
        path: ``.nii`` or ``.nii.gz``.

    Raises:
        InputError: The case carries no geometry.
    """
    import nibabel as nib

    if case.affine is None:
        raise InputError(
            f"{case.source}: carries no affine, so NIfTI cannot hold its geometry; predict from NIfTI files."
        )
    volume = np.ascontiguousarray(label.transpose(2, 1, 0).astype(np.uint8))
    header = None
    if case.source.name.endswith((".nii", ".nii.gz")):
        source: Any = nib.load(case.source)
        header = source.header.copy()
        header.set_data_dtype(np.uint8)
        header["scl_slope"], header["scl_inter"] = 1, 0
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume, case.affine, header), path)
