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

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.data import LabeledImages, Rows, prepare
from anatolab.nn import Tap, point_sample, tap
from anatolab.robust.clip import Clip
from anatolab.robust.features import features_of
from anatolab.training.folder import open_run
from anatolab.types import UNKNOWN, Cohort, InputError

Level = Literal["decoder", "representation", "patch", "slice"]
Layout = Literal["tsne", "umap"]
COMPONENTS = 50  # principal components that a layout sees
PAIRED = 1_500  # points whose pairwise distances are compared


@dataclass(frozen=True, eq=False)
class Points:
    """Feature vectors, and what is known of each: its class, its patient, its phase, the slice it lies in."""

    features: np.ndarray  # (n, d) float32
    label: np.ndarray  # (n,) int64, an index of classes
    classes: tuple[str, ...]
    patient: np.ndarray  # (n,) str; of scenes the attribute, which plays the same part
    phase: np.ndarray  # (n,) str, "" where there is none
    names: np.ndarray  # (n,) str, the slice or the image

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True, eq=False)
class Embedding:
    """A map and the points it shows; ``quality`` is that of :func:`measure`."""

    points: Points
    map: np.ndarray  # (n, 2)
    quality: dict[str, float]


# ----------------------------------------------------------------------------------------------------------- reading
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
) -> Embedding:
    """A map of what a trained method makes of some patients, with its quality, in one call.

    Args:
        method: A trained method, or the folder of its run, whose last checkpoint is opened.
        cohort: Where the patients are.
        patients: Best ones that were not trained on.
        size: Height and width that the method was trained at; of a folder it is known.
        of: What is shown, see :func:`read_features`.
        layout: ``tsne`` or ``umap``.
        per_class: Points a class, at most.
        neighbors: Perplexity of t-SNE, number of neighbors of UMAP.
        seed: Of the choice of points and of the layout.

    Raises:
        InputError: A method without its size, a method without the features asked for, or an unknown patient.
    """
    if not isinstance(method, nn.Module):
        method, info = open_run(method)
        size = (info.side, info.side)
    if size is None:
        raise InputError("size: give the height and width that the method was trained at.")
    rows = prepare(cohort, patients, size=size)
    points = read_features(method, rows, cohort.classes, of, per_class=per_class, seed=seed)
    lay: Callable[..., np.ndarray] = tsne if layout == "tsne" else umap_map
    found = lay(points.features, neighbors if layout == "tsne" else round(neighbors), seed=seed)
    return Embedding(points, found, measure(points, found))


@torch.no_grad()
def read_features(
    method: nn.Module,
    rows: Rows,
    classes: Sequence[str],
    of: Level = "decoder",
    *,
    per_class: int = 100,
    seed: int = 0,
    cells: int = 8,
    batch: int = 16,
) -> Points:
    """Features of a trained 2-D method on pixels, patches or slices, balanced over classes and patients.

    The choice of points depends on the labels and the seed alone, so that two methods, or two moments of a training,
    are read at the same places. Maps of the decoder differ in scale; each is divided by its root mean square, so that
    coarse and fine ones count alike.

    Args:
        method: Has ``student``; it is copied, and not changed.
        rows: Slices with their labels.
        classes: Names, background first.
        of: ``decoder``: a pixel's vector in all decoder maps. ``representation``: the unit vector that the contrastive
            losses compare. ``patch``: means of the decoder maps over a cell; its class is what covers most of it
            beside background, if that is a tenth. ``slice``: means over the slice; its class is which organs it shows.
        per_class: Points a class, at most.
        seed: Of the choice.
        cells: Patches a side.
        batch: Slices at a time.

    Raises:
        InputError: The method has no representation, or no point has a label.
    """
    student, project = _opened(method, int(rows.images.shape[1]))
    if of == "representation" and project is None:
        raise InputError(f"{type(method).__name__} has no representation of pixels; ask for 'decoder'.")
    at, label, names = _places(rows, classes, of, cells)
    codes = np.unique(np.asarray(rows.patients), return_inverse=True)[1]
    chosen = balanced(label, per_class, seed=seed, groups=codes[at[:, 0]])
    at, label = at[chosen], label[chosen]
    device = next(method.parameters()).device
    found: list[np.ndarray] = [np.empty(0)] * len(at)
    wanted = np.unique(at[:, 0])
    for start in range(0, len(wanted), batch):
        some = wanted[start : start + batch]
        maps: list[Tensor] = student(rows.take(torch.from_numpy(some))[0].to(device))[1]
        if of == "representation":
            assert project is not None
            maps = [project(maps)]
        for i, row in enumerate(some):
            mine = np.flatnonzero(at[:, 0] == row)
            for j, vector in zip(mine, _read(maps, i, at[mine], rows.labels.shape[1:], of, cells), strict=True):
                found[j] = vector
    features = np.stack(found).astype(np.float32)
    if of == "representation":
        features /= np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    else:
        for part in np.split(features, np.cumsum([m.shape[1] for m in maps])[:-1], axis=1):
            part /= math.sqrt((part**2).sum(1).mean()) or 1.0
    patient = np.asarray(rows.patients)[at[:, 0]]
    case = [rows.names[i].split("#")[0] for i in at[:, 0]]
    phase = np.array([c[len(p) + 1 :] for c, p in zip(case, patient, strict=True)])
    return Points(features, label, tuple(names), patient, phase, np.asarray(rows.names)[at[:, 0]])


