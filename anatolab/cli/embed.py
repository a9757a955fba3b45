"""``anatolab embed``: a map of a run's features, as one self-contained page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from anatolab.cli.common import Json, Overwrite, cohort_of, patients_of, print_json
from anatolab.errors import InputError
from anatolab.files import check_target, write_atomically

MEANING = {
    "trustworthiness": "neighbors in the map are neighbors among the features; 1 is best",
    "continuity": "neighbors among the features are neighbors in the map; 1 is best",
    "distance_correlation": "rank correlation of distances before and after; 1 is best",
    "class_hit": "share of neighbors of the same class",
    "class_hit_chance": "the same by chance",
    "class_hit_elsewhere": "share of neighbors of the same class, among points of other patients",
    "class_hit_elsewhere_chance": "the same by chance",
    "class_silhouette": "separation of classes, from -1 to 1",
    "patient_hit": "share of neighbors of the same patient; far above chance, the map separates patients",
    "patient_hit_chance": "the same by chance",
    "patient_silhouette": "separation of patients, from -1 to 1",
}


def command(arguments: Sequence[str]) -> Any:
    """Returns the function whose parameters are the flags."""
    return embed


def embed(
    run: tyro.conf.Positional[Path],
    out: Path,
    data: Path | None = None,
    on: Literal["validation", "test", "development", "train", "all"] = "validation",
    of: Literal["decoder", "representation", "patch", "slice"] = "decoder",
    layout: Literal["tsne", "umap"] = "tsne",
    dims: Literal[2, 3] = 2,
    per_class: int = 200,
    seed: int = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> int:
    """Draw a run's features of pixels, patches or slices as a map, with measures of its quality.

    Args:
        run: Folder of a run on slices, the --out of train.
        out: The page to write, such as map.html; it is self-contained and opens off-line.
        data: Folder of annotated patients; by default the one the run was trained on.
        on: Patients to show: a part of the run's split, or all annotated ones. The page names them.
        of: Features: of pixels in all decoder maps, pixel representations, means over patches, or means over slices.
        layout: t-SNE or UMAP.
        dims: Dimensions of the map.
        per_class: Largest number of points per class.
        seed: Seed of the choice of points and of the layout.
        overwrite: Replace the page.
        json: Print the quality measures as JSON.
    """
    from anatolab.analysis.embeddings import embed as make
    from anatolab.training import open_run

    check_target(out, overwrite=overwrite)
    if not 2 <= per_class <= 5_000:
        raise InputError(f"--per-class must be a whole number from 2 to 5000, not {per_class}.")
    _, info = open_run(run)
    cohort = cohort_of(run, info, data)
    patients = [
        patient
        for patient in patients_of(run, info, info.adapted(cohort), on)
        if all(ref.labeled for ref in cohort.of([patient]))
    ]
    if not patients:
        raise InputError(f"{cohort.root}: none of the {on} patients is annotated; name others with --on.")
    result = make(run, cohort, patients, of=of, layout=layout, per_class=per_class, seed=seed, dims=dims)
    whose = "annotated" if on == "all" else on
    title = f"{layout}, {dims}-D, of {len(result.points)} {_things(of)} of {len(patients)} {whose} patients"
    trained = sum(patient in info.split.train for patient in patients)
    if trained:
        title += f", {trained} of whom the run was trained on"
    write_atomically(out, page(result, title), overwrite=overwrite)
    if json:
        print_json({"page": out, "points": len(result.points), "patients": patients, "quality": result.quality})
        return 0
    print(f"{out}: {title}")
    for name, value in result.quality.items():
        print(f"{name:27} {_number(value):>6}  {MEANING.get(name, '')}")
    return 0


def page(embedding: Any, title: str) -> str:
    """Returns one page of HTML: the map, the script that draws it, and its quality."""
    import html

    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{_number(value)}</td><td>{html.escape(MEANING.get(name, ''))}</td></tr>"
        for name, value in embedding.quality.items()
    )
    drawn = figure(embedding).to_html(full_html=False, include_plotlyjs=True, div_id="map")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        "<style>body{font-family:sans-serif;max-width:1000px;margin:1em auto}td{padding:.2em .8em}</style></head>"
        f"<body><h1>{html.escape(title)}</h1>{drawn}<h2>How far to believe it</h2>"
        f"<table><tbody>{rows}</tbody></table></body></html>\n"
    )


def figure(embedding: Any) -> Any:
    """Returns a plotly figure of a map, a trace per class, whose points name patient and slice."""
    import plotly.graph_objects as go

    from anatolab.viz.colors import class_color

    points, made = embedding.points, []
    for number, name in enumerate(points.classes):
        chosen = points.label == number
        if not chosen.any():
            continue
        y = embedding.map[chosen].round(4)
        text = [f"{name}, {slice_}" for slice_ in points.names[chosen]]
        look: dict[str, Any] = {"name": name, "text": text, "hoverinfo": "text", "mode": "markers"}
        color = class_color(name, number)
        if y.shape[1] == 3:
            x, y, z = y.T
            made.append(go.Scatter3d(x=x, y=y, z=z, marker={"color": color, "size": 3}, **look))
        else:
            made.append(go.Scatter(x=y[:, 0], y=y[:, 1], marker={"color": color, "size": 6}, **look))
    result = go.Figure(made)
    result.update_layout(height=700, legend={"itemsizing": "constant"}, template="plotly_white")
    result.update_xaxes(visible=False)
    result.update_yaxes(visible=False, scaleanchor="x")
    return result


def _things(of: str) -> str:
    return {"decoder": "pixels", "representation": "pixels", "patch": "patches", "slice": "slices"}[of]


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"
