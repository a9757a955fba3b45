"""Patients on disk to rows for a network: readers of public layouts, splits, cached slices, the two-stream sampler."""

from anatolab.data.cache import Rows, cache_root, prepare, scaled
from anatolab.data.dims import dims_for
from anatolab.data.layouts import LAYOUTS, open_cohort
from anatolab.data.report import Report, check_folder, describe
from anatolab.data.sampler import TwoStreamSampler, shard
from anatolab.data.splits import published_lists, split_patients, split_sha256
from anatolab.data.volumes import Volumes, prepare_volumes

__all__ = [
    "LAYOUTS",
    "Report",
    "Rows",
    "TwoStreamSampler",
    "Volumes",
    "cache_root",
    "check_folder",
    "describe",
    "dims_for",
    "open_cohort",
    "prepare",
    "prepare_volumes",
    "published_lists",
    "scaled",
    "shard",
    "split_patients",
    "split_sha256",
]
