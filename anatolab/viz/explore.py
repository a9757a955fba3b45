"""A volume to page through, slice by slice: widgets where Python runs, plotly frames in the built book."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from anatolab.types import Case, InputError
from anatolab.viz import class_color, frames_figure, in_book, overlay_figure, show

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

GRAYS = 100  # gray levels; more are not seen, and take room in the book


@dataclass(frozen=True)
class Explorer:
    """A volume at the size at which it is shown, and the figure of each of its slices."""

    gray: np.ndarray  # (z, y, x) int16, 0 to GRAYS
    label: np.ndarray | None  # (z, y, x) class numbers
    classes: tuple[str, ...]  # index 0 is background
    slices: tuple[int, ...]  # numbers of the slices in the volume they come from
    here: tuple[int, ...] = field(init=False)  # classes that the volume holds

    def __post_init__(self) -> None:
        found = np.unique(self.label) if self.label is not None else ()
        object.__setattr__(self, "here", tuple(int(c) for c in found if 0 < c < len(self.classes)))

    def figure(self, number: int, shown: Collection[str] | None = None) -> Figure:
        """The figure of a slice: what the sliders of notebook and book call.

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
        """All slices as one figure with a slider of frames; a click into the legend hides a class."""
        at = len(self.slices) // 2 if start is None else self.slices.index(start)
        return frames_figure(self.figure, self.slices, label="slice", start=at)


def reduced(case: Case, classes: Sequence[str], *, side: int = 112, slices: int = 16) -> Explorer:
    """The volume that is shown: cut to what is not air, so many slices, so many pixels along the longer side.

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
    seen = gray > 0.02
    y, x = (_span(seen.any(axis).mean(0)) for axis in (2, 1))
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
    """From the first to the last place where something is seen."""
    where = np.flatnonzero(share > 0.05)
    if not len(where):
        return slice(0, len(share))
    return slice(max(0, int(where[0]) - margin), int(where[-1]) + 1 + margin)


def explore(
    case: Case, classes: Sequence[str], *, alt: str, caption: str = "", side: int = 112, slices: int = 16
) -> Any:
    """Pages through a volume with its outlines: a slider and a switch a class, or the book's twin of it.

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
    from IPython.display import display

    start = volume.slices[len(volume.slices) // 2]
    slider = ipywidgets.SelectionSlider(
        options=volume.slices, value=start, description="slice", continuous_update=False
    )
    names = [classes[c] for c in volume.here]
    switches = [ipywidgets.ToggleButton(value=True, description=name, layout={"width": "auto"}) for name in names]
    output = ipywidgets.Output()

    def redraw(_: Any = None) -> None:
        output.clear_output(wait=True)
        with output:
            display(volume.figure(slider.value, {s.description for s in switches if s.value}))

    for widget in (slider, *switches):
        widget.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([slider, ipywidgets.HBox(switches, layout={"flex_flow": "row wrap"}), output])
