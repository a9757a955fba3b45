"""The generated abdomen: reproducible, in the layout of BTCV, in CT numbers, with a long tail."""

from __future__ import annotations

import hashlib
import json

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from anatolab.data.phantoms import abdomen_cohort, draw_abdomen, write_abdomen
from anatolab.data.phantoms.abdomen import CODES, VERSION, draw_abdomens
from anatolab.data.phantoms.fields import chain, ellipsoid, rotation
from anatolab.data.phantoms.trunk import ORGANS, PHASES
from tests import warm

SIZE = 72
DRAWN = 30
PINNED = {"aorta": 395, "gallbladder": 41, "liver": 8224, "pancreas": 535, "stomach": 1183}
PINNED_PHASE, PINNED_SLICES, PINNED_MEAN = "portal venous", 22, -590.5406  # patient 0 of seed 0 at 72 pixels


@pytest.fixture(scope="module")
def drawings():
    return list(draw_abdomens(DRAWN, seed=3, size=SIZE))


def digest(one) -> str:
    return hashlib.sha256(one.image.tobytes() + one.label.tobytes()).hexdigest()


def milliliters(one, organ: str) -> float:
    return float((one.label == CODES[organ]).sum() * np.prod(one.spacing) / 1000)


def middle(one, organ: str) -> np.ndarray:
    """Where an organ lies in its volume, (z, y, x) as shares of the sides."""
    return np.argwhere(one.label == CODES[organ]).mean(0) / one.label.shape


def test_another_process_draws_the_same_bits():
    code = (
        "import hashlib; from anatolab.data.phantoms import draw_abdomen; d = draw_abdomen(5, 2, size=48); "
        "print(hashlib.sha256(d.image.tobytes() + d.label.tobytes()).hexdigest())"
    )
    other = warm.python("-c", code, timeout=120)
    assert other.stdout.strip() == digest(draw_abdomen(5, 2, size=48))


def test_what_is_drawn_is_pinned_to_the_version():
    """Voxel counts rather than a hash: processors differ in the last bit of a float. Raise VERSION with the numbers."""
    one = draw_abdomen(0, 0, size=72)
    counts = {organ: int((one.label == CODES[organ]).sum()) for organ in PINNED}
    assert (VERSION, one.info["phase"], len(one.image)) == (1, PINNED_PHASE, PINNED_SLICES)
    assert counts == {organ: pytest.approx(count, abs=3) for organ, count in PINNED.items()}
    assert one.image.mean() == pytest.approx(PINNED_MEAN, rel=1e-3)


def test_a_patient_depends_on_seed_and_index_and_not_on_the_size_of_the_cohort(drawings):
    few = list(draw_abdomens(2, seed=3, size=SIZE))
    assert [digest(d) for d in few] == [digest(d) for d in drawings[:2]]
    assert len({digest(d) for d in (*drawings, draw_abdomen(4, 0, size=SIZE))}) == DRAWN + 1


def test_a_finer_grid_shows_the_same_anatomy():
    coarse, fine = draw_abdomen(0, 1, size=72), draw_abdomen(0, 1, size=144)
    for organ in ("liver", "spleen", "right kidney", "stomach"):
        assert milliliters(coarse, organ) == pytest.approx(milliliters(fine, organ), rel=0.05), organ


def test_values_and_classes(drawings):
    for d in drawings:
        assert d.image.shape == d.label.shape
        assert (d.image.dtype, d.label.dtype) == (np.int16, np.uint8)
        assert set(np.unique(d.label)) <= {0, *CODES.values()}
        assert 22 <= len(d.image) <= 32
        assert d.spacing[0] == 5
        assert 315 <= d.spacing[1] * SIZE <= 375
        assert d.image.min() >= -1024
        assert np.percentile(d.image, 10) < -900  # air around the body


def test_the_tail_is_long(drawings):
    counts = np.array([sum((d.label == CODES[organ]).sum() for d in drawings) for organ in ORGANS])
    assert ORGANS[counts.argmax()] == "liver"
    assert ORGANS[counts.argmin()] == "gallbladder"
    assert counts.max() >= 100 * counts.min()


def test_organs_have_the_size_of_organs(drawings):
    """Milliliters of adults; what lies outside the field of view is missing, so only the upper ends are sharp."""
    for organ, low, high in (
        ("aorta", 20, 100),
        ("gallbladder", 4, 30),
        ("left kidney", 80, 250),
        ("right kidney", 80, 250),
        ("liver", 900, 1900),
        ("pancreas", 25, 100),
        ("spleen", 80, 350),
        ("stomach", 100, 600),
    ):
        assert low < np.mean([milliliters(d, organ) for d in drawings if milliliters(d, organ)]) < high, organ


