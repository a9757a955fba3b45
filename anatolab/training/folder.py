"""A run's folder: one description of what was trained on what, inside its checkpoint, and ``run.json`` for people.

The description is part of the checkpoint, so it always belongs to the weights. ``run.json`` is a copy that is checked
whenever a run is opened. It may be shared: it holds no paths, and pseudonyms instead of patient ids, from which owners
of the data can tell who was held out. (A pseudonym is a hash. It is not an anonymization, because ids can be recovered
by hashing all possible ones.) The checkpoint holds the ids and the folder of the data, which evaluation needs; treat it
like the list of patients.
"""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any

import torch
from torch import Tensor, nn

from anatolab import records
from anatolab.data import FieldOfView
from anatolab.data.files import PICTURES
from anatolab.data.geometry import reoriented, slices_note
from anatolab.files import write_atomically
from anatolab.methods import METHODS
from anatolab.nn import NETWORKS
from anatolab.training import checkpoint, exported
from anatolab.types import Case, CaseRef, Cohort, InputError, Split

FILE = "run.json"
OTHER_SPACING = 1.5  # ratio to the training's spacing from which on a prediction gets a remark
_FOREIGN = (ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError)  # of a foreign description
_STATE = {"state": True}  # changes during a run, or says where it was made; not compared


@dataclass(frozen=True)
class RunInfo:
    """The description with which a run is continued, evaluated or used for prediction.

    All fields not marked as state belong to the fingerprint: a run is continued only with the same values.
    """

    method: str  # a key of anatolab.methods.METHODS
    config: dict[str, Any]  # fields of the method's Config
    network: str  # a key of anatolab.nn.NETWORKS
    in_channels: int
    classes: tuple[str, ...]  # background first
    side: int  # slices are side x side pixels; not read where there is a patch
    split: Split
    data: str = field(default="", metadata=_STATE)  # the folder it was trained on
    patch: tuple[int, int, int] | None = None  # (z, y, x) voxels of 3-D patches; None where it was trained on slices
    window: tuple[float, float] | None = None  # intensities are clipped to it, as in Case
    orientation: str | None = None  # orientation of all cases, such as "LPS"; None: the files have none
    spacing: tuple[float, float, float] | None = None  # (z, y, x) mm of the first training case
    field_of_view: dict[str, Any] | None = None  # the part of a scan that is used; None: all of it
    largest_component: bool = False  # whether a prediction keeps only the largest component of each class
    settings: dict[str, Any] = field(default_factory=dict)  # of anatolab.training.Settings, those that affect weights
    start: dict[str, Any] | None = None  # the initial weights, see anatolab.training.start; None: random ones
    loop: dict[str, Any] = field(default_factory=dict, metadata=_STATE)  # the other settings
    command: tuple[str, ...] = field(default=(), metadata=_STATE)  # the command that started it, without folders
    rows: str = field(default="", metadata=_STATE)  # SHA-256 of the prepared data
    step: int = field(default=0, metadata=_STATE)  # updates that the weights have seen
    updates: int = field(default=0, metadata=_STATE)  # updates in all
    versions: dict[str, str] = field(default_factory=dict, metadata=_STATE)  # of packages
    commit: str = field(default="", metadata=_STATE)  # of the code that started the run; "+" where it was changed

    @property
    def size(self) -> tuple[int, ...]:
        """Sides of what the network was trained on, height and width of slices or (z, y, x) of patches."""
        return self.patch or (self.side, self.side)

    @property
    def finished(self) -> bool:
        """Whether the weights are those of the last update."""
        return self.step == self.updates

    @property
    def rules(self) -> dict[str, Any]:
        """Returns ``field_of_view``, ``largest_component`` and ``precision``, the settings of a prediction."""
        view = FieldOfView(**self.field_of_view) if self.field_of_view is not None else None
        precision = self.settings.get("precision", "32-true")
        return {"field_of_view": view, "largest_component": self.largest_component, "precision": precision}

    def case(self, case: Case) -> Case:
        """Returns a case prepared for the network: in the run's orientation, with the run's window.

        Raises:
            InputError: The number of channels differs.
        """
        if len(case.image) != self.in_channels:
            raise InputError(
                f"{case.source}: has {len(case.image)} channels, and this run was trained on {self.in_channels}; "
                "give images of the same channels."
            )
        return reoriented(replace(case, window=self.window), self.orientation)

    def remarks(self, case: Case) -> list[str]:
        """Returns limitations of a prediction for a case as stored, a sentence each."""
        name = case.source.name
        remarks = [f"{name}: {note}." for note in case.notes]
        if case.affine is None and case.source.suffix.lower() not in PICTURES:  # whose label is a picture, too
            lies = (
                f", and it is taken to lie as the training images do ({self.orientation})" if self.orientation else ""
            )
            remarks.append(f"{name} carries no geometry, so its label volume has an identity affine{lies}.")
        elif case.affine is not None and not self.patch:
            remarks += [f"{name}: {note}." for note in slices_note(case.affine, self.orientation)]
        if self.patch and self.spacing and case.spacing:
            turned = reoriented(case, self.orientation).spacing or case.spacing
            if max(max(a / b, b / a) for a, b in zip(turned, self.spacing, strict=True)) > OTHER_SPACING:
                given, due = (" x ".join(f"{edge:.3g}" for edge in edges) for edges in (turned, self.spacing))
                remarks.append(
                    f"{name} has voxels of {given} mm (z, y, x) and the training images of {due} mm; they are not "
                    "resampled, so resample the image first."
                )
        return remarks

    def adapted(self, cohort: Cohort, watch: Callable[[Case], object] = lambda case: None) -> Cohort:
        """Returns a cohort whose cases are prepared for the network, see :meth:`case`.

        Args:
            cohort: The patients as stored.
            watch: Called with each case as stored, when it is read.

        Raises:
            InputError: The class tables differ.
        """
        if cohort.classes != self.classes:
            raise InputError(
                f"{cohort.root}: its classes are {', '.join(cohort.classes)}, and this run was trained on "
                f"{', '.join(self.classes)}; give patients that are annotated with the same table."
            )
        refs = tuple(replace(ref, load=partial(_load, self, ref, watch)) for ref in cohort.refs)
        return replace(cohort, refs=refs, window=self.window, orientation=self.orientation)


