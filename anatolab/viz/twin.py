"""The picture of a plotly figure, drawn with matplotlib: what a reader sees before, or without, JavaScript.

It reads the figure as plain containers, covers the trace types that the book shows, and takes a tenth of a second where
a browser would take five. It is a likeness, not a copy: same data, axes, colors and words.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from anatolab.viz.styles import DASH, MARK, axes_of, clean, colormap, errors, is_numbers, rgba, words

DPI = 130


def draw(spec: dict[str, Any], colorway: Sequence[str], width: int, height: int) -> bytes:
    """Returns a PNG of ``data`` and ``layout``, as large as the interactive figure.

    Args:
        spec: ``{"data": [...], "layout": {...}}`` of plotly, numbers as lists or arrays.
        colorway: Colors of traces that name none.
        width: CSS pixels.
        height: CSS pixels.
    """
    return Twin(spec, colorway, width, height).png()


class Twin:
    """One figure while it is drawn: its axes, its colors in order, what goes into the legend."""

    def __init__(self, spec: dict[str, Any], colorway: Sequence[str], width: int, height: int) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.data, self.layout = spec["data"], spec["layout"]
        self.colorway = self.layout.get("colorway") or colorway
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / 100, height / 100), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        self.cells: dict[tuple[str, str], Any] = {}
        self.categories: dict[str, list[str]] = {}
        self.handles: dict[str, Any] = {}
        self.last: np.ndarray | None = None  # the line drawn before, which a fill may reach down to
        self.stacked: dict[Any, float] = {}  # how high bars already stand

    def png(self) -> bytes:
        """Draws everything and encodes it."""
        self.place()
        self.bars = [t for t in self.data if t["type"] == "bar" and t.get("visible", True) is True]
        for order, trace in enumerate(self.data):
            if trace.get("visible", True) is True:
                color = self.colorway[order % len(self.colorway)]
                axes = self.cells[axes_of(trace)]
                getattr(self, trace["type"])(axes, trace, color, axes_of(trace))
        for ids, axes in self.cells.items():
            self.finish(axes, ids)
        self.decorate()
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=DPI, facecolor="white")
        return file.getvalue()

    # ------------------------------------------------------------------------------------------------ axes and words
    def place(self) -> None:
        """Makes one matplotlib axes for each pair of plotly axes that a trace uses."""
        margin = {"l": 64, "r": 24, "t": 56 if words(self.layout.get("title")) else 40, "b": 56} | {
            k: v for k, v in (self.layout.get("margin") or {}).items() if k in "lrtb" and v is not None
        }
        if any(self.bar_of(t) for t in self.data):
            margin["r"] = max(margin["r"], 70)
        left, bottom = margin["l"] / self.width, margin["b"] / self.height
        wide = 1 - left - margin["r"] / self.width
        tall = 1 - bottom - margin["t"] / self.height
        self.frame = (left, bottom, wide, tall)
        for ids in dict.fromkeys(axes_of(t) for t in self.data) or [("x", "y")]:
            x, y = self.axis(ids[0]), self.axis(ids[1])
            if (under := y.get("overlaying")) and (ids[0], under) in self.cells:
                self.cells[ids] = self.cells[ids[0], under].twinx()
                continue
            x0, x1 = x.get("domain") or (0, 1)
            y0, y1 = y.get("domain") or (0, 1)
            box = (left + wide * x0, bottom + tall * y0, wide * (x1 - x0), tall * (y1 - y0))
            self.cells[ids] = self.figure.add_axes(box)
        for ids, axes in self.cells.items():
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=9, length=0)
            for side, name in zip("xy", ids, strict=True):
                if self.axis(name).get("showgrid", True) and not self.axis(name).get("overlaying"):
                    axes.grid(axis=side, color="#e3e6ea", linewidth=0.8)

    def axis(self, name: str) -> dict[str, Any]:
        return self.layout.get(name[0] + "axis" + name[1:]) or {}

    def positions(self, name: str, values: Any, count: int = 0) -> np.ndarray:
        """Returns positions along an axis: numbers as they are, categories by index; without values, 0, 1, ..."""
        values = list(range(count) if values is None else values)
        if not any(isinstance(v, str) for v in values):
            return np.array([np.nan if v is None else v for v in values], dtype=float)
        if name not in self.categories:
            self.categories[name] = [str(v) for v in self.axis(name).get("categoryarray") or ()]
        known = self.categories[name]
        for v in values:
            if str(v) not in known:
                known.append(str(v))
        return np.array([known.index(str(v)) for v in values], dtype=float)

    def finish(self, axes: Any, ids: tuple[str, str]) -> None:
        """Sets scale, range, ticks and titles of one pair of axes."""
        from matplotlib.ticker import FuncFormatter

        for side, name in zip("xy", ids, strict=True):
            axis, mpl = self.axis(name), getattr(axes, f"{side}axis")
            log = axis.get("type") == "log"
            if log:
                getattr(axes, f"set_{side}scale")("log")
            if (known := self.categories.get(name)) is not None:
                mpl.set_ticks(range(len(known)), [clean(k) for k in known])
            if axis.get("tickvals") is not None:
                ticks = self.positions(name, axis["tickvals"])
                mpl.set_ticks(ticks, [clean(t) for t in axis.get("ticktext") or [f"{v:g}" for v in ticks]])
            elif (form := axis.get("tickformat")) and re.fullmatch(r"[,+]?\.?\d*[%efg]?", form):
                mpl.set_major_formatter(FuncFormatter(lambda v, _, form=form: format(v, form)))
            if axis.get("range") is not None:
                ends = [v for v in axis["range"] if v is not None]
                if len(ends) == 2:
                    getattr(axes, f"set_{side}lim")(*(10.0**v if log else v for v in ends))
            elif axis.get("autorange") == "reversed":
                mpl.set_inverted(True)
            elif axis.get("rangemode") == "tozero":
                getattr(axes, f"set_{side}lim")(**{"left" if side == "x" else "bottom": 0})
            if title := words(axis.get("title")):
                getattr(axes, f"set_{side}label")(title, fontsize=10)
            if axis.get("showticklabels") is False or axis.get("visible") is False:
                mpl.set_ticks([])
            if axis.get("visible") is False:
                axes.spines[:].set_visible(False)
            if axis.get("tickangle"):
                axes.tick_params(axis=side, rotation=-axis["tickangle"])
            if axis.get("scaleanchor"):
                axes.set_aspect(axis.get("scaleratio") or 1, adjustable="box")

    def decorate(self) -> None:
        """Draws title, legend, shapes and annotations."""
        from matplotlib.patches import Rectangle

        left, bottom, _, tall = self.frame
        if title := words(self.layout.get("title")):
            self.figure.text(left, 1 - 8 / self.height, title, fontsize=12, va="top")
        if (len(self.handles) > 1 and self.layout.get("showlegend") is not False) or self.layout.get("showlegend"):
            notes = self.layout.get("annotations") or []
            lift = 22 / self.height if any(n.get("yref") == "paper" and n.get("y", 0) >= 1 for n in notes) else 0
            self.figure.legend(
                self.handles.values(), [clean(n) for n in self.handles], loc="lower left", frameon=False, fontsize=9,
                bbox_to_anchor=(left - 0.01, bottom + tall + lift), ncols=4,
                borderaxespad=0.2, handlelength=1.6, columnspacing=1.2,
            )  # fmt: skip
        for shape in self.layout.get("shapes") or []:
            x0, y0 = self.point(shape, "x0", "y0")
            x1, y1 = self.point(shape, "x1", "y1")
            line = shape.get("line") or {}
            style: dict[str, Any] = {
                "linewidth": line.get("width", 1.5),
                "linestyle": DASH.get(line.get("dash", "solid"), "-"),
            }
            if shape.get("type") == "line":
                from matplotlib.lines import Line2D

                color = rgba(line.get("color", "#444"))
                self.figure.add_artist(Line2D([x0, x1], [y0, y1], color=color, **style))
            else:
                fill = rgba(shape.get("fillcolor", "rgba(0,0,0,0)"), shape.get("opacity", 1))
                edge = rgba(line.get("color", "rgba(0,0,0,0)"))
                patch = Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor=fill, edgecolor=edge, **style)
                self.figure.add_artist(patch)
        for note in self.layout.get("annotations") or []:
            x, y = self.point(note, "x", "y")
            arrow = note.get("showarrow", True)
            dx, dy = (note.get("ax", -10) or 0, note.get("ay", -30) or 0) if arrow else (0, 0)
            dx, dy = dx + (note.get("xshift") or 0), dy - (note.get("yshift") or 0)
            font = note.get("font") or {}
            ha = {"left": "left", "right": "right"}.get(note.get("xanchor", ""), "center")
            va = {"top": "top", "bottom": "bottom"}.get(note.get("yanchor", ""), "center")
            self.cells[next(iter(self.cells))].annotate(
                words(note), (x, y), xycoords="figure fraction", textcoords="offset points",
                xytext=(dx * 0.72, -dy * 0.72),
                fontsize=0.75 * float(font.get("size", 12)), color=rgba(font.get("color", "#222")), ha=ha, va=va,
                arrowprops={"arrowstyle": "-", "color": "#444"} if arrow else None, annotation_clip=False,
            )  # fmt: skip

    def point(self, item: dict[str, Any], kx: str, ky: str) -> tuple[float, float]:
        """Returns a position of a shape or annotation, as a fraction of the figure."""
        result = []
        for side, key in enumerate((kx, ky)):
            reference = item.get("xy"[side] + "ref") or "xy"[side]
            value = item.get(key, 0)
            start, size = self.frame[side], self.frame[side + 2]
            name = reference.split()[0]
            axes = next((a for ids, a in self.cells.items() if ids[side] == name), None)
            if reference == "paper" or axes is None:
                result.append(start + size * float(value))
            elif reference.endswith("domain"):
                box = axes.get_position()
                result.append((box.x0 + box.width * value, box.y0 + box.height * value)[side])
            else:
                if isinstance(value, str):
                    value = float(self.positions(name, [value])[0])
                elif self.axis(name).get("type") == "log" and item.get("text") is not None:
                    value = 10.0**value  # annotations, other than shapes, are placed by the logarithm
                pixel = axes.transData.transform(
                    (value, axes.get_ylim()[0]) if side == 0 else (axes.get_xlim()[0], value)
                )
                result.append(float(self.figure.transFigure.inverted().transform(pixel)[side]))
        return result[0], result[1]

    def label(self, trace: dict[str, Any], handle: Any) -> None:
        if trace.get("name") and trace.get("showlegend") is not False:
            self.handles.setdefault(str(trace["name"]), handle)

    def bar_of(self, trace: dict[str, Any]) -> bool:
        """Returns whether the trace has a color bar."""
        if trace["type"] == "heatmap":
            return trace.get("showscale", True) is not False
        return bool((trace.get("marker") or {}).get("showscale"))

    def colorbar(self, trace: dict[str, Any], mappable: Any, axes: Any) -> None:
        if not self.bar_of(trace):
            return
        box = axes.get_position()
        place = self.figure.add_axes((box.x1 + 12 / self.width, box.y0, 12 / self.width, box.height))
        bar = self.figure.colorbar(mappable, cax=place)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, length=0)
        holder = trace.get("colorbar") or (trace.get("marker") or {}).get("colorbar") or {}
        if title := words(holder.get("title")):
            bar.ax.set_title(title, fontsize=8)

    # -------------------------------------------------------------------------------------------------------- traces
    def scatter(self, axes: Any, trace: dict[str, Any], color: str, ids: tuple[str, str]) -> None:
        count = max(len(trace[k]) if trace.get(k) is not None else 0 for k in "xy")
        x, y = (self.positions(name, trace.get(key), count) for name, key in zip(ids, "xy", strict=True))
        line, marker = trace.get("line") or {}, trace.get("marker") or {}
        mode = trace.get("mode") or ("lines+markers" if count < 20 else "lines")
        alpha = trace.get("opacity", 1)
        fill_color = marker.get("color")
        single = fill_color if isinstance(fill_color, str) else None
        shade = rgba(line.get("color") or single or color, alpha)
        if (fill := trace.get("fill")) and fill != "none":
            paint = rgba(trace["fillcolor"]) if trace.get("fillcolor") else (*shade[:3], 0.25)
            if fill == "tonexty" and self.last is not None and len(self.last) == len(y):
                axes.fill_between(x, self.last, y, color=paint, linewidth=0)
            elif fill == "toself":
                axes.fill(x, y, color=paint, linewidth=0)
            else:
                axes.fill_between(x, 0, y, color=paint, linewidth=0)
        self.last = y
        if "lines" in mode:
            step = {"hv": "steps-post", "vh": "steps-pre", "hvh": "steps-mid"}.get(line.get("shape", ""), "default")
            dash: Any = DASH.get(line.get("dash", "solid"), "-")
            drawn = axes.plot(x, y, color=shade, linestyle=dash, linewidth=line.get("width", 2), drawstyle=step)
            self.label(trace, drawn[0])
        if "markers" in mode:
            symbol = marker["symbol"] if isinstance(marker.get("symbol"), str) else "circle"
            shape = MARK.get(symbol.replace("-open", "").replace("-dot", ""), "o")
            raw = marker.get("size", 6)
            size = np.square(0.75 * (np.asarray(raw, dtype=float) if raw is not None else 6))
            opacity = alpha * (marker.get("opacity", 1) if not isinstance(marker.get("opacity", 1), list) else 1)
            edge = marker.get("line") or {}
            style: dict[str, Any] = {"marker": shape, "s": size, "linewidths": edge.get("width", 0)}
            if edge.get("color") and isinstance(edge["color"], str):
                style["edgecolors"] = [rgba(edge["color"])]
            if is_numbers(fill_color):
                style |= {"c": np.asarray(fill_color, dtype=float), "cmap": colormap(marker.get("colorscale"))}
                style |= {"alpha": opacity, "vmin": marker.get("cmin"), "vmax": marker.get("cmax")}
            else:
                style["c"] = (
                    [rgba(c, opacity) for c in fill_color]
                    if isinstance(fill_color, list)
                    else [rgba(fill_color or color, opacity)]
                )
            if symbol.endswith("-open"):
                style |= {"facecolors": "none", "edgecolors": style.pop("c"), "linewidths": 1.4}
            drawn = axes.scatter(x, y, **style)
            self.colorbar(trace, drawn, axes)
            self.label(trace, drawn)
        if "text" in mode:
            where = str(trace.get("textposition", "middle center"))
            shift = (6 * ("right" in where) - 6 * ("left" in where), 6 * ("top" in where) - 6 * ("bottom" in where))
            ha = "left" if "right" in where else "right" if "left" in where else "center"
            va = "bottom" if "top" in where else "top" if "bottom" in where else "center"
            texts = trace.get("text") or []
            for a, b, t in zip(x, y, [texts] * count if isinstance(texts, str) else texts, strict=False):
                axes.annotate(clean(t), (a, b), xytext=shift, textcoords="offset points", fontsize=9, ha=ha, va=va)
        for key, xy in (("error_x", "xerr"), ("error_y", "yerr")):
            if (spread := errors(trace.get(key))) is not None:
                axes.errorbar(x, y, **{xy: spread}, fmt="none", ecolor=shade, elinewidth=1.4, capsize=3)

    def bar(self, axes: Any, trace: dict[str, Any], color: str, ids: tuple[str, str]) -> None:
        flat = trace.get("orientation") == "h"
        along, value = ("y", "x") if flat else ("x", "y")
        size = self.positions(ids["xy".index(value)], trace.get(value))
        name = ids["xy".index(along)]
        where = self.positions(name, trace.get(along), len(size))
        together = [t for t in self.bars if axes_of(t) == ids]
        mode = self.layout.get("barmode", "group")
        unit = float(np.diff(np.unique(where)).min()) if len(np.unique(where)) > 1 else 1.0
        base: Any = trace.get("base", 0) or 0
        wide: Any = 0.8 * unit
        shift = 0.0
        if mode == "group":
            wide = 0.8 * unit / len(together)
            shift = wide * (next(i for i, t in enumerate(together) if t is trace) - (len(together) - 1) / 2)
        elif mode in ("stack", "relative"):
            below = self.stacked
            base = np.array([below.get((ids, w, v < 0), 0.0) for w, v in zip(where, size, strict=True)])
            for w, v in zip(where, size, strict=True):
                below[ids, w, v < 0] = below.get((ids, w, v < 0), 0.0) + v
        marker = trace.get("marker") or {}
        fill_color: Any = marker.get("color")
        alpha = trace.get("opacity", marker.get("opacity", 1) or 1)
        if is_numbers(fill_color):
            low, high = (marker.get(k, f(fill_color)) for k, f in (("cmin", min), ("cmax", max)))
            scale = colormap(marker.get("colorscale"))
            paint = [scale((v - low) / ((high - low) or 1)) for v in fill_color]
        else:
            paint = (
                [rgba(c, alpha) for c in fill_color]
                if isinstance(fill_color, list)
                else [rgba(fill_color or color, alpha)]
            )
        if trace.get("width") is not None:
            wide = np.asarray(trace["width"], dtype=float)
        spread = errors(trace.get("error_x" if flat else "error_y"))
        style: dict[str, Any] = {"color": paint, "zorder": 2}
        if spread is not None:
            style |= {"xerr" if flat else "yerr": spread, "error_kw": {"capsize": 3, "ecolor": "#333"}}
        if flat:
            drawn = axes.barh(where + shift, size, wide, left=base, **style)
        else:
            drawn = axes.bar(where + shift, size, wide, bottom=base, **style)
        texts = trace.get("text")
        if isinstance(texts, list | np.ndarray):
            axes.bar_label(drawn, [clean(t) for t in texts], fontsize=8, padding=2)
        self.label(trace, drawn)

    def heatmap(self, axes: Any, trace: dict[str, Any], color: str, ids: tuple[str, str]) -> None:
        z = np.array([[np.nan if v is None else v for v in row] for row in trace["z"]], dtype=float)
        edges = []
        for name, key, count in ((ids[0], "x", z.shape[1]), (ids[1], "y", z.shape[0])):
            places = self.positions(name, trace.get(key), count)
            if len(places) == count:
                middle = (places[1:] + places[:-1]) / 2
                half = (places[1] - places[0]) / 2 if count > 1 else 0.5
                last = (places[-1] - places[-2]) / 2 if count > 1 else 0.5
                places = np.concatenate([[places[0] - half], middle, [places[-1] + last]])
            edges.append(places)
        limits = {"vmin": trace.get("zmin"), "vmax": trace.get("zmax")}
        if trace.get("zmid") is not None and limits["vmin"] is None:
            reach = float(np.nanmax(np.abs(z - trace["zmid"])))
            limits = {"vmin": trace["zmid"] - reach, "vmax": trace["zmid"] + reach}
        scale = colormap(trace.get("colorscale"), trace.get("reversescale"))
        drawn = axes.pcolormesh(*edges, z, cmap=scale, alpha=trace.get("opacity"), **limits)
        axes.grid(visible=False)
        self.colorbar(trace, drawn, axes)
        if trace.get("text") is not None or "z" in str(trace.get("texttemplate", "")):
            centers_x, centers_y = ((e[1:] + e[:-1]) / 2 for e in edges)
            texts, form = trace.get("text"), re.search(r"z:([^}]*)", str(trace.get("texttemplate", "")))
            for r, c in np.ndindex(z.shape):
                if np.isfinite(z[r, c]):
                    shown = format(z[r, c], form[1] if form else "g") if texts is None else clean(texts[r][c])
                    color = "black" if sum(drawn.cmap(drawn.norm(z[r, c]))[:3]) > 1.6 else "white"
                    axes.text(centers_x[c], centers_y[r], shown, ha="center", va="center", fontsize=8, color=color)

    def image(self, axes: Any, trace: dict[str, Any], color: str, ids: tuple[str, str]) -> None:
        if trace.get("source"):
            from PIL import Image

            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(str(trace["source"]).partition(",")[2]))))
        else:
            pixels = np.asarray(trace["z"], dtype=float)
            pixels = np.clip(pixels, 0, 255).astype(np.uint8)
        axes.imshow(pixels, interpolation="nearest")
        axes.grid(visible=False)