def clip_points(clip: Clip, images: LabeledImages, *, per_group: int = 100, seed: int = 0) -> Points:
    """Features of a frozen CLIP, the same number of each group; the attribute stands where else the patient does.

    Args:
        clip: Its trunk is read; spatial maps are averaged.
        images: A data set or a part of one.
        per_group: Images of each class and attribute, at most.
        seed: Of the choice.
    """
    features = torch.cat([f if f.ndim == 2 else f.flatten(2).mean(2) for f in features_of(clip, images)])
    chosen = balanced(images.group, per_group, seed=seed)
    attribute = np.asarray(images.attributes)[images.a[chosen]]
    return Points(
        features[torch.from_numpy(chosen)].float().numpy(),
        images.y[chosen],
        images.classes,
        attribute,
        np.full(len(chosen), ""),
        np.array([f"image {i}" for i in chosen]),
    )


def balanced(label: np.ndarray, per_class: int, *, seed: int = 0, groups: np.ndarray | None = None) -> np.ndarray:
    """Rows drawn at random without replacement, equally many of each class, and in it of each group as far as they go.

    Args:
        label: ``(n,)`` class numbers.
        per_class: Rows of each class; all of them where a class has fewer.
        seed: Of the draws.
        groups: ``(n,)`` such as patients: a class takes turns among them until it has enough.

    Returns:
        Row numbers, ascending.

    Example:
        >>> label = np.array([0] * 90 + [1] * 10)
        >>> np.bincount(label[balanced(label, 8)]).tolist()
        [8, 8]
    """
    rng = np.random.default_rng(seed)
    found = []
    for c in np.unique(label):
        rows = rng.permutation(np.flatnonzero(label == c))
        if groups is not None:  # the first of each group, then the second of each ...
            turn = np.empty(len(rows), dtype=np.int64)
            for g in np.unique(groups[rows]):
                mine = groups[rows] == g
                turn[mine] = np.arange(mine.sum())
            rows = rows[np.argsort(turn, kind="stable")]
        found.append(rows[:per_class])
    return np.sort(np.concatenate(found))


# ----------------------------------------------------------------------------------------------------------- layouts
def principal(x: np.ndarray, components: int = COMPONENTS) -> np.ndarray:
    """The leading principal components of rows ``(n, d)``, as many as there are; without them no layout starts."""
    from sklearn.decomposition import PCA

    found: np.ndarray = PCA(min(components, *x.shape), svd_solver="full").fit_transform(np.asarray(x, np.float64))
    return found


def tsne(
    x: np.ndarray,
    perplexity: float = 30.0,
    *,
    init: np.ndarray | Literal["pca", "random"] = "pca",
    seed: int = 0,
    iterations: int = 750,
) -> np.ndarray:
    """A t-SNE layout ``(n, 2)`` of rows ``(n, d)``, by scikit-learn, from their principal components.

    Args:
        x: Rows; more than ``COMPONENTS`` columns are reduced first.
        perplexity: Soft number of neighbors; less than a third of the rows, or it is lowered to that.
        init: ``pca`` keeps what is global, as far as two components do; ``random`` depends on the seed alone; from an
            array ``(n, 2)``, another map, the layout goes on at that scale and without exaggeration.
        seed: Of a random start.
        iterations: Of gradient descent.

    Reference:
        van der Maaten and Hinton, JMLR 2008; start and rate as Kobak and Berens, Nature Communications 2019.
    """
    from sklearn.manifold import TSNE

    x = principal(x)
    start: Any = init
    if not isinstance(init, str):
        start = (init - init.mean(0)).astype(np.float32)
    elif init == "pca":
        start = (1e-4 * x[:, :2] / x[:, 0].std()).astype(np.float32)
        start = start if start.shape[1] == 2 else np.pad(start, ((0, 0), (0, 1)))
    fit = TSNE(
        perplexity=min(perplexity, (len(x) - 1) / 3),
        init=start,
        early_exaggeration=12.0 if isinstance(init, str) else 1.0,
        learning_rate=max(len(x) / 48, 50.0),
        max_iter=iterations,
        random_state=seed,
        n_jobs=1,
    )
    found: np.ndarray = fit.fit_transform(x.astype(np.float32))
    return found.astype(np.float64)


