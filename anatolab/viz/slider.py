"""Figures with a slider: frames in the built book, a widget where Python runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from anatolab.types import InputError
from anatolab.viz.block import check_alt, in_book, show

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def frames_figure(make: Callable[[Any], Figure], values: Sequence[Any], *, label: str = "", start: int = 0) -> Figure:
    """Returns one figure with a slider over ``values``; each frame is ``make(value)``.

    Every figure needs the same traces in the same order, and fixed axis ranges if axes shall stand still.

    Args:
        make: Value to figure; the callback of a live explorer serves.
        values: What the slider runs over; a handful to a few dozen.
        label: Label of the slider, e.g. ``"temperature"``.
        start: Index of the value shown first.

    Raises:
        InputError: Figures that differ in the number or the types of their traces.
    """
    import plotly.graph_objects as go

    made = [make(value) for value in values]
    kinds = [[trace.type for trace in figure.data] for figure in made]
    if any(kind != kinds[0] for kind in kinds):
        raise InputError("frames_figure needs the same traces for every value; draw an empty trace instead of none.")
    names = [_name(value) for value in values]
    moving = ("title", "annotations", "shapes")
    figure = go.Figure(made[start])
    figure.frames = [
        go.Frame(name=name, data=f.data, layout={k: f.layout[k] for k in moving if f.layout[k]})
        for name, f in zip(names, made, strict=True)
    ]
    how = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    steps = [{"method": "animate", "label": name, "args": [[name], how]} for name in names]
    prefix = {"prefix": f"{label}: " if label else ""}
    return figure.update_layout(sliders=[{"active": start, "steps": steps, "currentvalue": prefix, "pad": {"t": 40}}])


def explorer(
    make: Callable[[Any], Figure],
    values: Sequence[Any],
    *,
    alt: str,
    label: str = "",
    caption: str = "",
    start: int = 0,
) -> Any:
    """Returns a slider over ``values`` that redraws ``make(value)``: a widget with a live kernel, frames in the book.

    Example in a notebook: ``explorer(lambda t: curve(t), [0.05, 0.1, 0.5], label="temperature", alt="...")``.
    """
    if in_book():
        return show(frames_figure(make, values, label=label, start=start), alt=alt, caption=caption)
    import ipywidgets

    check_alt(alt)
    options = [(_name(value), value) for value in values]
    slider = ipywidgets.SelectionSlider(options=options, index=start, description=label, continuous_update=False)
    return ipywidgets.VBox([slider, redrawn([slider], lambda: make(slider.value))])


def redrawn(widgets: Sequence[Any], draw: Callable[[], Any]) -> Any:
    """Returns a widget that shows ``draw()`` and redraws whenever one of these widgets changes."""
    import ipywidgets
    from IPython.display import display

    output = ipywidgets.Output()

    def redraw(_: Any = None) -> None:
        output.clear_output(wait=True)
        with output:
            display(draw())

    for widget in widgets:
        widget.observe(redraw, names="value")
    redraw()
    return output


def _name(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
