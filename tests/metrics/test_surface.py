"""Surface metrics against hand-computed values, the literal slow form, medpy and MONAI."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from medpy.metric import binary as medpy
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

import anatolab.metrics.surface as surface_module
from anatolab.metrics import asd, assd, boundary_iou, hd, hd95, nsd, surface_distances
from anatolab.metrics.surface import surface
from anatolab.types import InputError

SPACINGS = [None, (1.0, 1.0, 1.0), (10.0, 1.5, 1.25), (0.3, 7.0, 2.0)]


def slow_directed(a, b, spacing):
    """The reference: erosion by scipy and one distance transform of the whole volume a direction."""
    cross = ndimage.generate_binary_structure(a.ndim, 1)
    a_surface, b_surface = (m ^ ndimage.binary_erosion(m, cross) for m in (a, b))
    return ndimage.distance_transform_edt(~b_surface, sampling=spacing)[a_surface]


def box(shape, *ranges):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def ball(shape, center, radius, spacing):
    grid = np.meshgrid(*[(np.arange(n) - c) * s for n, c, s in zip(shape, center, spacing, strict=True)], indexing="ij")
    return sum(g**2 for g in grid) <= radius**2


def cases(name):
    rng = np.random.default_rng(0)
    shape = (9, 24, 20)
    return {
        "balls": (ball(shape, (4, 11, 9), 7, (2, 1, 1)), ball(shape, (5, 12, 8), 6, (2, 1, 1))),
        "touching the edge": (box(shape, (0, 4), (0, 10), (0, 20)), box(shape, (0, 3), (0, 12), (2, 20))),
        "whole volume": (np.ones(shape, bool), box(shape, (2, 7), (3, 20), (3, 18))),
        "noise": (rng.random(shape) < 0.5, rng.random(shape) < 0.5),
        "far apart": (box(shape, (0, 1), (0, 1), (0, 1)), box(shape, (8, 9), (22, 24), (18, 20))),
        "stray voxel": (
            box(shape, (3, 6), (8, 14), (8, 12)) | box(shape, (8, 9), (23, 24), (19, 20)),
            box(shape, (3, 6), (8, 14), (8, 12)),
        ),
        "ring in ball": (ball(shape, (4, 11, 9), 7, (2, 1, 1)) & ~ball(shape, (4, 11, 9), 4, (2, 1, 1)),) * 2,
    }[name]


CASES = ["balls", "touching the edge", "whole volume", "noise", "far apart", "stray voxel", "ring in ball"]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("search", ["chosen", "tree", "transform"])
def test_equal_to_slow_form_and_medpy(name, spacing, search, monkeypatch):
    pred, ref = cases(name)
    if search != "chosen":
        monkeypatch.setattr(surface_module, "_VOXELS_A_QUERY", 0 if search == "tree" else 10**9)
    ours = surface_distances(pred, ref, spacing)
    np.testing.assert_allclose(ours.pred_to_ref, slow_directed(pred, ref, spacing), rtol=0, atol=1e-9)
    np.testing.assert_allclose(ours.ref_to_pred, slow_directed(ref, pred, spacing), rtol=0, atol=1e-9)
    assert hd95(ours) == pytest.approx(medpy.hd95(pred, ref, spacing), abs=1e-6)
    assert assd(ours) == pytest.approx(medpy.assd(pred, ref, spacing), abs=1e-6)
    assert hd(ours) == pytest.approx(medpy.hd(pred, ref, spacing), abs=1e-6)
    assert asd(ours) == pytest.approx(medpy.asd(pred, ref, spacing), abs=1e-6)
    assert asd(ours, "ref_to_pred") == pytest.approx(medpy.asd(ref, pred, spacing), abs=1e-6)


@st.composite
def masks(draw):
    """Two masks of one shape in 2-D or 3-D, neither empty, and a spacing (or None)."""
    shape = draw(array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7))
    pair = []
    for _ in range(2):
        mask = draw(arrays(bool, shape))
        mask[draw(st.tuples(*[st.integers(0, n - 1) for n in shape]))] = True
        pair.append(mask)
    spacing = draw(st.none() | st.tuples(*[st.sampled_from([0.4, 1.0, 1.5, 10.0])] * len(shape)))
    return *pair, spacing


@settings(max_examples=150, deadline=None)
@given(masks())
def test_equal_to_medpy_on_drawn_masks(drawn):
    pred, ref, spacing = drawn
    ours = surface_distances(pred, ref, spacing)
    assert hd95(ours) == pytest.approx(medpy.hd95(pred, ref, spacing), abs=1e-6)
    assert assd(ours) == pytest.approx(medpy.assd(pred, ref, spacing), abs=1e-6)
    assert asd(ours) == pytest.approx(medpy.asd(pred, ref, spacing), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(masks(), st.sampled_from([0.5, 1.23, 3.31]))
def test_equal_to_monai_on_drawn_masks(drawn, tolerance):
    pred, ref, spacing = drawn
    ours = surface_distances(pred, ref, spacing)
    a, b = (torch.as_tensor(m)[None, None].float() for m in (pred, ref))
    peer = {"include_background": True, "spacing": spacing}
    single = {"rel": 1e-6, "abs": 1e-6}  # MONAI returns float32
    assert hd95(ours, "max") == pytest.approx(compute_hausdorff_distance(a, b, percentile=95, **peer).item(), **single)
    assert hd(ours) == pytest.approx(compute_hausdorff_distance(a, b, **peer).item(), **single)
    assert assd(ours) == pytest.approx(compute_average_surface_distance(a, b, symmetric=True, **peer).item(), **single)
    assert asd(ours) == pytest.approx(compute_average_surface_distance(a, b, symmetric=False, **peer).item(), **single)
    assert nsd(ours, tolerance) == pytest.approx(
        compute_surface_dice(a, b, class_thresholds=[tolerance], **peer).item(), **single
    )


@settings(max_examples=50, deadline=None)
@given(masks())
def test_surface_is_mask_without_scipy_erosion(drawn):
    mask = drawn[0]
    np.testing.assert_array_equal(surface(mask), mask ^ ndimage.binary_erosion(mask))


@settings(max_examples=50, deadline=None)
@given(masks(), st.integers(1, 3))
def test_padding_the_volume_changes_nothing(drawn, margin):
    pred, ref, spacing = drawn
    ours = surface_distances(pred, ref, spacing)
    padded = surface_distances(np.pad(pred, margin), np.pad(ref, margin), spacing)
    np.testing.assert_array_equal(ours.pred_to_ref, padded.pred_to_ref)
    np.testing.assert_array_equal(ours.ref_to_pred, padded.ref_to_pred)


@settings(max_examples=50, deadline=None)
@given(masks())
def test_symmetry_and_scale(drawn):
    pred, ref, spacing = drawn
    ours, swapped = surface_distances(pred, ref, spacing), surface_distances(ref, pred, spacing)
    for metric in (hd, assd, hd95, lambda d: hd95(d, "max"), lambda d: nsd(d, 1.0)):
        assert metric(ours) == pytest.approx(metric(swapped), abs=1e-9)
    doubled = surface_distances(pred, ref, [2 * s for s in spacing or [1] * pred.ndim])
    assert assd(doubled) == pytest.approx(2 * assd(ours), abs=1e-9)
    assert hd(surface_distances(pred, pred, spacing)) == 0


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_cube_shifted_along_an_axis(k, axis):
    """A cube of side n moved by k (k < n / 2), worked out by hand.

    The surface of a cube of side n has 6n^2 - 12n + 8 voxels. Where the cubes overlap, the rims of their layers (4n - 4
    voxels each) coincide. What is left of a surface: the layers that stick out, of which the first k - 1 are rims 1 to
    k - 1 steps from the other's end face and the last is a full face of n^2 voxels k steps away; and the inner
    (n - 2)^2 voxels of the other end face, which lie buried in the other cube.
    """
    n = 9
    spacing = np.array([3.0, 1.0, 2.0])
    step = spacing[axis]
    shape = (20, 20, 20)
    ref = box(shape, (5, 5 + n), (5, 5 + n), (5, 5 + n))
    pred = np.roll(ref, k, axis)
    distances = surface_distances(pred, ref, spacing)
    assert distances.pred_to_ref.size == distances.ref_to_pred.size == 6 * n**2 - 12 * n + 8
    # A buried voxel is k layers from the other's end face and 1 to n - 2 voxels from its sides; the nearest counts.
    across = np.delete(spacing, axis)
    u = np.minimum(np.arange(1, n - 1), np.arange(n - 2, 0, -1))
    side = np.minimum(u[:, None] * across[0], u[None, :] * across[1])
    buried = np.minimum(side, k * step).sum()
    outside = sum((4 * n - 4) * i * step for i in range(1, k)) + n**2 * k * step
    total = 6 * n**2 - 12 * n + 8
    assert assd(distances) == pytest.approx((buried + outside) / total, abs=1e-9)
    assert asd(distances) == pytest.approx(asd(distances, "ref_to_pred"), abs=1e-12)
    assert hd(distances) == pytest.approx(k * step)
    assert hd95(distances) == pytest.approx(k * step)  # the end face is n^2 of 386 voxels, 21 %
    assert nsd(distances, k * step) == 1


def test_slab_shifted_by_one_voxel():
    """Both faces of a slab that fills the volume in-plane move by one: each face is 1 from its counterpart."""
    ref = box((12, 30, 30), (4, 8), (0, 30), (0, 30))
    distances = surface_distances(np.roll(ref, 1, 0), ref, None)
    # pred layers 5..8: the rims of 5, 6, 7 are ref surface; face 5 lies one layer in (28^2 inner voxels, 1 away);
    # face 8 lies one layer out (30^2 voxels, 1 away); surface in all: 2 faces and 2 rims of 116.
    assert asd(distances) == pytest.approx((28**2 + 30**2) / (2 * 30**2 + 2 * 116))


@pytest.mark.parametrize("margin", [1, 2, 4])
def test_concentric_cubes(margin):
    """Every inner surface voxel is margin from the outer surface; outer voxels go back to the clamped nearest point."""
    outer = box((17, 17, 17), (1, 16), (1, 16), (1, 16))
    inner = box((17, 17, 17), *[(1 + margin, 16 - margin)] * 3)
    distances = surface_distances(inner, outer, None)
    np.testing.assert_allclose(distances.pred_to_ref, margin)
    beyond = np.array([max(margin - i, 0, i - (14 - margin)) for i in range(15)]) ** 2
    grid = np.sqrt(beyond[:, None, None] + beyond[None, :, None] + beyond)
    expected = grid[surface(np.ones((15, 15, 15), bool))]
    np.testing.assert_allclose(np.sort(distances.ref_to_pred), np.sort(expected))
    assert hd(distances) == pytest.approx(margin * np.sqrt(3))


def test_concentric_balls_in_millimeters():
    """Radii 20 and 14 mm: every distance is 6 mm up to the voxel size, in a grid as anisotropic as ACDC's."""
    spacing = (5.0, 1.0, 1.0)
    big, small = (ball((11, 47, 47), (5, 23, 23), r, spacing) for r in (20, 14))
    isotropic = [ball((47, 47, 47), (23, 23, 23), r, (1, 1, 1)) for r in (20, 14)]
    assert assd(surface_distances(isotropic[0], isotropic[1], (1, 1, 1))) == pytest.approx(6, abs=0.35)
    in_mm = assd(surface_distances(big, small, spacing))
    in_voxels = assd(surface_distances(big, small, None))
    assert in_mm == pytest.approx(6, abs=1.0)
    assert in_voxels < in_mm - 0.5


