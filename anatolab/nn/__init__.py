"""Networks behind one tap, their heads, experts and point renderer, and the EMA teacher."""

from anatolab.nn.experts import Concatenation, ExpertMask, Experts, Fused, Router, fused_map, squared_variation
from anatolab.nn.heads import ConvPixelProjector, ImageProjector, PatchProjector, PixelProjector, mlp
from anatolab.nn.networks import (
    NETWORKS,
    basic_unet,
    light_unet,
    multiple_of,
    segresnet,
    stem_unet,
    stem_unet_small,
    vnet,
)
from anatolab.nn.rendering import (
    FourierEncoding,
    PointHead,
    pixel_centers,
    point_labels,
    point_sample,
    refine,
    training_points,
    uncertain_pixels,
    uncertainty,
    write_back,
)
from anatolab.nn.stem_unet import StemUNet
from anatolab.nn.tap import PATHS, Tap, tap
from anatolab.nn.teacher import Teacher

__all__ = [
    "NETWORKS",
    "PATHS",
    "Concatenation",
    "ConvPixelProjector",
    "ExpertMask",
    "Experts",
    "FourierEncoding",
    "Fused",
    "ImageProjector",
    "PatchProjector",
    "PixelProjector",
    "PointHead",
    "Router",
    "StemUNet",
    "Tap",
    "Teacher",
    "basic_unet",
    "fused_map",
    "light_unet",
    "mlp",
    "multiple_of",
    "pixel_centers",
    "point_labels",
    "point_sample",
    "refine",
    "segresnet",
    "squared_variation",
    "stem_unet",
    "stem_unet_small",
    "tap",
    "training_points",
    "uncertain_pixels",
    "uncertainty",
    "vnet",
    "write_back",
]