def describe_code(info: RunInfo, settings: dict[str, Any], loop: dict[str, Any], rows: str, updates: int) -> RunInfo:
    """Returns the description completed at the start of training: settings, data and code."""
    git = records.git_state()
    versions = {name: records.installed_version(name) for name in records.VERSIONS_OF}
    commit = git["commit"] + "+" * (git["dirty"] and git["commit"] != "unknown")
    return replace(info, settings=settings, loop=loop, rows=rows, updates=updates, versions=versions, commit=commit)


def compared(info: RunInfo) -> dict[str, Any]:
    """Returns the fields that must agree for a run to be continued, by name."""
    kept = [f.name for f in fields(info) if not f.metadata and (f.name != "start" or info.start is not None)]
    return {k: v for k, v in asdict(info).items() if k in kept}


def pseudonym(patient: str) -> str:
    """Returns the pseudonym of a patient's id for files that may be shared.

    Example:
        >>> pseudonym("patient001")
        'p-26a1971269'
    """
    return f"p-{hashlib.sha256(patient.encode()).hexdigest()[:10]}"


def to_text(info: RunInfo) -> str:
    """Returns the whole description as JSON, for the checkpoint."""
    return json.dumps(asdict(info), sort_keys=True)


def mirror(info: RunInfo) -> dict[str, Any]:
    """Returns the content of ``run.json``: the description without paths, with pseudonyms for patients."""
    split = {
        k: [pseudonym(patient) for patient in v] if isinstance(v, tuple) else v for k, v in asdict(info.split).items()
    }
    plain = {**records.plain(info), "split": split, "finished": info.finished, "format": checkpoint.FORMAT}
    return {k: v for k, v in plain.items() if k != "data" and (k != "start" or v is not None)}


def save_run(payload: Mapping[str, Any], info: RunInfo, folder: Path) -> None:
    """Writes a checkpoint with its description, and ``run.json`` after it.

    Args:
        payload: ``"method"``, the method's ``state_dict``, and what else training needs.
        info: The description.
        folder: Created if it does not exist.
    """
    checkpoint.save({**payload, "info": to_text(info)}, folder / checkpoint.LAST)
    write_atomically(folder / FILE, json.dumps(mirror(info), indent=1, ensure_ascii=False) + "\n", overwrite=True)