def test_one_voxel_masks():
    a, b = box((5, 6, 7), (0, 1), (0, 1), (0, 1)), box((5, 6, 7), (2, 3), (3, 4), (6, 7))
    distances = surface_distances(a, b, (3.0, 4.0, 2.0))
    expected = np.sqrt(6**2 + 12**2 + 12**2)
    for value in (hd(distances), hd95(distances), hd95(distances, "max"), assd(distances), asd(distances)):
        assert value == pytest.approx(expected)
    assert nsd(distances, 17.9) == 0
    assert nsd(distances, 18.1) == 1


def test_tolerance_is_reached_up_to_rounding():
    a, b = box((9, 3), (1, 2), (1, 2)), box((9, 3), (4, 5), (1, 2))
    distances = surface_distances(a, b, (0.4, 1.0))
    assert hd(distances) > 1.2  # 3 * 0.4 in floating point
    assert nsd(distances, 1.2) == 1


def test_pooled_and_max_are_different_definitions():
    """Prediction: the organ and 8 voxels 10 away. Pooled 8 of 108 pass the 95th percentile; directed 8 of 58 do."""
    line, stray = box((30, 60), (0, 1), (0, 50)), box((30, 60), (10, 11), (0, 8))
    distances = surface_distances(line | stray, line, None)
    assert hd95(distances, "pooled") == 10
    few = surface_distances(line | box((30, 60), (10, 11), (0, 4)), line, None)  # 4 of 104 pooled, 4 of 54 directed
    assert hd95(few, "pooled") == 0
    assert hd95(few, "max") == 10


