"""The networks of the book: a stem U-Net by default, and MONAI's, including those of the papers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from anatolab.nn.stem_unet import StemUNet


def stem_unet(
    in_channels: int, classes: int, *, spatial_dims: int = 2, widths: Sequence[int] | None = None
) -> StemUNet:
    """Builds the default U-Net: fast on a CPU, with batch norm; its finest feature is at stride 2.

    The first step is a pixel unshuffle by 2, and the head a pixel shuffle. It has 1.9 million weights in 2-D and 1.4
    million in 3-D at the default widths, and imports nothing but torch.

    Args:
        in_channels: Image channels.
        classes: Output classes, background included.
        spatial_dims: 2 or 3.
        widths: Channels at strides 2, 4, 8, ...; (32, 64, 128, 256) in 2-D and (16, 32, 64, 128) in 3-D where None.
            Each side must be a multiple of ``2 ** len(widths)``.

    Returns:
        A network from images ``(b, in_channels, *s)`` to logits ``(b, classes, *s)``.

    Example:
        >>> sum(p.numel() for p in stem_unet(1, 4).parameters())
        1941104
    """
    return StemUNet(
        in_channels, classes, spatial_dims, widths or ((32, 64, 128, 256), (16, 32, 64, 128))[spatial_dims - 2]
    )


def stem_unet_small(in_channels: int, classes: int, *, spatial_dims: int = 2) -> nn.Module:
    """Builds a narrow stem U-Net for live runs: 24 to 192 channels in 2-D, 12 to 48 in 3-D (sides: multiples of 8)."""
    widths = (24, 48, 96, 192) if spatial_dims == 2 else (12, 24, 48)
    return stem_unet(in_channels, classes, spatial_dims=spatial_dims, widths=widths)


def light_unet(
    in_channels: int, classes: int, *, spatial_dims: int = 2, width: int | None = None, depth: int | None = None
) -> nn.Module:
    """Builds a light strided residual U-Net; its finest feature is at stride 2.

    Args:
        in_channels: Image channels.
        classes: Output classes, background included.
        spatial_dims: 2 or 3.
        width: Channels of the first level, doubled by each further one; 16 in 2-D and 8 in 3-D where None.
        depth: Levels, 5 in 2-D and 4 in 3-D where None; each side must be a multiple of ``2 ** (depth - 1)``.

    Returns:
        A network from images ``(b, in_channels, *s)`` to logits ``(b, classes, *s)``.
    """
    width, depth = width or (16 if spatial_dims == 2 else 8), depth or (5 if spatial_dims == 2 else 4)
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


def vnet(in_channels: int, classes: int, *, spatial_dims: int = 3) -> nn.Module:
    """Builds the V-Net of the papers' left-atrium experiments: batch norm, ReLU, dropout on the coarse levels.

    It is MONAI's, which concatenates skip connections where the papers' code adds them. Sides are multiples of 16.

    Reference:
        Milletari et al., V-Net, 3DV 2016; backbone of Yu et al., UA-MT, MICCAI 2019, on the left atrium.
    """
    from monai.networks.nets import VNet

    act = ("relu", {"inplace": True})
    return VNet(spatial_dims, in_channels, classes, act=act, dropout_dim=spatial_dims)


def segresnet(in_channels: int, classes: int, *, spatial_dims: int = 3) -> nn.Module:
    """Builds a residual network of 8 to 64 channels with a light decoder, finest feature at stride 1.

    Reference:
        Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization, BrainLes 2018.
    """
    from monai.networks.nets import SegResNet

    return SegResNet(spatial_dims, init_filters=8, in_channels=in_channels, out_channels=classes)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "stem_unet": stem_unet,
    "stem_unet_small": stem_unet_small,
    "light_unet": light_unet,
    "basic_unet": basic_unet,
    "vnet": vnet,
    "segresnet": segresnet,
}


def multiple_of(network: str, spatial_dims: int) -> int:
    """Returns the number of which image sides must be multiples, for a network of :data:`NETWORKS`."""
    return 8 if network in ("light_unet", "stem_unet_small") and spatial_dims == 3 else 16