def umap_map(
    x: np.ndarray, neighbors: int = 15, *, min_dist: float = 0.1, init: Any = "pca", seed: int = 0
) -> np.ndarray:
    """A UMAP layout ``(n, 2)`` of rows ``(n, d)``, by umap-learn, from their principal components.

    The first call of a process compiles for some ten seconds.

    Args:
        x: Rows; more than ``COMPONENTS`` columns are reduced first.
        neighbors: Of each point that the graph connects it to.
        min_dist: How close points may lie in the map.
        init: ``pca``, ``spectral``, ``random`` or an array ``(n, 2)``.
        seed: Fixes the layout, at the price of one thread.

    Reference:
        McInnes, Healy and Melville, arXiv 1802.03426.
    """
    import umap

    fit = umap.UMAP(n_neighbors=neighbors, min_dist=min_dist, init=init, random_state=seed, n_jobs=1)
    return np.asarray(fit.fit_transform(principal(x)), dtype=np.float64)


def aligned_maps(
    moments: Sequence[np.ndarray], perplexity: float = 30.0, *, init: Any = "pca", seed: int = 0
) -> list[np.ndarray]:
    """t-SNE layouts of the same points at several moments, each begun from the one before and turned onto it.

    Only turns, reflections and shifts are taken out (orthogonal Procrustes): what still moves, moved in the features
    or in the optimization, in which a map goes on growing even where no feature changes.

    Args:
        moments: Features ``(n, d)`` of each moment, rows in one order.
        perplexity: Of every layout.
        init: Of the first layout.
        seed: Of every layout.

    Raises:
        InputError: Moments have different numbers of rows.
    """
    if len({len(x) for x in moments}) > 1:
        raise InputError("aligned maps need the same points at every moment; read them at the same places.")
    found: list[np.ndarray] = []
    for x in moments:
        if not found:
            found.append(tsne(x, perplexity, init=init, seed=seed))
            continue
        found.append(turned(tsne(x, perplexity, init=found[-1], seed=seed), found[-1]))
    return found