def test_two_dimensions():
    ref = box((20, 20), (4, 14), (4, 14))
    distances = surface_distances(np.roll(ref, 2, 1), ref, (1.0, 0.5))
    assert hd(distances) == pytest.approx(1.0)
    np.testing.assert_allclose(distances.pred_to_ref, slow_directed(np.roll(ref, 2, 1), ref, (1.0, 0.5)))


@pytest.mark.parametrize(("pred_empty", "ref_empty"), [(True, False), (False, True), (True, True)])
def test_empty_masks_have_no_distance(pred_empty, ref_empty):
    full, empty = box((4, 5, 6), (1, 3), (1, 4), (1, 5)), np.zeros((4, 5, 6), bool)
    distances = surface_distances(empty if pred_empty else full, empty if ref_empty else full, (2.0, 1.0, 1.0))
    assert not distances.defined
    for metric in (hd, hd95, assd, asd, lambda d: hd95(d, "max"), lambda d: asd(d, "ref_to_pred")):
        assert np.isnan(metric(distances))
    both = pred_empty and ref_empty
    np.testing.assert_equal(nsd(distances, 1e6), np.nan if both else 0.0)


def test_inputs_are_left_alone():
    pred, ref = (m.copy() for m in cases("noise"))
    before = pred.copy(), ref.copy()
    surface_distances(pred, ref, (1.0, 2.0, 3.0))
    boundary_iou(pred, ref)
    np.testing.assert_array_equal(pred, before[0])
    np.testing.assert_array_equal(ref, before[1])


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_order_and_integer_masks(order):
    pred, ref = (np.asarray(m, dtype=np.uint8, order=order) for m in cases("balls"))
    ours = surface_distances(pred, ref, (2.0, 1.0, 1.0))
    np.testing.assert_allclose(ours.pred_to_ref, slow_directed(pred > 0, ref > 0, (2.0, 1.0, 1.0)))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (1.0, float("nan"), 1.0), 1.0])
