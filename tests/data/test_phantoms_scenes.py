"""Generated captioned scenes: the share of the cue, the groups of the task downstream, and counterfactual sets."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from anatolab.data.phantoms.scenes import (
    BACKGROUNDS,
    OBJECTS,
    USUAL,
    caption_words,
    counterfactual_scenes,
    finch_or_duck,
    pretraining_scenes,
    recombined_scenes,
)
from anatolab.types import InputError
from tests import warm
from tests.scene_files import write_scenes

PINNED = (0.110543, 105.1114)  # mean mask and mean pixel of finch_or_duck((40, 8, 8), seed=7)


@pytest.fixture(scope="module")
def scenes():
    return pretraining_scenes(4000, seed=3)


@pytest.fixture(scope="module")
def birds():
    return finch_or_duck((1200, 200, 200), seed=1)


def digest(images: np.ndarray) -> str:
    return hashlib.sha256(images.tobytes()).hexdigest()


def test_another_process_draws_the_same_bits_and_another_seed_others() -> None:
    code = (
        "import hashlib; from anatolab.data.phantoms.scenes import pretraining_scenes; "
        "print(hashlib.sha256(pretraining_scenes(30, seed=5).images.tobytes()).hexdigest())"
    )
    other = warm.python("-c", code, timeout=120)
    assert other.stdout.strip() == digest(pretraining_scenes(30, seed=5).images)
    assert other.stdout.strip() != digest(pretraining_scenes(30, seed=6).images)


def test_what_is_drawn_is_pinned_to_the_version() -> None:
    drawn = finch_or_duck((40, 8, 8), seed=7)
    assert (drawn.masks.mean(), drawn.pixels.mean()) == pytest.approx(PINNED, abs=1e-3)


@pytest.mark.parametrize("rho", [0.25, 0.9, 1.0])
def test_an_object_is_on_its_usual_background_with_probability_rho(rho: float) -> None:
    scenes = pretraining_scenes(2000, rho, seed=2)
    share = (scenes.backgrounds == USUAL[scenes.objects]).mean()
    assert share == pytest.approx(rho, abs=4 * (rho * (1 - rho) / 2000) ** 0.5 + 1e-9)


def test_other_backgrounds_colors_and_objects_are_equally_frequent(scenes) -> None:
    other = scenes.backgrounds != USUAL[scenes.objects]
    shift = (scenes.backgrounds - USUAL[scenes.objects])[other] % 4
    for values, kinds in ((scenes.objects, 6), (scenes.colors, 6), (shift - 1, 3)):
        share = np.bincount(values, minlength=kinds) / len(values)
        assert abs(share - 1 / kinds).max() < 4 * (kinds * len(values)) ** -0.5


def test_captions_name_the_object_and_half_of_the_time_color_and_place(scenes) -> None:
    allowed = set(caption_words())
    assert set(scenes.captions) <= allowed
    assert all(OBJECTS[o] in caption.split() for o, caption in zip(scenes.objects, scenes.captions, strict=True))
    places = [BACKGROUNDS[b] in c.split() for b, c in zip(scenes.backgrounds, scenes.captions, strict=True)]
    assert np.mean(places) == pytest.approx(0.6, abs=0.04)
    colored = [len(c.split(" on ")[0].split()) == 6 for c in scenes.captions]
    thing = [c.startswith("there") for c in scenes.captions]  # one word shorter than "a photo of a red duck"
    assert np.mean(np.array(colored)[~np.array(thing)]) == pytest.approx(0.5, abs=0.05)


def test_the_object_covers_a_tenth_of_the_image_and_differs_from_what_is_around_it(scenes) -> None:
    assert 0.05 < scenes.masks.mean() < 0.15
    assert scenes.masks.any((1, 2)).all()
    inside = np.array([image[mask].mean(0) for image, mask in zip(scenes.images, scenes.masks, strict=True)])
    outside = np.array([image[~mask].mean(0) for image, mask in zip(scenes.images, scenes.masks, strict=True)])
    assert np.median(np.linalg.norm(inside - outside, axis=1)) > 60


def test_a_mean_color_tells_the_background_and_not_the_object(scenes) -> None:
    from sklearn.linear_model import LogisticRegression

    color = scenes.images.reshape(len(scenes.images), -1, 3).mean(1) / 255
    flat = scenes.objects
    fit, held = slice(0, 2000), slice(2000, 4000)
    place = LogisticRegression(C=100, max_iter=500).fit(color[fit], scenes.backgrounds[fit])
    assert place.score(color[held], scenes.backgrounds[held]) > 0.97
    pair = (scenes.backgrounds == 2) & np.isin(flat, (3, 4))  # boat and crab share the sand
    thing = LogisticRegression(C=100, max_iter=500).fit(color[pair][::2], flat[pair][::2])
    assert thing.score(color[pair][1::2], flat[pair][1::2]) < 0.75


def test_training_is_aligned_and_validation_balanced_within_each_class(birds) -> None:
    assert birds.of("train").counts.tolist() == [855, 45, 15, 285]
    assert birds.of("val").counts.tolist() == birds.of("test").counts.tolist() == [75, 75, 25, 25]
    assert birds.group_names == ("finch, land", "finch, water", "duck, land", "duck, water")
    np.testing.assert_array_equal(birds.group, 2 * birds.y + birds.a)


def test_sizes_are_those_of_the_task() -> None:
    import inspect

    assert inspect.signature(finch_or_duck).parameters["sizes"].default == (4800, 1000, 2000)


def test_a_counterfactual_set_changes_the_background_alone_or_the_object_alone() -> None:
    sets = counterfactual_scenes(20, seed=4)
    outside = ~(sets.masks.any(1))
    for a in range(2):  # far from both objects, finch and duck have the same background to the bit
        near = np.array([_grown(m) for m in ~outside])
        one, two = sets.images[:, 0, a], sets.images[:, 1, a]
        np.testing.assert_array_equal(one[~near], two[~near])
    for y in range(2):  # well inside the object, land and water leave the same pixels to the bit
        core = np.array([~_grown(~m) for m in sets.masks[:, y]])
        assert core.any()
        np.testing.assert_array_equal(sets.images[:, y, 0][core], sets.images[:, y, 1][core])
        assert (sets.images[:, y, 0] != sets.images[:, y, 1]).mean() > 0.8


def _grown(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.binary_dilation(mask, np.ones((3, 3)), iterations=2)


def test_written_scenes_are_png_files_beside_their_table(birds, tmp_path) -> None:
    some = birds.take(np.arange(5))
    root = write_scenes(tmp_path / "birds", some)
    lines = (root / "table.csv").read_text().splitlines()
    assert lines[0] == "filename,split,y,a"
    assert len(lines) == 6
    np.testing.assert_array_equal(np.asarray(Image.open(root / "images" / "00003.png")), some.pixels[3])
    np.testing.assert_array_equal(np.asarray(Image.open(root / "masks" / "00003.png")), some.masks[3])


def test_a_wrong_rho_and_a_missing_split_are_said(birds) -> None:
    with pytest.raises(InputError, match=r"rho=1\.5"):
        pretraining_scenes(3, 1.5)
    with pytest.raises(InputError, match="no rows of the split 'dev'; it has train, val, test"):
        birds.of("dev")
    with pytest.raises(InputError, match="no rows of the split 'val'; it has train"):
        birds.of("train").of("val")


def test_recombined_scenes_differ_in_what_was_chosen_alone() -> None:
    images, masks = recombined_scenes(3)
    outside = ~masks.any(0)
    for _ in range(2):  # two pixels further out, where no edge is mixed in
        outside &= np.roll(outside, 1, 0) & np.roll(outside, -1, 0) & np.roll(outside, 1, 1) & np.roll(outside, -1, 1)
    far = images[..., outside, :].astype(int)
    assert outside.sum() > 300
    assert (far == far[:1, :, :1]).all()  # neither object nor color changes the background
    assert all((far[:, 0] != far[:, b]).any() for b in (1, 2, 3))
    assert (images[2] == images[2][:, :1]).all()
    assert not masks[2].any()
    finch = images[0][..., masks[0], :].astype(int)
    assert np.abs(finch[0] - finch[1]).mean() < 0.15 * np.abs(finch[:, 0] - finch[:, 2]).mean()


def test_leaving_an_object_out_changes_no_other_and_a_strange_one_is_said() -> None:
    np.testing.assert_array_equal(recombined_scenes(5, ("duck",))[0][0], recombined_scenes(5)[0][1])
    with pytest.raises(InputError, match="'cow' is in no generated scene"):
        recombined_scenes(5, ("cow",))
