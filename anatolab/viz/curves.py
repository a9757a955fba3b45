"""Curves of runs that are going on, from their log."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from anatolab.types import InputError
from anatolab.viz.block import in_book
from anatolab.viz.colors import CLASS_COLORS, PALETTE

MAX_LINES = 1_000  # of a curve; longer logs are thinned


def read_log(run: Path | str) -> list[dict[str, Any]]:
    """Returns the lines of a run's ``log.jsonl``; a last line that is still being written is left out.

    Raises:
        InputError: The folder holds no log.
    """
    path = Path(run) / "log.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name the --out of a training.") from error
    return [json.loads(line) for line in lines if line.endswith("\n")]


def curves(*runs: Path | str, term: str = "loss", every: float | None = None) -> Any:
    """Draws a loss term of runs over their updates and, where they are validated, the Dice of held-out patients.

    Args:
        runs: Folders, the ``--out`` of trainings, finished or not.
        term: ``loss`` or the name of one of its terms.
        every: In a live notebook, draw again after so many seconds until all runs are finished or the cell is
            interrupted; once where None.

    Returns:
        A plotly figure; with ``every`` the last one, which was also shown.

    Raises:
        InputError: No run is named, a folder holds no log, or no line of a log has the term.
    """
    if not runs:
        raise InputError("curves: names no run; give the folder of one.")
    if every is None or in_book():
        return _figure(runs, term)
    from IPython.display import display

    handle: Any = display(figure := _figure(runs, term), display_id=True)
    try:
        while not all(_finished(Path(run)) for run in runs):
            time.sleep(every)
            handle.update(figure := _figure(runs, term))
    except KeyboardInterrupt:
        pass
    return figure


def _finished(run: Path) -> bool:
    try:
        return bool(json.loads((run / "run.json").read_text(encoding="utf-8")).get("finished"))
    except (OSError, ValueError):
        return False


def _figure(runs: tuple[Path | str, ...], term: str) -> Any:
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    logs = {Path(run).name: read_log(run) for run in runs}
    for name, log in logs.items():
        if log and not any(term in line for line in log):
            known = sorted({k for line in log for k, v in line.items() if isinstance(v, float)})
            raise InputError(f"{name}: its log has no {term!r}; it has {', '.join(known)}.")
    validated = any("validation" in line for log in logs.values() for line in log)
    figure = make_subplots(rows=1 + validated, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    for number, (name, log) in enumerate(logs.items()):
        color = PALETTE[number % len(PALETTE)]
        lines = [line for line in log if term in line]
        lines = lines[:: max(1, len(lines) // MAX_LINES)]
        x, y = [line["step"] for line in lines], [line[term] for line in lines]
        figure.add_trace(go.Scatter(x=x, y=y, name=name, mode="lines", line={"color": color}), 1, 1)
        measured = [line for line in log if "validation" in line]
        classes = list(measured[0]["validation"]) if measured else []
        for label in classes if len(logs) == 1 else ["mean"] * bool(classes):
            values = [line["validation"][label] for line in measured]
            shade = CLASS_COLORS.get(
                label, "#444444" if label == "mean" else PALETTE[classes.index(label) % len(PALETTE)]
            )
            line = {"color": color if len(logs) > 1 else shade, "width": 3 if label == "mean" else 1.5}
            x = [line["step"] for line in measured]
            title = f"{name}, Dice" if len(logs) > 1 else f"Dice, {label}"
            trace = go.Scatter(x=x, y=values, name=title, mode="lines+markers", line=line)
            figure.add_trace(trace, 2, 1)
    figure.update_yaxes(title_text=term, row=1, col=1)
    if validated:
        figure.update_yaxes(title_text="Dice, held out", range=[0, 1], row=2, col=1)
    figure.update_xaxes(title_text="update", row=1 + validated, col=1)
    return figure.update_layout(height=320 + 260 * validated)
