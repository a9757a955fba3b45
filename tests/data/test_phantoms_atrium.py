"""The generated left atrium: reproducible, in the layout of the challenge, with veins and neighbors as bright as it."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import ndimage

from anatolab.data import dims_for
from anatolab.data.phantoms import atrium_cohort, draw_atrium, write_atrium
from anatolab.data.phantoms.atrium import VERSION
from anatolab.data.phantoms.fields import smooth_min, tube, volume_field
from tests import warm

SIZE = 48
DRAWN = 24


@pytest.fixture(scope="module")
def drawings():
    return [draw_atrium(3, index, size=SIZE) for index in range(DRAWN)]


def digest(one) -> str:
    return hashlib.sha256(one.image.tobytes() + one.label.tobytes()).hexdigest()


def milliliters(one) -> float:
    return one.label.sum() * one.spacing**3 / 1000


def test_another_process_draws_the_same_bits():
    code = (
        "import hashlib; from anatolab.data.phantoms import draw_atrium; d = draw_atrium(5, 2, size=32); "
        "print(hashlib.sha256(d.image.tobytes() + d.label.tobytes()).hexdigest())"
    )
    other = warm.python("-c", code, timeout=120)
    assert other.stdout.strip() == digest(draw_atrium(5, 2, size=32))


def test_what_is_drawn_is_pinned_to_the_version():
    """Voxel counts rather than a hash: processors differ in the last bit of a float. Raise VERSION with the numbers."""
    one = draw_atrium(0, 0, size=48)
    assert (VERSION, one.veins, one.image.shape) == (2, 4, (25, 43, 48))
    assert one.label.sum() == pytest.approx(2535, abs=5)
    assert one.image.mean() == pytest.approx(83.593, rel=1e-3)


def test_patients_are_independent_of_each_other_and_differ():
    again = [draw_atrium(3, index, size=SIZE) for index in (2, 0)]
    assert digest(again[1]) != digest(again[0]) != digest(draw_atrium(4, 2, size=SIZE))


def test_a_patient_does_not_depend_on_the_order_of_drawing(drawings):
    assert digest(draw_atrium(3, 7, size=SIZE)) == digest(drawings[7])
    assert len({digest(d) for d in drawings}) == DRAWN


def test_a_finer_grid_shows_the_same_anatomy():
    coarse, fine = draw_atrium(0, 1, size=40), draw_atrium(0, 1, size=80)
    assert milliliters(coarse) == pytest.approx(milliliters(fine), rel=0.03)
    assert coarse.veins == fine.veins


def test_values_classes_and_grid(drawings):
    for d in drawings:
        assert d.image.shape == d.label.shape
        assert (d.image.dtype, d.label.dtype) == (np.uint8, np.uint8)
        assert set(np.unique(d.label)) == {0, 1}
        assert max(d.image.shape) == d.image.shape[2] == SIZE
        assert 105 <= d.spacing * SIZE <= 120
        assert d.image.std() > 10
    assert len({d.image.shape for d in drawings}) > DRAWN / 2
    assert {d.veins for d in drawings} == {2, 3, 4, 5}


def test_the_atrium_is_one_piece_of_a_plausible_volume_somewhere_in_the_middle(drawings):
    volumes = np.array([milliliters(d) for d in drawings])
    assert 20 < volumes.min() < 0.6 * volumes.max() < volumes.max() < 160
    centers = []
    for d in drawings:
        pieces, count = ndimage.label(d.label, np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel())[1:]
        assert sizes.max() > 0.97 * sizes.sum(), count
        centers.append(np.array(ndimage.center_of_mass(d.label)) / d.label.shape)
    assert (abs(np.mean(centers, axis=0) - 0.5) < 0.12).all()
    assert (np.std(centers, axis=0) > 0.05).all()


def test_veins_make_it_more_than_an_ellipsoid(drawings):
    """Opening with a ball wider than a vein takes something away from every patient, and not the body."""
    for d in drawings[:8]:
        radius = 8.5 / d.spacing
        reach = int(np.ceil(radius))
        z, y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1, -reach : reach + 1]
        body = ndimage.binary_opening(d.label, z**2 + y**2 + x**2 <= radius**2)
        assert 0.45 < body.sum() / d.label.sum() < 0.97


def test_neighbors_are_as_bright_as_the_atrium(drawings):
    """What intensity alone can tell: most bright voxels belong to something else."""
    for d in drawings:
        inside = d.image[d.label == 1]
        low, high = np.quantile(inside, [0.1, 0.9])
        alike = (d.image >= low) & (d.image <= high)
        assert (alike & (d.label == 0)).sum() > 0.7 * (alike & (d.label == 1)).sum()


def test_contrast_and_noise_vary(drawings):
    ratio = [d.image[d.label == 1].mean() / d.image[d.label == 0].mean() for d in drawings]
    assert max(ratio) / min(ratio) > 1.4
    noise = [ndimage.laplace(d.image.astype(float))[d.label == 1].std() for d in drawings]
    assert max(noise) / min(noise) > 1.8


def test_files_in_the_layout_of_the_challenge(tmp_path):
    import SimpleITK as sitk

    root = write_atrium(tmp_path / "cohort", patients=2, seed=3, size=32)
    one = draw_atrium(3, 1, size=32)
    image, label = (sitk.ReadImage(str(root / "ATR002" / f"{name}.nrrd")) for name in ("lgemri", "laendo"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), one.image)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), one.label * 255)
    assert image.GetSpacing() == label.GetSpacing() == pytest.approx((one.spacing,) * 3)
    assert image.GetOrigin() == label.GetOrigin()
    said = json.loads((root / "generated.json").read_text())
    assert (said["version"], said["seed"], said["patients"]) == (VERSION, 3, 2)


def test_the_reader_opens_it_and_takes_it_for_volumes(tmp_path):
    cohort = atrium_cohort(2, seed=3, size=32, cache=tmp_path)
    assert cohort.classes == ("background", "LA")
    assert (cohort.name, cohort.patients) == ("generated left atrium", ("ATR001", "ATR002"))
    assert (cohort.provenance["version"], cohort.provenance["seed"]) == (VERSION, 3)
    one, case = draw_atrium(3, 0, size=32), cohort.refs[0].load()
    np.testing.assert_array_equal(case.image[0], one.image)
    np.testing.assert_array_equal(case.label, one.label)
    assert case.spacing == pytest.approx((one.spacing,) * 3)
    assert dims_for(case.spacing) == 3
    corner = case.affine @ [*(n - 1 for n in one.image.shape[::-1]), 1]
    np.testing.assert_allclose(corner[:3], -case.affine[:3, 3], atol=1e-5)  # the middle of the volume is the origin
    assert (np.sign(np.diag(case.affine)[:3]) == (-1, -1, 1)).all()  # x to the left, y to the back, z up


def test_two_writers_at_once_leave_one_whole_cohort(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        opened = list(pool.map(lambda _: atrium_cohort(2, seed=1, size=24, cache=tmp_path), range(3)))
    assert {c.root for c in opened} == {opened[0].root}
    assert [p.name for p in (tmp_path / "phantoms").iterdir()] == [opened[0].root.name]
    assert len(list(opened[0])) == 2


def test_fields_in_space_have_unit_variance_and_do_not_depend_on_the_grid():
    axes = tuple(np.linspace(-50, 50, n) for n in (41, 51, 61))
    fine = volume_field(np.random.default_rng(0), axes, 9.0, 50)
    coarse = volume_field(np.random.default_rng(0), tuple(a[::2] for a in axes), 9.0, 50)
    assert fine.shape == (41, 51, 61)
    np.testing.assert_allclose(fine[::2, ::2, ::2], coarse, atol=1e-5)
    assert abs(fine.mean()) < 0.1
    assert fine.std() == pytest.approx(1, abs=0.1)
    smooth = abs(np.diff(fine, axis=0)).mean()
    assert smooth == pytest.approx(
        abs(np.diff(fine, axis=1)).mean() * 2.5 / 2.0, rel=0.1
    )  # the same in mm along each axis


def test_a_straight_tube_is_a_cylinder_with_round_ends():
    z, y, x = np.meshgrid(*[np.linspace(-20, 20, 41)] * 3, indexing="ij")
    found = tube(np.array([[-10.0, 0, 0], [0, 0, 0], [10, 0, 0]]), (4.0, 4.0), (z, y, x))
    beyond = np.maximum(abs(z) - 10, 0)
    np.testing.assert_allclose(found, np.sqrt(beyond**2 + y**2 + x**2) - 4, atol=1e-4)


def test_a_smooth_union_is_the_union_away_from_the_crease():
    one, two = np.array([-3.0, 0.0, 5.0]), np.array([5.0, 0.0, -3.0])
    np.testing.assert_allclose(smooth_min(one, two, 4.0), [-3, -1, -3])
