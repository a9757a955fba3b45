"""Networks behind one tap, their heads, and the EMA teacher."""

from anatolab.nn.heads import ImageProjector, PatchProjector, PixelProjector, mlp
from anatolab.nn.networks import NETWORKS, basic_unet, light_unet, multiple_of, vnet
from anatolab.nn.tap import PATHS, Tap, tap
from anatolab.nn.teacher import Teacher

__all__ = [
    "NETWORKS",
    "PATHS",
    "ImageProjector",
    "PatchProjector",
    "PixelProjector",
    "Tap",
    "Teacher",
    "basic_unet",
    "light_unet",
    "mlp",
    "multiple_of",
    "tap",
    "vnet",
]
