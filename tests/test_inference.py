from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anatolab.inference import PUBLISHED_STRIDE, evaluate, predict_logits, predict_volume, sliding_window, write_nifti
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


def literal(predict, image: Tensor, patch: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """The papers' evaluation, word by word: windows on a grid of strides, the last ones pushed back to the border."""
    depth, height, width = image.shape[1:]
    total, seen = torch.zeros(2, depth, height, width), torch.zeros(depth, height, width)
    for i in range(-(-(depth - patch[0]) // stride[0]) + 1):
        z = min(stride[0] * i, depth - patch[0])
        for j in range(-(-(height - patch[1]) // stride[1]) + 1):
            y = min(stride[1] * j, height - patch[1])
            for k in range(-(-(width - patch[2]) // stride[2]) + 1):
                x = min(stride[2] * k, width - patch[2])
                piece = image[None, :, z : z + patch[0], y : y + patch[1], x : x + patch[2]]
                probability = torch.softmax(predict(piece), 1)[0]
                total[:, z : z + patch[0], y : y + patch[1], x : x + patch[2]] += probability
                seen[z : z + patch[0], y : y + patch[1], x : x + patch[2]] += 1
    assert (seen > 0).all()
    return total / seen


def uneven(image: Tensor) -> Tensor:
    """Logits that depend on the place in the window, so that a wrong window shows."""
    ramp = torch.linspace(-2, 2, image[0, 0].numel()).reshape(image.shape[2:])
    return torch.cat([image * ramp, image.mean((2, 3, 4), keepdim=True) - ramp], 1)


@pytest.mark.parametrize("stride", [None, (1, 2, 5), (4, 6, 8)])
@pytest.mark.parametrize("batch", [1, 3, 100])
def test_the_sliding_window_equals_the_literal_loop(stride: tuple[int, int, int] | None, batch: int) -> None:
    image, patch = torch.rand(1, 9, 13, 17), (4, 6, 8)
    found = sliding_window(uneven, image, patch, stride=stride, batch=batch)
    torch.testing.assert_close(found, literal(uneven, image, patch, stride or (2, 3, 4)))
    torch.testing.assert_close(found.sum(0), torch.ones(9, 13, 17))


def test_a_constant_predictor_reproduces_itself_and_a_pointwise_one_its_own_answer() -> None:
    image, constant = torch.rand(1, 11, 30, 26), torch.tensor([0.3, -1.2])
    for stride in (None, (3, 5, 7)):
        found = sliding_window(
            lambda x: constant[None, :, None, None, None].expand(len(x), 2, *x.shape[2:]),
            image,
            (8, 16, 16),
            stride=stride,
        )
        due = torch.softmax(constant, 0)[:, None, None, None].expand(found.shape)
        torch.testing.assert_close(found, due)
    pointwise = sliding_window(bright, image, (8, 16, 16))
    torch.testing.assert_close(pointwise, torch.softmax(bright(image[None]), 1)[0])


def test_a_volume_smaller_than_the_patch_is_padded_with_zeros_and_cropped_back() -> None:
    seen = []

    def watching(image: Tensor) -> Tensor:
        seen.append(image)
        return bright(image)

    image = torch.rand(1, 3, 20, 7)
    found = sliding_window(watching, image, (8, 16, 12))
    assert found.shape == (2, 3, 20, 7)
    torch.testing.assert_close(found, torch.softmax(bright(image[None]), 1)[0])
    window = seen[0][0, 0]
    assert window.shape == (8, 16, 12)
    torch.testing.assert_close(window[2:5, :, 2:9], image[0, :, :16])
    assert window.sum() == pytest.approx(image[0, :, :16].sum().item(), rel=1e-5)


def test_a_stride_that_leaves_voxels_out_is_refused() -> None:
    for stride in ((9, 4, 4), (0, 4, 4)):
        with pytest.raises(InputError, match=r"stride: .* is not between 1 and the patch \(8, 8, 8\)"):
            sliding_window(bright, torch.rand(1, 16, 16, 16), (8, 8, 8), stride=stride)


def test_patches_are_evaluated_and_predicted_like_slices() -> None:
    one = case((12, 24, 32))
    np.testing.assert_array_equal(predict_volume(bright, one, (8, 16, 16)), one.label)
    np.testing.assert_array_equal(predict_volume(bright, one, (8, 18, 18), stride=PUBLISHED_STRIDE), one.label)
    values = evaluate(Bright(), [ref(one)], ("background", "LV"), (8, 16, 16))
    assert values["p1_ED"]["LV"]["dice"] == 1.0
