"""The field of view: known boxes, the rule, whose labels it reads, and rows against the literal form of the study."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from anatolab.data import FieldOfView, coverage, find_field_of_view, open_cohort, prepare
from anatolab.data.cache import slices_of
from anatolab.data.field_of_view import SLACK, Box
from anatolab.data.volumes import volume_of
from anatolab.types import UNKNOWN, Case, CaseRef, Cohort, InputError

CLASSES = ("background", "RV", "LV")
SPACING = (10.0, 1.5, 1.5)


def case(
    shape: tuple[int, int, int] = (3, 60, 100),
    organ: tuple[slice, slice, slice] = np.s_[1:2, 20:40, 30:60],
    *,
    patient: str = "a",
    spacing: tuple[float, float, float] | None = SPACING,
    annotated: bool = True,
) -> Case:
    image = np.random.default_rng(0).gamma(2, 100, (1, *shape)).astype(np.float32)
    label = np.zeros(shape, np.uint8)
    label[organ] = 1
    label[organ[0], organ[1], organ[2].stop - 5 : organ[2].stop] = 2
    return Case(patient, "", image, label if annotated else None, spacing, None, Path(f"{patient}.nii.gz"))


def poisoned() -> Case:
    raise AssertionError("a case of an unlabeled patient was read")


def cohort_of(*cases: Case, root: Path = Path(), unread: tuple[str, ...] = ()) -> Cohort:
    refs = [CaseRef(c.patient, "", root / c.source, lambda c=c: c) for c in cases]
    refs += [CaseRef(p, "", root / p, poisoned) for p in unread]
    return Cohort("ACDC", "toy", CLASSES, tuple(refs), root)


def test_a_box_beyond_the_border_is_filled_and_put_back_where_it_was() -> None:
    box, array = Box((-1, 2), (3, 4)), np.arange(20).reshape(4, 5)
    np.testing.assert_array_equal(box.cut(array, -1), [[-1] * 4, [2, 3, 4, -1], [7, 8, 9, -1]])
    np.testing.assert_array_equal(box.inside(array), [[2, 3, 4], [7, 8, 9]])
    back = np.zeros_like(array)
    box.paste(box.cut(array), back)
    np.testing.assert_array_equal(back[:2, 2:], array[:2, 2:])
    assert back.sum() == array[:2, 2:].sum()
    away = Box((9, 9), (2, 2))
    assert (away.cut(array, 7) == 7).all()
    assert away.inside(array).size == 0


def test_the_boxes_of_a_slice_are_those_of_the_study() -> None:
    fov = FieldOfView((0.516, 0.38), (0.7, 0.7))
    outer, inner = fov.boxes(case((3, 256, 216)))
    side = 0.7 * (256 * 216) ** 0.5
    size = round(side * 4 / 3)
    rim = round((size - side) / 2)
    assert outer == Box((round(0.516 * 256 - size / 2), round(0.38 * 216 - size / 2)), (size, size))
    assert inner == Box((outer.start[0] + rim, outer.start[1] + rim), (size - 2 * rim,) * 2)
    assert outer.start[1] < 0  # beyond the plane
    assert fov.stored((96, 96)) == fov.stored((96, 96)) == (128, 128)
    assert fov.stored((64, 128)) == (86, 170)


def test_millimeters_go_through_the_spacing_of_each_axis() -> None:
    fov = FieldOfView((0.5, 0.5), (90.0, 90.0), "mm", margin=1.0)
    assert fov.boxes(case(spacing=(10.0, 1.5, 1.5)))[1] == Box((0, 20), (60, 60))
    assert fov.boxes(case(spacing=(10.0, 3.0, 1.0)))[1] == Box((15, 5), (30, 90))
    with pytest.raises(InputError, match=r"a.nii.gz: carries no spacing, and the field of view is in mm"):
        fov.boxes(case(spacing=None))


def test_a_box_of_a_volume_stays_inside_it_and_has_no_margin() -> None:
    fov = FieldOfView((0.9, 0.5, 0.2), (0.5, 1.0, 0.5))
    outer, inner = fov.boxes(case((8, 60, 100)))
    assert outer == inner == Box((4, 0, 0), (4, 60, 50))


def test_the_rule_on_one_patient_and_on_three_is_the_closed_form() -> None:
    one = find_field_of_view(cohort_of(case()), ["a"])
    root = (60 * 100) ** 0.5
    assert one.center == (pytest.approx((30 / 60 + 0.5) / 2, abs=1e-4), pytest.approx((45 / 100 + 0.5) / 2, abs=1e-4))
    assert one.side == (pytest.approx(30 / root + SLACK, abs=1e-4),) * 2
    cases = [
        case(),
        case((3, 120, 200), np.s_[1:2, 40:80, 60:120], patient="b"),
        case(patient="c", organ=np.s_[:, 20:40, 40:80]),
    ]
    three = find_field_of_view(cohort_of(*cases), ["a", "b", "c"])
    assert three.center[1] == pytest.approx((0.45 + 0.45 + 0.6 + 0.5) / 4, abs=1e-4)
    assert three.side[0] == pytest.approx((30 / root + 60 / (2 * root) + 40 / root) / 3 + SLACK, abs=1e-4)
    assert find_field_of_view(cohort_of(case()), ["a"], unit="mm").side[0] == pytest.approx(
        30 * 1.5 + SLACK * root * 1.5, abs=0.05
    )


def test_every_labeled_voxel_is_inside_and_an_organ_as_large_as_the_plane_gives_the_plane() -> None:
    cases = [case(organ=np.s_[:, 2:12, 2:12]), case(organ=np.s_[:, 50:58, 40:60], patient="b")]
    cohort = cohort_of(*cases)
    fov = find_field_of_view(cohort, ["a", "b"], slack=0.0)
    assert coverage(cohort, ["a", "b"], fov) == {"RV": 1.0, "LV": 1.0}
    whole = find_field_of_view(cohort_of(case(organ=np.s_[:, 0:60, 2:100])), ["a"])
    assert whole.center == (0.5, 0.5)
    assert whole.boxes(case())[1].inside(np.ones((60, 100))).sum() == 6000
    box = find_field_of_view(cohort_of(case((8, 60, 100))), ["a"], dims=3)
    assert box.dims == 3
    assert box.side == pytest.approx((1 / 8 + SLACK, 20 / 60 + SLACK, 30 / 100 + SLACK), abs=0.2)
    assert coverage(cohort_of(case((8, 60, 100))), ["a"], box) == {"RV": 1.0, "LV": 1.0}


def test_labels_of_other_patients_are_never_read_nor_do_they_matter() -> None:
    cases = (case(), case(patient="b", organ=np.s_[0:1, 22:42, 33:60]))
    fov = find_field_of_view(cohort_of(*cases, unread=("x", "y", "z")), ["a", "b"])
    other = cohort_of(*cases, case(patient="x", organ=np.s_[:, 0:60, 0:100]))
    assert find_field_of_view(other, ["a", "b"]) == fov


def test_unknown_pixels_are_no_organ_and_without_any_organ_the_remedy_is_named() -> None:
    one = case()
    assert one.label is not None
    one.label[:, :, :3] = UNKNOWN
    assert find_field_of_view(cohort_of(one), ["a"]) == find_field_of_view(cohort_of(case()), ["a"])
    empty = case(organ=np.s_[1:1, 2:3, 9:20])
    for nothing in (empty, case(annotated=False)):
        with pytest.raises(InputError, match="no organ is labeled in the 1 labeled patients"):
            find_field_of_view(cohort_of(nothing), ["a"])
    with pytest.raises(InputError, match="patient 'q'"):
        find_field_of_view(cohort_of(case()), ["q"])


def test_coverage_counts_voxels_by_class() -> None:
    one = case(organ=np.s_[1:2, 20:40, 30:60])  # RV in columns 30 to 54, LV in 55 to 59
    fov = FieldOfView((0.5, 0.3), (60 / 6000**0.5, 60 / 6000**0.5), margin=1.0)  # columns 0 to 59
    assert coverage(cohort_of(one), ["a"], fov) == {"RV": 1.0, "LV": 1.0}
    left = replace(fov, center=(0.5, 0.28))  # columns -2 to 57
    assert coverage(cohort_of(one), ["a"], left) == {"RV": 1.0, "LV": pytest.approx(0.6)}
    none = coverage(replace(cohort_of(one), classes=(*CLASSES, "spleen")), ["a"], fov)
    assert np.isnan(none["spleen"])


def test_it_goes_through_json_and_refuses_what_makes_no_sense() -> None:
    fov = find_field_of_view(cohort_of(case()), ["a"])
    assert FieldOfView(**json.loads(json.dumps(asdict(fov)))) == fov
    for wrong in (
        {"center": (0.5,), "side": (0.5,)},
        {"center": (0.5, 0.5), "side": (0.5,)},
        {"center": (0.5, 0.5), "side": (0.0, 0.5)},
        {"center": (0.5, 0.5), "side": (0.5, 0.5), "unit": "cm"},
        {"center": (0.5, 0.5), "side": (0.5, 0.5), "margin": 0.5},
    ):
        with pytest.raises(InputError, match="field of view"):
            FieldOfView(**wrong)  # type: ignore[arg-type]


def literal(one: Case, center: tuple[float, float], side: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The study's rows, word by word, but that what lies beyond the plane is no part of the percentiles."""
    assert one.label is not None
    image, label = one.image[0], one.label
    height, width = label.shape[1:]
    s = side * (height * width) ** 0.5
    large, big = round(s * 4 / 3), int(round(size * 4 / 3 / 2) * 2)
    y0, x0 = round(center[0] * height - large / 2), round(center[1] * width - large / 2)
    m = round((large - s) / 2)
    ys, xs = slice(max(y0 + m, 0), y0 + large - m), slice(max(x0 + m, 0), x0 + large - m)
    low, high = np.percentile(image[:, ys, xs], [0.5, 99.5])
    cut, truth = np.zeros((len(image), large, large), np.float32), np.zeros((len(image), large, large), np.uint8)
    for y in range(large):
        for x in range(large):
            if 0 <= y0 + y < height and 0 <= x0 + x < width:
                cut[:, y, x] = np.clip((image[:, y0 + y, x0 + x] - low) / (high - low), 0, 1)
                truth[:, y, x] = label[:, y0 + y, x0 + x]
    rows = F.interpolate(torch.from_numpy(cut)[:, None], (big, big), mode="bilinear", antialias=True)
    labels = F.interpolate(torch.from_numpy(truth)[:, None].float(), (big, big), mode="nearest-exact")
    return rows.clamp(0, 1).numpy(), labels[:, 0].numpy().astype(np.uint8)


