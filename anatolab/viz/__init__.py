"""Figures that work live, in the built book and without JavaScript; one palette, with one color per class.

In a live notebook :func:`show` hands back the ordinary interactive figure. While the book is built (environment
variable ``ANATOLAB_BOOK``) it gives one block of HTML: a picture with its alternative text, the same figure as data
that a small script draws when the reader gets near it, and the numbers behind it as a table.
"""

from anatolab.viz.block import MAX_IMAGE, MAX_ROWS, MAX_SPEC, Block, in_book, show, shrink
from anatolab.viz.colors import CLASS_COLORS, METHOD_COLORS, PALETTE, class_color, method_color, method_style
from anatolab.viz.curves import curves, read_log
from anatolab.viz.overlays import outline, overlay, overlay_figure, png_url
from anatolab.viz.slider import explorer, frames_figure, redrawn
from anatolab.viz.spec import DRAWN, MAX_POINTS, spec_of

__all__ = [
    "CLASS_COLORS",
    "DRAWN",
    "MAX_IMAGE",
    "MAX_POINTS",
    "MAX_ROWS",
    "MAX_SPEC",
    "METHOD_COLORS",
    "PALETTE",
    "Block",
    "class_color",
    "curves",
    "explorer",
    "frames_figure",
    "in_book",
    "method_color",
    "method_style",
    "outline",
    "overlay",
    "overlay_figure",
    "png_url",
    "read_log",
    "redrawn",
    "show",
    "shrink",
    "spec_of",
]
