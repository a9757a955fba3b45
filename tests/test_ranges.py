"""Every number among the settings has a range, and what lies outside is one sentence with name, value and range."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from anatolab.methods import METHODS, Supervised
from anatolab.ranges import RANGES, check_ranges, range_of
from anatolab.training import NonFiniteError, Settings
from anatolab.types import InputError

KINDS = {**{name: method.Config for name, method in METHODS.items()}, "settings": Settings}


def leaves(kind: type) -> Iterator[tuple[str, Any]]:
    """Name and hint of every field, those of the dataclasses in it included."""
    hints = typing.get_type_hints(kind)
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            yield from leaves(hints[field.name])
        else:
            yield field.name, hints[field.name]


def numeric(hint: Any) -> bool:
    return hint in (int, float) or any(numeric(part) for part in typing.get_args(hint))


@pytest.mark.parametrize("name", KINDS)
def test_every_number_has_a_range_that_holds_its_default(name: str) -> None:
    assert [field for field, hint in leaves(KINDS[name]) if numeric(hint) and range_of(field) is None] == []
    check_ranges(KINDS[name]())


def test_no_range_is_left_over() -> None:
    known = {field for kind in KINDS.values() for field, _ in leaves(kind)}
    assert sorted(RANGES.keys() - known) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Supervised.Config(updates=0), "updates must be a whole number from 1 to 1e+09, not 0."),
        (Supervised.Config(updates=-3), "updates must be a whole number from 1 to 1e+09, not -3."),
        (Supervised.Config(updates=2.5), "updates must be a whole number from 1 to 1e+09, not 2.5."),  # type: ignore[arg-type]
        (Supervised.Config(labeled=True), "labeled must be a whole number from 1 to 65536, not True."),
        (Supervised.Config(labeled=10**7), "labeled must be a whole number from 1 to 65536, not 10000000."),
        (Settings(clip=0.0), "clip must be a number above 0 to 1e+06, not 0.0."),
        (Settings(lr=-1), "lr must be a number above 0 to 1e+06, not -1."),
        (Settings(log_every=0), "log_every must be a whole number from 1 to 1e+09, not 0."),
        (Settings(seed=-1), "seed must be a whole number from 0 to 4.29497e+09, not -1."),
        (Settings(momentum=1.5), "momentum must be a number from 0 to 1, not 1.5."),
        (Settings(devices=0), "devices must be a whole number from 1 to 4096, not 0."),
        (Settings(accelerator="gpu"), "accelerator must be 'auto', 'cpu', 'cuda' or 'mps', not 'gpu'."),  # type: ignore[arg-type]
        (Settings(compile="yes"), "compile must be a bool, not 'yes'."),  # type: ignore[arg-type]
    ],
)
def test_what_lies_outside_is_named_with_its_range(settings: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        check_ranges(settings)
    assert str(error.value) == message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_setting_that_is_not_finite_is_both_errors(value: float) -> None:
    for kind in (InputError, NonFiniteError):
        with pytest.raises(kind, match=r"lr must be a number above 0 to 1e\+06, not (nan|inf)\."):
            check_ranges(Settings(lr=value))


def test_settings_of_a_part_are_named_with_it_and_flags_as_flags() -> None:
    config = Supervised.Config()
    config = replace(config, augmentation=replace(config.augmentation, blur=(0.4, -1.0)))
    with pytest.raises(InputError, match=r"^augmentation\.blur must be a number from 0 to 100, not -1\.0\.$"):
        check_ranges(config)
    config = replace(config, augmentation=replace(config.augmentation, strong_probability=2.0))
    with pytest.raises(InputError, match=r"^--strong-probability must be a number from 0 to 1, not 2\.0\.$"):
        check_ranges(replace(config, augmentation=replace(config.augmentation, blur=(0.4, 1.2))), flags=True)
