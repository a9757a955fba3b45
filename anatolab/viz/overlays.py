"""A slice with the outlines of its classes, for matplotlib and plotly."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from anatolab.viz.colors import CLASS_COLORS, class_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from plotly.graph_objects import Figure


def overlay(
    image: Any,
    label: Any = None,
    prediction: Any = None,
    *,
    classes: Sequence[str] = tuple(CLASS_COLORS),
    axes: Axes | None = None,
    title: str = "",
) -> Axes:
    """Draws a slice in gray with class outlines: the reference solid, the prediction dashed.

    Args:
        image: (h, w), any range.
        label: (h, w) class numbers, or None.
        prediction: (h, w) class numbers, or None.
        classes: Names by class number; index 0 is background and is not drawn.
        axes: Where to draw; a figure of its own where None.
        title: Over the slice.

    Returns:
        The axes, whose ``figure`` can be given to :func:`anatolab.viz.show`.
    """
    if axes is None:
        from matplotlib.figure import Figure as Canvas

        axes = Canvas(figsize=(4, 4), layout="constrained").add_subplot()
    axes.imshow(np.asarray(image), cmap="gray", interpolation="nearest")
    for mask, style in ((label, "solid"), (prediction, "dashed")):
        for number, name in enumerate(classes):
            if number and mask is not None:
                x, y = outline(np.asarray(mask) == number)
                axes.plot(x, y, color=class_color(name, number), linestyle=style, linewidth=1.4)
    axes.set(xticks=[], yticks=[], title=title)
    return axes


def overlay_figure(
    image: Any,
    label: Any = None,
    prediction: Any = None,
    *,
    classes: Sequence[str] = tuple(CLASS_COLORS),
    title: str = "",
) -> Figure:
    """Draws :func:`overlay` as an interactive plotly figure: hover to read values, click to hide a class."""
    import plotly.graph_objects as go

    gray = np.asarray(image)
    figure = go.Figure(go.Heatmap(z=gray, colorscale="gray", showscale=False, hoverinfo="skip"))
    for mask, dash, kind in ((label, "solid", ""), (prediction, "dash", ", predicted")):
        for number, name in enumerate(classes):
            if number and mask is not None:
                x, y = outline(np.asarray(mask) == number)
                line = {"color": class_color(name, number), "dash": dash, "width": 2}
                figure.add_scatter(x=x, y=y, mode="lines", line=line, name=name + kind, hoverinfo="name")
    side = {"showgrid": False, "showticklabels": False, "zeroline": False, "ticks": ""}
    figure.update_xaxes(**side, range=[-0.5, gray.shape[1] - 0.5], constrain="domain")
    figure.update_yaxes(**side, range=[gray.shape[0] - 0.5, -0.5], scaleanchor="x", constrain="domain")
    return figure.update_layout(title=title or None, height=520)


def outline(mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the outline of a binary mask (h, w) as x and y in pixels; NaN where one part ends and the next begins."""
    import contourpy

    padded = np.pad(np.asarray(mask, dtype=np.float32), 1)
    lines = contourpy.contour_generator(z=padded).lines(0.5)
    if not lines:
        return np.empty(0), np.empty(0)
    gap = np.full((1, 2), np.nan)
    points = np.concatenate([part for line in lines for part in (np.asarray(line) - 1, gap)])[:-1]
    return points[:, 0], points[:, 1]


def png_url(pixels: Any) -> str:
    """Pixels (h, w, 3), 0 to 255, as the source of a ``plotly.graph_objects.Image``: a PNG weighs a tenth of numbers.

    Example:
        >>> png_url(np.zeros((2, 2, 3)))[:22]
        'data:image/png;base64,'
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.clip(np.rint(np.asarray(pixels)), 0, 255).astype(np.uint8)).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