def turned(y: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """A map ``(n, 2)`` turned, reflected and shifted, not scaled, to lie as near as it can to another one.

    Example:
        >>> square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
        >>> bool(np.allclose(turned(square[:, ::-1] + 5, square), square))
        True
    """
    from scipy.linalg import orthogonal_procrustes

    turn, _ = orthogonal_procrustes(y - y.mean(0), onto - onto.mean(0))
    found: np.ndarray = (y - y.mean(0)) @ turn + onto.mean(0)
    return found


# ----------------------------------------------------------------------------------------------------------- quality
def measure(points: Points, y: np.ndarray, k: int = 15) -> dict[str, float]:
    """What must stand beside a map: how far its neighbors, its groups and its distances may be believed.

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
    found = {
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
    found["class_hit_elsewhere"] = neighborhood_hit(y, label, k, apart=patient) if several else math.nan
    found["class_hit_elsewhere_chance"] = hit_by_chance(label, apart=patient) if several else math.nan
    return found


def trustworthiness(x: np.ndarray, y: np.ndarray, k: int = 15) -> float:
    """How few intruders the map's neighborhoods hold, by rank in the features; 1 for none, in [0, 1].

    With the arguments exchanged it is the *continuity*: how few true neighbors the map tore away.

    Args:
        x: Features ``(n, d)``.
        y: Map ``(n, 2)``.
        k: Neighbors, less than half of the points.

    Reference:
        Venna and Kaski, ICANN 2001; computed by scikit-learn.
    """
    from sklearn.manifold import trustworthiness as of

    return float(of(x, y, n_neighbors=k))


def neighborhood_hit(y: np.ndarray, label: np.ndarray, k: int = 15, *, apart: np.ndarray | None = None) -> float:
    """The mean share of a point's ``k`` nearest neighbors that have its label, in [0, 1].

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
    """Of each point the share of its ``k`` neighbors that have its label, ``(n,)``; see :func:`neighborhood_hit`."""
    if apart is None:
        same: np.ndarray = label[_nearest(y, k)] == label[:, None]
        return same.mean(1)
    found = np.empty(len(y))
    for g in np.unique(apart):
        mine, others = apart == g, np.flatnonzero(apart != g)
        found[mine] = (label[others[_nearest(y[others], k, y[mine])]] == label[mine][:, None]).mean(1)
    return found


def hit_by_chance(label: np.ndarray, *, apart: np.ndarray | None = None) -> float:
    """What :func:`neighborhood_hit` is on average when labels lie in no order.

    Example:
        >>> round(hit_by_chance(np.repeat([0, 1], 50)), 3)
        0.495
    """
    group = np.arange(len(label)) if apart is None else np.asarray(apart)
    shares = []
    for c in np.unique(label):
        own = label == c
        for g, mine in zip(*np.unique(group[own], return_counts=True), strict=True):
            outside = group != g
            shares.append((mine, (own & outside).sum() / max(1, outside.sum())))
    weight, share = np.array(shares).T
    return float(weight @ share / weight.sum())


def silhouette(y: np.ndarray, label: np.ndarray) -> float:
    """How much nearer one's own group is than the next one, in [-1, 1]; NaN where there is one group only.

    Reference:
        Rousseeuw, J. Comput. Appl. Math. 1987; computed by scikit-learn.
    """
    from sklearn.metrics import silhouette_score

    groups = len(np.unique(label))
    return float(silhouette_score(y, label)) if 1 < groups < len(label) else math.nan


def distance_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """The rank correlation of all pairwise distances before and after, in [-1, 1].

    Not the distance correlation of Székely et al., which asks whether two variables depend. Of more than ``PAIRED``
    points a fixed choice is compared.

    Reference:
        Kobak and Berens, Nature Communications 2019, "CPD".
    """
    from scipy.spatial.distance import pdist
    from scipy.stats import spearmanr

    kept = np.sort(np.random.default_rng(0).permutation(len(x))[:PAIRED])
    return float(spearmanr(pdist(np.asarray(x)[kept]), pdist(np.asarray(y)[kept])).statistic)


def stability(maps: Sequence[np.ndarray], k: int = 15) -> dict[str, np.ndarray]:
    """How far several maps of the same points agree, over seeds or over perplexities.

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


# ------------------------------------------------------------------------------------------------------------- parts
def _nearest(y: np.ndarray, k: int, of: np.ndarray | None = None) -> np.ndarray:
    """The ``k`` rows of y nearest to each row of ``of``, or to each of its own other than itself, ``(n, k)``."""
    from sklearn.neighbors import NearestNeighbors

    if k > len(y) - (of is None):
        raise InputError(f"k: {k} neighbors of {len(y)} points; ask for fewer.")
    found: np.ndarray = NearestNeighbors(n_neighbors=k).fit(y).kneighbors(of, return_distance=False)
    return found


def _opened(
    method: nn.Module, channels: int
) -> tuple[Callable[[Tensor], Any], Callable[[list[Tensor]], Tensor] | None]:
    """A copy of the student in evaluation mode, to logits and decoder maps, and its pixel projector if any."""
    student: Any = copy.deepcopy(method.student)
    student.eval()
    project = getattr(student, "pixel", None)
    net = getattr(student, "net", student)
    if not isinstance(net, Tap):
        with torch.enable_grad():  # the tap's dry run differentiates
            net = tap(student, in_channels=channels)
            net.eval()
    return net, project


def _places(rows: Rows, classes: Sequence[str], of: Level, cells: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """All points of a level: row, y, x ``(n, 3)``, their labels ``(n,)``, and the names of the labels."""
    labels = np.asarray(rows.labels)
    n = len(labels)
    organs = np.stack([(labels == c) for c in range(len(classes))])  # (c, n, h, w)
    if of in ("decoder", "representation"):
        at = np.argwhere(labels != UNKNOWN)
        return at, labels[tuple(at.T)].astype(np.int64), list(classes)
    if of == "slice":
        shown = organs[1:].any((2, 3)).T  # (n, c - 1)
        kinds, label = np.unique(shown, axis=0, return_inverse=True)
        names = ["+".join(c for c, s in zip(classes[1:], kind, strict=True) if s) or "none" for kind in kinds]
        return np.pad(np.arange(n)[:, None], ((0, 0), (0, 2))), label.ravel(), names
    share = F.adaptive_avg_pool2d(torch.from_numpy(organs.astype(np.float32)), cells).numpy()  # (c, n, cells, cells)
    most = share[1:].argmax(0) + 1
    label = np.where(share[1:].max(0) >= 0.1, most, 0).astype(np.int64)
    at = np.argwhere(np.ones(label.shape))
    return at, label.ravel(), list(classes)


def _read(maps: list[Tensor], i: int, at: np.ndarray, size: Sequence[int], of: Level, cells: int) -> np.ndarray:
    """Features of the points of one slice, the i-th of the batch, ``(p, d)``."""
    if of == "slice":
        return torch.cat([m[i].flatten(1).mean(1) for m in maps])[None].float().cpu().numpy()
    if of == "patch":
        pooled = torch.cat([F.adaptive_avg_pool2d(m[i], cells) for m in maps])
        return pooled[:, at[:, 1], at[:, 2]].T.float().cpu().numpy()
    points = torch.from_numpy((at[:, [2, 1]] + 0.5) / np.array([size[1], size[0]])).float()[None]
    read = [point_sample(m[i : i + 1].float(), points.to(m.device))[0] for m in maps]
    return torch.cat(read).T.cpu().numpy()
