"""anatolab: learning anatomy from few labels, and features that do not lie."""

__version__ = "0.1.0"
