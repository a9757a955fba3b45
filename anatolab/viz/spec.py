"""A plotly figure as the data that the book's script draws: plain containers, thinned and packed."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from anatolab.types import InputError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DRAWN = ("scatter", "bar", "heatmap", "image")  # by bundle and twin alike
MAX_POINTS = 5_000  # a trace and state


def spec_of(figure: Figure) -> tuple[dict[str, Any], list[str]]:
    """Returns what the book's script draws (traces, layout without template, frames), and notes for the reader.

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
    return {"plain": plain, "layout": layout, "encoded": encode(plain)}, list(dict.fromkeys(notes))


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


def encode(value: Any) -> Any:
    """Encodes for JSON: long numeric arrays as int16 or uint8 with scale and offset, short ones as rounded numbers."""
    if isinstance(value, dict):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        array = numeric(value)
        if array is None:
            return [encode(v) for v in value]
        return _pack(array) if array.size >= 48 else _rounded(array.tolist())
    return _rounded(value.item() if isinstance(value, np.generic) else value)


def numeric(value: Any) -> np.ndarray | None:
    """Returns the values as a numeric array of any shape, or None; ``None`` entries become NaN."""
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
