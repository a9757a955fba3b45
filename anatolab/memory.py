"""Banks: fixed-size buffers of past embeddings that are saved in the checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Bank(nn.Module):
    """Keeps the last ``size`` rows pushed into it, oldest overwritten first; no gradient ever enters.

    The first row pushed decides the shape of a row. Pointer and fill live on the host, where the number of rows is
    known, so nothing waits for the device. Under DDP every process pushes the rows of all processes, so all banks stay
    equal.

    Args:
        size: Rows kept.
        dtype: Number type of the rows kept, such as float16 for a large bank; as pushed where None.

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
        self.pointer = 0  # the next row to be overwritten
        self.register_buffer("buffer", torch.empty(0))

    @property
    def rows(self) -> Tensor:
        """The rows held, ``(fill, *row)``."""
        return self.buffer[: self.fill]

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Stores rows ``(n, *row)``; if there are more than ``size``, the last ones."""
        rows = gathered(rows.detach())[-self.size :]
        if not self.fill:
            self.buffer = rows.new_zeros(self.size, *rows.shape[1:], dtype=self.dtype or rows.dtype)
        first = min(len(rows), self.size - self.pointer)
        self.buffer[self.pointer : self.pointer + first] = rows[:first].to(self.buffer.dtype)
        self.buffer[: len(rows) - first] = rows[first:].to(self.buffer.dtype)
        self.pointer = (self.pointer + len(rows)) % self.size
        self.fill = min(self.fill + len(rows), self.size)

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.fill, self.pointer])

    def set_extra_state(self, state: Tensor) -> None:
        self.fill, self.pointer = state.tolist()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}buffer")
        if saved is not None and saved.shape != self.buffer.shape:  # saved after its first push
            self.buffer = self.buffer.new_zeros(saved.shape, dtype=saved.dtype)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class ClassBank(nn.Module):
    """Keeps the last ``size`` rows of each class, oldest overwritten first; no gradient ever enters.

    The number of rows per class is known on the device alone, so pointers and fills live there and nothing waits. Under
    DDP every process pushes the rows of all processes, by rank, so all banks stay equal.

    Args:
        classes: Number of classes.
        size: Rows kept of each.
        dim: Length of a row.
        dtype: Number type of the rows kept, such as float16 for large banks.

    Example:
        >>> bank = ClassBank(2, 3, 1)
        >>> bank.push(torch.tensor([[[1.0], [2.0]], [[7.0], [8.0]]]), torch.tensor([2, 1]))
        >>> bank.rows[..., 0].tolist(), bank.fill.tolist()
        ([[1.0, 2.0, 0.0], [7.0, 0.0, 0.0]], [2, 1])
    """

    rows: Tensor
    fill: Tensor
    pointer: Tensor

    def __init__(self, classes: int, size: int, dim: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(classes, size, dim, dtype=dtype))  # (classes, size, d)
        self.register_buffer("fill", torch.zeros(classes, dtype=torch.long))  # rows of a class that hold something
        self.register_buffer("pointer", torch.zeros(classes, dtype=torch.long))  # the next to be overwritten

    @torch.no_grad()
    def push(self, rows: Tensor, count: Tensor) -> None:
        """Stores the first ``count`` (classes,) rows per class of ``rows`` (classes, k, d); k is at most the size."""
        size = self.rows.shape[1]
        if rows.shape[1] > size:
            raise ValueError(f"cannot push {rows.shape[1]} rows per class into a bank of {size} at once; push fewer.")
        processes = [gathered(rows.detach()[None]), gathered(count[None])]
        for new, n in zip(*processes, strict=True):
            slot = torch.arange(new.shape[1], device=new.device)
            place = (self.pointer[:, None] + slot) % size
            index = place[..., None].expand(-1, -1, self.rows.shape[2])
            kept = torch.where(slot[:, None] < n[:, None, None], new.to(self.rows.dtype), self.rows.gather(1, index))
            self.rows.scatter_(1, index, kept)
            self.pointer.copy_((self.pointer + n) % size)
            self.fill.copy_((self.fill + n).clamp_max(size))


def gathered(rows: Tensor) -> Tensor:
    """Gathers the rows ``(n, ...)`` of all processes by rank, without gradient; one process returns ``rows`` itself."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)