def build(info: RunInfo, weights: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Returns the method of a run with fresh weights, drawn from torch's global generator.

    Args:
        info: The description.
        weights: Tensors that replace fresh ones of the same names in the network, see :mod:`anatolab.training.start`.
    """
    kind = METHODS[info.method]
    network = NETWORKS[info.network](info.in_channels, len(info.classes), spatial_dims=len(info.size))
    if weights is not None:
        network.load_state_dict(weights, strict=False)
    return kind(network, from_plain(kind.Config, info.config))


def open_run(folder: Path | str, device: torch.device | str = "cpu") -> tuple[nn.Module, RunInfo]:
    """Opens a trained run: its method with the weights of the last checkpoint, in evaluation mode.

    Args:
        folder: The ``out`` of ``train``, or a folder that ``anatolab export`` wrote.
        device: Device of the method.

    Returns:
        The method and the description of the run; ``info.finished`` says whether these are its final weights.

    Raises:
        InputError: The folder holds no run, one that this version cannot read, or one whose ``run.json`` was edited.

    Warns:
        Notice: The last checkpoint is damaged, and the one before it is used.
    """
    folder = Path(folder)
    if not checkpoint.exists(folder) and exported.exists(folder):
        return _open_export(folder / exported.WEIGHTS, device)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; check the path.")
    if not checkpoint.exists(folder):
        raise InputError(
            f"{folder}: holds no {checkpoint.LAST}, so it is not a run; name the --out of a training, or an export."
        )
    payload = checkpoint.newest(folder, device)
    path = folder / checkpoint.LAST
    if not payload.get("info"):
        raise InputError(
            f"{path}: was trained from Python without a description of the run; give train(..., info=RunInfo(...))."
        )
    try:
        info = from_plain(RunInfo, json.loads(payload["info"]))
        method = build(info)
        method.load_state_dict(payload["method"])
    except _FOREIGN as error:
        raise _cannot_build(path, error) from error
    _check_mirror(folder / FILE, info)
    return method.to(device).eval(), info


def _open_export(path: Path, device: torch.device | str) -> tuple[nn.Module, RunInfo]:
    """Opens exported weights, whose description names no held-out patients."""
    card, tensors = exported.read(path)
    try:
        info = from_plain(RunInfo, {**card["info"], "split": {"train": [], "labeled": 0}})
        method = build(info)
        exported.load(method, tensors)
    except _FOREIGN as error:
        raise _cannot_build(path, error) from error
    return method.to(device).eval(), info


def _cannot_build(path: Path, error: Exception) -> InputError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return InputError(
        f"{path}: this version of anatolab cannot build the run that it describes ({reason}); "
        "train into a new folder, or use the version that wrote it."
    )


def from_plain(kind: Any, values: Any) -> Any:
    """Returns a dataclass from plain JSON values: nested dataclasses are rebuilt, lists become tuples.

    Raises:
        TypeError: The values are not an object with the fields of ``kind``.
    """
    if not isinstance(values, dict):
        raise TypeError(f"{kind.__name__} is {values!r}")
    hints = typing.get_type_hints(kind)
    if unknown := sorted(values.keys() - hints.keys()):
        raise TypeError(f"{kind.__name__} has no field {unknown[0]!r}")
    return kind(**{name: _value(hints[name], value) for name, value in values.items()})


def _value(hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, UnionType):
        hint = next((h for h in typing.get_args(hint) if h is not type(None)), hint) if value is not None else None
    if is_dataclass(hint):
        return from_plain(hint, value)
    if isinstance(value, dict):
        return {k: _value(None, v) for k, v in value.items()}
    return tuple(_value(None, v) for v in value) if isinstance(value, list) else value


def _load(info: RunInfo, ref: CaseRef, watch: Callable[[Case], object]) -> Case:
    case = ref.load()
    watch(case)
    return info.case(case)


def check_out(folder: Path, saved: Mapping[str, Any] | None) -> None:
    """Refuses to train into a folder whose ``run.json`` is not that of the checkpoint beside it: it would be replaced.

    Args:
        folder: The ``out`` of a training.
        saved: The checkpoint that lies there, if any.

    Raises:
        InputError: ``run.json`` was edited, or lies there without a checkpoint.
    """
    path = folder / FILE
    if saved is not None and saved.get("info"):
        _check_mirror(path, from_plain(RunInfo, json.loads(saved["info"])))
    elif saved is None and path.exists():
        raise InputError(
            f"{path}: lies there without the {checkpoint.LAST} that it describes; restore that, or give another folder."
        )


def _check_mirror(path: Path, info: RunInfo) -> None:
    """Refuses a ``run.json`` that differs from the checkpoint beside it; it may be absent."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(held, dict):
            raise ValueError(f"it holds a {type(held).__name__}")
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{path}: not the description of a run ({reason}); remove it, the checkpoint holds the description."
        ) from error
    state = {f.name for f in fields(info) if f.metadata} | {"finished"}  # a crash may part the two by one checkpoint
    expected = {k: v for k, v in json.loads(json.dumps(mirror(info))).items() if k not in state}
    if differ := sorted(
        k for k in expected.keys() | held.keys() - state if k not in held or held[k] != expected.get(k)
    ):
        raise InputError(
            f"{path}: says another {' and '.join(differ)} than the checkpoint beside it; "
            "restore it, or remove it, the checkpoint holds the description."
        )