def test_bad_spacing_is_refused(spacing):
    with pytest.raises(InputError, match="one positive number per axis"):
        surface_distances(np.ones((2, 2, 2), bool), np.ones((2, 2, 2), bool), spacing)


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="of at least one voxel"):
        surface_distances(np.ones((0, 2)), np.ones((0, 2)))
    with pytest.raises(InputError, match=r"shape \(2, 2\)"):
        surface_distances(np.ones((2, 2)), np.ones((2, 3)))
    distances = surface_distances(np.ones((2, 2)), np.ones((2, 2)))
    with pytest.raises(InputError, match="pooled"):
        hd95(distances, "median")
    with pytest.raises(InputError, match="tolerance"):
        nsd(distances, -1)
    with pytest.raises(InputError, match="direction"):
        asd(distances, "sideways")
    for width in (0, (0, 0), (-1, 2), (1, 1, 1)):
        with pytest.raises(InputError, match="width"):
            boundary_iou(np.ones((2, 2), bool), np.ones((2, 2), bool), width)


def test_boundary_iou():
    """Squares of side 10 and 8 with one center: rims of width 1 are disjoint, of width 2 share one ring of 28."""
    big, small = box((14, 14), (2, 12), (2, 12)), box((14, 14), (3, 11), (3, 11))
    assert boundary_iou(big, small, 1) == 0
    assert boundary_iou(big, small, 2) == pytest.approx(28 / (36 + 28 + 20))
    assert boundary_iou(big, big, 3) == 1
    assert np.isnan(boundary_iou(big & False, big & False))
    assert boundary_iou(big, big & False) == 0
    full = np.ones((6, 6), bool)  # beyond the volume is background: the rim runs along the edge
    assert boundary_iou(full, box((6, 6), (1, 5), (1, 5)), 1) == 0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("width", [1, (0, 2, 2), (1, 0, 3)])
def test_boundary_iou_equals_erosion_of_the_whole_volume(name, width):
    pred, ref = cases(name)
    box_of = np.ones([2 * w + 1 for w in ((width,) * 3 if isinstance(width, int) else width)])
    rims = [m & ~ndimage.binary_erosion(m, box_of) for m in (pred, ref)]
    expected = (rims[0] & rims[1]).sum() / (rims[0] | rims[1]).sum()
    assert boundary_iou(pred, ref, width) == pytest.approx(expected)
