"""Banks: fixed-size buffers of past embeddings that live in the checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Bank(nn.Module):
    """Keeps the last ``size`` rows pushed into it, oldest overwritten first; no gradient ever enters.

    The shape of a row is that of the first one pushed, so that a bank can be made before it is known. Pointer and fill
    live on the host, since how many rows come is known there; nothing waits for the device. Under DDP every process
    pushes the rows of all processes, and all banks stay equal.

    Args:
        size: Rows kept.
        dtype: Of the rows kept, such as float16 for a large bank; as pushed where None.

    Example:
        >>> bank = Bank(3)
        >>> for value in range(4):
        ...     bank.push(torch.full((1, 2), float(value)))
        >>> bank.rows[:, 0].tolist(), bank.fill
        ([3.0, 1.0, 2.0], 3)
    """

    buffer: Tensor

    def __init__(self, size: int, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.size, self.dtype = size, dtype
        self.fill = 0  # rows that hold something
        self.at = 0  # the next row to be overwritten
        self.register_buffer("buffer", torch.empty(0))

    @property
    def rows(self) -> Tensor:
        """The rows held, ``(fill, *row)``."""
        return self.buffer[: self.fill]

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Stores ``(n, *row)``; of more than ``size`` rows, the last ones."""
        rows = gathered(rows.detach())[-self.size :]
        if not self.fill:
            self.buffer = rows.new_zeros(self.size, *rows.shape[1:], dtype=self.dtype or rows.dtype)
        first = min(len(rows), self.size - self.at)
        self.buffer[self.at : self.at + first] = rows[:first].to(self.buffer.dtype)
        self.buffer[: len(rows) - first] = rows[first:].to(self.buffer.dtype)
        self.at = (self.at + len(rows)) % self.size
        self.fill = min(self.fill + len(rows), self.size)

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.fill, self.at])

    def set_extra_state(self, state: Tensor) -> None:
        self.fill, self.at = state.tolist()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}buffer")
        if saved is not None and saved.shape != self.buffer.shape:  # saved after its first push
            self.buffer = self.buffer.new_zeros(saved.shape, dtype=saved.dtype)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def gathered(rows: Tensor) -> Tensor:
    """The rows ``(n, ...)`` of all processes by rank, without gradient; ``rows`` itself where there is one process."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)
