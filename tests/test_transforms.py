from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anatolab.transforms import (
    Affine,
    Augmentation,
    class_mask,
    cut_mask,
    gaussian_blur,
    mix,
    mix_pairs,
    mixing_mask,
    strong_view,
    weak_view,
)
from anatolab.types import IGNORE

STILL = Augmentation(rotate=0, scale=0, translate=0, flip=False, quarter_turns=False)
SIDES = [(24, 24), (6, 24, 24)]


def pair(sides: tuple[int, ...], b: int = 6) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.rand(b, 1, *sides), torch.randint(0, 4, (b, *sides))


@pytest.mark.parametrize("sides", SIDES)
def test_without_freedom_the_weak_view_is_the_input(sides: tuple[int, ...]) -> None:
    image, label = pair(sides)
    moved, moved_label = weak_view(image, label, STILL)
    torch.testing.assert_close(moved, image)
    assert torch.equal(moved_label, label)


@pytest.mark.parametrize("sides", SIDES)
def test_flips_and_quarter_turns_permute_pixels_and_keep_image_and_label_together(sides: tuple[int, ...]) -> None:
    _, label = pair(sides)
    image = label[:, None].float()
    moved, moved_label = weak_view(image, label, replace(STILL, flip=True, quarter_turns=True))
    torch.testing.assert_close(moved[:, 0], moved_label.float(), atol=1e-3, rtol=0)
    for before, after in zip(label, moved_label, strict=True):
        assert torch.equal(before.flatten().bincount(minlength=4), after.flatten().bincount(minlength=4))
    assert any(not torch.equal(a, b) for a, b in zip(label, moved_label, strict=True))


def test_a_quarter_turn_is_rot90() -> None:
    image, _ = pair((8, 8), b=1)
    quarter = Affine(torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]]), torch.zeros(1, 2))
    torch.testing.assert_close(quarter.warp_image(image), torch.rot90(image, 1, (2, 3)), atol=1e-5, rtol=0)


def test_a_shift_is_in_voxels_on_an_image_that_is_not_square() -> None:
    image, label = pair((8, 12), b=1)
    down = Affine(torch.eye(2)[None], torch.tensor([[2.0, -3.0]]))  # output(p) = input(p + shift)
    moved = down.warp_label(label)
    assert torch.equal(moved[0, :-2, 3:], label[0, 2:, :-3])
    assert (moved[0, -2:] == IGNORE).all()
    assert (moved[0, :, :3] == IGNORE).all()
    torch.testing.assert_close(down.warp_image(image)[0, 0, :-2, 3:], image[0, 0, 2:, :-3], atol=1e-5, rtol=0)


