"""Whole volumes in the cache, and the patches that training takes of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from anatolab.data import Volumes, prepare
from anatolab.data.volumes import place, volume_of
from anatolab.types import IGNORE, Case, CaseRef, Cohort, InputError

SHAPES = ((9, 12, 14), (7, 16, 10), (3, 20, 6))
PATIENTS = ("a", "b", "c")


def case(
    number: int, *, channels: int = 1, window: tuple[float, float] | None = None, source: Path | None = None
) -> Case:
    """A volume whose intensities tell each voxel's flat position."""
    shape = SHAPES[number]
    image = (
        np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
        + np.float32(100) * np.arange(channels, dtype=np.float32)[:, None, None, None]
    )
    label = np.zeros(shape, np.uint8)
    label[1, 2, 3] = 1
    return Case(PATIENTS[number], "", image, label, (1.0, 1.0, 1.0), None, source or Path("a.nrrd"), window=window)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    refs = []
    for number, patient in enumerate(PATIENTS):
        path = tmp_path / f"{patient}.raw"
        path.write_bytes(bytes([number]))
        refs.append(CaseRef(patient, "", path, lambda n=number, p=path: case(n, channels=2, source=p)))
    return Cohort("LA", "toy", ("background", "LA"), tuple(refs), tmp_path)


def in_memory(patch: tuple[int, int, int] = (4, 6, 8), foreground: float = 0.0) -> Volumes:
    cases = [case(n) for n in range(3)]
    images = [c.image / c.image.size for c in cases]
    return Volumes.from_arrays(images, [c.label for c in cases], PATIENTS, size=patch, foreground=foreground)


def test_a_patch_lies_uniformly_over_all_places_and_over_those_that_hold_a_voxel() -> None:
    chances = (np.arange(700) + 0.5) / 700
    starts = [place((10,), (4,), (u,))[0][0].start for u in chances]
    assert np.bincount(starts).tolist() == [100] * 7
    held = [place((10,), (4,), (u,), (8,))[0][0] for u in chances]
    assert {(s.start, s.stop) for s in held} == {(5, 9), (6, 10)}
    assert sum(s.start == 5 for s in held) == 350


@pytest.mark.parametrize("foreground", [0.0, 1.0])
def test_patches_are_pieces_of_their_volume_with_the_label_of_the_same_place(foreground: float) -> None:
    rows, places = in_memory((4, 6, 6), foreground), set()
    for _ in range(40):
        image, label = rows.take(torch.tensor([0, 1]), 2)
        assert image.shape == (2, 1, 4, 6, 6)
        assert (image.dtype, label.dtype) == (torch.float32, torch.int64)
        for row in (0, 1):
            whole = case(row)
            flat = int((image[row, 0, 0, 0, 0] * whole.image.size).round())
            z, y, x = np.unravel_index(flat, SHAPES[row])
            piece = np.s_[z : z + 4, y : y + 6, x : x + 6]
            np.testing.assert_allclose(image[row, 0], (whole.image[0] / whole.image.size)[piece])
            np.testing.assert_array_equal(label[row], whole.label[piece])
            places.add((row, flat))
            assert foreground == 0 or label[row].sum() == 1
    assert len(places) > 10


def test_a_third_of_the_labeled_patches_holds_foreground_and_unlabeled_ones_never_look() -> None:
    shape, patch = (40, 40, 40), (4, 4, 4)
    truth = np.zeros(shape, np.uint8)
    truth[20, 20, 20] = 1
    image = np.zeros((1, *shape), np.float32)
    rows = Volumes.from_arrays([image], [truth], ["a"], size=patch)
    index = torch.zeros(1200, dtype=torch.int64)
    hit = [(rows.take(index, n)[1] == 1).flatten(1).any(1).float().mean().item() for n in (1200, 0)]
    assert hit[0] == pytest.approx(1 / 3, abs=0.04)
    assert hit[1] < 0.01


def test_as_many_random_numbers_are_drawn_whatever_the_labels_hold() -> None:
    states = []
    for foreground in (0.0, 1.0):
        torch.manual_seed(0)
        in_memory(foreground=foreground).take(torch.tensor([0, 1, 2]), 2)
        states.append(torch.rand(1))
    assert torch.equal(*states)