@pytest.mark.parametrize("center", [(0.5, 0.4), (0.3, 0.2)])
def test_rows_equal_the_literal_form(center: tuple[float, float]) -> None:
    one = case((3, 61, 97))
    images, labels = slices_of(one, (24, 24), FieldOfView(center, (0.7, 0.7)))
    expected = literal(one, center, 0.7, 24)
    assert images.shape == (3, 1, 32, 32)
    np.testing.assert_allclose(images, expected[0], atol=2e-6)
    np.testing.assert_array_equal(labels, expected[1])


def test_a_window_stays_and_beyond_the_plane_lie_zeros_and_background() -> None:
    one = replace(case(), window=(100.0, 300.0))
    images, labels = slices_of(one, (60, 60), FieldOfView((0.0, 0.5), (60 / 6000**0.5,) * 2, margin=1.0))
    np.testing.assert_allclose(images[:, 0, 30:], np.clip((one.image[0, :, :30, 20:80] - 100) / 200, 0, 1), atol=1e-6)
    assert not images[:, 0, :30].any()
    assert not labels[:, :30].any()
    _, unknown = slices_of(case(annotated=False), (8, 8), FieldOfView((0.5, 0.5), (0.5, 0.5)))
    assert (unknown == UNKNOWN).all()


def on_disk(folder: Path, *cases: Case) -> Cohort:
    for one in cases:
        (folder / one.source).write_bytes(b"")
    return cohort_of(*cases, root=folder)


