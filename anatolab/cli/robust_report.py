"""The table and the picture of ``anatolab robust compare``."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any


def as_markdown(about: Mapping[str, Any], results: Sequence[Any]) -> str:
    """Returns the table as Markdown, with a description of data, model and settings.

    Args:
        about: Data, model, seeds and notes.
        results: The results of :func:`anatolab.robust.comparison.compare`.
    """
    unit = results[0].scores["unit"]
    head = ["method", "labels in training", "labels in selection", f"worst {unit}", "mean", "gap", "worst by seed"]
    lines = ["| " + " | ".join(head) + " |", "| --- | --- | --- |" + " --- |" * 4]
    for result in results:
        scores = result.scores
        low, high = min(scores["by_seed"]), max(scores["by_seed"])
        cells = [result.title, *(", ".join(result.sees[part]) or "none" for part in ("training", "selection"))]
        cells += [_with_interval(scores, key) for key in ("worst", "mean", "gap")]
        lines.append("| " + " | ".join([*cells, f"{low:.3f} to {high:.3f}"]) + " |")
    sizes = ", ".join(f"{split} {count}" for split, count in about["images"].items())
    counts = "; ".join(f"{name}: {count}" for name, count in about["training_counts"].items())
    settings = "each method's choice among its settings on validation" if about["tuned"] else "recommended ones"
    notes = "".join(f"- {note}\n" for note in about["notes"])
    return f"""# {about["name"]}: heads on frozen features of {about["model"]}

{chr(10).join(lines)}

Accuracy on the test split, averaged over {about["seeds"]} seed(s). In parentheses: 95 % percentile bootstrap over test
images within each {unit}. Labels: y is the class of an image, group its class and attribute. A method that sees fewer
labels solves a harder task.

- images: {sizes}
- training images: {counts}
- text head: {about["text"]}
- settings: {settings}
{notes}"""


def _with_interval(scores: Mapping[str, Any], key: str) -> str:
    low, high = scores["intervals"][key]
    return f"{scores[key]:.3f} ({low:.3f} to {high:.3f})"


def draw_groups(results: Sequence[Any]) -> bytes:
    """Draws the accuracy of each group by each method as PNG; the bar spans the mean and the worst group."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.42 * len(results) + 1.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = list(results[0].scores["per_group"])
    markers = "osD^vPX*<>hp"
    for row, result in enumerate(results):
        scores = result.scores
        axes.plot([scores["worst"], scores["mean"]], [row, row], color="0.75", linewidth=5, zorder=1)
        axes.plot(scores["intervals"]["worst"], [row, row], color="0.35", linewidth=1.2, zorder=2)
        for k, name in enumerate(names):
            style: dict[str, Any] = {"marker": markers[k % len(markers)], "color": f"C{k % 10}", "s": 34, "zorder": 3}
            axes.scatter(scores["per_group"].get(name, float("nan")), row, label=name if row == 0 else None, **style)
    axes.set_yticks(range(len(results)), [result.title for result in results])
    axes.invert_yaxis()
    axes.set_xlabel(
        f"accuracy on test; gray bar: worst {results[0].scores['unit']} to mean, thin line: 95 % of the worst"
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28 if len(results) < 6 else -0.14), ncols=3, fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    return as_png(figure)


def as_png(figure: Any) -> bytes:
    """Returns a matplotlib figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
