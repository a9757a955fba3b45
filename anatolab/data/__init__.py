"""From patients on disk to rows for a network: readers, splits, cached slices, the two-stream sampler."""

from anatolab.data.cache import Rows, cache_root, scaled
from anatolab.data.celeba import read_celeba
from anatolab.data.checks import check_features, side_pairs
from anatolab.data.chexpert import read_chexpert
from anatolab.data.dims import dims_for
from anatolab.data.field_of_view import FieldOfView, coverage, find_field_of_view
from anatolab.data.files import list_images
from anatolab.data.formats import cohort_orientation, read_volume
from anatolab.data.geometry import orientation_of, oriented, reoriented, restored
from anatolab.data.images import IMAGE_LAYOUTS, open_images
from anatolab.data.labeled import LabeledImages
from anatolab.data.layouts import LAYOUTS, open_cohort
from anatolab.data.metashift import read_metashift
from anatolab.data.preparation import prepare
from anatolab.data.report import Report, check_folder, describe
from anatolab.data.sampler import TwoStreamSampler, shard
from anatolab.data.splits import present, published_lists, split_patients, split_sha256
from anatolab.data.table import read_folders, read_table
from anatolab.data.volumes import Volumes
from anatolab.data.waterbirds import read_waterbirds

__all__ = [
    "IMAGE_LAYOUTS",
    "LAYOUTS",
    "FieldOfView",
    "LabeledImages",
    "Report",
    "Rows",
    "TwoStreamSampler",
    "Volumes",
    "cache_root",
    "check_features",
    "check_folder",
    "cohort_orientation",
    "coverage",
    "describe",
    "dims_for",
    "find_field_of_view",
    "list_images",
    "open_cohort",
    "open_images",
    "orientation_of",
    "oriented",
    "prepare",
    "present",
    "published_lists",
    "read_celeba",
    "read_chexpert",
    "read_folders",
    "read_metashift",
    "read_table",
    "read_volume",
    "read_waterbirds",
    "reoriented",
    "restored",
    "scaled",
    "shard",
    "side_pairs",
    "split_patients",
    "split_sha256",
]
