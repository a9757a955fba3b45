"""Checks that a checkpoint is continued under the settings it was started with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from anatolab.data import Rows, Volumes
from anatolab.training.folder import RunInfo, compared, pseudonym
from anatolab.types import InputError, Split

FREE = ("log_every", "checkpoint_every", "accelerator", "validate_every", "logger")  # do not affect the weights


def shaping(settings: Any) -> dict[str, Any]:
    """Returns the settings that affect the weights."""
    return {k: v for k, v in asdict(settings).items() if k not in FREE}


def free(settings: Any) -> dict[str, Any]:
    """Returns the settings that do not affect the weights."""
    return {k: v for k, v in asdict(settings).items() if k in FREE}


def fingerprint(
    method: nn.Module, settings: Any, rows: Rows | Volumes, split: Split, world: int, info: RunInfo | None
) -> dict[str, str]:
    """Returns everything that affects the weights, each as JSON; patients as pseudonyms.

    Args:
        method: Its class and its ``config`` are used.
        settings: The settings of the loop.
        rows: Their checksum is used.
        split: Labeled and unlabeled patients.
        world: Number of processes that share a batch.
        info: The description of the run, if any; its fields that are not marked as state are used.
    """
    config = getattr(method, "config", None)
    parts = {
        **(compared(info) if info is not None else {}),
        "method": type(method).__name__,
        "config": asdict(config) if config is not None else {},
        "settings": shaping(settings),
        "rows": rows.sha256,
        "split": [[pseudonym(p) for p in part] for part in (split.labeled_patients, split.unlabeled_patients)],
        "processes": world,
    }
    if info is None:
        parts["parameters"] = [[name, list(parameter.shape)] for name, parameter in method.named_parameters()]
    else:
        parts["held_out"] = [
            [pseudonym(p) for p in part] for part in (info.split.validation, info.split.test, info.split.development)
        ]
    return {k: json.dumps(v, sort_keys=True, default=str) for k, v in parts.items()}


def check(path: Path, saved: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """Refuses to continue a run under another description.

    Args:
        path: The checkpoint, for the message.
        saved: Its fingerprint.
        ours: That of the training that would continue.

    Raises:
        InputError: Names what differs, with both values where they are short.
    """
    changed = [text for key in sorted(saved.keys() | ours.keys()) for text in _changes(key, saved, ours)]
    if changed:
        raise InputError(
            f"{path}: this run was started with another {', '.join(changed)}; "
            "give another output folder, or delete this one to start again."
        )


def _changes(key: str, saved: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    """Lists the differences under a key (the key, or its fields) with the values before and now."""
    if saved.get(key) == ours.get(key):
        return []
    before, now = (json.loads(values.get(key, "null")) for values in (saved, ours))
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = {f"{key}.{k}": (before.get(k), now.get(k)) for k in before.keys() | now.keys()}
        parts = {k: pair for k, pair in sorted(pairs.items()) if pair[0] != pair[1]}
        if len(parts) <= 3:
            return [f"{k}{_values(*pair)}" for k, pair in parts.items()]
        return [key]
    return [f"{key}{_values(before, now)}"]


def _values(before: Any, now: Any) -> str:
    texts = [json.dumps(value, ensure_ascii=False) for value in (before, now)]
    return f" ({texts[0]}, now {texts[1]})" if max(map(len, texts)) <= 60 else ""
