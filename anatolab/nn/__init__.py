"""Networks behind one tap, and the EMA teacher."""

from anatolab.nn.networks import NETWORKS, basic_unet, light_unet, multiple_of, vnet
from anatolab.nn.tap import PATHS, Tap, tap
from anatolab.nn.teacher import Teacher

__all__ = ["NETWORKS", "PATHS", "Tap", "Teacher", "basic_unet", "light_unet", "multiple_of", "tap", "vnet"]
