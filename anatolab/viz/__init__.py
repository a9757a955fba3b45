"""Figures that work live, in the built book and without JavaScript; one palette, with one color a class.

In a live notebook :func:`show` hands back the ordinary interactive figure. While the book is built (environment
variable ``ANATOLAB_BOOK``) it gives one block of HTML: a picture with its alternative text, the same figure as data
that a small script draws when the reader gets near it, and the numbers behind it as a table.
"""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anatolab.types import InputError
from anatolab.viz.twin import draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from plotly.graph_objects import Figure

# Told apart by normal and by color-blind eyes, and at least 3 : 1 against white and against the dark page: see
# tests/test_viz.py, which also holds book/_static/anatolab.css to the same values.
CLASS_COLORS = {"background": "#808080", "RV": "#2b7fd0", "Myo": "#b98a00", "LV": "#d0445f"}
METHOD_COLORS = {
    "full supervision": "#808080",
    "supervised": "#a19558",
    "mean teacher": "#2590fa",
    "UA-MT": "#457d57",
    "ACTION": "#b24d1b",
    "ACTION++": "#fa578e",
    "MONA": "#c48300",
    "ARCO": "#5757fa",
    "MORSE": "#a15895",
    "CFR": "#c400c4",
}
PALETTE = ("#2b7fd0", "#b98a00", "#d0445f", "#457d57", "#a15895", "#a19558", "#5757fa", "#b24d1b")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star")

DRAWN = ("scatter", "bar", "heatmap", "image")  # by bundle and twin alike
MAX_POINTS = 5_000  # a trace and state
MAX_SPEC = 300_000  # bytes, gzip
MAX_IMAGE = 150_000  # bytes
MAX_ROWS = 150  # of a data table; above, a summary


def in_book() -> bool:
    """Whether figures are for the built book, not for a live notebook."""
    return bool(os.environ.get("ANATOLAB_BOOK"))


def class_color(name: str, index: int | None = None) -> str:
    """The one color of an anatomical class in this book, as ``#rrggbb``.

    Args:
        name: ``background``, ``RV``, ``Myo`` or ``LV``.
        index: Number of the class (0 is background); gives classes of other data sets their color of the palette.

    Raises:
        InputError: A name that has no color, without an index.

    Example:
        >>> class_color("LV")
        '#d0445f'
    """
    if name in CLASS_COLORS:
        return CLASS_COLORS[name]
    if index is None:
        raise InputError(f"Class {name!r} has no color; use one of {', '.join(CLASS_COLORS)}, or give its index.")
    return CLASS_COLORS["background"] if index == 0 else PALETTE[(index - 1) % len(PALETTE)]


def method_color(name: str) -> str:
    """The one color of a method in this book, as ``#rrggbb``; ``mean_teacher`` and ``mean teacher`` are the same.

    Raises:
        InputError: A method that has no color.

    Example:
        >>> method_color("ua_mt") == method_color("UA-MT")
        True
    """
    return METHOD_COLORS[_method(name)]


def method_style(name: str) -> dict[str, Any]:
    """Color, dash and symbol of a method, for a plotly line: dash and symbol say what the color says.

    Example:
        >>> method_style("mean teacher")["line"]["dash"]
        'dot'
    """
    order = list(METHOD_COLORS).index(_method(name))
    color = method_color(name)
    return {
        "line": {"color": color, "dash": _DASHES[order % len(_DASHES)]},
        "marker": {"color": color, "symbol": _SYMBOLS[order % len(_SYMBOLS)]},
    }


def _method(name: str) -> str:
    plain = {key.lower().replace("-", "").replace(" ", ""): key for key in METHOD_COLORS}
    found = plain.get(name.lower().replace("-", "").replace("_", "").replace(" ", ""))
    if found is None:
        raise InputError(f"Method {name!r} has no color; use one of {', '.join(METHOD_COLORS)}.")
    return found


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
        The axes, whose ``figure`` can be given to :func:`show`.
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
    """The same as :func:`overlay` as an interactive plotly figure: hover to read, click a class away."""
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
    """The outline of a binary mask (h, w) as x and y in pixels; NaN where one part ends and the next begins."""
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


