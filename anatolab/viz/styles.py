"""Colors, dashes, symbols and words of plotly, as matplotlib takes them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

DASH = {
    "solid": "-",
    "dash": "--",
    "dot": ":",
    "dashdot": "-.",
    "longdash": (0, (8, 3)),
    "longdashdot": (0, (8, 3, 2, 3)),
}
MARK = {
    "circle": "o", "square": "s", "diamond": "D", "cross": "P", "x": "X", "triangle-up": "^", "triangle-down": "v",
    "triangle-left": "<", "triangle-right": ">", "star": "*", "hexagon": "h", "pentagon": "p", "line-ew": "_",
    "line-ns": "|",
}  # fmt: skip


def axes_of(trace: dict[str, Any]) -> tuple[str, str]:
    """Returns the pair of plotly axes of a trace, e.g. ``("x", "y2")``."""
    return str(trace.get("xaxis") or "x"), str(trace.get("yaxis") or "y")


def words(holder: Any) -> str:
    """Returns the text of a title or annotation."""
    return clean((holder.get("text") if isinstance(holder, dict) else holder) or "")


def clean(text: Any) -> str:
    """Converts plotly's HTML tags to plain text; dollar signs outside formulas stay."""
    plain = re.sub(r"<[^>]+>", "", re.sub(r"<br\s*/?>", "\n", str(text)))
    return plain.replace("$", r"\$")


def is_numbers(value: Any) -> bool:
    """Returns whether a color is given as numbers for a color scale."""
    return isinstance(value, list | np.ndarray) and len(value) > 0 and not isinstance(value[0], str)


def errors(spec: Any) -> np.ndarray | None:
    """Returns error bars as matplotlib takes them, lower and upper."""
    if not spec or spec.get("visible") is False or spec.get("array") is None:
        return None
    upper = np.nan_to_num(np.array(spec["array"], dtype=float))
    lower = upper if spec.get("arrayminus") is None else np.nan_to_num(np.array(spec["arrayminus"], dtype=float))
    return np.stack([lower, upper])


def rgba(color: Any, alpha: float | None = 1) -> tuple[float, float, float, float]:
    """Returns a CSS color as four numbers in [0, 1].

    Example:
        >>> rgba("rgba(255, 0, 0, 0.5)")
        (1.0, 0.0, 0.0, 0.5)
    """
    from matplotlib.colors import to_rgba

    alpha = 1 if alpha is None else alpha
    if result := re.fullmatch(r"rgba?\(([^)]*)\)", str(color).strip()):
        parts = [float(p.strip().rstrip("%")) for p in result[1].split(",")]
        red, green, blue = (p / 255 for p in parts[:3])
        return red, green, blue, (parts[3] if len(parts) > 3 else 1) * alpha
    red, green, blue, opacity = to_rgba(str(color))
    return red, green, blue, opacity * alpha


def colormap(scale: Any, reverse: Any = False) -> Any:
    """Returns a plotly color scale, by name or as stops, as a matplotlib color map; viridis where none is named."""
    import matplotlib
    from matplotlib.colors import LinearSegmentedColormap

    if scale is None:
        result: Any = matplotlib.colormaps["viridis"]
    elif isinstance(scale, str):
        lower = scale.lower()
        name = {"greys": "Greys_r", "rdbu": "RdBu_r"}.get(lower.removesuffix("_r"), lower.removesuffix("_r"))
        known = {n.lower(): n for n in matplotlib.colormaps}
        result = matplotlib.colormaps[known.get(name.lower(), "viridis")]
        result = result.reversed() if lower.endswith("_r") else result
    else:
        result = LinearSegmentedColormap.from_list("stops", [(float(stop), rgba(color)) for stop, color in scale])
    return result.reversed() if reverse else result
