"""Counts, on a CPU, the operations that would make the host wait for a GPU."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "bincount", "repeat_interleave.Tensor", "equal")


class Synchronizations(TorchDispatchMode):
    """Counts in ``found`` scalar reads, operations whose output size depends on values, and indexing by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        sized = (kwargs or {}).get("output_size") is not None  # of repeat_interleave: known to the host
        if (name.split(".")[0] in WAITING or name in WAITING) and not sized:
            self.found[name] += 1
        if name.startswith(("index.", "index_put")) and any(
            isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        ):
            self.found[f"{name} by a mask"] += 1
        return func(*args, **(kwargs or {}))
