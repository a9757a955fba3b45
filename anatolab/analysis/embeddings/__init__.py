r"""Maps of what a network has learned, t-SNE and UMAP, and the numbers without which such a map should not be shown.

:func:`embed` goes from a trained method and a cohort to a map in one call: it reads features of pixels, patches or
slices, the same number of each class and of each patient as far as they go, keeps their leading principal components,
lays them out with a fixed seed, and measures the layout. Layouts are scikit-learn's and umap-learn's; nothing is
computed here that they have.

What the numbers see. *Trustworthiness* and *continuity* compare neighbors before and after; they do not know classes.
The *hit* is the share of neighbors of one's own class, to be read beside its chance; counted over other patients alone,
it shows whether classes or patients were separated. The *silhouette* compares distances within and between groups. The
*distance correlation* says how far distances in the map may be read at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from anatolab.analysis.embeddings.features import Level, Points, balanced, read_features
from anatolab.analysis.embeddings.layouts import Layout, aligned_maps, principal, tsne, turned, umap_map
from anatolab.analysis.embeddings.quality import (
    distance_correlation,
    hit_by_chance,
    hits,
    measure,
    neighborhood_hit,
    silhouette,
    stability,
    trustworthiness,
)
from anatolab.data import prepare
from anatolab.training.folder import open_run
from anatolab.types import Cohort, InputError

__all__ = [
    "Embedding",
    "Layout",
    "Level",
    "Points",
    "aligned_maps",
    "balanced",
    "distance_correlation",
    "embed",
    "hit_by_chance",
    "hits",
    "measure",
    "neighborhood_hit",
    "principal",
    "read_features",
    "silhouette",
    "stability",
    "trustworthiness",
    "tsne",
    "turned",
    "umap_map",
]


@dataclass(frozen=True, eq=False)
class Embedding:
    """A map and the points it shows; ``quality`` is that of :func:`measure`."""

    points: Points
    map: np.ndarray  # (n, 2) or (n, 3)
    quality: dict[str, float]


def embed(
    method: nn.Module | Path | str,
    cohort: Cohort,
    patients: Sequence[str],
    size: tuple[int, int] | None = None,
    *,
    of: Level = "decoder",
    layout: Layout = "tsne",
    per_class: int = 100,
    neighbors: float = 30.0,
    seed: int = 0,
    dims: int = 2,
) -> Embedding:
    """Embeds the features of a trained method on some patients in 2-D, with quality measures, in one call.

    Args:
        method: A trained method, or the folder of its run, whose last checkpoint is opened.
        cohort: Where the patients are.
        patients: Best ones that were not trained on.
        size: Height and width that the method was trained at; of a folder it is known.
        of: What is shown, see :func:`read_features`.
        layout: ``tsne`` or ``umap``.
        per_class: Points per class, at most.
        neighbors: Perplexity of t-SNE, number of neighbors of UMAP.
        seed: Seed of the choice of points and of the layout.
        dims: Dimensions of the map, 2 or 3.

    Raises:
        InputError: A method without its size, a method without the features asked for, or an unknown patient.
    """
    view = None
    if not isinstance(method, nn.Module):
        folder = method
        method, info = open_run(folder)
        if info.patch is not None:
            raise InputError(
                f"{folder}: was trained on patches of volumes, but maps need slices; give a run on slices."
            )
        cohort, size, view = info.adapted(cohort), (info.side, info.side), info.rules["field_of_view"]
    if size is None:
        raise InputError("size: give the height and width that the method was trained at.")
    view = replace(view, margin=1.0) if view is not None else None  # nothing is rotated here
    rows = prepare(cohort, patients, size=size, field_of_view=view)
    points = read_features(method, rows, cohort.classes, of, per_class=per_class, seed=seed)
    lay: Callable[..., np.ndarray] = tsne if layout == "tsne" else umap_map
    result = lay(points.features, neighbors if layout == "tsne" else round(neighbors), seed=seed, dims=dims)
    return Embedding(points, result, measure(points, result))
