"""Samples the rows of training steps from two endless streams, of labeled and of unlabeled rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from anatolab.types import InputError


class TwoStreamSampler:
    """Samples batches of labeled rows followed by unlabeled rows, each stream in random permutations of its rows.

    A stream yields each of its rows once before any of them again; a batch larger than the stream spans several
    permutations. Randomness comes from a private generator, so it is independent of all other random numbers. The
    position is part of the state: a restored sampler continues with bitwise the same batches.

    Args:
        labeled_rows: Rows with an annotation, such as ``rows.index_of(split.labeled_patients)``.
        unlabeled_rows: Rows without one; may be empty where ``num_unlabeled`` is 0.
        num_labeled: Labeled rows per batch.
        num_unlabeled: Unlabeled rows per batch.
        seed: Seed of the private generator.

    Raises:
        InputError: Rows are asked for from an empty list, a count is negative, or both counts are 0.

    Example:
        >>> sampler = TwoStreamSampler([0, 1, 2], [3, 4, 5, 6], 1, 2, seed=0)
        >>> batches = torch.stack([sampler.sample() for _ in range(3)])
        >>> sorted(batches[:, 0].tolist()), batches.shape
        ([0, 1, 2], torch.Size([3, 3]))
    """

    def __init__(
        self,
        labeled_rows: Tensor | Sequence[int],
        unlabeled_rows: Tensor | Sequence[int],
        num_labeled: int,
        num_unlabeled: int,
        *,
        seed: int,
    ) -> None:
        self.num_labeled, self.num_unlabeled = num_labeled, num_unlabeled
        if min(num_labeled, num_unlabeled) < 0 or num_labeled + num_unlabeled == 0:
            raise InputError(
                f"batch: {num_labeled} labeled and {num_unlabeled} unlabeled rows make no batch; ask for at least one."
            )
        self._generator = torch.Generator().manual_seed(seed)
        self._labeled = _Stream("labeled", labeled_rows, num_labeled, self._generator)
        self._unlabeled = _Stream("unlabeled", unlabeled_rows, num_unlabeled, self._generator)

    def sample(self) -> Tensor:
        """Returns the next batch.

        Returns:
            Row numbers ``(num_labeled + num_unlabeled,)`` int64, labeled ones first.
        """
        return torch.cat([self._labeled.next(), self._unlabeled.next()])

    def state_dict(self) -> dict[str, Any]:
        """Returns the position in both streams: tensors and ints only."""
        return {
            "generator": self._generator.get_state(),
            "labeled": {"order": self._labeled.order.clone(), "at": self._labeled.position},
            "unlabeled": {"order": self._unlabeled.order.clone(), "at": self._unlabeled.position},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where the saved sampler stood.

        Args:
            state: What ``state_dict`` gave, of a sampler over the same rows.

        Raises:
            InputError: The state belongs to other rows.
        """
        for stream in (self._labeled, self._unlabeled):
            order = state[stream.name]["order"]
            if len(order) and not torch.equal(order.sort().values, stream.rows.sort().values):
                raise InputError(
                    f"checkpoint: its sampler position belongs to {len(order)} other {stream.name} rows, not to these "
                    f"{len(stream.rows)}; resume with the data and split of that run, or start a new one."
                )
        for stream in (self._labeled, self._unlabeled):
            stream.order, stream.position = state[stream.name]["order"].clone(), int(state[stream.name]["at"])
        self._generator.set_state(state["generator"])


class _Stream:
    """Endless permutations of some rows, cut into pieces of ``count``."""

    def __init__(self, name: str, rows: Tensor | Sequence[int], count: int, generator: torch.Generator) -> None:
        self.name, self.count, self.generator = name, count, generator
        self.rows = torch.as_tensor(rows, dtype=torch.int64).flatten().clone()
        if count and not len(self.rows):
            raise InputError(
                f"batch: {count} {name} rows per batch are asked for, and there are no {name} rows; "
                f"set their number to 0, or choose a split with {name} patients."
            )
        self.order = self.rows[:0]  # the permutation being shown; none yet
        self.position = 0

    def next(self) -> Tensor:
        parts, need = [self.rows[:0]], self.count
        while need:
            if self.position == len(self.order):
                self.order = self.rows[torch.randperm(len(self.rows), generator=self.generator)]
                self.position = 0
            parts.append(self.order[self.position : self.position + need])
            self.position += len(parts[-1])
            need -= len(parts[-1])
        return torch.cat(parts)


def shard(batch: Tensor, num_labeled: int, rank: int, world_size: int) -> Tensor:
    """Returns the shard of a global batch for one of several processes, labeled rows first.

    Every process samples the same global batch from the same seed and keeps its shard. All shards have equal size, so
    the mean of their gradients is the gradient of the whole batch.

    Args:
        batch: Row numbers ``(b,)``, labeled ones first.
        num_labeled: How many of them are labeled.
        rank: This process, from 0.
        world_size: How many processes there are.

    Returns:
        Row numbers ``(b / world_size,)``, of which the first ``num_labeled / world_size`` are labeled.

    Raises:
        InputError: The processes do not divide both numbers of rows.

    Example:
        >>> batch = torch.tensor([0, 1, 10, 11, 12, 13])
        >>> [shard(batch, 2, rank, 2).tolist() for rank in range(2)]
        [[0, 10, 12], [1, 11, 13]]
    """
    if num_labeled % world_size or (len(batch) - num_labeled) % world_size:
        raise InputError(
            f"batch: {num_labeled} labeled and {len(batch) - num_labeled} unlabeled rows do not divide over "
            f"{world_size} processes; choose multiples of {world_size}."
        )
    return torch.cat([batch[:num_labeled][rank::world_size], batch[num_labeled:][rank::world_size]])
