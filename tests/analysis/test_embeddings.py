import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose

from anatolab.analysis import embeddings as e
from anatolab.data import Rows
from anatolab.data.phantoms import cardiac_cohort
from anatolab.methods import Action, Supervised
from anatolab.nn import light_unet, tap
from anatolab.presets import SIZES
from anatolab.training.folder import RunInfo, save_run
from anatolab.types import InputError, Split

CLASSES = ("background", "RV", "Myo", "LV")


@pytest.fixture(scope="module")
def two() -> e.Points:
    """Two Gaussians far apart in ten dimensions, 40 points each; patients take turns in both."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 40)
    features = rng.normal(size=(80, 10)) + 20 * label[:, None]
    patient = np.array(["a", "b", "c", "d"] * 20)
    return e.Points(features, label, ("left", "right"), patient, np.full(80, ""), np.full(80, ""))


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Six slices of three patients: background, with a square of each organ in two of three slices."""
    rng = np.random.default_rng(0)
    images = rng.random((6, 1, 32, 32)).astype(np.float32)
    labels = np.zeros((6, 32, 32), np.uint8)
    for c in (1, 2, 3):
        labels[[0, 1, 3, 4], 8 * c : 8 * c + 6, 8:16] = c
    labels[3, 24:30] = 0
    names = [f"{p}_{f}#{i:02d}" for p, f, i in zip("aabbcc", ["ED", "ES"] * 3, range(6), strict=True)]
    return Rows.from_arrays(images, labels, list("aabbcc"), names)


@pytest.fixture(scope="module")
def action() -> Action:
    torch.manual_seed(0)
    return Action(light_unet(1, 4, depth=3), Action.Config().for_size(SIZES["tiny"]))


# ---------------------------------------------------------------------------------------------------------- quality
def test_features_are_a_perfect_map_of_themselves(two):
    flat = e.Points(two.features[:, :2], two.label, two.classes, two.patient, two.phase, two.names)
    found = e.measure(flat, flat.features)
    assert found["trustworthiness"] == found["continuity"] == 1
    assert found["distance_correlation"] == pytest.approx(1)
    assert found["class_hit"] == found["class_hit_elsewhere"] == 1


def test_a_shuffled_map_is_worth_what_chance_gives(two):
    rng = np.random.default_rng(1)
    found = [e.measure(two, rng.permutation(two.features[:, :2])) for _ in range(20)]
    mean = {key: np.mean([f[key] for f in found]) for key in found[0]}
    assert mean["trustworthiness"] == pytest.approx(0.5, abs=0.05)
    assert mean["distance_correlation"] == pytest.approx(0, abs=0.05)
    for key in ("class_hit", "class_hit_elsewhere", "patient_hit"):
        assert mean[key] == pytest.approx(mean[f"{key}_chance"], abs=0.03)
    assert abs(mean["class_silhouette"]) < 0.05


def test_a_line_keeps_its_distances_and_a_fold_tears_none_but_adds_intruders():
    line = np.stack([np.arange(60.0), np.zeros(60)], 1)
    assert e.distance_correlation(line, 3 * line[:, ::-1]) == pytest.approx(1)
    fold = np.abs(line - 29.5)  # two ends of the line come to lie on each other
    assert e.trustworthiness(line, fold, 5) < 0.9
    assert e.trustworthiness(fold, line, 5) > e.trustworthiness(line, fold, 5)


def test_hit_by_chance_is_the_count_of_pairs():
    label, patient = np.array([0, 0, 0, 1, 1, 2]), np.array(list("aabbcc"))
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    same = [np.mean([label[i] == label[j] for a, j in pairs if a == i]) for i in range(6)]
    assert e.hit_by_chance(label) == pytest.approx(np.mean(same))
    apart = [np.mean([label[i] == label[j] for a, j in pairs if a == i and patient[i] != patient[j]]) for i in range(6)]
    assert e.hit_by_chance(label, apart=patient) == pytest.approx(np.mean(apart))


def test_patients_that_pass_for_classes_are_exposed_by_neighbors_in_other_patients():
    patient = np.repeat(np.arange(4), 10)
    y = patient[:, None] + 0.01 * np.random.default_rng(0).normal(size=(40, 2))
    label = patient % 2  # every patient has one class, and its neighbor patients the other
    assert e.neighborhood_hit(y, label, 5) == 1
    assert e.neighborhood_hit(y, label, 5, apart=patient) == 0


def test_silhouette_of_two_pairs_by_hand():
    y = np.array([[0.0], [1], [10], [11]])
    assert e.silhouette(y, np.array([0, 0, 1, 1])) == pytest.approx((9.5 / 10.5 + 8.5 / 9.5) / 2)
    assert np.isnan(e.silhouette(y, np.zeros(4)))


def test_more_neighbors_than_points_are_refused():
    with pytest.raises(InputError, match="use fewer"):
        e.neighborhood_hit(np.zeros((5, 2)), np.zeros(5), 5)


def test_stability_sees_through_turns_and_not_through_shuffles():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(100, 2))
    turned = 3 * y[:, ::-1] + 7
    found = e.stability([y, turned, rng.permutation(y)], k=10)
    assert_allclose(found["overlap"][0, :2], 1)
    assert_allclose(found["disparity"][0, :2], 0, atol=1e-12)
    assert found["overlap"][0, 2] == pytest.approx(10 / 99, abs=0.04)
    assert found["disparity"][0, 2] > 0.9


