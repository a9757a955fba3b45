from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.data import FieldOfView, coverage, find_field_of_view, open_cohort
from anatolab.data.cache import slices_of
from anatolab.data.phantoms.cardiac import write_cardiac
from anatolab.inference import (
    PUBLISHED_STRIDE,
    evaluate,
    likeliest,
    predict_logits,
    predict_volume,
    slabs,
    sliding_window,
)
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
    with pytest.raises(InputError, match=r"p1.nii.gz: has no annotation to evaluate"):
        evaluate(Bright(), [ref(case(label=False))], ("background", "LV"), (24, 32))


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


def test_slabs_have_the_arguments_of_the_whole_window_and_its_result() -> None:
    assert signature(sliding_window).parameters == signature(slabs).parameters
    image, patch = torch.rand(1, 9, 13, 17), (4, 6, 8)
    whole = sliding_window(uneven, image, patch, device="cpu")
    assert torch.equal(torch.cat(list(slabs(uneven, image, patch, device="cpu")), 1), whole)


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


# --- with a field of view ------------------------------------------------------------------------------------------


def whole_study(logits: Tensor, one: Case, center: tuple[float, float], side: float) -> np.ndarray:
    """The study's way back to the native grid, word by word."""
    height, width = one.image.shape[-2:]
    s = side * (height * width) ** 0.5
    large = round(s * 4 / 3)
    y0, x0 = round(center[0] * height - large / 2), round(center[1] * width - large / 2)
    small = logits.shape[-1]
    big = round(small * 4 / 3 / 2) * 2
    m = (big - small) // 2
    pad = torch.full((len(logits), logits.shape[1], big, big), -20.0)
    pad[:, 0] = 20
    pad[..., m : m + small, m : m + small] = logits
    answer = F.interpolate(pad, (large, large), mode="bilinear", align_corners=False).argmax(1).numpy()
    result = np.zeros(one.image.shape[1:], np.uint8)
    for y in range(large):
        for x in range(large):
            if 0 <= y0 + y < height and 0 <= x0 + x < width:
                result[:, y0 + y, x0 + x] = answer[:, y, x]
    return result


class Scripted:
    """A predictor whose logits are known beforehand, whatever it is shown; it remembers what it was shown."""

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.images = logits, torch.zeros(0)

    def __call__(self, image: Tensor) -> Tensor:
        first = len(self.images)
        self.images = torch.cat([self.images, image]) if first else image.clone()
        return self.logits[first : first + len(image)]


@pytest.mark.parametrize("center", [(0.5, 0.45), (0.1, 0.9)])
def test_logits_go_back_to_the_native_grid_as_in_the_literal_form(center: tuple[float, float]) -> None:
    torch.manual_seed(0)
    shape = (5, 61, 83)
    one = Case("p", "", np.random.default_rng(0).random((1, *shape), np.float32), None, None, None, Path("p"))
    fov = FieldOfView(center, (0.7, 0.7))
    script = Scripted(F.interpolate(3 * torch.randn(5, 3, 6, 6), (48, 48), mode="bilinear"))
    np.testing.assert_array_equal(
        predict_volume(script, one, (48, 48), field_of_view=fov), whole_study(script.logits, one, center, 0.7)
    )
    rows, _ = slices_of(one, (48, 48), fov)
    assert rows.shape[2:] == (64, 64)
    np.testing.assert_array_equal(script.images, rows[..., 8:56, 8:56])  # a network sees what it was trained on
    whole = Scripted(script.logits)
    parts = list(predict_logits(whole, one, (48, 48), field_of_view=fov, batch=2))
    assert [len(p) for p in parts] == [2, 2, 1]
    np.testing.assert_array_equal(torch.cat(parts).argmax(1), whole_study(script.logits, one, center, 0.7))


def test_labels_cut_to_96_pixels_and_put_back_keep_a_dice_of_95(tmp_path: Path) -> None:
    cohort = open_cohort(write_cardiac(tmp_path, patients=4, seed=0))
    first = cohort.patients[0]
    fov = find_field_of_view(cohort, [first])
    dice = []
    for case_ref in cohort.refs:
        one = case_ref.load()
        _, labels = slices_of(one, (96, 96), fov)
        view = torch.from_numpy(labels[:, 16:112, 16:112]).long()
        script = Scripted(10 * F.one_hot(view, 4).movedim(-1, 1).float())
        back = predict_volume(script, one, (96, 96), field_of_view=fov)
        assert one.label is not None
        dice += [
            2 * ((back == c) & (one.label == c)).sum() / ((back == c).sum() + (one.label == c).sum()) for c in (1, 2, 3)
        ]
    assert np.mean(dice) >= 0.95
    assert min(coverage(cohort, cohort.patients, fov).values()) > 0.99


def test_in_3d_windows_slide_inside_the_box_and_the_rest_is_background() -> None:
    one = case((12, 24, 32))
    fov = FieldOfView((0.5, 0.5, 0.5), (0.5, 0.5, 1.0))
    box = fov.boxes(one)[0]
    answer = predict_volume(bright, one, (4, 8, 8), field_of_view=fov)
    expected = np.zeros_like(answer)
    box.paste(box.cut(one.label), expected)
    np.testing.assert_array_equal(answer, expected)
    assert 0 < answer.sum() < one.label.sum()  # type: ignore[union-attr]
    with pytest.raises(InputError, match="a field of view of 3 dimensions do not fit"):
        predict_volume(bright, one, (24, 32), field_of_view=fov)


def test_the_largest_component_is_a_setting_and_the_precision_is_the_runs() -> None:
    one = case()
    speck = one.image.copy()
    speck[0, 0, 0, 0] = 700.0
    one = Case("p1", "ED", speck, one.label, one.spacing, None, one.source)
    assert predict_volume(bright, one, (24, 32))[0, 0, 0] == 1
    np.testing.assert_array_equal(predict_volume(bright, one, (24, 32), largest_component=True), one.label)
    with_it = evaluate(Bright(), [ref(one)], ("background", "LV"), (24, 32), largest_component=True)
    assert with_it["p1_ED"]["LV"]["dice"] == 1.0
    kinds = []

    def watching(image: Tensor) -> Tensor:
        kinds.append((torch.is_autocast_enabled("cpu"), image.is_contiguous(memory_format=torch.channels_last)))
        return F.conv2d(image, torch.ones(2, 1, 1, 1))

    assert next(predict_logits(watching, one, (24, 32), precision="bf16-mixed")).dtype == torch.float32
    predict_volume(watching, one, (24, 32))
    assert kinds == [(True, True), (False, True)]
    with pytest.raises(InputError, match="precision must be '32-true' or 'bf16-mixed' at prediction, not 'auto'"):
        predict_volume(bright, one, (24, 32), precision="auto")


@pytest.mark.parametrize("axis", [0, 1])
def test_the_likeliest_class_is_the_first_of_the_largest_scores(axis: int) -> None:
    scores = torch.randint(0, 3, (4, 4, 9, 5), generator=torch.Generator().manual_seed(0)).float()
    for given in (scores, scores.bfloat16(), scores.to(memory_format=torch.channels_last)):
        assert np.array_equal(likeliest(given, axis), scores.numpy().argmax(axis))
