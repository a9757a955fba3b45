from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anatolab.inference import evaluate, predict_logits, predict_volume, write_nifti
from anatolab.types import Case, CaseRef, InputError


def bright(image: Tensor) -> Tensor:
    """Class 1 where an image in [0, 1] is above a half."""
    return torch.cat([0.5 - image, image - 0.5], 1) * 100


def case(shape: tuple[int, int, int] = (5, 24, 32), label: bool = True) -> Case:
    volume = np.zeros(shape, np.float32)
    volume[1:4, 6:18, 8:24] = 700.0  # the file's own intensities, not [0, 1]
    truth = (volume > 0).astype(np.uint8) if label else None
    return Case("p1", "ED", volume[None], truth, (10.0, 1.5, 1.25), None, Path("p1.nii.gz"))


def test_at_the_native_size_prediction_is_the_networks_own_answer() -> None:
    one = case()
    np.testing.assert_array_equal(predict_volume(bright, one, (24, 32)), one.label)


def test_logits_come_back_on_the_native_grid_in_order_whatever_the_batch() -> None:
    one = case()
    whole = torch.cat(list(predict_logits(bright, one, (12, 16), batch=16)))
    parts = list(predict_logits(bright, one, (12, 16), batch=2))
    assert whole.shape == (5, 2, 24, 32)
    assert [len(p) for p in parts] == [2, 2, 1]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert predict_volume(bright, one, (12, 16)).dtype == np.uint8
    overlap = (predict_volume(bright, one, (12, 16)) == one.label).mean()
    assert overlap > 0.97  # resized edges move by less than a pixel


class Bright(nn.Module):
    def predict(self, image: Tensor) -> Tensor:
        assert not self.training
        return bright(image)


def ref(one: Case) -> CaseRef:
    return CaseRef(one.patient, one.phase, one.source, lambda: one)


def test_evaluation_is_in_mm_on_the_native_grid() -> None:
    volumes: dict[str, np.ndarray] = {}
    values = evaluate(Bright(), [ref(case())], ("background", "LV"), (24, 32), volumes=volumes)
    assert values["p1_ED"]["LV"]["dice"] == 1.0
    assert values["p1_ED"]["LV"]["hd95"] == 0.0
    assert volumes["p1_ED"].shape == (5, 24, 32)
    shifted = case()
    assert shifted.label is not None
    shifted = Case("p1", "ED", np.roll(shifted.image, 1, 3), shifted.label, shifted.spacing, None, shifted.source)
    values = evaluate(Bright(), [ref(shifted)], ("background", "LV"), (24, 32))
    assert values["p1_ED"]["LV"]["hd95"] == pytest.approx(1.25)  # one voxel in x


def test_a_case_without_annotation_cannot_be_evaluated() -> None:
    with pytest.raises(InputError, match=r"p1.nii.gz: has no annotation to compare with"):
        evaluate(Bright(), [ref(case(label=False))], ("background", "LV"), (24, 32))


def test_nifti_needs_a_geometry_to_keep(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"p1.nii.gz: carries no affine"):
        write_nifti(np.zeros((5, 24, 32), np.uint8), case(), tmp_path / "out.nii.gz")
