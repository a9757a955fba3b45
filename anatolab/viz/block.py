"""What a figure is in the built book: one block of HTML with picture, data for the script, and a table."""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import math
import os
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from anatolab.types import InputError
from anatolab.viz.colors import PALETTE
from anatolab.viz.spec import numeric, spec_of
from anatolab.viz.twin import draw

MAX_SPEC = 300_000  # bytes, gzip
MAX_IMAGE = 150_000  # bytes
MAX_ROWS = 150  # of a data table; above, a summary


def in_book() -> bool:
    """Returns whether figures are for the built book, not for a live notebook."""
    return bool(os.environ.get("ANATOLAB_BOOK"))


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
    check_alt(alt)
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


def check_alt(alt: str) -> None:
    if len(alt.split()) < 3:
        raise InputError(f"alt={alt!r} is too short; describe what the figure shows to a reader who cannot see it.")


def _show_matplotlib(figure: Any, alt: str, caption: str) -> Any:
    figure = getattr(figure, "figure", None) or figure
    if not hasattr(figure, "savefig"):
        raise InputError(f"show() takes a plotly or matplotlib figure, not {type(figure).__name__}.")
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
    """Returns the numbers behind a figure: all if they are few, else a summary per trace; empty for pictures."""
    rows: list[list[str]] = []
    panels: list[str] = []  # for each row, the titles of the axes that it belongs to
    summaries: list[list[str]] = []
    for i, trace in enumerate(plain["data"]):
        name = str(trace.get("name") or f"series {i + 1}")
        if trace["type"] == "heatmap" and (z := numeric(trace.get("z", []))) is not None and z.ndim == 2:
            if z.size > MAX_ROWS:
                continue
            xs, ys = (_labels(trace.get(k), n) for k, n in (("x", z.shape[1]), ("y", z.shape[0])))
            rows += [[name, xs[c], ys[r], _cell(z[r, c])] for r in range(z.shape[0]) for c in range(z.shape[1])]
            panels += [""] * z.size
        elif trace["type"] != "image" and trace.get("hoverinfo") != "skip" and trace.get("visible", True) is True:
            x, y = (None if trace.get(k) is None else list(trace[k]) for k in ("x", "y"))
            count = max(len(x or ()), len(y or ()))
            blank: list[Any] = [""] * count
            titles = [_title(plain, axis, trace.get(axis + "axis")) for axis in "xy"]
            rows += [[name, _cell(a), _cell(b)] for a, b in zip(x or blank, y or blank, strict=False)]
            panels += [" / ".join(titles)] * (len(rows) - len(panels))
            for axis, values in zip(titles, (x, y), strict=True):
                known = numeric(values) if values else None
                if known is not None and np.isfinite(known).any():
                    marks = (np.nanmin(known), np.nanmedian(known), np.nanmax(known))
                    summaries.append([name, axis, str(count), *map(_cell, marks)])
    wide = any(len(row) == 4 for row in rows)
    if not rows:
        return ""
    if len(rows) <= MAX_ROWS and not wide and len(set(panels)) > 1:  # no axis title holds for all of them
        lines = [[row[0], panel, *row[1:]] for row, panel in zip(rows, panels, strict=True)]
        return _details("Data behind this figure", ["", "axes", "x", "y"], lines)
    if len(rows) <= MAX_ROWS:
        first = next((panel.split(" / ") for panel in panels if panel), ["x", "y"])
        head = ["", "x", "y", "value"] if wide else ["", *first]
        return _details("Data behind this figure", head, [row + [""] * (len(head) - len(row)) for row in rows])
    head = ["", "axis", "points", "smallest", "median", "largest"]
    return _details(f"Summary of the {len(rows):,} points of this figure", head, summaries) if summaries else ""


def _labels(values: Any, count: int) -> list[str]:
    return [_cell(v) for v in (range(count) if values is None else values)]


def _title(plain: dict[str, Any], axis: str, name: str | None = None) -> str:
    """Returns the title of the axis "x" or "y" that a trace names ("x2"); the letter where it has none."""
    title = (plain["layout"].get(f"{axis}axis{(name or axis)[1:]}") or {}).get("title") or axis
    return str(title.get("text") or axis if isinstance(title, dict) else title)


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
