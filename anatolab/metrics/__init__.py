"""Metrics and the statistics on them: overlap, surface distances, groups, intervals, tests and verdicts."""

from anatolab.metrics.cavity import beats, ejection_fraction, volume
from anatolab.metrics.counterfactual import counterfactual_scores
from anatolab.metrics.evaluate import evaluate_volume, summarize
from anatolab.metrics.groups import group_accuracy
from anatolab.metrics.intervals import (
    Claim,
    Comparison,
    bootstrap_interval,
    compare,
    seed_spread,
    sign_flip_test,
    verdict,
)
from anatolab.metrics.overlap import OverlapCounts, dice, jaccard, overlap_counts
from anatolab.metrics.ranks import Ranking, holm, rank_methods
from anatolab.metrics.surface import SurfaceDistances, asd, assd, boundary_iou, hd, hd95, nsd, surface_distances

__all__ = [
    "Claim",
    "Comparison",
    "OverlapCounts",
    "Ranking",
    "SurfaceDistances",
    "asd",
    "assd",
    "beats",
    "bootstrap_interval",
    "boundary_iou",
    "compare",
    "counterfactual_scores",
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
    "rank_methods",
    "seed_spread",
    "sign_flip_test",
    "summarize",
    "surface_distances",
    "verdict",
    "volume",
]