def test_organs_lie_where_they_do_in_a_body(drawings):
    """Columns run to the patient's left, rows to the back, slices upward."""
    for d in drawings:
        there = {organ: middle(d, organ) for organ in ORGANS if milliliters(d, organ) > 1}
        assert there["liver"][2] < there["aorta"][2] < there["stomach"][2]
        assert there["aorta"][1] > there["stomach"][1]
        if {"left kidney", "right kidney", "spleen"} <= there.keys():
            assert there["right kidney"][2] < there["aorta"][2] < there["left kidney"][2] < there["spleen"][2] + 0.1
            assert there["spleen"][0] > there["left kidney"][0]
        if "gallbladder" in there:
            assert there["gallbladder"][0] < there["liver"][0]


def test_the_aorta_is_one_tube_through_every_slice(drawings):
    for d in drawings:
        aorta = d.label == CODES["aorta"]
        assert aorta.any((1, 2)).all()
        assert ndimage.label(aorta)[1] == 1


def test_contrast_phases_are_what_they_are_called(drawings):
    """Arterial: the aorta is far brighter than the liver. Plain: nothing is bright."""
    seen = {}
    for d in drawings:
        aorta, liver = (np.median(d.image[d.label == CODES[organ]]) for organ in ("aorta", "liver"))
        seen.setdefault(d.info["phase"], []).append((aorta, aorta - liver))
    assert set(seen) == set(PHASES)
    assert min(a for a, _ in seen["arterial"]) > 200
    assert max(a for a, _ in seen["plain"]) < 80
    assert np.mean([gap for _, gap in seen["arterial"]]) > np.mean([gap for _, gap in seen["portal venous"]]) + 80


def test_a_removed_organ_has_no_voxel_and_is_named(drawings):
    removed = [(d, organ) for d in drawings for organ in d.info["removed"].split(", ") if organ]
    assert removed
    assert all(milliliters(d, organ) == 0 for d, organ in removed)
    gone = sum("gallbladder" in draw_abdomen(11, i, size=16).info["removed"] for i in range(60))
    assert 0 < gone < 15


def test_organs_are_inside_the_body(drawings):
    for d in drawings:
        inside = ndimage.binary_fill_holes((d.image > -300).any(0))
        assert not (d.label.any(0) & ~inside).any()


def test_files_in_the_layout_of_btcv_and_the_reader_opens_them(tmp_path):
    root = write_abdomen(tmp_path / "cohort", patients=2, seed=3, size=48)
    one = draw_abdomen(3, 1, size=48)
    stored, truth = (nibabel.load(root / kind / f"{kind}0002.nii.gz") for kind in ("img", "label"))
    assert stored.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(stored.dataobj).transpose(2, 1, 0), one.image)
    np.testing.assert_array_equal(np.asarray(truth.dataobj).transpose(2, 1, 0), one.label)
    assert stored.header.get_zooms() == pytest.approx(one.spacing[::-1])
    assert nibabel.aff2axcodes(stored.affine) == ("L", "P", "S")
    note = json.loads((root / "generated.json").read_text())
    assert (note["version"], note["seed"]) == (VERSION, 3)
    assert note["info"]["0002"] == one.info

    cohort = abdomen_cohort(2, seed=3, size=48, cache=tmp_path)
    assert (cohort.name, cohort.layout, cohort.classes[1:]) == ("generated abdomen", "official", ORGANS)
    assert cohort.provenance["generated"]
    assert not cohort.published
    case = cohort.refs[1].load()
    assert case.window == (-125, 275)
    np.testing.assert_array_equal(case.image[0], one.image)
    for number, organ in enumerate(ORGANS, 1):
        np.testing.assert_array_equal(case.label == number, one.label == CODES[organ])


def test_distances_of_ellipsoids_and_chains():
    """A sphere in closed form; a tube of one radius is a capsule; to first order at the surface of an ellipsoid."""
    rng = np.random.default_rng(0)
    at = tuple(rng.uniform(-9, 9, (3, 500)))
    radius = np.sqrt(sum(a**2 for a in at))
    np.testing.assert_allclose(ellipsoid(at, (0, 0, 0), (4, 4, 4)), radius - 4, atol=1e-4)
    points = np.array([[0.0, 0, 0], [0, 0, 5]])
    capsule = np.hypot(np.hypot(at[0], at[1]), at[2] - np.clip(at[2], 0, 5)) - 2
    np.testing.assert_allclose(chain(at, points, np.array([2, 2])), capsule, atol=1e-5)
    turn = rotation(rng, 1.0)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    axis = 6.01 * turn[0]  # the first axis of the turned ellipsoid, just outside
    assert ellipsoid(tuple(axis[:, None]), (0, 0, 0), (6, 2, 3), turn) == pytest.approx(0.01, abs=1e-4)