def test_turned_undoes_turns_and_reflections_but_not_a_scale():
    y = np.random.default_rng(0).normal(size=(20, 2))
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([1, -1])
    assert_allclose(e.turned(y @ turn + 4, y), y, atol=1e-12)
    assert_allclose(e.turned(2 * y, y) - y.mean(0), 2 * (y - y.mean(0)), atol=1e-12)


# ---------------------------------------------------------------------------------------------------------- layouts
def test_tsne_keeps_two_gaussians_apart_and_repeats_exactly(two):
    y = e.tsne(two.features, 10, iterations=300)
    assert e.neighborhood_hit(y, two.label, 15) == 1
    assert e.silhouette(y, two.label) > 0.5
    assert (y == e.tsne(two.features, 10, iterations=300)).all()


def test_umap_keeps_two_gaussians_apart(two):
    y = e.umap_map(two.features, 10)
    assert e.neighborhood_hit(y, two.label, 15) == 1


def test_aligned_maps_of_what_does_not_move_stay_where_they_are():
    sheet = np.stack(np.meshgrid(np.arange(12.0), np.arange(8.0)), -1).reshape(-1, 2)  # one piece, and truly flat
    first, second = e.aligned_maps([sheet, sheet], 10)
    found = e.stability([first, second], 8)
    assert found["overlap"][0, 1] > 0.99
    assert found["disparity"][0, 1] < 1e-4  # the shape stays, while the map as a whole goes on growing
    assert_allclose(second.mean(0), first.mean(0), atol=1e-6)
    with pytest.raises(InputError, match="same points"):
        e.aligned_maps([sheet, sheet[1:]])


# ---------------------------------------------------------------------------------------------------------- reading
def test_balanced_takes_turns_among_groups():
    label, group = np.repeat([0, 1], [90, 10]), np.tile(np.arange(10), 10)
    chosen = e.balanced(label, 20, groups=group)
    assert np.bincount(label[chosen]).tolist() == [20, 10]
    assert set(np.bincount(group[chosen[label[chosen] == 0]]).tolist()) == {2}
    assert (chosen == e.balanced(label, 20, groups=group)).all()
    assert (chosen != e.balanced(label, 20, groups=group, seed=1)).any()


def test_pixels_are_read_where_their_class_is_and_as_a_resized_map_has_them(rows, action):
    points = e.read_features(action, rows, CLASSES, "representation", per_class=12)
    assert np.bincount(points.label).tolist() == [12, 12, 12, 12]
    assert {(p, f) for p, f in zip(points.patient, points.phase, strict=True)} <= {(n[0], n[2:4]) for n in rows.names}
    assert set(points.patient[points.label == 1]) == {"a", "b", "c"}
    student = action.student.eval()
    with torch.no_grad():
        maps = F.interpolate(student.pixel(student(torch.from_numpy(rows.images))[1]), (32, 32), mode="bilinear")
    every = F.normalize(maps, dim=1).movedim(1, -1).numpy()
    for name, label, vector in zip(points.names, points.label, points.features, strict=True):
        row = rows.names.index(name)
        distance = np.abs(every[row] - vector).max(-1)
        assert distance[rows.labels[row] == label].min() < 1e-5


def test_all_methods_and_moments_are_read_at_the_same_places(rows, action):
    torch.manual_seed(1)
    network = light_unet(1, 4, depth=3)
    supervised = Supervised(network)
    before = {k: v.clone() for k, v in supervised.state_dict().items()}
    a, b = (e.read_features(m, rows, CLASSES, per_class=9) for m in (action, supervised))
    assert (a.names == b.names).all()
    assert a.features.shape == b.features.shape
    assert (a.features != b.features).any()
    parts = np.split(b.features, np.cumsum(tap(network).channels)[:-1], axis=1)
    assert_allclose([(part**2).sum(1).mean() for part in parts], 1, rtol=1e-5)
    assert supervised.training
    assert all((v == before[k]).all() for k, v in supervised.state_dict().items())


def test_slices_are_named_by_their_organs_and_patches_by_what_covers_them(rows, action):
    slices = e.read_features(action, rows, CLASSES, "slice")
    assert sorted(np.array(slices.classes)[slices.label]) == ["RV+Myo"] + ["RV+Myo+LV"] * 3 + ["none"] * 2
    patches = e.read_features(action, rows, CLASSES, "patch", per_class=1000, cells=4)
    assert len(patches) == 6 * 16
    assert np.bincount(patches.label).tolist() == [96 - 11, 4, 4, 3]  # 6 of 8 rows and all 8 columns of one cell


def test_a_method_without_representation_says_so(rows):
    with pytest.raises(InputError, match="decoder"):
        e.read_features(Supervised(light_unet(1, 4, depth=3)), rows, CLASSES, "representation")


def test_embed_goes_from_a_run_folder_to_a_measured_map(tmp_path):
    cohort = cardiac_cohort(2, seed=0)
    torch.manual_seed(0)
    method = Supervised(light_unet(1, 4))
    info = RunInfo("supervised", {}, "light_unet", 1, cohort.classes, 32, Split(cohort.patients, 1), "")
    save_run({"method": method.state_dict()}, info, tmp_path)
    found = e.embed(tmp_path, cohort, cohort.patients, per_class=15, neighbors=10)
    assert found.map.shape == (60, 2)
    assert set(found.points.patient) == set(cohort.patients)
    assert found.quality == e.measure(found.points, found.map)
    with pytest.raises(InputError, match="size"):
        e.embed(method, cohort, cohort.patients)