# --------------------------------------------------------------------------------------------- frames and explorers
def frames_figure(make: Callable[[Any], Figure], values: Sequence[Any], *, label: str = "", start: int = 0) -> Figure:
    """One figure with a slider over ``values``; each frame is ``make(value)``.

    Every figure needs the same traces in the same order, and fixed axis ranges if axes shall stand still.

    Args:
        make: Value to figure; the callback of a live explorer serves.
        values: What the slider runs over; a handful to a few dozen.
        label: Of the slider, e.g. ``"temperature"``.
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
    """A slider over ``values`` that redraws ``make(value)``: a widget where Python runs, frames in the built book.

    Example in a notebook: ``explorer(lambda t: curve(t), [0.05, 0.1, 0.5], label="temperature", alt="...")``.
    """
    if in_book():
        return show(frames_figure(make, values, label=label, start=start), alt=alt, caption=caption)
    import ipywidgets

    _check_alt(alt)
    options = [(_name(value), value) for value in values]
    slider = ipywidgets.SelectionSlider(options=options, index=start, description=label, continuous_update=False)
    return ipywidgets.VBox([slider, redrawn([slider], lambda: make(slider.value))])


def redrawn(widgets: Sequence[Any], draw: Callable[[], Any]) -> Any:
    """A widget that shows what ``draw`` gives, anew whenever one of these widgets changes its value."""
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


# ------------------------------------------------------------------------------------------------------------- show
@dataclass(frozen=True)
class Block:
    """A figure of the built book, as HTML that needs no network, and no JavaScript to be seen."""

    html: str
    alt: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"<figure: {self.alt}>"


def show(figure: Any, *, alt: str, caption: str = "", table: bool = True) -> Any:
    """Shows a figure: interactive in a live notebook; in the book a picture that turns interactive.

    Args:
        figure: A plotly figure of trace types that the book's bundle draws, or a matplotlib figure or axes.
        alt: What a reader who cannot see it must know: what is drawn and what it shows.
        caption: Under the figure, plain text.
        table: Whether to put the numbers behind a plotly figure into a table that unfolds.

    Returns:
        The figure itself where Python runs live, else one :class:`Block`. Make it the last expression of its cell.

    Raises:
        InputError: No alternative text, a trace type outside the bundle, or a figure over the budget (points, bytes).
    """
    _check_alt(alt)
    if not hasattr(figure, "to_plotly_json"):
        return _show_matplotlib(figure, alt, caption)
    if not in_book():
        return figure.update_layout(template=_template())
    spec, notes = spec_of(figure)
    width, height = int(spec["layout"].get("width") or 760), int(spec["layout"].get("height") or 420)
    text = json.dumps(spec["encoded"], separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    if (size := len(gzip.compress(text.encode()))) > MAX_SPEC:
        raise InputError(
            f"This figure takes {size} bytes (gzip), over {MAX_SPEC}; show fewer points, frames or pixels."
        )
    picture = _img(draw(spec["plain"], PALETTE, width, height), alt, width, height)
    data = _table(spec["plain"]) if table else ""
    script = f'<script type="application/json" class="al-spec">{text}</script>'
    return Block(_block(picture + script, " ".join([caption, *notes]).strip(), data, width, height), alt)


def spec_of(figure: Figure) -> tuple[dict[str, Any], list[str]]:
    """What the book's script draws: traces, layout without template, frames; and what the reader must be told.

    Raises:
        InputError: A trace type outside the bundle, or more points than it can draw.
    """
    raw = _numbers(figure.to_plotly_json())
    layout = {k: v for k, v in raw["layout"].items() if k not in ("template", "sliders", "updatemenus")}
    sliders = raw["layout"].get("sliders") or [{}]
    frames = [_plain_frame(frame) for frame in raw.get("frames") or []]
    notes: list[str] = []
    states = [raw["data"], *(frame["data"] for frame in frames)]
    for traces in states:
        for i, trace in enumerate(traces):
            traces[i] = _fit({"type": "scatter"} | trace, notes)
    plain = {"data": raw["data"], "layout": layout, "frames": frames}
    if frames:
        plain["slider"] = {
            "label": str((sliders[0].get("currentvalue") or {}).get("prefix") or "frame").rstrip(": "),
            "active": int(sliders[0].get("active") or 0),
        }
    return {"plain": plain, "layout": layout, "encoded": _encode(plain)}, list(dict.fromkeys(notes))


def _plain_frame(frame: dict[str, Any]) -> dict[str, Any]:
    kept = {"name": str(frame.get("name", "")), "data": list(frame.get("data") or [])}
    layout = {k: v for k, v in (frame.get("layout") or {}).items() if k != "template"}
    return kept | ({"layout": layout} if layout else {})


def _fit(trace: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Refuses what the bundle cannot draw, and thins clouds of points that are too dense to draw quickly."""
    kind = trace["type"]
    if kind not in DRAWN:
        raise InputError(f"The book draws no trace of type {kind!r}; use one of {', '.join(DRAWN)}.")
    if kind in ("heatmap", "image"):
        return trace
    count = max((len(v) for k in ("x", "y") if isinstance(v := trace.get(k), list | tuple | np.ndarray)), default=0)
    if count <= MAX_POINTS:
        return trace
    if kind != "scatter" or trace.get("mode", "lines") != "markers":
        raise InputError(f"A {kind} trace of {count} points is over {MAX_POINTS}; bin or thin it before showing it.")
    kept = np.sort(np.random.default_rng(0).choice(count, MAX_POINTS, replace=False))
    notes.append(f"({MAX_POINTS:,} of {count:,} points are drawn, chosen at random.)")

    def thin(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: thin(v) for k, v in value.items()}
        if isinstance(value, list | tuple | np.ndarray) and len(value) == count:
            return np.asarray(value, dtype=None if isinstance(value, np.ndarray) else object)[kept].tolist()
        return value

    return {k: thin(v) for k, v in trace.items()}


