"""The feature cache: what it is keyed by, that it is used, and that training on it equals training on images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anatolab.data import check_features
from anatolab.data.phantoms import finch_or_duck
from anatolab.data.table import read_table
from anatolab.robust import Cfr, ErmProjection, FeatureSet, Sgd, extract, features_of, predict
from anatolab.types import InputError
from tests.scene_files import write_scenes


class FromImages:
    """Stands for cached features, but runs the trunk on the images each time that rows are asked for."""

    def __init__(self, task: Any) -> None:
        self.clip, self.pixels = task.clip, task.images.of("train").pixels

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.clip.trunk(self.clip.preprocess(self.pixels[rows.numpy()]))

    def split(self, size: int) -> list[Tensor]:
        return [self[rows] for rows in torch.arange(len(self.pixels)).split(size)]


def methods(start: Any) -> list[Any]:
    sgd = Sgd(epochs=2, batch=64, lr=1e-3)
    near = Cfr.Config(reference="zero_shot", sgd=sgd, select="last", num_positives=4, num_negatives=4, anchors=16)
    return [ErmProjection(start, ErmProjection.Config(sgd)), Cfr(start, near)]


@pytest.mark.filterwarnings("ignore:CFR. the calibration set")
@pytest.mark.parametrize("name", ["small", "small_rn"])
def test_training_on_cached_features_equals_training_on_images(name: str, request: pytest.FixtureRequest) -> None:
    task = request.getfixturevalue(name)
    for cached, live in zip(methods(task.start), methods(task.start), strict=True):
        one = cached.fit(task.train.h, task.train.y, None, task.generator())
        two = live.fit(FromImages(task), task.train.y, None, task.generator())
        for p, q in zip(one.parameters(), two.parameters(), strict=True):
            torch.testing.assert_close(p, q, atol=1e-5, rtol=0)
        assert any((p != r).any() for p, r in zip(one.parameters(), task.start.projection.parameters(), strict=True))


@pytest.mark.parametrize("name", ["small", "small_rn"])
def test_the_model_with_the_projection_written_back_predicts_the_same(name: str, request) -> None:
    task = request.getfixturevalue(name)
    head = methods(task.start)[0].fit(task.train.h, task.train.y, None, task.generator())
    model = task.clip.written_back(head.projection)
    images = task.clip.preprocess(task.images.of("test").pixels)
    with torch.no_grad():
        z = model.encode_image(images, normalize=True)
        torch.testing.assert_close(head.scale * z @ head.text, head.logits(task.test.h), atol=1e-4, rtol=0)
    assert torch.equal((z @ head.text).argmax(1), predict(head, task.test.h))
    before, after = task.clip.model.state_dict(), model.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    part = "visual.attnpool." if "visual.attnpool.q_proj.weight" in before else "visual.proj"
    assert changed
    assert all(key.startswith(part) for key in changed)


def test_a_second_call_reads_the_file_and_does_not_run_the_trunk(vit, tmp_path, monkeypatch) -> None:
    images = finch_or_duck((20, 4, 4), seed=5)
    one = extract(vit, images, cache=tmp_path)
    monkeypatch.setattr("anatolab.robust.features.features_of", lambda *_: pytest.fail("the trunk was run again"))
    two = extract(vit, images, cache=tmp_path)
    assert torch.equal(one, two)
    assert len(list(tmp_path.iterdir())) == 1
    assert isinstance(np.load(next(tmp_path.rglob("*.npy")), mmap_mode="r"), np.memmap)


def test_the_key_tells_weights_preprocessing_images_and_number_type_apart(vit, tmp_path) -> None:
    images = finch_or_duck((20, 4, 4), seed=5)
    base = extract(vit, images, cache=tmp_path)
    other_pixels = images.pixels.copy()
    other_pixels[3, 0, 0, 0] ^= 1
    for clip, data, dtype in (
        (replace(vit, sha256="other"), images, "float32"),
        (replace(vit, mean=(0.5, 0.5, 0.5)), images, "float32"),
        (vit, replace(images, pixels=other_pixels), "float32"),
        (vit, images, "float16"),
    ):
        before = len(list(tmp_path.iterdir()))
        extract(clip, data, cache=tmp_path, dtype=dtype)
        assert len(list(tmp_path.iterdir())) == before + 1
    half = extract(vit, images, cache=tmp_path, dtype="float16")
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), base, atol=2e-2, rtol=1e-3)


def test_features_of_files_are_those_of_the_pixels_and_change_with_a_file(vit, tmp_path) -> None:
    drawn = finch_or_duck((12, 4, 4), seed=6)
    files = read_table(write_scenes(tmp_path / "images", drawn))
    one = extract(vit, files, cache=tmp_path / "cache")
    torch.testing.assert_close(one, extract(vit, drawn, cache=tmp_path / "cache"), atol=1e-5, rtol=1e-5)
    path = Path(files.files[0])
    path.write_bytes(Path(files.files[1]).read_bytes())
    two = extract(vit, files, cache=tmp_path / "cache")
    assert torch.equal(two[0], one[1])


def test_features_come_in_parts_whose_size_does_not_matter(vit) -> None:
    images = finch_or_duck((20, 4, 4), seed=5)
    parts = torch.cat(list(features_of(vit, images, batch=7)))
    torch.testing.assert_close(parts, torch.cat(list(features_of(vit, images, batch=28))), atol=1e-5, rtol=1e-5)


def test_a_cache_that_cannot_be_written_is_said(vit, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="features cannot be written"):
        extract(vit, finch_or_duck((4, 4, 4)), cache=tmp_path / "file")


def test_rows_without_groups_hold_none(small) -> None:
    assert FeatureSet(small.train.h, small.train.y).groups is None


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder, content: (folder / "features.npy").write_bytes(content[:-3] + bytes([content[-3] ^ 64, 0, 0])),
        lambda folder, content: (folder / "features.npy").write_bytes(content[: len(content) // 2]),
        lambda folder, content: (folder / "features.npy").write_bytes(b""),
        lambda folder, content: (folder / "features.npy").write_bytes(content.replace(b"<f4", b"<i4")),
        lambda folder, content: (folder / "features.npy").unlink(),
        lambda folder, content: (folder / "index.json").unlink(),
        lambda folder, content: (folder / "index.json").write_text("{"),
    ],
    ids=["a bit", "half", "empty", "number type", "no file", "no index", "no JSON"],
)
def test_damaged_features_are_said_and_computed_again(harm, vit, tmp_path) -> None:
    images = finch_or_duck((12, 4, 4), seed=5)
    good = extract(vit, images, cache=tmp_path).clone()
    (folder,) = tmp_path.iterdir()
    harm(folder, (folder / "features.npy").read_bytes())
    with pytest.warns(UserWarning, match="these features are damaged .* computing them again"):
        assert torch.equal(extract(vit, images, cache=tmp_path), good)
    assert torch.equal(extract(vit, images, cache=tmp_path), good)


def test_what_is_done_to_the_features_in_memory_stays_there(vit, tmp_path) -> None:
    images = finch_or_duck((12, 4, 4), seed=5)
    good = extract(vit, images, cache=tmp_path).clone()
    extract(vit, images, cache=tmp_path).mul_(2)
    assert torch.equal(extract(vit, images, cache=tmp_path), good)


# --- the check at the door -----------------------------------------------------------------------------------------


def harmed(h: Tensor, harm: str) -> Tensor:
    h = h.clone()
    if harm == "constant":
        h[:] = h[:1].clone()
    else:
        h[[3, 5], ..., 1] = float(harm)
    return h


@pytest.mark.parametrize("harm", ["nan", "inf", "-inf", "constant"])
def test_every_method_refuses_features_that_are_not_finite_or_all_the_same(harm: str, small) -> None:
    from tests.robust.test_methods import short

    words = "all .* rows are the same" if harm == "constant" else r"2 of \d+ rows are not finite \(row 3, 5\)"
    train = harmed(small.train.h, harm)
    for method in short(small.start):
        with pytest.raises(InputError, match=words):
            method.fit(train, small.train.y, small.train.groups, small.generator(), small.val)
    with pytest.raises(InputError, match=words):
        FeatureSet(train, small.train.y)


def test_every_method_refuses_one_class_and_labels_of_other_rows(small) -> None:
    from tests.robust.test_methods import short

    for method in short(small.start):
        with pytest.raises(InputError, match="rows are of class 1"):
            method.fit(small.train.h, torch.ones_like(small.train.y), small.train.groups, small.generator(), small.val)
        with pytest.raises(InputError, match="have labels of shape"):
            method.fit(small.train.h, small.train.y[:-1], small.train.groups, small.generator(), small.val)


def test_the_check_names_rows_anywhere_and_in_any_number_type() -> None:
    h = torch.randn(10_000, 3)
    check_features(h, torch.arange(10_000) % 2)
    h[[0, 4095, 4096, 9_999], 2] = float("nan")
    for features in (h, h.half(), h.numpy(), h[:, :, None, None]):
        with pytest.raises(InputError, match=r"4 of 10000 rows are not finite \(row 0, 4095, 4096, 9999\)"):
            check_features(features)
    h[::2] = float("inf")
    with pytest.raises(InputError, match=r"5002 of 10000 rows .* \(row 0, 2, 4, 6, 8, 10, 12, 14, \.\.\.\)"):
        check_features(h, what="embeddings")
    with pytest.raises(InputError, match="the array is empty"):
        check_features(torch.zeros(0, 3))
    check_features(torch.eye(4, dtype=torch.int64))
    check_features(torch.ones(1, 4))  # one row is not constant
