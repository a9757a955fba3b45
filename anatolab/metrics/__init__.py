"""Metrics and the statistics on them: overlap, surface distances, groups, intervals, tests and verdicts."""

from anatolab.metrics.cavity import beats, ejection_fraction, volume
from anatolab.metrics.counterfactual import counterfactual_scores
from anatolab.metrics.evaluate import evaluate_volume, summarize
from anatolab.metrics.groups import group_accuracy
from anatolab.metrics.intervals import bootstrap_interval, seed_spread, sign_flip_test
from anatolab.metrics.overlap import OverlapCounts, dice, jaccard, overlap_counts
from anatolab.metrics.ranks import Ranking, holm, rank_methods
from anatolab.metrics.surface import SurfaceDistances, asd, assd, boundary_iou, hd, hd95, nsd, surface_distances
from anatolab.metrics.verdicts import (
    Comparison,
    Control,
    Decision,
    Setting,
    compare,
    decide,
    phrase,
    scope_of,
)

__all__ = [
    "Comparison",
    "Control",
    "Decision",
    "OverlapCounts",
    "Ranking",
    "Setting",
    "SurfaceDistances",
    "asd",
    "assd",
    "beats",
    "bootstrap_interval",
    "boundary_iou",
    "compare",
    "counterfactual_scores",
    "decide",
    "dice",
    "ejection_fraction",
    "evaluate_volume",
    "group_accuracy",
    "hd",
    "hd95",
    "holm",
    "jaccard",
    "nsd",
    "overlap_counts",
    "phrase",
    "rank_methods",
    "scope_of",
    "seed_spread",
    "sign_flip_test",
    "summarize",
    "surface_distances",
    "volume",
]
