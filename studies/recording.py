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


def processor() -> str:
    """Returns the name of the processor, as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def rounded(value: Any) -> Any:
    """Rounds every float to five decimals."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, 5) if isinstance(value, float) else value
