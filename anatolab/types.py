"""The data types that all parts of anatolab share; no networks, no files."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from anatolab.errors import InputError

IGNORE = -1  # label of a pixel that losses leave out
UNKNOWN = 255  # the same in labels that are stored as uint8


SUMMARY_NAMES = frozenset({"background", "mean", "total", "unknown", "ignore", "patients"})  # rows of tables


def check_classes(classes: Sequence[str], source: object = "classes") -> None:
    """Refuses class names that a table could not distinguish.

    Args:
        classes: Background first.
        source: The file or setting that names them, for the message.

    Raises:
        InputError: A name is empty, holds control characters, equals another up to case and blanks, or is one that
            summaries use.

    Example:
        >>> check_classes(("background", "left kidney", "right kidney"))
    """
    first: dict[str, str] = {}
    for number, name in enumerate(classes):
        key = " ".join(name.split()).casefold()
        if not key:
            raise InputError(f"{source}: class {number} has an empty name; give it one.")
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in key):
            raise InputError(f"{source}: the name of class {number} holds control characters ({name!a}); rename it.")
        if (other := first.setdefault(key, f"class {number}")) != f"class {number}":
            raise InputError(
                f"{source}: {other} and class {number} are both named {name!r}; give each class a name of its own."
            )
        if number and key in SUMMARY_NAMES:
            raise InputError(
                f"{source}: class {number} is named {name!r}, a name that summaries use themselves; rename it."
            )


@dataclass(frozen=True)
class Case:
    """One volume of one patient at one phase, as stored, in array order.

    Axis 0 of ``label`` (axis 1 of ``image``) is the slice axis, also where the file stores it last.
    """

    patient: str  # "patient001"
    phase: str  # "ED", "ES", or "" where a data set has one volume per patient
    image: np.ndarray  # (c, z, y, x) float32, the file's own intensities
    label: np.ndarray | None  # (z, y, x) uint8 class numbers, 255 = unknown; None where there is no annotation
    spacing: tuple[float, float, float] | None  # (z, y, x) mm; None where the files carry none
    affine: np.ndarray | None  # (4, 4) voxel (x, y, z) to world mm of the source file
    source: Path  # the image file (or folder) that a message about this case names
    info: dict[str, Any] = field(default_factory=dict)  # further data of the data set: pathology, height, ...
    window: tuple[float, float] | None = None  # intensities are clipped to it, then scaled to [0, 1]; None: min to max
    notes: tuple[str, ...] = ()  # ambiguities of the files and how they were resolved, a sentence each

    @property
    def name(self) -> str:
        """The case id used in records and messages, e.g. ``patient001_ED``."""
        return f"{self.patient}_{self.phase}" if self.phase else self.patient


@dataclass(frozen=True)
class CaseRef:
    """A case that is not read yet: its patient, its files, and the function that reads it."""

    patient: str
    phase: str
    source: Path
    load: Callable[[], Case]
    files: tuple[Path, ...] = ()  # every file that ``load`` reads; the cache is keyed by them
    labeled: bool = True  # whether an annotation lies beside the image

    @property
    def name(self) -> str:
        return f"{self.patient}_{self.phase}" if self.phase else self.patient


@dataclass(frozen=True)
class Cohort:
    """The cases of one data set in one layout, with its class names; images are read lazily."""

    name: str  # "ACDC"
    layout: str  # "official", "ssl4mis", ...
    classes: tuple[str, ...]  # index 0 is background
    refs: tuple[CaseRef, ...]
    root: Path
    published: dict[str, tuple[str, ...]] = field(default_factory=dict)  # patient lists that the data set publishes
    provenance: dict[str, Any] = field(default_factory=dict)  # license, source, or generator version and seed
    window: tuple[float, float] | None = None  # that of all its cases
    problems: tuple[str, ...] = ()  # problems of the folder, a sentence each; ``open_cohort`` refuses any
    orientation: str | None = None  # such as "RAS": that of all its cases; None where each is as its file has it

    @property
    def patients(self) -> tuple[str, ...]:
        """Each patient once, in the order of the files."""
        return tuple(dict.fromkeys(ref.patient for ref in self.refs))

    def of(self, patients: Sequence[str]) -> tuple[CaseRef, ...]:
        """Returns the cases of these patients, in the order given.

        Raises:
            InputError: A patient is not in this cohort.
        """
        by_patient: dict[str, list[CaseRef]] = {}
        for ref in self.refs:
            by_patient.setdefault(ref.patient, []).append(ref)
        missing = [p for p in patients if p not in by_patient]
        if missing:
            if part := next((part for part, listed in self.published.items() if missing[0] in listed), None):
                raise InputError(
                    f"{self.root}: patient {missing[0]!r} ({len(missing)} in all) is on the published {part} list of "
                    f"{self.name}, but its files are not here; copy them here, or leave these patients out."
                )
            raise InputError(
                f"{self.root}: patient {missing[0]!r} ({len(missing)} in all) is not in this {self.name} cohort of "
                f"{len(by_patient)} patients; check the split list, or the folder."
            )
        return tuple(ref for p in patients for ref in by_patient[p])

    def __len__(self) -> int:
        return len(self.refs)

    def __iter__(self) -> Iterator[Case]:
        return (ref.load() for ref in self.refs)


@dataclass(frozen=True)
class Split:
    """Patients for training, in the order in which they become labeled, and patients held out."""

    train: tuple[str, ...]  # the first ``labeled`` of them are labeled, so budgets are nested
    labeled: int  # budget, in patients
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    origin: str = ""  # "published list" or "seed 0"
    development: tuple[str, ...] = ()  # training patients set aside, on whom choices are made

    @property
    def labeled_patients(self) -> tuple[str, ...]:
        return self.train[: self.labeled]

    @property
    def unlabeled_patients(self) -> tuple[str, ...]:
        return self.train[self.labeled :]

    def with_development(self, patients: int | Sequence[str]) -> Split:
        """Sets training patients aside, for choices that must not use held-out patients.

        Args:
            patients: Their names, or how many: the last ones, so that label budgets stay nested.

        Raises:
            InputError: A patient is not one of the unlabeled training patients, is named twice, or there are too few.

        Example:
            >>> Split(("a", "b", "c"), labeled=1).with_development(1)
            Split(train=('a', 'b'), labeled=1, validation=(), test=(), origin='', development=('c',))
        """
        free = self.unlabeled_patients
        if isinstance(patients, int):
            if not 0 <= patients <= len(free):
                raise InputError(
                    f"development: {patients} patients cannot be taken of {len(free)} unlabeled training patients; "
                    "ask for fewer, or label fewer."
                )
            patients = free[len(free) - patients :]
        if wrong := [p for i, p in enumerate(patients) if p not in free or p in patients[:i]]:
            raise InputError(
                f"development: patient {wrong[0]!r} is named twice or is not one of the {len(free)} unlabeled training "
                "patients; name others, or label fewer patients."
            )
        train = tuple(p for p in self.train if p not in set(patients))
        return replace(self, train=train, development=(*self.development, *patients))


@dataclass(frozen=True)
class Size:
    """One of three budgets; every method of a table is trained under the same one."""

    name: str
    side: int  # slices, or the planes of patches, are side x side pixels
    updates: int  # of the student in all, pre-training included
    labeled: int  # labeled images per step
    unlabeled: int  # unlabeled images per step
    network: str  # a key of anatolab.nn.NETWORKS
    patients: int  # of a generated cohort
    depth: int = 0  # planes of a 3-D patch; 0: 2-D slices

    @property
    def image(self) -> tuple[int, ...]:
        """Sides of what a network sees, height and width of slices or (z, y, x) of patches."""
        return (self.depth, self.side, self.side) if self.depth else (self.side, self.side)


@dataclass
class Batch:
    """What one training step sees: labeled rows first, then unlabeled ones."""

    image: Tensor  # (b, c, *s) float
    label: Tensor  # (b, *s) int64; IGNORE in every unlabeled row
    num_labeled: int
    view: tuple[int, ...] | None = None  # sides of the views that are taken of the images; their own where None

    @property
    def labeled(self) -> tuple[Tensor, Tensor]:
        """Returns image ``(b_l, c, *s)`` and label ``(b_l, *s)`` of the labeled rows."""
        return self.image[: self.num_labeled], self.label[: self.num_labeled]

    @property
    def unlabeled(self) -> Tensor:
        """Returns image ``(b_u, c, *s)`` of the unlabeled rows."""
        return self.image[self.num_labeled :]


@dataclass
class Losses:
    """The named terms of one step, their weights, and diagnostics for the log.

    The loop differentiates ``total`` only; all values stay on the device.
    """

    terms: dict[str, Tensor]  # scalars, with gradient
    weights: dict[str, float] = field(default_factory=dict)  # 1 where absent
    diagnostics: dict[str, Tensor] = field(default_factory=dict)  # scalars, without gradient

    @property
    def total(self) -> Tensor:
        """The weighted sum of the terms, a scalar with gradient."""
        return torch.stack([self.weights.get(k, 1.0) * v for k, v in self.terms.items()]).sum()


@dataclass(frozen=True)
class Stage:
    """One phase of a method's training: its updates, batch, trainable parameters and step function."""

    name: str
    updates: int
    trainable: nn.Module | Sequence[nn.Parameter]
    batch: tuple[int, int]  # labeled and unlabeled rows per step
    step: Callable[[Batch, float], Losses]  # the batch, and the progress of this stage, in [0, 1)
    nesterov: bool = False  # whether SGD has Nesterov momentum in this stage, whatever the settings of the loop


class Method(Protocol):
    """A segmentation method. It is also a ``torch.nn.Module``, which Python's types cannot express together.

    ``state_dict`` holds everything: student, teacher, heads, banks and their pointers. The class carries ``Config``, a
    frozen dataclass whose defaults are the recommended settings; it has ``updates``, ``labeled``, ``unlabeled`` and
    ``augmentation``, and its ``for_size(size)`` gives the same settings at the budget of a :class:`Size`.
    """

    title: ClassVar[str]  # in tables and legends
    color: ClassVar[str]  # "#rrggbb", the same on every page

    def stages(self) -> Sequence[Stage]: ...
    def after_step(self) -> None: ...
    def predict(self, image: Tensor) -> Tensor: ...