def test_prepared_rows_have_a_margin_around_the_view_and_a_cache_of_their_own(tmp_path: Path) -> None:
    cohort, cache = on_disk(tmp_path, case(), case(patient="b")), tmp_path / "cache"
    fov = find_field_of_view(cohort, ["a"])
    rows = prepare(cohort, ["a", "b"], size=(48, 48), field_of_view=fov, cache=cache)
    assert (rows.images.shape, rows.view, rows.channels) == ((6, 1, 64, 64), (48, 48), 1)
    images, labels = slices_of(case(), (48, 48), fov)
    image, label = rows.take(rows.index_of(["a"]), 1)
    np.testing.assert_array_equal(image, images)
    np.testing.assert_array_equal(label, labels)
    again = prepare(cohort, ["a", "b"], size=(48, 48), field_of_view=fov, cache=cache)
    assert again.sha256 == rows.sha256
    others = [
        prepare(cohort, ["a", "b"], size=(48, 48), field_of_view=replace(fov, side=(0.5, 0.5)), cache=cache),
        prepare(cohort, ["a", "b"], size=(64, 64), field_of_view=replace(fov, margin=1.0), cache=cache),
        prepare(cohort, ["a", "b"], size=(64, 64), cache=cache),
    ]
    assert len({r.sha256 for r in (rows, *others)}) == 4
    assert len(list(cache.iterdir())) == 4
    assert others[2].view == (64, 64)
    with pytest.raises(InputError, match="a field of view of 2 dimensions do not fit"):
        prepare(cohort, ["a"], size=(4, 4, 4), field_of_view=fov, cache=cache)


