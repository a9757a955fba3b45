"""Rendering: every number of a pixel, point and wave against its closed form, in 2-D and 3-D, on odd grids."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anatolab.nn import (
    FourierEncoding,
    PointHead,
    pixel_centers,
    point_labels,
    point_sample,
    refine,
    training_points,
    uncertain_pixels,
    uncertainty,
    write_back,
)
from anatolab.types import InputError

GRIDS = pytest.mark.parametrize("sides", [(7, 5), (8, 8), (6, 5, 4), (3, 8, 8)])


def all_pixels(sides: tuple[int, ...], b: int = 1) -> Tensor:
    return torch.arange(math.prod(sides)).expand(b, -1)


# Uncertainty


def test_uncertainty_is_the_margin_of_the_two_largest_and_never_positive() -> None:
    logits = torch.randn(2, 6, 5, 4)
    best = logits.topk(2, 1).values
    torch.testing.assert_close(uncertainty(logits), best[:, 1] - best[:, 0])
    assert uncertainty(logits).max() <= 0


def test_uncertainty_keeps_its_order_under_a_constant_is_0_at_ties_and_minus_the_absolute_value_of_one_channel() -> (
    None
):
    logits = torch.randn(1, 4, 30)
    shift = torch.randn(1, 1, 30)
    assert torch.equal(uncertainty(logits).argsort(), uncertainty(logits + 3.0).argsort())
    torch.testing.assert_close(uncertainty(logits), uncertainty(logits + shift), atol=1e-5, rtol=0)
    tied = torch.tensor([[[2.0], [-1.0], [2.0]]])
    assert uncertainty(tied).item() == 0
    z = torch.randn(3, 1, 9)
    torch.testing.assert_close(uncertainty(z), -z[:, 0].abs())
    torch.testing.assert_close(uncertainty(torch.cat([z, torch.zeros_like(z)], 1)), -z[:, 0].abs())


def test_uncertainty_of_interpolated_logits_is_not_interpolated_uncertainty() -> None:
    edge = torch.tensor([[[[4.0, -4.0]], [[0.0, 0.0]]]])  # sure of one class, then sure of the other
    middle = torch.tensor([[[0.5, 0.5]]])
    assert uncertainty(point_sample(edge, middle)).item() == 0
    assert point_sample(uncertainty(edge)[:, None], middle).item() == -4


# Points and pixels


@GRIDS
def test_sampling_at_a_pixels_center_gives_that_pixel(sides: tuple[int, ...]) -> None:
    map_ = torch.randn(2, 3, *sides)
    index = torch.stack([torch.randperm(math.prod(sides)) for _ in range(2)])
    kept = index.clone()
    points = pixel_centers(index, sides)
    assert torch.equal(index, kept)  # the caller's numbers are left alone
    found = map_.flatten(2).gather(2, index[:, None].expand(-1, 3, -1))
    torch.testing.assert_close(point_sample(map_, points), found, atol=1e-5, rtol=0)
    labels = torch.randint(0, 300, (2, *sides))
    assert torch.equal(point_labels(labels, points), labels.flatten(1).gather(1, index))


@GRIDS
def test_labels_at_points_are_those_of_nearest_sampling(sides: tuple[int, ...]) -> None:
    label, points = torch.randint(-1, 9, (2, *sides)), torch.rand(2, 200, len(sides))
    grid = (2 * points - 1).reshape(2, 200, *[1] * (len(sides) - 1), len(sides))
    nearest = F.grid_sample(label[:, None].float(), grid, mode="nearest", align_corners=False, padding_mode="border")
    assert torch.equal(point_labels(label, points).float(), nearest.flatten(1))
    edge = torch.ones(2, 1, len(sides))
    assert torch.equal(point_labels(label, edge)[:, 0], label.flatten(1)[:, -1])


def test_points_are_in_the_order_x_y_z_last_array_axis_first() -> None:
    ramp = torch.arange(4.0).reshape(1, 1, 1, 1, 4).expand(1, 1, 2, 3, 4)
    x = torch.tensor([[[0.125, 0.9, 0.1], [0.875, 0.9, 0.1]]])
    torch.testing.assert_close(point_sample(ramp, x)[0, 0], torch.tensor([0.0, 3.0]))


def test_the_border_is_continued_by_default_and_fades_to_a_quarter_in_a_corner_with_zeros() -> None:
    corner, one = torch.zeros(1, 1, 2), torch.ones(1, 1, 8, 8)
    assert point_sample(one, corner).item() == 1
    assert point_sample(one, corner, "zeros").item() == 0.25
    assert point_sample(torch.ones(1, 1, 8, 8, 8), torch.zeros(1, 1, 3), "zeros").item() == 0.125


@GRIDS
@pytest.mark.parametrize("num", [4, 10_000])
def test_writing_back_changes_the_chosen_pixels_and_no_other(sides: tuple[int, ...], num: int) -> None:
    logits, pixels = torch.randn(2, 3, *sides), math.prod(sides)
    index = uncertain_pixels(logits, num)
    assert index.shape == (2, min(num, pixels))
    assert all(len(set(row.tolist())) == len(row) for row in index)
    chosen = torch.zeros(2, pixels, dtype=torch.bool).scatter(1, index, True)
    u = uncertainty(logits).flatten(1)
    for row, mask in zip(u, chosen, strict=True):
        assert num > pixels or row[mask].min() >= row[~mask].max()
    before = logits.clone()
    written = write_back(logits, index, torch.full((2, 3, index.shape[1]), 9.0))
    assert torch.equal(logits, before)
    assert torch.equal((written == 9).all(1).flatten(1), chosen)
    keep = ~chosen.view(2, 1, *sides).expand_as(logits)
    assert torch.equal(written[keep], logits[keep])


def test_in_3d_every_rendered_voxel_lands_in_its_own_slice() -> None:
    sides = (6, 5, 4)
    volume = torch.zeros(1, 2, *sides)
    where = [(z, z % 5, (2 * z) % 4) for z in range(6)]  # one ambiguous voxel a slice, the others sure
    volume[:, 0] = 5
    for z, y, x in where:
        volume[0, 0, z, y, x] = 0.1
    tags = torch.arange(120.0).reshape(1, 1, *sides)

    def render(points: Tensor) -> Tensor:  # the number of the voxel that a point lies in, exactly
        return torch.cat([point_sample(tags, points), torch.full((1, 1, points.shape[1]), 100.0)], 1)

    refined = refine(volume, render, 6, passes=1)
    changed = (refined[:, 1] == 100).nonzero()[:, 1:].tolist()
    assert changed == [list(voxel) for voxel in where]
    for z, y, x in where:
        assert refined[0, 0, z, y, x].item() == pytest.approx(tags[0, 0, z, y, x].item(), abs=1e-3)


def test_the_released_numbering_would_hit_the_first_slice_only() -> None:
    index = torch.randperm(120)[:30][None]
    released = index % (5 * 4)
    wrong = write_back(torch.zeros(1, 1, 6, 5, 4), released, torch.ones(1, 1, 30))
    right = write_back(torch.zeros(1, 1, 6, 5, 4), index, torch.ones(1, 1, 30))
    assert wrong[0, 0, 1:].sum() == 0
    assert wrong.sum() < 30  # and voxels collide
    assert right.sum() == 30
    assert bool((right.sum((0, 1, 3, 4)) > 0).all())


# Training points


@pytest.mark.parametrize("sides", [(16, 16), (8, 8, 8)])
def test_three_quarters_are_the_most_ambiguous_candidates_and_the_rest_is_anywhere(sides: tuple[int, ...]) -> None:
    logits = torch.randn(2, 3, *sides, requires_grad=True)
    points = training_points(logits, 2048, generator=torch.Generator().manual_seed(3))
    again = torch.Generator().manual_seed(3)
    candidates = torch.rand(2, 6144, len(sides), generator=again)
    anywhere = torch.rand(2, 512, len(sides), generator=again)
    assert points.shape == (2, 2048, len(sides))
    assert 0 <= points.min() < points.max() <= 1
    assert torch.equal(points[:, 1536:], anywhere)
    u = uncertainty(point_sample(logits, candidates)).detach()
    for hard, all_u, row in zip(points[:, :1536], u, candidates, strict=True):
        kept = (row[:, None] == hard[None]).all(-1).any(1)
        assert kept.sum() == 1536
        assert all_u[kept].min() >= all_u[~kept].max()


def test_no_gradient_flows_through_the_choice_but_it_does_through_the_logits_read_there() -> None:
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    points = training_points(logits, 64)
    assert not points.requires_grad
    point_sample(logits, points).square().sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


def test_more_hard_points_than_candidates_are_refused() -> None:
    with pytest.raises(InputError, match="raise oversample"):
        training_points(torch.randn(1, 2, 8, 8), 10, oversample=1, hard_share=1.5)


# Refinement


def lobes(side: int) -> Tensor:
    """Signed distance in pixels of a disc with five lobes, positive inside, ``(side, side)``."""
    at = (torch.arange(side) + 0.5 - side / 2) / side
    y, x = torch.meshgrid(at, at, indexing="ij")
    radius, angle = (x**2 + y**2).sqrt(), torch.atan2(y, x)
    return side * (0.3 + 0.06 * torch.cos(5 * angle) - radius)


def test_with_the_truth_for_a_head_wrong_pixels_fall_with_the_budget_to_none() -> None:
    truth = (lobes(256) > 0).float()
    pooled = F.interpolate(F.avg_pool2d(truth[None, None], 8), scale_factor=8, mode="bilinear", align_corners=False)
    coarse = torch.cat([torch.zeros_like(pooled), 8 * (pooled - 0.5)], 1)
    sure = 10 * torch.stack([1 - truth, truth])[None]

    def wrong(num: int, passes: int) -> int:
        refined = refine(coarse, lambda p: point_sample(sure, p), num, passes=passes)
        return int((refined.argmax(1)[0] != truth).sum())

    one, two = ([wrong(n, passes) for n in (0, 256, 512, 1024, 2048)] for passes in (1, 2))
    assert one[0] == two[0] > 100
    assert one == sorted(one, reverse=True)
    assert two == sorted(two, reverse=True)
    assert one[-1] == two[-1] == 0
    assert two[1:-1] == one[2:]  # a pass goes on where the last one ended: twice 256 is once 512


def test_subdivision_reaches_the_truth_with_a_budget_of_the_boundarys_length() -> None:
    truth = (lobes(256) > 0).float()

    def oracle(points: Tensor) -> Tensor:
        value = point_sample(truth[None, None], points)
        return 10 * torch.cat([1 - value, value], 1)

    small = F.avg_pool2d(truth[None, None], 8)
    coarse = 8 * torch.cat([0.5 - small, small - 0.5], 1)
    errors = {}
    for num in (0, 64, 256, 512, 2048):
        fine = refine(coarse, oracle, num, passes=3, upsample=True)
        assert fine.shape == (1, 2, 256, 256)
        errors[num] = int((fine.argmax(1)[0] != truth).sum())
    assert errors[2048] == errors[512] == 0 < errors[256] < errors[0], errors
    assert errors[64] > errors[0], errors  # too few points do harm: sure ones bleed into their neighbors


def test_a_second_pass_goes_on_to_new_pixels_and_renders_an_old_one_to_the_same_value() -> None:
    logits = torch.randn(1, 2, 12, 12)
    asked: list[Tensor] = []

    def render(points: Tensor) -> Tensor:
        asked.append(points)
        return torch.stack([points[..., 0] * 0 + 50.0, points[..., 1] * 0 - 50.0], 1)

    refine(logits, render, 30, passes=2)
    first, second = ({tuple(p) for p in points[0].tolist()} for points in asked)
    assert len(first) == len(second) == 30
    assert not first & second


@pytest.mark.parametrize("sides", [(16, 12), (6, 8, 10)])
@pytest.mark.parametrize("init", ["torch", "small"])
def test_passes_that_render_only_new_pixels_equal_literal_ones_that_render_all(sides: tuple[int, ...], init) -> None:
    num, passes = 40, 4
    head, logits, features = PointHead(5, 3, 16, init=init), torch.randn(3, 3, *sides), torch.randn(3, 5, *sides)
    counts: list[int] = []

    def render(points: Tensor) -> Tensor:
        counts.append(points.shape[1])
        return head(point_sample(features, points), point_sample(logits, points))

    literal = logits
    for _ in range(passes):
        index = uncertain_pixels(literal, num)
        literal = write_back(literal, index, render(pixel_centers(index, sides)))
    assert counts == [num] * passes
    counts.clear()
    torch.testing.assert_close(refine(logits, render, num, passes=passes), literal, atol=1e-6, rtol=0)
    assert counts[0] == num
    assert max(counts[1:], default=0) < num  # some of a later pass were rendered already
    assert len(counts) == 1 or init == "torch"  # and all of them, where rendering leaves pixels undecided


@pytest.mark.parametrize("axis", [2, 3])
def test_a_mirrored_image_is_refined_to_the_mirror_image(axis: int) -> None:
    head = PointHead(5, 3, 16, init="torch")
    logits, features = torch.randn(1, 3, 9, 12), torch.randn(1, 5, 9, 12)

    def refined(z: Tensor, f: Tensor) -> Tensor:
        return refine(z, lambda p: head(point_sample(f, p), point_sample(z, p)), 20)

    mirrored = refined(logits.flip(axis), features.flip(axis)).flip(axis)
    torch.testing.assert_close(mirrored, refined(logits, features), atol=1e-5, rtol=0)


def test_a_volume_that_is_the_same_in_every_slice_is_refined_like_its_slice() -> None:
    head = PointHead(5, 3, 16, init="torch")
    z, f = torch.randn(1, 3, 9, 12), torch.randn(1, 5, 9, 12)
    flat = refine(z, lambda p: head(point_sample(f, p), point_sample(z, p)), 20, passes=1)
    zz, ff = (m[:, :, None].expand(-1, -1, 4, -1, -1) for m in (z, f))
    deep = refine(zz, lambda p: head(point_sample(ff, p), point_sample(zz, p)), 4 * 20, passes=1)
    torch.testing.assert_close(deep, flat[:, :, None].expand_as(deep), atol=1e-5, rtol=0)


# Encoding


@pytest.mark.parametrize("dims", [2, 3])
def test_waves_have_a_constant_norm_and_the_period_of_their_frequency(dims: int) -> None:
    points = torch.rand(2, 50, dims)
    encoding = FourierEncoding(dims, 32, sigma=2.0)
    gamma = encoding(points)
    assert gamma.shape == (2, encoding.channels, 50) == (2, 64, 50)
    torch.testing.assert_close(gamma.square().sum(1), torch.full((2, 50), 32.0), atol=1e-3, rtol=0)
    with torch.no_grad():
        encoding.frequencies.copy_(torch.randint(-3, 4, encoding.frequencies.shape).float())
    shift = torch.zeros(dims)
    shift[0] = 0.5  # one unit of 2 p - 1, a whole number of cycles
    torch.testing.assert_close(encoding(points + shift), encoding(points), atol=1e-4, rtol=0)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_two_points_look_alike_by_the_gaussian_kernel_half_at_0187_over_sigma(sigma: float) -> None:
    encoding = FourierEncoding(2, 40_000, sigma=sigma).requires_grad_(False)
    for distance in (0.05, 0.1, 0.187 / sigma):
        for angle in (0.0, 0.8, 2.4):  # the same in all directions
            step = 0.5 * distance * torch.tensor([math.cos(angle), math.sin(angle)])
            pair = encoding(torch.stack([torch.tensor([0.4, 0.5]), torch.tensor([0.4, 0.5]) + step])[None])[0]
            expected = math.exp(-2 * math.pi**2 * sigma**2 * distance**2)
            assert float(pair[:, 0] @ pair[:, 1]) / 40_000 == pytest.approx(expected, abs=0.015)
    assert math.exp(-2 * math.pi**2 * 0.187**2) == pytest.approx(0.5, abs=0.002)


def test_fixed_frequencies_blur_one_diagonal_more_than_the_other() -> None:
    encoding = FourierEncoding(2, 40_000, kind="fixed")
    middle = torch.tensor([0.5, 0.5])

    def kernel(step: list[float]) -> float:
        pair = encoding(torch.stack([middle, middle + 0.5 * torch.tensor(step)])[None])[0]
        return float(pair[:, 0] @ pair[:, 1]) / 40_000

    def half_width(direction: list[float]) -> float:  # in pixels of 256
        at = torch.linspace(0.01, 1.0, 400)
        return 128 * float(next(t for t in at if kernel([t * d for d in direction]) < 0.5))

    diagonal = 2**-0.5
    assert half_width([1.0, 0.0]) == pytest.approx(39, abs=1)
    assert half_width([diagonal, diagonal]) == pytest.approx(29, abs=1)
    assert half_width([diagonal, -diagonal]) == pytest.approx(81, abs=2)


@pytest.mark.parametrize(("kind", "trained", "channels"), [("trainable", 1, 16), ("fixed", 0, 16), ("none", 0, 0)])
def test_frequencies_are_always_saved_and_trained_only_where_asked(kind, trained: int, channels: int) -> None:
    encoding, other = (FourierEncoding(3, 8, kind=kind) for _ in range(2))
    assert len(list(encoding.parameters())) == trained
    assert encoding.channels == channels
    assert list(encoding.state_dict()) == ["frequencies"]
    points = torch.rand(1, 9, 3)
    assert encoding(points).shape == (1, channels, 9)
    assert kind == "none" or not torch.equal(encoding(points), other(points))
    other.load_state_dict(encoding.state_dict())
    assert torch.equal(encoding(points), other(points))
    if kind == "fixed":
        assert 0 <= encoding.frequencies.min() < encoding.frequencies.max() < 1


def test_with_a_spacing_a_step_of_one_mm_is_the_same_step_along_every_axis() -> None:
    spacing, sides = (5.0, 1.0, 2.0), (8, 40, 30)  # (z, y, x)
    encoding = FourierEncoding(3, 20_000, spacing=spacing).requires_grad_(False)
    middle = torch.full((3,), 0.5)
    alike = []
    for axis in range(3):
        step = torch.zeros(3)
        step[2 - axis] = 5.0 / (spacing[axis] * sides[axis])  # 5 mm, in [0, 1]
        pair = encoding(torch.stack([middle, middle + step])[None], sides)[0]
        alike.append(float(pair[:, 0] @ pair[:, 1]) / 20_000)
    expected = math.exp(-2 * math.pi**2 * (2 * 5 / 60) ** 2)  # the longest side, 60 mm, spans 2 units
    assert alike == pytest.approx([expected] * 3, abs=0.02)
    with pytest.raises(InputError, match="needs the sides"):
        encoding(middle[None, None])
    with pytest.raises(InputError, match="has 2 axes"):
        FourierEncoding(3, 4, spacing=(1.0, 1.0))
    with pytest.raises(InputError, match="not 'sine'"):
        FourierEncoding(2, 4, kind="sine")  # type: ignore[arg-type]


# Head


@pytest.mark.parametrize(("features", "width", "count"), [(512, 512, 806_490), (256, 256, 206_682)])
def test_heads_have_as_many_parameters_as_the_released_ones(features: int, width: int, count: int) -> None:
    assert sum(p.numel() for p in PointHead(features, 9, width).parameters()) == count


def test_a_head_is_a_network_of_points_with_the_coarse_logits_before_every_layer() -> None:
    head = PointHead(5, 3, 8, init="torch")
    features, coarse = torch.randn(2, 5, 7), torch.randn(2, 3, 7)
    h = features
    for layer in head.hidden:
        h = F.relu(layer(torch.cat([h, coarse], 1)))
    torch.testing.assert_close(head(features, coarse), head.last(torch.cat([h, coarse], 1)))
    order = torch.randperm(7)
    torch.testing.assert_close(head(features[..., order], coarse[..., order]), head(features, coarse)[..., order])


@pytest.mark.parametrize(("features", "width", "classes"), [(64, 64, 4), (7, 33, 3), (512, 512, 9)])
def test_a_head_without_gradient_equals_the_layers_one_after_another(features: int, width: int, classes: int) -> None:
    head = PointHead(features, classes, width, init="torch")
    x, coarse = torch.randn(3, features, 50), torch.randn(3, classes, 50)
    kept = x.clone(), coarse.clone()
    h = x
    for layer in head.hidden:
        h = F.relu(layer(torch.cat([h, coarse], 1)))
    literal = head.last(torch.cat([h, coarse], 1))
    with torch.no_grad():
        found = head(x, coarse)
        with torch.autocast("cpu", torch.bfloat16):
            assert head(x, coarse).isfinite().all()
    torch.testing.assert_close(found, literal, atol=1e-6, rtol=0)
    torch.testing.assert_close(found, head(x, coarse), atol=1e-6, rtol=0)  # with gradient, as in training
    assert torch.equal(x, kept[0])  # the caller's maps are left alone
    assert torch.equal(coarse, kept[1])


def pass_through(head: PointHead) -> PointHead:
    """Makes a head return the coarse logits."""
    with torch.no_grad():
        for p in head.parameters():
            p.zero_()
        head.last.weight[:, -head.last.out_channels :, 0] = torch.eye(head.last.out_channels)
    return head


@GRIDS
def test_a_head_that_passes_the_coarse_logits_through_refines_nothing(sides: tuple[int, ...]) -> None:
    head, logits = pass_through(PointHead(4, 3, 8)), torch.randn(2, 3, *sides)
    refined = refine(logits, lambda p: head(torch.randn(2, 4, p.shape[1]), point_sample(logits, p)), 40)
    torch.testing.assert_close(refined, logits, atol=1e-5, rtol=0)


def test_its_loss_over_all_pixels_is_the_cross_entropy_of_the_image_and_ln_c_of_zero_logits() -> None:
    head, logits, label = pass_through(PointHead(4, 3, 8)), torch.randn(2, 3, 6, 5), torch.randint(0, 3, (2, 6, 5))
    points = pixel_centers(all_pixels((6, 5), 2), (6, 5))
    rendered = head(torch.randn(2, 4, 30), point_sample(logits, points))
    truth = point_labels(label, points)
    torch.testing.assert_close(F.cross_entropy(rendered, truth), F.cross_entropy(logits, label), atol=1e-5, rtol=0)
    assert F.cross_entropy(0 * rendered, truth).item() == pytest.approx(math.log(3))


def test_a_small_start_is_nearly_undecided_and_a_default_one_is_not() -> None:
    features, coarse = torch.randn(1, 20, 300), torch.randn(1, 4, 300)
    small, torchs = (PointHead(20, 4, 64, init=init)(features, coarse).std() for init in ("small", "torch"))
    assert small < 0.05 < torchs
