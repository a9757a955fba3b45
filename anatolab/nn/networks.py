"""The backbones of the book, all MONAI's: a light strided U-Net by default, the papers' U-Net at full size."""

from __future__ import annotations

from torch import nn


def light_unet(in_channels: int, classes: int, *, spatial_dims: int = 2, width: int = 16, depth: int = 5) -> nn.Module:
    """Builds the light strided residual U-Net used at ``tiny`` and ``demo``; its finest feature is at stride 2.

    Args:
        in_channels: Image channels.
        classes: Output classes, background included.
        spatial_dims: 2 or 3.
        width: Channels of the first level; each further level doubles them.
        depth: Levels; the image side must be a multiple of ``2 ** (depth - 1)``.

    Returns:
        A network from images ``(b, in_channels, *s)`` to logits ``(b, classes, *s)``.
    """
    from monai.networks.nets import UNet

    return UNet(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=classes,
        channels=[width * 2**i for i in range(depth)],
        strides=[2] * (depth - 1),
        num_res_units=2,
        norm="BATCH",  # as in the papers' U-Net
    )


def basic_unet(in_channels: int, classes: int, *, spatial_dims: int = 2) -> nn.Module:
    """Builds the U-Net of the papers' experiments, used at ``full``: 16 to 256 channels, finest feature at stride 1.

    Reference:
        Channels of the SSL4MIS U-Net, on which the released code of ACTION, ACTION++, MONA and ARCO builds.
    """
    from monai.networks.nets import BasicUNet

    return BasicUNet(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=classes,
        features=(16, 32, 64, 128, 256, 16),
        norm="BATCH",
    )


NETWORKS = {"light_unet": light_unet, "basic_unet": basic_unet}
