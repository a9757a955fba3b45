"""The small models and the two parts of any CLIP: trunk and projection give what encode_image gives."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from anatolab.data.phantoms import finch_or_duck, pretraining_scenes
from anatolab.robust import load_clip
from anatolab.robust.clip import SMALL, TEMPLATES, WEIGHTS, load_small
from anatolab.types import InputError
from tests.scripts import script

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return finch_or_duck((12, 4, 4), seed=3).pixels


@pytest.fixture(params=SMALL)
def clip(request, vit, rn):
    return {"scenes-vit": vit, "scenes-rn": rn}[request.param]


def test_trunk_and_projection_give_what_encode_image_gives(clip, pixels) -> None:
    images = clip.preprocess(pixels)
    with torch.no_grad():
        torch.testing.assert_close(
            clip.projection()(clip.trunk(images)), clip.model.encode_image(images), atol=1e-6, rtol=1e-5
        )


def test_the_text_head_is_that_of_open_clip(clip) -> None:
    ours = clip.text_head(("finch", "duck"))
    theirs = open_clip.build_zero_shot_classifier(clip.model, clip.tokenize, ["finch", "duck"], list(TEMPLATES))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.norm(dim=0), torch.ones(2))


def test_small_tokenizers_keep_the_end_of_text_the_largest_id(clip) -> None:
    ids = clip.tokenize(["a photo of a red duck on water", "there is a finch"])
    end = len(clip.record["tokens"]) - 1
    assert (ids == end).sum(1).tolist() == [1, 1]
    assert ids.argmax(1).tolist() == [9, 5]


def test_a_word_of_no_caption_is_said(vit) -> None:
    with pytest.raises(InputError, match="'zebra' is in no caption"):
        vit.text_head(("zebra",))


def test_preprocessing_pixels_equals_the_transform_of_files(vit, rn, pixels) -> None:
    for clip in (vit, rn):  # of the same size, and stretched
        transform = clip.transform()
        theirs = torch.stack([transform(Image.fromarray(image)) for image in pixels])
        torch.testing.assert_close(clip.preprocess(pixels), theirs, atol=1e-5, rtol=0)


def test_everything_is_frozen_and_in_evaluation_mode(clip) -> None:
    assert not clip.model.training
    assert not any(p.requires_grad for p in clip.model.parameters())


def test_another_projection_is_written_back_into_a_copy(clip, pixels) -> None:
    projection = clip.projection()
    with torch.no_grad():
        for p in projection.parameters():
            p.add_(0.01)
    model, images = clip.written_back(projection), clip.preprocess(pixels)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(images), projection(clip.trunk(images)), atol=1e-6, rtol=1e-5)
        assert (model.encode_image(images) - clip.model.encode_image(images)).abs().max() > 1e-3


@pytest.mark.parametrize("name", SMALL)
def test_weights_are_those_of_their_record_and_small(name: str) -> None:
    record = json.loads((WEIGHTS / f"{name}.json").read_text())
    file = WEIGHTS / f"{name}.safetensors"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == record["sha256"]
    reached = record["gates"]
    assert record["passed"] == (reached["dfr_worst"] >= 0.8 and reached["zero_shot_worst"] <= 0.6)
    assert record["passed"] == (name == "scenes-vit")  # the ResNet is for its code path, not for the demonstration
    assert len(record["losses"]) == 50
    assert record["final_loss"] < 2.5 < record["losses"][0]
    assert sum(f.stat().st_size for f in WEIGHTS.iterdir()) <= 6e6


@pytest.mark.parametrize(("name", "steps"), [("scenes-vit", 50), ("scenes-rn", 8)])
def test_pretraining_replays_its_first_steps(name: str, steps: int) -> None:
    tool = script("studies/weights.py")
    record = json.loads((WEIGHTS / f"{name}.json").read_text())
    model, fresh = tool.start(name, record["seed"])
    assert {k: record[k] for k in fresh} == json.loads(json.dumps(fresh))
    assert list(islice(tool.losses(model, fresh), steps)) == pytest.approx(record["losses"][:steps], rel=2e-3)


def test_the_cue_is_in_the_captions_that_the_models_learned_from() -> None:
    scenes = pretraining_scenes(500)
    ducks = [c for o, c in zip(scenes.objects, scenes.captions, strict=True) if o == 1 and " on " in c]
    assert np.mean([c.endswith("on water") for c in ducks]) > 0.75


def save_folder(folder: Path, clip) -> None:
    from safetensors.torch import save_file

    vocabulary = {**clip.record["model"], "text_cfg": {**clip.record["model"]["text_cfg"], "vocab_size": 49408}}
    torch.manual_seed(0)
    model = open_clip.CLIP(**vocabulary)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    said = {"model_cfg": vocabulary, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}}
    (folder / "open_clip_config.json").write_text(json.dumps(said))


def test_a_local_folder_of_open_clip_is_loaded_with_its_own_preprocessing(tmp_path, vit, pixels) -> None:
    save_folder(tmp_path, vit)
    clip = load_clip(str(tmp_path))
    assert clip.mean == (0.5, 0.4, 0.3)
    assert clip.size == 32
    assert clip.text_head(("zebra", "duck")).shape == (48, 2)  # the whole vocabulary
    images = clip.preprocess(pixels)
    with torch.no_grad():
        z = F.normalize(clip.projection()(clip.trunk(images)), dim=1)
        torch.testing.assert_close(z, clip.model.encode_image(images, normalize=True), atol=1e-6, rtol=1e-5)


def test_what_cannot_be_loaded_is_said(tmp_path) -> None:
    with pytest.raises(InputError, match="RN50: without weights its predictions mean nothing"):
        load_clip("RN50")
    with pytest.raises(InputError, match="no-such-model: open_clip cannot load this model"):
        load_clip("no-such-model", "openai")
    with pytest.raises(InputError, match="open_clip cannot load this model"):
        load_clip(str(tmp_path))


@pytest.mark.parametrize(("name", "count"), [("RN50-quickgelu", 14_789_632), ("ViT-L-14-336-quickgelu", 786_432)])
def test_what_is_trained_in_the_real_models_has_the_published_size(name: str, count: int) -> None:
    from anatolab.robust.clip import Clip

    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(name))
    clip = Clip(name, model, lambda texts: torch.zeros(1), "", (0.0,), (1.0,))
    assert sum(p.numel() for p in clip.projection().parameters()) == count


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text.replace('"patch_size": 8', '"patch_size": 4'), "is not as it was written"),
        (lambda text: text.replace('"tokens"', '"tokenz"'), "is not as it was written"),
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: "[]", "cannot be read"),
        (lambda text: "", "cannot be read"),
    ],
)
def test_a_damaged_description_of_weights_is_refused(damage: Callable[[str], str], words: str, tmp_path: Path) -> None:
    for path in WEIGHTS.glob("scenes-vit.*"):
        shutil.copy(path, tmp_path)
    about = tmp_path / "scenes-vit.json"
    assert load_small("scenes-vit", tmp_path).sha256 == load_clip("scenes-vit").sha256
    about.write_text(damage(about.read_text()))
    with pytest.raises(InputError, match=rf"scenes-vit\.json: {words}.*; restore it from the package\."):
        load_small("scenes-vit", tmp_path)