@pytest.mark.parametrize("sides", SIDES)
def test_the_inverse_undoes_the_map(sides: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    affine = Affine.sample(torch.zeros(5, 1, *sides), Augmentation(translate=0.2))
    inverse = affine.inverse()
    points = torch.rand(5, 2, 7) * 20
    there = affine.matrix @ points + affine.shift[..., None]
    torch.testing.assert_close(inverse.matrix @ there + inverse.shift[..., None], points, atol=1e-4, rtol=0)
    y, x = torch.meshgrid(torch.arange(64.0) - 28, torch.arange(64.0) - 34, indexing="ij")
    blob = torch.exp(-(y**2 + x**2 / 2) / 50).expand(
        5, 1, *sides[:-2], 64, 64
    )  # nothing of it leaves the field of view
    affine = Affine.sample(blob, Augmentation(rotate=20, scale=0.1, translate=0.05, flip=True, quarter_turns=True))
    moved = affine.warp_image(blob)
    assert (moved - blob).abs().amax(tuple(range(1, blob.ndim))).min() > 0.2
    assert (affine.inverse().warp_image(moved) - blob).abs().max() < 0.03  # what two linear resamplings smooth away


def test_samples_of_a_batch_are_moved_differently() -> None:
    image = torch.rand(1, 1, 16, 16).repeat(8, 1, 1, 1)
    torch.manual_seed(0)
    weak, _ = weak_view(image, torch.zeros(8, 16, 16, dtype=torch.long), Augmentation())
    strong = strong_view(image, Augmentation(strong_probability=1.0))
    for moved in (weak, strong):
        assert len({tuple(m.flatten().tolist()) for m in moved}) == 8


@pytest.mark.parametrize("sides", SIDES)
def test_the_strong_view_stays_in_range_and_can_be_switched_off(sides: tuple[int, ...]) -> None:
    image, _ = pair(sides)
    changed = strong_view(image, Augmentation(strong_probability=1.0))
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert (changed - image).abs().amax(tuple(range(1, image.ndim))).min() > 0.01
    assert torch.equal(strong_view(image, Augmentation(strong_probability=0.0)), image)


def test_blur_keeps_constants_and_has_the_stated_width() -> None:
    constant = torch.full((2, 1, 16, 16), 0.3)
    torch.testing.assert_close(gaussian_blur(constant, torch.tensor([0.5, 2.0])), constant)
    point = torch.zeros(2, 1, 25, 25)
    point[..., 12, 12] = 1
    blurred = gaussian_blur(point, torch.tensor([0.7, 1.2]))
    offset = (torch.arange(25) - 12.0) ** 2
    variance = (blurred[:, 0].sum(1) * offset).sum(1)
    torch.testing.assert_close(variance.sqrt(), torch.tensor([0.7, 1.2]), atol=0.02, rtol=0)


@pytest.mark.parametrize("sides", [(64, 64), (24, 32, 32)])
def test_cut_boxes_cover_half_of_the_image(sides: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    mask = cut_mask(torch.zeros(50, 1, *sides))
    share = mask.float().flatten(1).mean(1)
    assert (share - 0.5).abs().max() < 0.08
    assert abs(share.mean() - 0.5) < 0.01
    for axis in range(len(sides)):  # a box: the mask is the product of its projections
        assert mask.flatten(1).any(1).all(), axis


def test_mixing_takes_image_probability_and_confidence_from_the_same_sample() -> None:
    torch.manual_seed(0)
    owner = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 16, 16)
    image, probability, confidence = mix(cut_mask(owner), owner, owner.repeat(1, 3, 1, 1), owner[:, 0])
    assert torch.equal(image[:, 0], confidence)
    assert all(torch.equal(probability[:, c], confidence) for c in range(3))
    for i in range(4):
        assert set(image[i].unique().tolist()) == {float(i), float((i + 1) % 4)}


def test_classmix_pastes_half_of_the_present_classes_whole() -> None:
    torch.manual_seed(0)
    label = torch.randint(0, 5, (20, 12, 12))
    label[3] = 2
    taken = class_mask(label, 5)
    for own, other in zip(label, taken, strict=True):
        kept = set(own[~other].tolist())
        assert kept.isdisjoint(own[other].tolist())
        assert len(kept) == (len(own.unique()) + 1) // 2


@pytest.mark.parametrize("kind", ["cutmix", "classmix", "cutout", "none"])
def test_only_cutout_blanks_and_only_the_others_take_pixels_of_a_partner(kind: str) -> None:
    torch.manual_seed(0)
    image, label = torch.rand(4, 1, 16, 16), torch.randint(3, (4, 16, 16))
    taken, blank = mixing_mask(image, label, 3, kind)
    assert taken.shape == blank.shape == label.shape
    assert taken.dtype == blank.dtype == torch.bool
    assert blank.any() == (kind == "cutout")
    assert taken.any() == (kind in ("cutmix", "classmix"))


def test_an_unknown_mix_is_refused() -> None:
    with pytest.raises(ValueError, match="'none', not 'mixup'"):
        mixing_mask(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long), 2, "mixup")


def trilinear(plane: Affine) -> Affine:
    """The map of planes as one of three axes, which is resampled trilinearly."""
    matrix = torch.eye(3).repeat(len(plane.matrix), 1, 1)
    matrix[:, 1:, 1:] = plane.matrix
    return Affine(matrix, F.pad(plane.shift, (1, 0)))


@pytest.mark.parametrize("size", [None, (5, 24, 26), (5, 17, 13)])
def test_planes_as_channels_are_what_trilinear_resampling_gives(size: tuple[int, ...] | None) -> None:
    volume, label = torch.rand(2, 2, 5, 24, 26), torch.randint(0, 3, (2, 5, 24, 26))
    affine = Affine.sample(volume, Augmentation(flip=True), size)
    planes, solid = (a.warp(volume, label, size) for a in (affine, trilinear(affine)))
    assert planes[0].shape == (2, 2, *(size or (5, 24, 26)))
    torch.testing.assert_close(planes[0], solid[0], atol=2e-6, rtol=0)
    assert (planes[1] != solid[1]).float().mean() < 0.005  # ties of nearest neighbors
    for z in range(5):
        flat = affine.warp(volume[:, :, z], label[:, z], size and size[1:])
        torch.testing.assert_close(planes[0][:, :, z], flat[0], atol=2e-6, rtol=0)