def test_a_volume_smaller_than_the_patch_lies_in_its_middle() -> None:
    image, label = in_memory((8, 20, 9)).take(torch.tensor([2]))
    whole = case(2)
    np.testing.assert_allclose(image[0, 0, 2:5, :, 1:7], whole.image[0] / whole.image.size)
    np.testing.assert_array_equal(label[0, 2:5, :, 1:7], whole.label)
    assert image.sum() == pytest.approx(whole.image.sum() / whole.image.size, rel=1e-5)
    assert (label != IGNORE).sum() == whole.image[0].size


def test_intensities_lie_between_percentiles_or_in_the_window() -> None:
    values = np.arange(1001, dtype=np.float32).reshape(1, 7, 11, 13)
    values[0, -1, -1, -1] = 1e6  # one bright voxel takes nothing from the others
    found = volume_of(Case("a", "", values, None, None, None, Path("a")))
    assert found.flat[5] == 0
    assert found.flat[500] == pytest.approx(0.5)
    assert found.flat[995] == found.flat[1000] == 1
    windowed = volume_of(Case("a", "", values, None, None, None, Path("a"), window=(-100, 400)))
    assert windowed.flat[[0, 150, 900]].tolist() == pytest.approx([0.2, 0.5, 1.0])
    with pytest.raises(InputError, match=r"a.nrrd: a channel is constant except for a few voxels"):
        volume_of(Case("a", "", np.eye(1000, dtype=np.float32)[None, None, :1], None, None, None, Path("a.nrrd")))


def test_the_cache_holds_every_volume_on_its_own_grid(cohort: Cohort, tmp_path: Path) -> None:
    rows = prepare(cohort, ["c", "a"], size=(3, 4, 5), cache=tmp_path / "cache")
    assert isinstance(rows.images, np.memmap)
    assert (rows.names, rows.shapes, rows.channels) == (["c", "a"], [SHAPES[2], SHAPES[0]], 2)
    assert rows.index_of(["a"]).tolist() == [1]
    image, label = prepare(cohort, ["c", "a"], size=SHAPES[0], cache=tmp_path / "cache").take(torch.tensor([1]))
    np.testing.assert_array_equal(image[0], volume_of(case(0, channels=2)))
    np.testing.assert_array_equal(label[0], case(0).label)
    assert len(list((tmp_path / "cache").iterdir())) == 1  # one cache for all patches
    assert len(rows) == 2


def test_patch_and_share_are_part_of_what_a_checkpoint_compares(cohort: Cohort, tmp_path: Path) -> None:
    def sha256(**more: object) -> str:
        return prepare(cohort, ["a"], **{"size": (2, 2, 2), "cache": tmp_path / "cache", **more}).sha256

    assert sha256() == sha256()
    assert len({sha256(), sha256(size=(2, 2, 4)), sha256(foreground=0.5)}) == 3


def test_a_damaged_cache_is_said_and_built_again_and_two_writers_do_no_harm(cohort: Cohort, tmp_path: Path) -> None:
    def prepared() -> Volumes:
        return prepare(cohort, PATIENTS, size=(2, 2, 2), cache=tmp_path / "cache")

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: prepared(), range(3)))
    assert len({f.sha256 for f in found}) == 1
    (folder,) = (tmp_path / "cache").iterdir()
    del found
    with (folder / "images.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.warns(UserWarning, match="this cache is damaged"):
        again = prepared()
    np.testing.assert_array_equal(again.images.max(), 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": (0, 2, 2)}, r"size: must be the height and width of slices or the sides .* not \(0, 2, 2\)"),
        ({"size": (2,)}, "two or three numbers of at least 1"),
        ({"size": (2, 2, 2), "foreground": 1.5}, r"share of patches must lie in \[0, 1\], not 1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(cohort: Cohort, wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(cohort, ["a"], **wrong)


@pytest.mark.real
def test_real_atria_are_taken_as_patches_of_the_papers_size(real_data: Path, tmp_path: Path) -> None:
    from anatolab.data import dims_for, open_cohort

    cohort = open_cohort(real_data / "LA")
    rows = prepare(cohort, cohort.patients[:2], size=(80, 112, 112), foreground=1.0, cache=tmp_path)
    assert dims_for(cohort.refs[0].load().spacing) == 3
    assert all(min(shape[1:]) >= 112 > shape[0] >= 80 for shape in rows.shapes)
    image, label = rows.take(torch.tensor([0, 1]), 2)
    assert image.shape == (2, 1, 80, 112, 112)
    assert 0 <= image.min() < 0.2 < image.mean() < 0.6 < image.max() <= 1
    assert (label == 1).flatten(1).any(1).all()
