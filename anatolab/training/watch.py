"""Monitoring of a run without effect on its weights: the log, TensorBoard, and validation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anatolab.files import write_atomically
from anatolab.training import checkpoint
from anatolab.types import CaseRef, InputError


@dataclass(frozen=True)
class Validation:
    """Evaluates a method during training on held-out patients.

    It consumes no random numbers, changes no batch-norm statistics, and selects nothing: the weights of a run are
    bitwise the same with and without it.
    """

    refs: Sequence[CaseRef]  # annotated cases
    classes: tuple[str, ...]  # background first
    size: tuple[int, ...]  # image size of the training
    rules: dict[str, Any] = field(default_factory=dict)  # field_of_view, largest_component: as of a prediction

    def measure(self, method: nn.Module, device: torch.device, precision: str) -> dict[str, float]:
        """Returns the mean Dice over patients of each class, and ``mean``, in [0, 1]."""
        from anatolab.inference import evaluate
        from anatolab.metrics import summarize

        with untouched(method):
            cases = evaluate(
                method, self.refs, self.classes, self.size, device=device, precision=precision, **self.rules
            )
        return summarize(cases, {ref.name: ref.patient for ref in self.refs})["dice"]


@contextmanager
def untouched(method: nn.Module) -> Iterator[None]:
    """Restores the modes of all modules and the random states at the end of a ``with`` block."""
    states, modes = checkpoint.rng_state(), [(module, module.training) for module in method.modules()]
    try:
        yield
    finally:
        checkpoint.set_rng_state(states)
        for module, training in modes:
            module.training = training


class Log:
    """Log lines in memory and, one JSON object per line, on disk; a resumed run continues its checkpoint's lines.

    Args:
        run: Has ``log``, a list of lines, and ``step``.
        path: The file, if any.
        logger: ``none``, or ``tensorboard``, whose files lie beside ``path``.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, run: Any, path: Path | None, logger: str = "none") -> None:
        self.run, self.path = run, path
        self.board: Any = None
        if path is not None:
            if logger == "tensorboard":
                self.board = _tensorboard(path.parent)
            write_atomically(path, "".join(json.dumps(line) + "\n" for line in run.log), overwrite=True)

    def line(self, stage: str, lr: float, total: Tensor, losses: Any, norm: Tensor) -> dict[str, str]:
        """Reads the device once, writes a line, and returns what the progress bar shows."""
        names = ["loss", *losses.terms, *losses.diagnostics, "grad_norm"]
        scalars = [total, *losses.terms.values(), *losses.diagnostics.values(), norm]
        values = torch.stack([s.detach().float().reshape(()) for s in scalars]).tolist()
        entry = {"step": self.run.step, "stage": stage, "lr": lr, **dict(zip(names, values, strict=True))}
        self._add(entry, {name: value for name, value in entry.items() if name not in ("step", "stage")})
        return {name: f"{entry[name]:.3f}" for name in ("loss", *losses.terms)}

    def validation(self, stage: str, dice: dict[str, float]) -> None:
        """Writes a line of validation results, under ``validation``."""
        plain = {name: value if value == value else None for name, value in dice.items()}  # JSON has no NaN
        entry = {"step": self.run.step, "stage": stage, "validation": plain}
        self._add(entry, {f"validation/{name}": value for name, value in plain.items() if value is not None})

    def close(self) -> None:
        """Flushes TensorBoard."""
        if self.board is not None:
            self.board.finalize("success")

    def _add(self, entry: dict[str, Any], scalars: dict[str, float]) -> None:
        self.run.log.append(entry)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        if self.board is not None:
            self.board.log_metrics(scalars, self.run.step)


def _tensorboard(folder: Path) -> Any:
    """Returns Fabric's TensorBoard logger."""
    from lightning_fabric.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(folder, name="tensorboard", version="")
    except ModuleNotFoundError as error:
        raise InputError("logger: TensorBoard is not installed; install the package tensorboard.") from error