def _numbers(value: Any) -> Any:
    """Undoes plotly's base64 arrays, so that everything is plain containers and numpy arrays."""
    if isinstance(value, dict):
        if {"dtype", "bdata"} <= value.keys():
            array = np.frombuffer(base64.b64decode(value["bdata"]), dtype=np.dtype(value["dtype"]))
            shape = value.get("shape")
            return array.reshape([int(n) for n in str(shape).split(",")]) if shape else array
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(v) for v in value]
    return value


def _encode(value: Any) -> Any:
    """To JSON: long numeric arrays as int16 or uint8 with scale and offset, short ones as rounded numbers."""
    if isinstance(value, dict):
        return {k: _encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        array = _numeric(value)
        if array is None:
            return [_encode(v) for v in value]
        return _pack(array) if array.size >= 48 else _rounded(array.tolist())
    return _rounded(value.item() if isinstance(value, np.generic) else value)


def _numeric(value: Any) -> np.ndarray | None:
    """The values as a numeric array of any shape, None where they are something else; ``None`` entries become NaN."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "iufb":
        return value
    try:
        array = np.array(value, dtype=object)
    except ValueError:
        return None
    flat = array.ravel().tolist()
    if not flat or not all(
        v is None or (isinstance(v, int | float | np.number) and not isinstance(v, bool)) for v in flat
    ):
        return None
    return array.astype(float)


def _pack(array: np.ndarray) -> Any:
    x = array.astype(float)
    known = x[np.isfinite(x)]
    if not known.size:
        return _rounded(x.tolist())
    low, high = float(known.min()), float(known.max())
    whole = bool((known == np.round(known)).all())
    if not whole and low > 0 and high / low > 1e3:  # spans orders of magnitude, as for a logarithmic axis
        return _rounded(x.tolist(), digits=4)
    if whole and high - low <= 254:
        kind, top = "u1", 255
    elif not whole or high - low <= 65_000:
        kind, top = "u2", 65_535
    else:
        return _rounded(x.tolist())
    if high == low and not whole:
        return _rounded(x.tolist())
    scale = 1.0 if whole else (high - low) / (top - 1)
    codes = np.where(np.isfinite(x), np.round((np.nan_to_num(x, nan=low, posinf=low, neginf=low) - low) / scale), top)
    decimals = 0 if whole else max(0, math.ceil(-math.log10(scale)))
    packed = base64.b64encode(codes.astype("<" + kind).tobytes()).decode()
    return {"al": kind, "v": packed, "scale": scale, "offset": low, "decimals": decimals, "shape": list(x.shape)}


def _rounded(value: Any, digits: int = 6) -> Any:
    if isinstance(value, list):
        return [_rounded(v, digits) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


# ------------------------------------------------------------------------------------------------------------- HTML
def _check_alt(alt: str) -> None:
    if len(alt.split()) < 3:
        raise InputError(
            f"alt={alt!r} says too little; tell in words what the figure shows to a reader who cannot see it."
        )


def _show_matplotlib(figure: Any, alt: str, caption: str) -> Any:
    figure = getattr(figure, "figure", None) or figure
    if not hasattr(figure, "savefig"):
        raise InputError(
            f"show() takes a plotly or matplotlib figure, not {type(figure).__name__}; hand it the figure."
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130, facecolor="white")
    png = shrink(file.getvalue())
    width, height = (round(100 * side) for side in figure.get_size_inches())
    if plt := sys.modules.get("matplotlib.pyplot"):
        plt.close(figure)  # else the inline backend shows it once more
    block = _block(_img(png, alt, width, height), caption, "", width, height)
    return Block(block, alt)


def shrink(png: bytes) -> bytes:
    """Reduces a PNG to as many colors as fit the budget of an image.

    Raises:
        InputError: It does not fit with 16 colors either.
    """
    from PIL import Image

    source = Image.open(io.BytesIO(png)).convert("RGB")
    for colors in (256, 128, 64, 32, 16):
        file = io.BytesIO()
        source.quantize(colors).save(file, "PNG", optimize=True)
        if len(file.getvalue()) <= MAX_IMAGE:
            return file.getvalue()
    raise InputError(f"The picture takes {len(file.getvalue())} bytes, over {MAX_IMAGE}; draw it smaller.")


def _img(png: bytes, alt: str, width: int, height: int) -> str:
    data = base64.b64encode(shrink(png)).decode()
    return (
        f'<img class="al-static" src="data:image/png;base64,{data}" alt="{html.escape(alt, quote=True)}" '
        f'width="{width}" height="{height}">'
    )


def _block(inside: str, caption: str, data: str, width: int, height: int) -> str:
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    style = f"--al-width:{width}px;--al-ratio:{width}/{height};--al-height:{height}px"
    return f'<figure class="al-figure" style="{style}"><div class="al-stage">{inside}</div>{below}{data}</figure>'


def _table(plain: dict[str, Any]) -> str:
    """The numbers behind a figure: all of them where they are few, else a summary a trace; empty for pictures."""
    rows: list[list[str]] = []
    summaries: list[list[str]] = []
    for i, trace in enumerate(plain["data"]):
        name = str(trace.get("name") or f"series {i + 1}")
        if trace["type"] == "heatmap" and (z := _numeric(trace.get("z", []))) is not None and z.ndim == 2:
            if z.size > MAX_ROWS:
                continue
            xs, ys = (_labels(trace.get(k), n) for k, n in (("x", z.shape[1]), ("y", z.shape[0])))
            rows += [[name, xs[c], ys[r], _cell(z[r, c])] for r in range(z.shape[0]) for c in range(z.shape[1])]
        elif trace["type"] != "image" and trace.get("hoverinfo") != "skip" and trace.get("visible", True) is True:
            x, y = (None if trace.get(k) is None else list(trace[k]) for k in ("x", "y"))
            count = max(len(x or ()), len(y or ()))
            blank: list[Any] = [""] * count
            rows += [[name, _cell(a), _cell(b)] for a, b in zip(x or blank, y or blank, strict=False)]
            for axis, values in (("x", x), ("y", y)):
                known = _numeric(values) if values else None
                if known is not None and np.isfinite(known).any():
                    marks = (np.nanmin(known), np.nanmedian(known), np.nanmax(known))
                    summaries.append([name, axis, str(count), *map(_cell, marks)])
    wide = any(len(row) == 4 for row in rows)
    if not rows:
        return ""
    if len(rows) <= MAX_ROWS:
        head = ["", "x", "y", "value"] if wide else ["", _title(plain, "xaxis"), _title(plain, "yaxis")]
        return _details("Data behind this figure", head, [row + [""] * (len(head) - len(row)) for row in rows])
    head = ["", "axis", "points", "smallest", "median", "largest"]
    return _details(f"Summary of the {len(rows):,} points of this figure", head, summaries) if summaries else ""


def _labels(values: Any, count: int) -> list[str]:
    return [_cell(v) for v in (range(count) if values is None else values)]


def _title(plain: dict[str, Any], axis: str) -> str:
    title = (plain["layout"].get(axis) or {}).get("title") or axis[0]
    return str(title.get("text", axis[0]) if isinstance(title, dict) else title)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float | np.floating) and not math.isfinite(value)):
        return "-"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _details(summary: str, head: list[str], rows: list[list[str]]) -> str:
    top = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<details class="al-data"><summary>{html.escape(summary)}</summary><div class="al-scroll" tabindex="0">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def _template() -> Any:
    import plotly.graph_objects as go

    axis = {"gridcolor": "#e3e6ea", "zerolinecolor": "#c9ced6", "automargin": True}
    return go.layout.Template(
        layout={
            "colorway": PALETTE,
            "font": {"size": 13},
            "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
            "plot_bgcolor": "white",
            "xaxis": axis,
            "yaxis": axis,
            "colorscale": {"sequential": "Viridis"},
            "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
            "hoverlabel": {"font": {"size": 13}},
        }
    )
