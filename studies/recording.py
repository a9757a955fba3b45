"""Helpers of studies and benchmarks: a clock that gives the provenance, the processor, and rounding."""

from __future__ import annotations

import platform
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from anatolab import records


class Clock:
    """Measures time from its creation."""

    def __init__(self) -> None:
        self.started, self.begin = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        self.before = records.git_state()

    def provenance(self) -> dict[str, Any]:
        """Returns the provenance of what this process has measured since the clock started."""
        seconds, threads = time.monotonic() - self.begin, torch.get_num_threads()
        return records.provenance(
            started=self.started, wall_s=seconds, device="cpu", threads=threads, before=self.before
        )


def processor(info: Path = Path("/proc/cpuinfo")) -> str:
    """Returns the name of the processor as the system gives it, with family and model, which clouds leave out of it."""
    lines = info.read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines() if info.exists() else []
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = known.get("model name") or platform.processor() or platform.machine()
    return f"{name}, family {known['cpu family']} model {known['model']}" if "cpu family" in known else name


def rounded(value: Any) -> Any:
    """Rounds every float to five decimals."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, 5) if isinstance(value, float) else value
