"""The two-stream sampler: without replacement, private, and continued bitwise."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anatolab.data import TwoStreamSampler, shard
from anatolab.types import InputError


def draws(sampler: TwoStreamSampler, count: int) -> torch.Tensor:
    return torch.stack([sampler.sample() for _ in range(count)])


def test_labeled_rows_come_first() -> None:
    batches = draws(TwoStreamSampler(range(10), range(100, 200), 3, 5, seed=0), 50)
    assert batches.shape == (50, 8)
    assert batches.dtype == torch.int64
    assert (batches[:, :3] < 10).all()
    assert (batches[:, 3:] >= 100).all()


@given(rows=st.integers(1, 20), count=st.integers(1, 30), batches=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_every_row_once_before_any_twice(rows: int, count: int, batches: int, seed: int) -> None:
    shown = draws(TwoStreamSampler(range(rows), [], count, 0, seed=seed), batches).flatten()
    for start in range(0, len(shown), rows):
        part = shown[start : start + rows].tolist()
        assert len(set(part)) == len(part)
    whole = len(shown) // rows * rows
    assert torch.bincount(shown[:whole], minlength=rows).tolist() == [whole // rows] * rows


def test_permutations_are_fresh_and_all_are_reached() -> None:
    shown = draws(TwoStreamSampler([0, 1, 2], [], 3, 0, seed=0), 600)
    orders, counts = torch.unique(shown, dim=0, return_counts=True)
    assert len(orders) == 6
    assert counts.min() > 60  # 100 expected of each


def test_the_seed_decides_and_nothing_else_does() -> None:
    one = draws(TwoStreamSampler(range(9), range(9, 50), 2, 3, seed=5), 20)
    torch.manual_seed(99)
    torch.rand(7)
    state = torch.get_rng_state()
    two = draws(TwoStreamSampler(torch.arange(9), torch.arange(9, 50), 2, 3, seed=5), 20)
    assert torch.equal(one, two)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(one, draws(TwoStreamSampler(range(9), range(9, 50), 2, 3, seed=6), 20))


@given(
    k=st.integers(0, 40),
    labeled=st.integers(1, 7),
    unlabeled=st.integers(1, 23),
    batch=st.tuples(st.integers(0, 9), st.integers(1, 9)),
)
def test_saved_and_continued_is_bitwise_uninterrupted(
    k: int, labeled: int, unlabeled: int, batch: tuple[int, int]
) -> None:
    def new(seed: int) -> TwoStreamSampler:
        return TwoStreamSampler(range(labeled), range(100, 100 + unlabeled), *batch, seed=seed)

    whole = draws(new(3), k + 25)
    first = new(3)
    before = [first.sample() for _ in range(k)]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    first.sample()  # what happens after the save must not reach it
    file.seek(0)
    second = new(4)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(whole, torch.stack([*before, *draws(second, 25)]))


def test_a_state_is_a_copy() -> None:
    sampler = TwoStreamSampler(range(5), range(5, 9), 2, 2, seed=0)
    sampler.sample()
    state = sampler.state_dict()
    due = draws(sampler, 9)
    for _ in range(2):
        sampler.load_state_dict(state)
        assert torch.equal(due, draws(sampler, 9))


def test_only_labeled_or_only_unlabeled_rows() -> None:
    assert TwoStreamSampler([4, 5], [], 2, 0, seed=0).sample().sort().values.tolist() == [4, 5]
    assert TwoStreamSampler([], [7], 0, 3, seed=0).sample().tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1], [], 1, 1), "1 unlabeled rows per batch are asked for, and there are no unlabeled rows"),
        (([], [1], 1, 1), "there are no labeled rows"),
        (([1], [1], 0, 0), "make no batch"),
        (([1], [1], -1, 2), "make no batch"),
    ],
)
def test_batches_that_cannot_be_are_refused(arguments: tuple[list[int], list[int], int, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TwoStreamSampler(*arguments, seed=0)


def test_a_position_in_other_rows_is_refused_and_changes_nothing() -> None:
    other = TwoStreamSampler(range(5), range(5, 9), 2, 2, seed=0)
    other.sample()
    sampler = TwoStreamSampler(range(5), range(5, 10), 2, 2, seed=0)
    due = draws(TwoStreamSampler(range(5), range(5, 10), 2, 2, seed=0), 5)
    with pytest.raises(InputError, match="4 other unlabeled rows"):
        sampler.load_state_dict(other.state_dict())
    assert torch.equal(due, draws(sampler, 5))


@given(world=st.integers(1, 5), labeled=st.integers(0, 3), unlabeled=st.integers(0, 3))
def test_shards_are_equal_parts_of_the_batch(world: int, labeled: int, unlabeled: int) -> None:
    first = torch.arange(labeled * world)
    batch = torch.cat([first, 100 + torch.arange(unlabeled * world)])
    parts = [shard(batch, len(first), rank, world) for rank in range(world)]
    assert all(len(part) == labeled + unlabeled for part in parts)
    assert all((part[:labeled] < 100).all() and (part[labeled:] >= 100).all() for part in parts)
    assert torch.equal(torch.cat(parts).sort().values, batch)


def test_batches_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InputError, match="3 labeled and 4 unlabeled rows do not divide over 2 processes"):
        shard(torch.arange(7), 3, 0, 2)
