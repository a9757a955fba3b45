"""Layouts in the plane: scikit-learn's t-SNE and umap-learn's UMAP, with a fixed seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from anatolab.data.checks import check_features
from anatolab.types import InputError

Layout = Literal["tsne", "umap"]
COMPONENTS = 50  # principal components that a layout sees


def principal(x: np.ndarray, components: int = COMPONENTS) -> np.ndarray:
    """Returns the leading principal components of rows ``(n, d)``, from which every layout starts."""
    from sklearn.decomposition import PCA

    check_features(x)
    result: np.ndarray = PCA(min(components, *x.shape), svd_solver="full").fit_transform(np.asarray(x, np.float64))
    return result


def tsne(
    x: np.ndarray,
    perplexity: float = 30.0,
    *,
    init: np.ndarray | Literal["pca", "random"] = "pca",
    seed: int = 0,
    iterations: int = 750,
    dims: int = 2,
) -> np.ndarray:
    """Returns a t-SNE layout ``(n, dims)`` of rows ``(n, d)``, by scikit-learn, from their principal components.

    Args:
        x: Rows; more than ``COMPONENTS`` columns are reduced first.
        perplexity: Soft number of neighbors; less than a third of the rows, or it is lowered to that.
        init: ``pca`` keeps what is global, as far as two components do; ``random`` depends on the seed alone; from an
            array ``(n, 2)``, another map, the layout goes on at that scale and without exaggeration.
        seed: Seed of a random start.
        iterations: Iterations of gradient descent.
        dims: 2 or 3.

    Reference:
        van der Maaten and Hinton, JMLR 2008; start and rate as Kobak and Berens, Nature Communications 2019.
    """
    from sklearn.manifold import TSNE

    x = principal(x)
    start: Any = init
    if not isinstance(init, str):
        start = (init - init.mean(0)).astype(np.float32)
    elif init == "pca":
        start = (1e-4 * x[:, :dims] / x[:, 0].std()).astype(np.float32)
        start = np.pad(start, ((0, 0), (0, dims - start.shape[1])))
    fit = TSNE(
        dims,
        perplexity=min(perplexity, (len(x) - 1) / 3),
        init=start,
        early_exaggeration=12.0 if isinstance(init, str) else 1.0,
        learning_rate=max(len(x) / 48, 50.0),
        max_iter=iterations,
        random_state=seed,
        n_jobs=1,
    )
    result: np.ndarray = fit.fit_transform(x.astype(np.float32))
    return result.astype(np.float64)


def umap_map(
    x: np.ndarray, neighbors: int = 15, *, min_dist: float = 0.1, init: Any = "pca", seed: int = 0, dims: int = 2
) -> np.ndarray:
    """Returns a UMAP layout ``(n, dims)`` of rows ``(n, d)``, by umap-learn, from their principal components.

    The first call of a process compiles for some ten seconds.

    Args:
        x: Rows; more than ``COMPONENTS`` columns are reduced first.
        neighbors: Number of neighbors that the graph connects each point to.
        min_dist: How close points may lie in the map.
        init: ``pca``, ``spectral``, ``random`` or an array ``(n, 2)``.
        seed: Fixes the layout, at the price of one thread.
        dims: 2 or 3.

    Reference:
        McInnes, Healy and Melville, arXiv 1802.03426.
    """
    import umap

    fit = umap.UMAP(n_components=dims, n_neighbors=neighbors, min_dist=min_dist, init=init, random_state=seed, n_jobs=1)
    return np.asarray(fit.fit_transform(principal(x)), dtype=np.float64)


def aligned_maps(
    moments: Sequence[np.ndarray], perplexity: float = 30.0, *, init: Any = "pca", seed: int = 0
) -> list[np.ndarray]:
    """Computes t-SNE layouts of the same points over time, each initialized from the one before and aligned to it.

    Only turns, reflections and shifts are taken out (orthogonal Procrustes): what still moves, moved in the features
    or in the optimization, in which a map goes on growing even where no feature changes.

    Args:
        moments: Features ``(n, d)`` of each moment, rows in one order.
        perplexity: Perplexity of every layout.
        init: Start of the first layout.
        seed: Seed of every layout.

    Raises:
        InputError: Moments have different numbers of rows.
    """
    if len({len(x) for x in moments}) > 1:
        raise InputError("aligned maps need the same points at every checkpoint.")
    result: list[np.ndarray] = []
    for x in moments:
        if not result:
            result.append(tsne(x, perplexity, init=init, seed=seed))
            continue
        result.append(turned(tsne(x, perplexity, init=result[-1], seed=seed), result[-1]))
    return result


def turned(y: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Returns a map ``(n, 2)`` turned, reflected and shifted, not scaled, to lie as near as it can to another one.

    Example:
        >>> square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
        >>> bool(np.allclose(turned(square[:, ::-1] + 5, square), square))
        True
    """
    from scipy.linalg import orthogonal_procrustes

    turn, _ = orthogonal_procrustes(y - y.mean(0), onto - onto.mean(0))
    result: np.ndarray = (y - y.mean(0)) @ turn + onto.mean(0)
    return result