@pytest.mark.parametrize("sides", [(30, 28), (7, 30, 28)])
def test_without_freedom_a_smaller_view_is_the_middle_of_the_image(sides: tuple[int, ...]) -> None:
    image, label = pair(sides)
    size = (*(side - 4 for side in sides[:-2]), 20, 16)
    middle = tuple(slice((a - b) // 2, (a - b) // 2 + b) for a, b in zip(sides, size, strict=True))
    view, view_label = weak_view(image, label, STILL, size)
    torch.testing.assert_close(view, image[(slice(None), slice(None), *middle)], atol=2e-5, rtol=0)
    assert torch.equal(view_label, label[(slice(None), *middle)])


def test_a_view_is_filled_from_the_margin_and_ignored_where_even_that_ends() -> None:
    turned = replace(STILL, rotate=40)
    image, label = torch.ones(50, 1, 36, 36), torch.ones(50, 36, 36, dtype=torch.long)
    view, view_label = weak_view(
        image, label, turned, (24, 24)
    )  # corners reach 12 (cos 40 + sin 40) < 17 from the middle
    torch.testing.assert_close(view, torch.ones(50, 1, 24, 24))
    assert (view_label == 1).all()
    bare, bare_label = weak_view(image[..., 6:30, 6:30], label[:, 6:30, 6:30], turned)
    assert ((bare_label == IGNORE).flatten(1).sum(1) > 0).sum() > 40
    assert (bare[:, 0][bare_label == IGNORE] < 0.51).all()  # linear between the last pixel and 0


def test_a_shift_is_a_share_of_the_view_in_voxels_of_the_image() -> None:
    torch.manual_seed(0)
    affine = Affine.sample(torch.zeros(4000, 1, 60, 60), replace(STILL, translate=0.1), (20, 40))
    assert affine.shift[:, 0].abs().max() == pytest.approx(2, abs=0.01)
    assert affine.shift[:, 1].abs().max() == pytest.approx(4, abs=0.01)
    ramp = torch.arange(60.0).expand(1, 1, 60, 60)
    right = Affine(torch.eye(2)[None], torch.tensor([[0.0, 3.0]]))
    view = right.warp_image(ramp, (20, 40))
    torch.testing.assert_close(view[0, 0, 7], torch.arange(40.0) + 10 + 3, atol=1e-4, rtol=0)


def test_image_and_label_are_sampled_at_the_same_places() -> None:
    image, label = pair((24, 24))
    affine = Affine.sample(image, Augmentation())
    both = affine.warp(image, label)
    assert torch.equal(both[0], affine.warp_image(image))
    assert torch.equal(both[1], affine.warp_label(label))


def test_gradient_flows_through_a_warped_image() -> None:
    image = torch.rand(2, 3, 16, 16, requires_grad=True)
    Affine.sample(image, Augmentation()).warp_image(image).sum().backward()
    assert image.grad.abs().max() > 0


def test_pairs_are_mixed_with_the_partner_that_is_given() -> None:
    torch.manual_seed(0)
    unlabeled, labeled = torch.full((4, 1, 8, 8), 5.0), torch.full((4, 1, 8, 8), 7.0)
    mask = cut_mask(unlabeled)
    image, confidence, label = mix_pairs(
        mask, (unlabeled, labeled), (unlabeled[:, 0], labeled[:, 0]), (unlabeled[:, 0].long(), labeled[:, 0].long())
    )
    assert torch.equal(image[:, 0], torch.where(mask, 7.0, 5.0))
    assert torch.equal(confidence, image[:, 0])
    assert torch.equal(label, image[:, 0].long())
    tensors = torch.rand(4, 1, 8, 8), torch.rand(4, 8, 8)
    for one, other in zip(mix(mask, *tensors), mix_pairs(mask, *((t, t.roll(-1, 0)) for t in tensors)), strict=True):
        assert torch.equal(one, other)


def test_every_view_of_a_volume_keeps_its_shape_and_range() -> None:
    volume, label = torch.rand(2, 1, 6, 16, 16), torch.randint(2, (2, 6, 16, 16))
    changed = strong_view(volume, Augmentation(strong_probability=1.0))
    assert changed.shape == volume.shape
    assert 0 <= changed.min() < changed.max() <= 1
    for kind in ("cutmix", "classmix", "cutout", "none"):
        taken, blank = mixing_mask(volume, label, 2, kind)
        image, mixed = mix(taken, volume, label)
        assert (image.shape, mixed.shape, blank.shape) == (volume.shape, label.shape, label.shape)
