"""Ranges of all numeric settings, checked before anything is read or trained."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Any

from anatolab.errors import InputError, NonFiniteError


@dataclass(frozen=True)
class Range:
    """An interval from ``low`` to ``high``; ``high`` is included, ``low`` unless ``above``."""

    low: float
    high: float
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        return f"{'above' if self.above else 'from'} {self.low:g} to {self.high:g}"


class NonFiniteSettingError(NonFiniteError, InputError):
    """A setting is NaN or infinite."""


COUNT = Range(1, 1e9)  # numbers of things of which there must be at least one
ROWS = Range(1, 65_536)  # numbers of images per step
MANY = Range(0, 1e9)
SHARE = Range(0, 1)
PART = Range(0, 1, above=True)
WEIGHT = Range(0, 1e6)
POSITIVE = Range(0, 1e6, above=True)

RANGES: dict[str, Range] = {
    **dict.fromkeys(("updates", "log_every", "checkpoint_every", "bank", "queue", "images", "assign_every"), COUNT),
    **dict.fromkeys(("labeled",), ROWS),
    **dict.fromkeys(("unlabeled", "batch"), Range(0, ROWS.high)),
    **dict.fromkeys(("devices", "nodes"), Range(1, 4_096)),
    **dict.fromkeys(("passes", "neighbors", "head_layers", "oversample"), Range(1, 1_000)),
    **dict.fromkeys(("points", "render_points", "num_anchors", "num_negatives"), COUNT),
    **dict.fromkeys(("embedding", "representation", "head_width", "frequencies"), Range(1, 1e5)),
    **dict.fromkeys(("experts", "fused", "hidden"), Range(1, 1e4)),
    **dict.fromkeys(("grid", "cells", "neighbor_cells", "gate_stride", "representation_stride"), Range(1, 1_024)),
    **dict.fromkeys(("seed", "centers_seed"), Range(0, 2**32 - 1)),
    **dict.fromkeys(("most_dropped", "router", "ramp_updates", "validate_every"), MANY),
    **dict.fromkeys(("lr", "clip"), POSITIVE),
    **dict.fromkeys(("weight_decay", "momentum", "floor", "warm_up", "power"), Range(0, 10)),
    **dict.fromkeys(("momentum", "floor", "warm_up"), SHARE),
    **dict.fromkeys(("ema_decay", "mean_rate", "ramp", "pretrain", "drop", "hard_share"), SHARE),
    **dict.fromkeys(
        ("shares", "threshold", "weak_threshold", "hard_threshold", "confidence_threshold", "equivariance_threshold"),
        SHARE,
    ),
    **dict.fromkeys(("strong_probability", "channel_dropout", "pretraining_share"), SHARE),
    **dict.fromkeys(("patch", "box"), PART),
    **dict.fromkeys(("temperature", "aaco_temperature", "student_temperature", "teacher_temperature"), POSITIVE),
    **dict.fromkeys(("sigma", "spacing"), POSITIVE),
    **dict.fromkeys(("periods",), Range(0, 1e4)),
    **dict.fromkeys(("rotate",), Range(0, 180)),
    **dict.fromkeys(("scale", "translate", "contrast", "brightness", "gamma"), SHARE),
    **dict.fromkeys(("noise", "blur"), Range(0, 100)),
}


def range_of(name: str) -> Range | None:
    """Returns the range of a numeric field; names that end in ``_weight`` or ``_weights`` share one."""
    return RANGES.get(name, WEIGHT if name.endswith(("_weight", "_weights")) else None)


def check_ranges(settings: Any, *, flags: bool = False, within: str = "", types_only: bool = False) -> None:
    """Refuses settings of a wrong type, out of their range, or not among their choices.

    Args:
        settings: A dataclass, such as ``Settings`` or a method's ``Config``, with its nested dataclasses; other objects
            pass.
        flags: Whether messages name settings as command-line flags.
        within: Name of the field that holds ``settings``.
        types_only: Check only the types, of fields with no range or one of their own.

    Raises:
        InputError: Names the setting, its value and its range.

    Example:
        >>> from anatolab.methods import Supervised
        >>> check_ranges(Supervised.Config(updates=0))
        Traceback (most recent call last):
        anatolab.errors.InputError: updates must be a whole number from 1 to 1e+09, not 0.
    """
    if not is_dataclass(settings) or isinstance(settings, type):
        return
    hints = typing.get_type_hints(type(settings))
    for field in fields(settings):
        value, name = getattr(settings, field.name), f"{within}{field.name}"
        if is_dataclass(value):
            check_ranges(value, flags=flags, within=f"{name}.", types_only=types_only)
            continue
        label = f"--{field.name.replace('_', '-')}" if flags else name
        _check(label, value, hints[field.name], None if types_only else range_of(field.name))


def _check(label: str, value: Any, hint: Any, allowed: Range | None) -> None:
    if typing.get_origin(hint) in (typing.Union, UnionType):
        if value is None:
            return
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if typing.get_origin(hint) is typing.Literal:
        choices = [repr(choice) for choice in typing.get_args(hint)]
        if value not in typing.get_args(hint):
            raise InputError(f"{label} must be {' or '.join([', '.join(choices[:-1]), choices[-1]])}, not {value!r}.")
    elif typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        repeated = len(kinds) == 2 and kinds[1] is Ellipsis
        if not isinstance(value, tuple | list) or not (repeated or len(value) == len(kinds)):
            raise InputError(f"{label} must be {'' if repeated else f'{len(kinds)} '}numbers, not {value!r}.")
        for entry, kind in zip(value, [kinds[0]] * len(value) if repeated else kinds, strict=True):
            _check(label, entry, kind, allowed)
    elif hint in (int, float):
        kind = "a whole number" if hint is int else "a number"
        wrong = isinstance(value, bool) or not isinstance(value, int if hint is int else int | float)
        due = f"{label} must be {kind}{f' {allowed}' if allowed else ''}, not {value!r}."
        if not wrong and not math.isfinite(value):
            raise NonFiniteSettingError(due)
        if wrong or (allowed is not None and value not in allowed):
            raise InputError(due)
    elif (kind := typing.get_origin(hint) or hint) in (bool, str, dict) and not isinstance(value, kind):
        raise InputError(f"{label} must be a {kind.__name__}, not {value!r}.")
