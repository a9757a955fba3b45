"""What must stand beside a map: how far its neighbors, its groups and its distances may be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from anatolab.analysis.embeddings.features import Points
from anatolab.data.checks import check_features
from anatolab.types import InputError

PAIRED = 1_500  # points whose pairwise distances are compared


def measure(points: Points, y: np.ndarray, k: int = 15) -> dict[str, float]:
    """Measures a map's quality: how well it preserves neighbors, groups and distances.

    Args:
        points: Features, classes, patients.
        y: Their map ``(n, 2)``, or the features themselves, of which trustworthiness is 1.
        k: Neighbors that are looked at.

    Returns:
        ``trustworthiness``, ``continuity``, ``distance_correlation``; ``class_hit``, ``class_hit_elsewhere`` (among
        points of other patients) and ``patient_hit``, each with its ``..._chance``; ``class_silhouette`` and
        ``patient_silhouette``. NaN where there is one class or one patient only.
    """
    x, label, patient = points.features, points.label, points.patient
    result = {
        "trustworthiness": trustworthiness(x, y, k),
        "continuity": trustworthiness(y, x, k),
        "distance_correlation": distance_correlation(x, y),
        "class_hit": neighborhood_hit(y, label, k),
        "class_hit_chance": hit_by_chance(label),
        "class_silhouette": silhouette(y, label),
        "patient_hit": neighborhood_hit(y, patient, k),
        "patient_hit_chance": hit_by_chance(patient),
        "patient_silhouette": silhouette(y, patient),
    }
    several = len(np.unique(patient)) > 1
    result["class_hit_elsewhere"] = neighborhood_hit(y, label, k, apart=patient) if several else math.nan
    result["class_hit_elsewhere_chance"] = hit_by_chance(label, apart=patient) if several else math.nan
    return result


def trustworthiness(x: np.ndarray, y: np.ndarray, k: int = 15) -> float:
    """Returns the trustworthiness of a map in [0, 1]: 1 if its neighborhoods hold no intruders by feature rank.

    With the arguments exchanged it is the *continuity*: how few true neighbors the map tore away.

    Args:
        x: Features ``(n, d)``.
        y: Map ``(n, 2)``.
        k: Neighbors, less than half of the points.

    Reference:
        Venna and Kaski, ICANN 2001; computed by scikit-learn.
    """
    from sklearn.manifold import trustworthiness as of

    check_features(x)
    check_features(y)
    return float(of(x, y, n_neighbors=k))


def neighborhood_hit(y: np.ndarray, label: np.ndarray, k: int = 15, *, apart: np.ndarray | None = None) -> float:
    """Returns the mean share of a point's ``k`` nearest neighbors that have its label, in [0, 1].

    Args:
        y: Map or features ``(n, d)``.
        label: ``(n,)``.
        k: Neighbors.
        apart: ``(n,)`` such as patients: only neighbors that differ in it are looked at, so that what is alike because
            it comes from one patient does not count.

    Raises:
        InputError: There are not ``k`` neighbors to look at.

    Reference:
        Paulovich et al., Least Square Projection, IEEE TVCG 2008.
    """
    return float(hits(y, label, k, apart=apart).mean())


def hits(y: np.ndarray, label: np.ndarray, k: int = 15, *, apart: np.ndarray | None = None) -> np.ndarray:
    """Returns the share of each point's ``k`` neighbors with its label, ``(n,)``; see :func:`neighborhood_hit`."""
    if apart is None:
        same: np.ndarray = label[_nearest(y, k)] == label[:, None]
        return same.mean(1)
    result = np.empty(len(y))
    for g in np.unique(apart):
        member, others = apart == g, np.flatnonzero(apart != g)
        result[member] = (label[others[_nearest(y[others], k, y[member])]] == label[member][:, None]).mean(1)
    return result


def hit_by_chance(label: np.ndarray, *, apart: np.ndarray | None = None) -> float:
    """Returns the expected :func:`neighborhood_hit` of shuffled labels.

    Example:
        >>> round(hit_by_chance(np.repeat([0, 1], 50)), 3)
        0.495
    """
    group = np.arange(len(label)) if apart is None else np.asarray(apart)
    shares = []
    for c in np.unique(label):
        inside = label == c
        for g, member in zip(*np.unique(group[inside], return_counts=True), strict=True):
            outside = group != g
            shares.append((member, (inside & outside).sum() / max(1, outside.sum())))
    weight, share = np.array(shares).T
    return float(weight @ share / weight.sum())


def silhouette(y: np.ndarray, label: np.ndarray) -> float:
    """Returns the mean silhouette of the groups, in [-1, 1]; NaN for a single group.

    Reference:
        Rousseeuw, J. Comput. Appl. Math. 1987; computed by scikit-learn.
    """
    from sklearn.metrics import silhouette_score

    check_features(y)
    groups = len(np.unique(label))
    return float(silhouette_score(y, label)) if 1 < groups < len(label) else math.nan


def distance_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the rank correlation of all pairwise distances before and after, in [-1, 1].

    Not the distance correlation of Székely et al., which asks whether two variables depend. Of more than ``PAIRED``
    points a fixed choice is compared.

    Reference:
        Kobak and Berens, Nature Communications 2019, "CPD".
    """
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    check_features(x)
    check_features(y)
    kept = np.sort(np.random.default_rng(0).permutation(len(x))[:PAIRED])
    return float(spearmanr(pdist(np.asarray(x)[kept]), pdist(np.asarray(y)[kept])).statistic)


def stability(maps: Sequence[np.ndarray], k: int = 15) -> dict[str, np.ndarray]:
    """Measures the agreement of several maps of the same points, over seeds or perplexities.

    Returns:
        ``overlap`` ``(m, m)``, the mean share of ``k`` neighbors that two maps have in common (by chance ``k / (n -
        1)``); ``disparity`` ``(m, m)``, what is left of the squared distances after turning, scaling and shifting one
        map onto the other, 0 for the same shape and at most 1.
    """
    from scipy.spatial import procrustes

    m, n = len(maps), len(maps[0])
    overlap, disparity = np.eye(m), np.zeros((m, m))
    member = np.zeros((m, n, n), dtype=bool)
    for i, y in enumerate(maps):
        np.put_along_axis(member[i], _nearest(y, k), True, axis=1)
    for i in range(m):
        for j in range(i):
            overlap[i, j] = overlap[j, i] = (member[i] & member[j]).sum() / (n * k)
            disparity[i, j] = disparity[j, i] = procrustes(maps[i], maps[j])[2]
    return {"overlap": overlap, "disparity": disparity}


def _nearest(y: np.ndarray, k: int, of: np.ndarray | None = None) -> np.ndarray:
    """Returns the ``k`` rows of y nearest to each row of ``of``, or to each row of y except itself, ``(n, k)``."""
    from sklearn.neighbors import NearestNeighbors

    if k > len(y) - (of is None):
        raise InputError(f"k: {k} neighbors among {len(y)} points; use fewer.")
    check_features(y)
    result: np.ndarray = NearestNeighbors(n_neighbors=k).fit(y).kneighbors(of, return_distance=False)
    return result