def test_patches_are_sampled_inside_the_box(tmp_path: Path) -> None:
    one = case((8, 20, 24), np.s_[2:4, 5:9, 8:12])
    cohort = on_disk(tmp_path, one)
    fov = FieldOfView((0.4, 0.4, 0.4), (0.5, 0.5, 0.5))
    box = fov.boxes(one)[0]
    rows = prepare(cohort, ["a"], size=(4, 10, 12), field_of_view=fov, foreground=0.0, cache=tmp_path / "cache")
    assert (rows.shapes, rows.view, rows.channels) == ([(4, 10, 12)], (4, 10, 12), 1)
    image, label = rows.take(torch.tensor([0]), 1)
    np.testing.assert_array_equal(label[0], box.cut(one.label))
    np.testing.assert_array_equal(image[0], volume_of(one, fov))
    low, high = np.percentile(box.cut(one.image), [0.5, 99.5])
    np.testing.assert_allclose(image[0, 0], np.clip((box.cut(one.image)[0] - low) / (high - low), 0, 1), atol=1e-5)


def shaped(ref: CaseRef) -> Case:
    """A case whose label is read and whose image is as large, but empty: neither the rule nor coverage looks at it."""
    one = ref.load()
    return replace(one, image=np.broadcast_to(np.float32(0), one.image.shape))


@pytest.mark.real
def test_on_acdc_the_three_labeled_patients_cover_the_hearts_of_all(real_data: Path) -> None:
    """The rule's constant was set on these 70 training patients; validation patients are not read."""
    cohort = open_cohort(real_data / "ACDC")
    train = cohort.published["train"]
    cohort = replace(cohort, refs=tuple(replace(ref, load=cache(partial(shaped, ref))) for ref in cohort.of(train)))
    fov = find_field_of_view(cohort, ["patient099", "patient038", "patient050"])
    assert fov.side[0] == pytest.approx(0.686, abs=0.005)
    kept = coverage(cohort, train, fov)
    assert min(kept.values()) > 0.999
    for alone in ("patient099", "patient038", "patient050"):
        assert min(coverage(cohort, train, find_field_of_view(cohort, [alone])).values()) > 0.995
