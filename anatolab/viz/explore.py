"""A volume to page through and a scene to recombine: widgets where Python runs, plotly frames in the built book."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from anatolab.types import Case, InputError
from anatolab.viz import class_color, frames_figure, in_book, overlay_figure, png_url, redrawn, show

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

GRAYS = 100  # gray levels; more are not seen, and take room in the book
BOARD_COLORS = ("#b98a00", "#2b7fd0")  # of bars to the left and to the right of 0


@dataclass(frozen=True)
class Explorer:
    """A volume at the size at which it is shown, and the figure of each of its slices."""

    gray: np.ndarray  # (z, y, x) int16, 0 to GRAYS
    label: np.ndarray | None  # (z, y, x) class numbers
    classes: tuple[str, ...]  # index 0 is background
    slices: tuple[int, ...]  # numbers of the slices in the volume they come from
    here: tuple[int, ...] = field(init=False)  # classes that the volume holds

    def __post_init__(self) -> None:
        present = np.unique(self.label) if self.label is not None else ()
        object.__setattr__(self, "here", tuple(int(c) for c in present if 0 < c < len(self.classes)))

    def figure(self, number: int, shown: Collection[str] | None = None) -> Figure:
        """Draws a slice, for the sliders of notebook and book.

        Args:
            number: One of ``slices``.
            shown: Classes whose outline is drawn; all where None.
        """
        z = self.slices.index(number)
        names = tuple(self.classes[c] for c in self.here)
        label = np.searchsorted((0, *self.here), self.label[z]) if self.label is not None else None
        figure = overlay_figure(self.gray[z], label, classes=("background", *names))
        for trace, c in zip(figure.data[1:], self.here, strict=True):
            trace.line.color = class_color(self.classes[c], c)
            if shown is not None:  # else left open, so that a frame does not undo a click into the legend
                trace.visible = trace.name in shown
        figure.data[0].update(zmin=0, zmax=GRAYS)
        height, width = self.gray.shape[1:]
        room = {"l": 10, "r": 10, "t": 70, "b": 10}
        return figure.update_layout(height=round(90 + 560 * height / width), width=580, margin=room)

    def twin(self, start: int | None = None) -> Figure:
        """Returns all slices as one figure with a slider of frames; a click into the legend hides a class."""
        index = len(self.slices) // 2 if start is None else self.slices.index(start)
        return frames_figure(self.figure, self.slices, label="slice", start=index)


def reduced(case: Case, classes: Sequence[str], *, side: int = 112, slices: int = 16) -> Explorer:
    """Crops a volume to the body and reduces it to a number of slices and of pixels along the longer side.

    Args:
        case: The volume; its window is what is seen, the range of its first channel where it has none.
        classes: Names by class number.
        side: Pixels, at most.
        slices: At most; evenly over the volume.

    Raises:
        InputError: ``side`` or ``slices`` is below 2.

    Example:
        >>> from pathlib import Path
        >>> image = np.tile(np.arange(40, dtype=np.float32), (1, 30, 40, 1))
        >>> case = Case("a", "", image, np.zeros((30, 40, 40), np.uint8), None, None, Path("a.nii.gz"))
        >>> reduced(case, ("background",), side=20, slices=10).gray.shape
        (10, 20, 20)
    """
    import torch
    import torch.nn.functional as F

    if min(side, slices) < 2:
        raise InputError(f"side={side}, slices={slices}: a volume is shown with at least two of each; raise them.")
    image = case.image[0]
    low, high = case.window or (float(image.min()), float(image.max()))
    gray = (image.clip(low, high) - low) / (high - low)
    visible = gray > 0.02
    y, x = (_span(visible.any(axis).mean(0)) for axis in (2, 1))
    count = min(slices, len(gray))
    chosen = np.linspace(0, len(gray) - 1, count).round().astype(int)
    part = gray[chosen][:, y, x]
    shape = np.array(part.shape[1:])
    height, width = np.maximum(1, np.round(shape * min(1.0, side / shape.max()))).astype(int)
    rows, columns = (
        np.floor((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip((height, width), shape, strict=True)
    )
    small = F.interpolate(torch.from_numpy(part)[:, None].float(), (int(height), int(width)), mode="area")[:, 0].numpy()
    label = None if case.label is None else case.label[chosen][:, y, x][:, rows][:, :, columns]
    return Explorer(np.round(small * GRAYS).astype(np.int16), label, tuple(classes), tuple(map(int, chosen)))


def _span(share: np.ndarray, margin: int = 2) -> slice:
    """Returns the range from the first to the last nonzero position."""
    where = np.flatnonzero(share > 0.05)
    if not len(where):
        return slice(0, len(share))
    return slice(max(0, int(where[0]) - margin), int(where[-1]) + 1 + margin)


def explore(
    case: Case, classes: Sequence[str], *, alt: str, caption: str = "", side: int = 112, slices: int = 16
) -> Any:
    """Pages through a volume with its outlines: a slider and a switch per class, or the book's static twin.

    Args:
        case: The volume; outlines are drawn where it has a label.
        classes: Names by class number; index 0 is background.
        alt: What a reader who cannot see it must know.
        caption: Under the figure.
        side: Pixels along the longer side, at most.
        slices: At most.

    Returns:
        A widget where Python runs live; in the book what :func:`anatolab.viz.show` returns.
    """
    volume = reduced(case, classes, side=side, slices=slices)
    if in_book():
        return show(volume.twin(), alt=alt, caption=caption, table=False)
    import ipywidgets

    start = volume.slices[len(volume.slices) // 2]
    slider = ipywidgets.SelectionSlider(
        options=volume.slices, value=start, description="slice", continuous_update=False
    )
    names = [classes[c] for c in volume.here]
    switches = [ipywidgets.ToggleButton(value=True, description=name, layout={"width": "auto"}) for name in names]
    output = redrawn(
        [slider, *switches], lambda: volume.figure(slider.value, {s.description for s in switches if s.value})
    )
    return ipywidgets.VBox([slider, ipywidgets.HBox(switches, layout={"flex_flow": "row wrap"}), output])


@dataclass(frozen=True)
class SceneBoard:
    """A scene in all its variants, and the margin that each method gives each of them."""

    images: np.ndarray  # (objects, backgrounds, colors, h, w, 3) uint8
    margins: Mapping[str, np.ndarray]  # of each method (objects, backgrounds, colors); above 0 says the second class
    objects: tuple[str, ...]
    backgrounds: tuple[str, ...]
    colors: Mapping[str, tuple[int, int, int]]  # in the order of the last axis, with how they look
    classes: tuple[str, str]

    def __post_init__(self) -> None:
        shape = (len(self.objects), len(self.backgrounds), len(self.colors))
        if self.images.shape[:3] != shape or any(m.shape != shape for m in self.margins.values()):
            raise InputError(f"images and margins must begin with {shape}: objects, backgrounds, colors.")

    @property
    def scenes(self) -> tuple[str, ...]:
        """What the book's slider runs over, such as ``duck on water``."""
        return tuple(f"{o} on {b}" for o in self.objects for b in self.backgrounds)

    def locate(self, scene: str) -> tuple[int, int]:
        """Returns the indices of a scene's object and background."""
        o, b = divmod(self.scenes.index(scene), len(self.backgrounds))
        return o, b

    def figure(self, scene: str, color: str | None = None) -> Figure:
        """Draws a scene beside the margin of every method, for the widget and the book's slider.

        Args:
            scene: One of ``scenes``.
            color: Color of the object in the picture and in the bars, the first where None; dots are the margins of the
                same scene in every color.
        """
        import plotly.graph_objects as go

        (o, b), names, methods = self.locate(scene), list(self.colors), list(self.margins)
        c = 0 if color is None else names.index(color)
        table = np.round([self.margins[m][o, b] for m in methods], 2)  # (methods, colors)
        says = [self.classes[int(v > 0)] for v in table[:, c]]
        where: dict[str, Any] = {"xaxis": "x2", "yaxis": "y2", "showlegend": False}
        bar = {"color": [BOARD_COLORS[int(v > 0)] for v in table[:, c]]}
        dot = {"color": [f"rgb{self.colors[n]}" for n in names] * len(methods), "size": 8}
        each = [m for m in methods for _ in names]
        figure = go.Figure(go.Image(source=png_url(self.images[o, b, c]), hoverinfo="skip"))
        figure.add_bar(x=table[:, c], y=methods, orientation="h", marker=bar, hovertext=says, **where)
        figure.add_scatter(x=table.ravel(), y=each, mode="markers", marker=dot, hoverinfo="skip", **where)
        figure.data[2].marker.line = {"color": "#555555", "width": 1}
        reach = 1.08 * max(float(np.abs(m).max()) for m in self.margins.values())
        side = {"showgrid": False, "visible": False, "constrain": "domain"}
        height, width = self.images.shape[3:5]
        voted = ", ".join(f"{says.count(k)} of {len(says)} say {k}" for k in self.classes)
        colored = bool(np.ptp(self.images[o], 1).any())
        return figure.update_layout(
            title=f"{names[c] if colored else ''} {scene}: {voted}".strip(),
            xaxis={**side, "domain": [0, 0.36], "range": [-0.5, width - 0.5]},
            yaxis={**side, "range": [height - 0.5, -0.5], "scaleanchor": "x"},
            xaxis2={"domain": [0.58, 1], "range": [-reach, reach], "anchor": "y2", "title": " or ".join(self.classes)},
            yaxis2={"anchor": "x2", "autorange": "reversed", "categoryarray": methods},
            height=420,
        )

    def twin(self, start: str | None = None) -> Figure:
        """Returns all scenes as one figure with a slider of frames, the object in the first color."""
        index = 0 if start is None else self.scenes.index(start)
        return frames_figure(self.figure, self.scenes, label="scene", start=index)


def explore_scenes(board: SceneBoard, *, alt: str, caption: str = "", start: str | None = None) -> Any:
    """Chooses object, background and color of a scene and shows what every method makes of it; in the book its twin.

    Args:
        board: The scenes and their margins.
        alt: What a reader who cannot see it must know.
        caption: Under the figure.
        start: The scene shown first, such as ``duck on land``.

    Returns:
        A widget where Python runs live; in the book what :func:`anatolab.viz.show` returns.
    """
    if in_book():
        return show(board.twin(start), alt=alt, caption=caption, table=False)
    import ipywidgets

    o, b = board.locate(start or board.scenes[0])
    kinds = (("object", board.objects, o), ("background", board.backgrounds, b), ("color", tuple(board.colors), 0))
    choices = [ipywidgets.ToggleButtons(options=names, index=index, description=kind) for kind, names, index in kinds]
    thing, place, paint = choices
    output = redrawn(choices, lambda: board.figure(f"{thing.value} on {place.value}", paint.value))
    return ipywidgets.VBox([*choices, output])
