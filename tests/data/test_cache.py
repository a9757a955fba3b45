"""The cache of slices: known values, one result however often and by whomever it is made, and no damage unseen."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trees

from anatolab.data import Rows, open_cohort, prepare
from anatolab.data.cache import RECIPE, slices_of
from anatolab.data.store import FORMAT, _key, remove
from anatolab.types import IGNORE, Case, CaseRef, Cohort, InputError

SIZE = (8, 8)


def case_of(image: np.ndarray, label: np.ndarray | None = None) -> Case:
    return Case("p", "", image.astype(np.float32), label, None, None, Path("p.nii.gz"))


def same(one: Rows, two: Rows) -> bool:
    return (
        np.array_equal(one.images, two.images)
        and np.array_equal(one.labels, two.labels)
        and (one.names, one.patients, one.sha256) == (two.names, two.patients, two.sha256)
    )


def parts(cache: Path) -> list[str]:
    """What half-written caches are called."""
    return [path.name for path in cache.iterdir() if ".part-" in path.name]


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return open_cohort(trees.official(tmp_path / "acdc"))


# --- values ------------------------------------------------------------------------------------------------------


def test_intensities_are_scaled_by_volume_and_channel() -> None:
    image = np.stack([np.arange(32.0).reshape(2, 4, 4), -5 * np.arange(32.0).reshape(2, 4, 4) - 7])
    images, _ = slices_of(case_of(image), (4, 4))
    assert images.shape == (2, 2, 4, 4)  # z c h w
    expected = np.arange(32.0).reshape(2, 4, 4) / 31
    np.testing.assert_allclose(images[:, 0], expected, atol=1e-7)  # the second slice does not start at 0 again
    np.testing.assert_allclose(images[:, 1], 1 - expected, atol=1e-7)


def test_a_window_means_the_same_in_every_case() -> None:
    image = np.array([-2000.0, -200.0, 25.0, 250.0, 3000.0, 137.5, 0.0, -87.5]).reshape(1, 2, 2, 2)
    expected = np.array([0, 0, 0.5, 1, 1, 0.75, 4 / 9, 0.25]).reshape(2, 2, 2)
    images, _ = slices_of(replace(case_of(image), window=(-200, 250)), (2, 2))
    np.testing.assert_allclose(images[:, 0], expected, atol=1e-6)
    bright = np.maximum(image, 25)  # its own least value is not 0
    images, _ = slices_of(replace(case_of(bright), window=(-200, 250)), (2, 2))
    np.testing.assert_allclose(images[:, 0], np.maximum(expected, 0.5), atol=1e-6)


def test_halving_an_image_weighs_neighbors_by_a_triangle() -> None:
    image = np.zeros((1, 1, 4, 16))
    image[..., 8] = 1  # pixel center 8.5; output centers 2i + 1, triangle of half-width 2: weights 1 3 3 1 over 8
    images, _ = slices_of(case_of(image), (4, 8))
    np.testing.assert_allclose(images[0, 0], np.tile([0, 0, 0, 1 / 8, 3 / 8, 0, 0, 0], (4, 1)), atol=1e-7)


def test_labels_take_the_nearest_pixel_and_no_class_is_made_up() -> None:
    label = np.array([[[0, 3, 1, 2]] * 4], np.uint8)
    image = np.arange(16.0).reshape(1, 1, 4, 4)
    _, up = slices_of(case_of(image, label), (8, 8))
    assert up[0, 0].tolist() == [0, 0, 3, 3, 1, 1, 2, 2]
    _, down = slices_of(case_of(image, label), (4, 2))  # centers 1 and 3: of two pixels as near, the right one
    assert down[0, 0].tolist() == [3, 2]


def test_image_and_label_stay_on_top_of_each_other() -> None:
    label = np.zeros((1, 60, 90), np.uint8)
    label[:, 20:50, 33:63] = 1
    images, labels = slices_of(case_of(label[None].astype(float), label), (24, 31))
    for array in (images[0, 0], labels[0]):
        y, x = np.mgrid[:24, :31] + 0.5
        weight = array / array.sum()
        assert abs((y * weight).sum() - 35 * 24 / 60) < 0.25  # the square's center, in pixels of the output
        assert abs((x * weight).sum() - 48 * 31 / 90) < 0.25


def test_a_constant_channel_is_refused() -> None:
    image = np.stack([np.arange(16.0), np.ones(16)]).reshape(2, 1, 4, 4)
    with pytest.raises(InputError, match=r"p\.nii\.gz: a channel is constant"):
        slices_of(case_of(image), SIZE)


def test_rows_say_which_slice_of_which_case_they_are(cohort: Cohort, tmp_path: Path) -> None:
    rows = prepare(cohort, ["patient003", "patient001"], size=SIZE, cache=tmp_path / "cache")
    assert rows.images.shape == (16, 1, 8, 8)
    assert rows.labels.shape == (16, 8, 8)
    assert (rows.images.dtype, rows.labels.dtype) == (np.float32, np.uint8)
    assert rows.names[:5] == [*(f"patient003_ED#{i:02d}" for i in range(4)), "patient003_ES#00"]
    assert rows.patients == ["patient003"] * 8 + ["patient001"] * 8
    for ref, at in zip(cohort.of(["patient003", "patient001"]), range(0, 16, 4), strict=True):
        images, labels = slices_of(ref.load(), SIZE)
        np.testing.assert_array_equal(rows.images[at : at + 4], images)
        np.testing.assert_array_equal(rows.labels[at : at + 4], labels)
    assert isinstance(rows.images, np.memmap)
    assert not rows.images.flags.writeable
    assert (tmp_path / "cache").is_dir()


def test_a_case_without_annotation_is_unknown_everywhere(tmp_path: Path) -> None:
    cohort = open_cohort(trees.official(tmp_path / "acdc", (1,), labels=False))
    rows = prepare(cohort, ["patient001"], size=SIZE, cache=tmp_path / "cache")
    assert (rows.labels == 255).all()
    assert (rows.take(torch.tensor([0]))[1] == IGNORE).all()


def test_rows_in_memory_have_the_identity_of_the_same_rows_on_disk(cohort: Cohort, tmp_path: Path) -> None:
    rows = prepare(cohort, cohort.patients, size=SIZE, cache=tmp_path / "cache")
    copy = Rows.from_arrays(np.array(rows.images), np.array(rows.labels), rows.patients, rows.names)
    assert same(copy, rows)
    changed = np.array(rows.labels)
    changed[5, 3, 2] ^= 1
    assert Rows.from_arrays(np.array(rows.images), changed, rows.patients, rows.names).sha256 != rows.sha256
    names = [*rows.names[1:], rows.names[0]]
    assert Rows.from_arrays(np.array(rows.images), np.array(rows.labels), rows.patients, names).sha256 != rows.sha256


def test_take_and_index_of() -> None:
    labels = np.array([0, 1, 255, 3], np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
    images = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 1, 2, 2)
    rows = Rows.from_arrays(images, labels, ["a", "b", "a", "c"])
    assert rows.index_of(["a"]).tolist() == [0, 2]
    assert rows.index_of(("c", "a")).tolist() == [0, 2, 3]
    assert rows.index_of(["b"]).dtype == torch.int64
    image, label = rows.take(torch.tensor([3, 2, 2]))
    assert label[:, 0, 0].tolist() == [3, IGNORE, IGNORE]
    assert (image.dtype, label.dtype) == (torch.float32, torch.int64)
    np.testing.assert_array_equal(image.numpy(), images[[3, 2, 2]])
    image.zero_()
    assert images.max() == 1  # a copy
    with pytest.raises(InputError, match="no patient is given"):
        rows.index_of([])
    with pytest.raises(InputError, match=r"patient 'd' \(1 in all\)"):
        rows.index_of(["a", "d"])


@pytest.mark.parametrize(
    "arrays",
    [
        (np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 4), np.uint8), ["a", "b"]),
        (np.zeros((2, 1, 4, 4)), np.zeros((2, 4, 4), np.uint8), ["a", "b"]),
        (np.zeros((2, 1, 4, 4), np.float32), np.zeros((2, 4, 5), np.uint8), ["a", "b"]),
        (np.zeros((2, 1, 4, 4), np.float32), np.zeros((2, 4, 4), np.int64), ["a", "b"]),
        (np.zeros((2, 1, 4, 4), np.float32), np.zeros((2, 4, 4), np.uint8), ["a"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    with pytest.raises(InputError, match="do not fit"):
        Rows.from_arrays(*arrays)


# --- when it is built --------------------------------------------------------------------------------------------


def counted(cohort: Cohort) -> tuple[Cohort, list[str]]:
    """The cohort, and a list that grows by each case that is read."""
    read: list[str] = []

    def load(ref: CaseRef) -> Case:
        read.append(ref.name)
        return ref.load()

    refs = tuple(replace(ref, load=lambda ref=ref: load(ref)) for ref in cohort.refs)
    return replace(cohort, refs=refs), read


def test_it_is_read_once_and_again_only_when_source_recipe_or_patients_change(cohort: Cohort, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cohort, read = counted(cohort)
    first = prepare(cohort, cohort.patients, size=SIZE, cache=cache)
    assert len(read) == 6
    assert same(prepare(cohort, cohort.patients, size=SIZE, cache=cache), first)
    assert len(read) == 6
    assert prepare(cohort, cohort.patients, size=(8, 9), cache=cache).images.shape[2:] == (8, 9)
    assert len(read) == 12
    prepare(cohort, cohort.patients[:1], size=SIZE, cache=cache)
    assert len(read) == 14
    label = cohort.refs[0].files[1]
    trees.save_nifti(label, np.zeros(trees.SHAPE, np.uint8))
    changed = prepare(cohort, cohort.patients, size=SIZE, cache=cache)
    assert len(read) == 20
    assert (changed.labels[:4] == 0).all()
    stat = label.stat()
    os.utime(label, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))  # the time alone
    prepare(cohort, cohort.patients, size=SIZE, cache=cache)
    assert len(read) == 26


def test_the_window_is_part_of_the_key_and_without_one_the_key_is_as_before(tmp_path: Path) -> None:
    cohort = open_cohort(trees.lits(tmp_path / "lits"))
    cache = tmp_path / "cache"
    prepare(cohort, cohort.patients, size=SIZE, cache=cache)
    (folder,) = cache.iterdir()
    assert json.loads((folder / "index.json").read_text())["recipe"]["window"] == [-200, 250]
    prepare(replace(cohort, window=(-125, 275)), cohort.patients, size=SIZE, cache=cache)
    assert len(list(cache.iterdir())) == 2
    recipe = {**RECIPE, "size": list(SIZE), "format": FORMAT, "orientation": "ALS"}
    plain = replace(cohort, window=None)
    prepare(plain, plain.patients, size=SIZE, cache=cache)
    assert (cache / f"lits-{_key(plain, plain.refs, recipe)}").is_dir()


def test_two_folders_of_the_same_names_sizes_and_times_are_two_caches(cohort: Cohort, tmp_path: Path) -> None:
    other = shutil.copytree(cohort.root, tmp_path / "copy")  # keeps the times
    one = prepare(cohort, cohort.patients, size=SIZE, cache=tmp_path / "cache")
    two = prepare(open_cohort(other), cohort.patients, size=SIZE, cache=tmp_path / "cache")
    assert same(one, two)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_root_comes_from_the_environment(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANATOLAB_CACHE", str(tmp_path / "here"))
    prepare(cohort, cohort.patients, size=SIZE)
    assert [path.name[:5] for path in (tmp_path / "here").iterdir()] == ["acdc-"]


def damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: damage(f / "images.npy", -1),
        lambda f: damage(f / "labels.npy", 200),
        lambda f: damage(f / "images.npy", 0),
        lambda f: (f / "images.npy").write_bytes((f / "images.npy").read_bytes()[:-4]),
        lambda f: (f / "labels.npy").write_bytes(b""),
        lambda f: (f / "labels.npy").unlink(),
        lambda f: (f / "index.json").unlink(),
        lambda f: (f / "index.json").write_text("{"),
        lambda f: (f / "index.json").write_text((f / "index.json").read_text().replace("patient002", "patient001")),
        lambda f: [path.unlink() for path in f.iterdir()],
    ],
    ids=["pixel", "label", "magic", "cut", "empty", "no labels", "no index", "not JSON", "patient renamed", "nothing"],
)
def test_damage_is_said_and_repaired(spoil: Callable[[Path], object], cohort: Cohort, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = prepare(cohort, cohort.patients, size=SIZE, cache=cache)
    due = Rows.from_arrays(np.array(first.images), np.array(first.labels), first.patients, first.names)
    (folder,) = cache.iterdir()
    spoil(folder)
    with pytest.warns(UserWarning, match=f"{folder.name}: this cache is damaged .* building it again"):
        again = prepare(cohort, cohort.patients, size=SIZE, cache=cache)
    assert same(again, due)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(prepare(cohort, cohort.patients, size=SIZE, cache=cache), due)
    assert parts(cache) == []


def test_no_flipped_bit_reaches_the_rows(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("x")
    image, label = trees.volume(0, (2, 6, 5))
    case = case_of(image[None], label)
    ref = CaseRef("p", "", source, lambda: case, (source,))
    cohort = Cohort("small", "none", ("background", "a", "b", "c"), (ref,), tmp_path)
    cache = tmp_path / "cache"
    due = prepare(cohort, ["p"], size=(4, 4), cache=cache)
    due = Rows.from_arrays(np.array(due.images), np.array(due.labels), due.patients, due.names)
    (folder,) = cache.iterdir()
    rng = np.random.default_rng(0)
    for name in ("images.npy", "labels.npy", "index.json"):
        size = (folder / name).stat().st_size
        for at in rng.choice(size, min(size, 120), replace=False):
            damage(folder / name, int(at))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert same(prepare(cohort, ["p"], size=(4, 4), cache=cache), due), (name, at)


# --- two at once, a full disk, a killed writer -------------------------------------------------------------------


def test_the_second_of_two_writers_takes_what_the_first_wrote(cohort: Cohort, tmp_path: Path) -> None:
    cache, inner = tmp_path / "cache", []

    def load(ref: CaseRef) -> Case:
        if not inner:  # while the outer one reads, another writer does the whole work
            inner.append(prepare(cohort, cohort.patients, size=SIZE, cache=cache))
        return ref.load()

    slow = replace(cohort, refs=tuple(replace(ref, load=lambda ref=ref: load(ref)) for ref in cohort.refs))
    outer = prepare(slow, cohort.patients, size=SIZE, cache=cache)
    assert same(outer, inner[0])
    assert len(list(cache.iterdir())) == 1


def test_removing_what_another_processremoved_first_leaves_nothing(tmp_path: Path) -> None:
    remove(tmp_path / "acdc-0")
    assert list(tmp_path.iterdir()) == []


def _prepare_together(root: str, cache: str, barrier: Any, out: Any) -> None:
    cohort = open_cohort(root)
    for round_ in range(6):
        barrier.wait(60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = prepare(cohort, cohort.patients, size=SIZE, cache=Path(cache) / str(round_ // 2))
        out.put((rows.sha256, float(rows.images.sum()), int(rows.labels.sum())))
        barrier.wait(60)
        if round_ % 2 == 0:  # the next round of both begins at a damaged cache
            images = next((Path(cache) / str(round_ // 2)).glob("*/images.npy"))
            if barrier.wait(60) == 0:
                damage(images, -1)


@pytest.mark.parametrize("layout", ["official", "lits"])  # the second clips to a window
def test_two_processes_at_once_and_over_a_damaged_cache(layout: str, tmp_path: Path) -> None:
    cohort = open_cohort(getattr(trees, layout)(tmp_path / "cohort"))
    due = prepare(cohort, cohort.patients, size=SIZE, cache=tmp_path / "due")
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")  # a fork has torch already
    barrier, out = context.Barrier(2), context.Queue()
    arguments = (str(cohort.root), str(tmp_path / "cache"), barrier, out)
    workers = [context.Process(target=_prepare_together, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [out.get(timeout=120) for _ in range(12)]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert set(found) == {(due.sha256, float(due.images.sum()), int(due.labels.sum()))}
    for round_ in range(3):
        assert len(list((tmp_path / "cache" / str(round_)).iterdir())) == 1


@pytest.mark.parametrize("limit", [64, 1000, 5000, 6500])  # in a header, an image, the last image, the index
def test_a_full_disk_is_one_sentence_and_leaves_nothing(limit: int, cohort: Cohort, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    cache = tmp_path / "cache"
    many = replace(cohort, refs=tuple(replace(ref, patient=ref.patient * 15) for ref in cohort.refs))  # a long index
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # a write beyond it is an OSError, as on a full disk
        with pytest.raises(
            InputError, match=r"cannot be written \(.+\); free some space there, or set ANATOLAB_CACHE"
        ) as e:
            prepare(many, many.patients, size=SIZE, cache=cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(cache) in str(e.value)
    assert list(cache.iterdir()) == []
    assert len(prepare(many, many.patients, size=SIZE, cache=cache)) == 24


def test_a_cache_that_cannot_be_a_folder_is_one_sentence(cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="the cache cannot be written"):
        prepare(cohort, cohort.patients, size=SIZE, cache=tmp_path / "file" / "cache")


def test_a_wrong_case_leaves_no_cache(cohort: Cohort, tmp_path: Path) -> None:
    cohort.refs[-1].files[0].write_bytes(b"")
    with pytest.raises(InputError, match="zero bytes"):
        prepare(cohort, cohort.patients, size=SIZE, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_writer_left_goes_a_day_later(cohort: Cohort, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    prepare(cohort, cohort.patients, size=SIZE, cache=cache)
    (folder,) = cache.iterdir()
    shutil.rmtree(folder)
    old, young = cache / f"{folder.name}.part-old", cache / f"{folder.name}.part-young"
    for part in (old, young):
        part.mkdir()
        (part / "images.npy").write_bytes(b"half")
    os.utime(old, (time.time() - 90000,) * 2)
    prepare(cohort, cohort.patients, size=SIZE, cache=cache)
    assert not old.exists()
    assert young.exists()  # its writer may still be at work


@pytest.mark.parametrize(
    ("patients", "size", "words"),
    [
        ([], SIZE, "at least one, each named once"),
        (["patient001", "patient001"], SIZE, "at least one, each named once"),
        (["patient009"], SIZE, "'patient009' .* is not in this ACDC cohort"),
        (["patient001"], (0, 8), "must be the height and width"),
    ],
)
def test_wrong_requests(patients: list[str], size: tuple[int, int], words: str, cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        prepare(cohort, patients, size=size, cache=tmp_path / "cache")


def test_cases_of_different_channels_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    one = cohort.refs[1]
    case = one.load()
    two = replace(one, load=lambda: replace(case, image=np.concatenate([case.image] * 2)))
    mixed = replace(cohort, refs=(cohort.refs[0], two))
    with pytest.raises(InputError, match=r"frame12\.nii\.gz: gives rows of shape \(2, 8, 8\)"):
        prepare(mixed, ["patient001"], size=SIZE, cache=tmp_path / "cache")


def test_the_index_says_how_the_rows_were_made(cohort: Cohort, tmp_path: Path) -> None:
    rows = prepare(cohort, cohort.patients, size=SIZE, cache=tmp_path)
    index = json.loads(next(tmp_path.glob("acdc-*/index.json")).read_text())
    assert index["recipe"]["size"] == [8, 8]
    assert index["sha256"] == rows.sha256
    assert set(index["arrays"]) == {"images", "labels"}


@pytest.mark.real
def test_real_acdc_rows_and_label_budgets(real_data: Path) -> None:
    from anatolab.data import split_patients

    cohort = open_cohort(real_data / "ACDC")
    split = split_patients(cohort, 3)
    rows = prepare(cohort, split.train)  # the session's own cache
    assert rows.images.shape == (1312, 1, 128, 128)
    budgets = {k: len(rows.index_of(split_patients(cohort, k).labeled_patients)) for k in (1, 3, 7, "all")}
    assert budgets == {1: 32, 3: 68, 7: 136, "all": 1312}
    assert (rows.images.min(), rows.images.max()) == (0, 1)
    share = np.bincount(rows.labels.ravel(), minlength=4) / rows.labels.size
    np.testing.assert_allclose(share[1:], [0.0118, 0.0133, 0.0129], atol=0.001)  # of the native slices; aspect changes
