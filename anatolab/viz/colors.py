"""One color per class and per method, the same on every page."""

from __future__ import annotations

from typing import Any

from anatolab.methods import METHODS
from anatolab.types import InputError

# Distinguishable with normal and color-deficient vision, and at least 3 : 1 against both page backgrounds: see
# tests/test_viz.py, which also holds book/_static/anatolab.css to the same values.
CLASS_COLORS = {"background": "#808080", "RV": "#2b7fd0", "Myo": "#b98a00", "LV": "#d0445f"}
METHOD_COLORS = {
    "full supervision": "#808080",
    **{method.title: method.color for method in METHODS.values()},
    "CFR": "#c400c4",
}
PALETTE = ("#2b7fd0", "#b98a00", "#d0445f", "#457d57", "#a15895", "#a19558", "#5757fa", "#b24d1b")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star")


def class_color(name: str, index: int | None = None) -> str:
    """Returns the one color of an anatomical class in this book, as ``#rrggbb``.

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
    """Returns the color of a method, as ``#rrggbb``; ``mean_teacher`` and ``mean teacher`` are the same method.

    Raises:
        InputError: A method that has no color.

    Example:
        >>> method_color("ua_mt") == method_color("UA-MT")
        True
    """
    return METHOD_COLORS[_method(name)]


def method_style(name: str) -> dict[str, Any]:
    """Returns color, dash and symbol of a method for a plotly line; dash and symbol repeat what the color encodes.

    Example:
        >>> method_style("mean teacher")["line"]["dash"]
        'dashdot'
    """
    order = list(METHOD_COLORS).index(_method(name))
    color = method_color(name)
    return {
        "line": {"color": color, "dash": _DASHES[order % len(_DASHES)]},
        "marker": {"color": color, "symbol": _SYMBOLS[order % len(_SYMBOLS)]},
    }


def _method(name: str) -> str:
    plain = {key.lower().replace("-", "").replace(" ", ""): key for key in METHOD_COLORS}
    result = plain.get(name.lower().replace("-", "").replace("_", "").replace(" ", ""))
    if result is None:
        raise InputError(f"Method {name!r} has no color; use one of {', '.join(METHOD_COLORS)}.")
    return result
