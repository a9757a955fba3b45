"""One tap on any encoder-decoder: logits and the decoder's feature pyramid, by forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from anatolab.types import InputError


class Tap(nn.Module):
    """Returns logits and the captured decoder maps, coarse to fine, in one forward pass of ``net``.

    The hooks are bound to this instance, so a deep copy (an EMA teacher) captures its own maps and never the
    original's; captures live only for the duration of one call.

    Attributes:
        classes: Channels of the logits.
        channels: Channels of each map, coarse to fine.
        strides: Down-sampling factor of each map against the input, coarse to fine.
        dims: 2 or 3.
    """

    def __init__(self, net: nn.Module, paths: Sequence[str], example: Tensor) -> None:
        super().__init__()
        self.net = net
        self.paths = tuple(paths)
        self._captured: dict[str, Tensor] | None = None
        self._until: str | None = None
        self._perturb: float | Tensor | None = None
        for path in self.paths:
            try:
                module = net.get_submodule(path)
            except AttributeError as error:
                raise InputError(
                    f"{type(net).__name__} has no module {path!r}; name modules as `net.named_modules()` lists them."
                ) from error
            module.register_forward_hook(_Capture(self, path))
        joins = JOINS[type(net).__name__](self.paths) if type(net).__name__ in JOINS else ()
        for path in joins:
            net.get_submodule(path).register_forward_pre_hook(_Perturb(self, coarsest=path == joins[0]))
        self.can_perturb = bool(joins)
        self.dims = example.ndim - 2
        self.classes, self.channels, self.strides, self._encoder = self._probe(example)

    def forward(self, image: Tensor, perturb: float | Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Runs the network once.

        Args:
            image: ``(b, c, *s)``.
            perturb: Dropout probability of the encoder's channels as the decoder sees them (coarsest map and skips);
                kept channels are divided by its complement. One number, or one per image ``(b,)``, so that a batch may
                hold perturbed and unperturbed images. Sampled from torch's global generator.

        Returns:
            Logits ``(b, classes, *s)`` and the maps ``(b, channels[i], *s / strides[i])``, all with gradient. The
            encoder itself runs unperturbed, and so does the coarsest map that is returned.

        Raises:
            InputError: Features are to be perturbed of a network that :data:`JOINS` does not list.

        Reference:
            Yang et al., UniMatch, CVPR 2023: channel dropout of one half on the encoder's features.
        """
        if perturb is not None and not self.can_perturb:
            raise InputError(
                f"features of {type(self.net).__name__} cannot be perturbed; use one of {', '.join(JOINS)}."
            )
        captured: dict[str, Tensor] = {}
        self._captured, self._perturb = captured, perturb
        try:
            logits = self.net(image)
        finally:
            self._captured = self._perturb = None
        if isinstance(logits, list | tuple):  # deep supervision: the first entry is the full-resolution one
            logits = logits[0]
        return logits, [captured[path] for path in self.paths]

    def encode(self, image: Tensor) -> Tensor:
        """Returns the coarsest map, ``(b, channels[0], *s / strides[0])``, with gradient; runs no layer after it."""
        captured: dict[str, Tensor] = {}
        self._captured, self._until = captured, self.paths[0]
        try:
            self.net(image)
        except _ReachedError:
            pass
        finally:
            self._captured = self._until = None
        return captured[self.paths[0]]

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Returns the parameters that the coarsest map depends on; all others are the decoder's."""
        return [self.net.get_parameter(name) for name in self._encoder]

    def _probe(self, example: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[str, ...]]:
        training = {name: module.training for name, module in self.net.named_modules()}
        logits, maps = self.eval()(example)
        trained = {name: p for name, p in self.net.named_parameters() if p.requires_grad}
        reached = torch.autograd.grad(maps[0].sum(), list(trained.values()), allow_unused=True) if trained else ()
        encoder = tuple(name for name, g in zip(trained, reached, strict=True) if g is not None)
        with torch.no_grad():  # some networks keep their last outputs, which must have no graph to be deep-copied
            self(example)
        for name, module in self.net.named_modules():
            module.training = training[name]
        self.training = training[""]
        strides = tuple(round(example.shape[-1] / m.shape[-1]) for m in maps)
        return logits.shape[1], tuple(m.shape[1] for m in maps), strides, encoder


class _ReachedError(Exception):
    """Ends a forward pass as soon as the coarsest map is computed."""


class _Capture:
    """A forward hook that hands the output to one tap; it is deep-copied together with that tap."""

    def __init__(self, owner: Tap, path: str) -> None:
        self.owner, self.path = owner, path

    def __call__(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self.owner._captured is not None:
            self.owner._captured[self.path] = output
            if self.path == self.owner._until:
                raise _ReachedError


class _Perturb:
    """A pre-hook that drops channels of the skip, and of the coarsest map, where a decoder joins them."""

    def __init__(self, owner: Tap, *, coarsest: bool) -> None:
        self.owner, self.coarsest = owner, coarsest

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        p = self.owner._perturb
        if p is None:
            return None
        if len(args) == 1:  # the skip and, behind it, a deeper map of as many channels, already concatenated
            skips = args[0].shape[1] if self.coarsest else args[0].shape[1] // 2
            return (torch.cat([drop_channels(args[0][:, :skips], p), args[0][:, skips:]], 1),)
        deeper, skip, *rest = args
        return (drop_channels(deeper, p) if self.coarsest else deeper, drop_channels(skip, p), *rest)


def drop_channels(maps: Tensor, p: float | Tensor) -> Tensor:
    """Sets each channel to 0 with probability ``p`` and divides the others by ``1 - p``.

    Args:
        maps: ``(b, c, *s)``; gradient flows through the channels that are kept.
        p: In [0, 1], one number or one per image ``(b,)``.

    Example:
        >>> torch.equal(drop_channels(torch.ones(2, 3, 4, 4), torch.zeros(2)), torch.ones(2, 3, 4, 4))
        True
    """
    keep = 1 - torch.as_tensor(p, dtype=torch.float32, device=maps.device).expand(len(maps))[:, None]
    mask = (torch.rand(maps.shape[:2], device=maps.device) < keep) / keep.clamp_min(1e-6)  # 0 where p = 1
    return maps * mask.to(maps.dtype).reshape(*maps.shape[:2], *(1,) * (maps.ndim - 2))


def tap(
    net: nn.Module,
    paths: Sequence[str] | None = None,
    *,
    in_channels: int | None = None,
    spatial_dims: int | None = None,
    size: int = 64,
) -> Tap:
    """Taps a network: ``tap(net)(image) -> (logits, maps coarse to fine)``.

    Args:
        net: A network of :data:`PATHS`, or any module when ``paths`` are given.
        paths: Names of the modules whose outputs are the pyramid, coarse to fine, as in ``net.named_modules()``.
        in_channels: Image channels of the dry run that finds channels and strides; where None, the network's attribute
            of that name, or the input channels of its first convolution.
        spatial_dims: 2 or 3; that of the first convolution where None.
        size: Side of the dry run's image, in voxels; set it for a network with a fixed input size.

    Raises:
        InputError: The network is unknown and no paths are given, or a path does not exist.

    Example:
        >>> from anatolab.nn import light_unet
        >>> pyramid = tap(light_unet(1, 4))
        >>> pyramid.strides
        (16, 8, 4, 2)

        Your own network needs only the names of the modules whose outputs are decoder maps, coarse to fine. Each must
        be a module (the result of a function is not captured) that is called once per pass and returns one tensor. The
        network returns logits of the size of the image.

        >>> from torch import nn
        >>> class Mine(nn.Module):
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.down = nn.Conv2d(1, 16, 4, stride=4)
        ...         self.decoder = nn.ModuleDict({"up": nn.ConvTranspose2d(16, 8, 4, stride=4)})
        ...         self.out = nn.Conv2d(8, 3, 1)
        ...
        ...     def forward(self, image: Tensor) -> Tensor:
        ...         return self.out(self.decoder["up"](self.down(image).relu()).relu())
        >>> mine = tap(Mine(), ["down", "decoder.up"])
        >>> mine.classes, mine.channels, mine.strides
        (3, (16, 8), (4, 1))
        >>> logits, maps = mine(torch.zeros(2, 1, 32, 32))
        >>> [tuple(map_.shape) for map_ in maps]
        [(2, 16, 8, 8), (2, 8, 32, 32)]

        MORSE accepts it like one of the library's networks:

        >>> from anatolab.methods import Morse
        >>> method = Morse(mine, Morse.Config(experts=8, fused=8, render_points=16)).eval()
        >>> with torch.no_grad():
        ...     tuple(method.predict(torch.zeros(2, 1, 32, 32)).shape)
        (2, 3, 32, 32)
    """
    if paths is None:
        find = PATHS.get(type(net).__name__)
        if find is None:
            raise InputError(
                f"no hook points are known for {type(net).__name__}; pass paths=[...], coarse to fine, "
                f"or use one of {', '.join(PATHS)}."
            )
        paths = find(net)
    parameter = next(net.parameters())
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)), None)
    if first is not None:
        in_channels = in_channels or int(getattr(net, "in_channels", first.in_channels))
        spatial_dims = spatial_dims or first.weight.ndim - 2
    if in_channels is None or spatial_dims is None:
        raise InputError(f"{type(net).__name__} has no convolution; give in_channels and spatial_dims to tap it.")
    example = torch.zeros(1, in_channels, *(size,) * spatial_dims, device=parameter.device, dtype=parameter.dtype)
    return Tap(net, paths, example)


def _unet_paths(net: nn.Module) -> list[str]:
    """Lists the decoder modules of MONAI's nested UNet (down, SkipConnection(inner), up); the last one gives logits."""
    path, ups = "model.1", []
    while True:
        inner = net.get_submodule(f"{path}.submodule")
        if isinstance(inner, nn.Sequential) and len(inner) == 3:
            ups.append(f"{path}.submodule.2")
            path = f"{path}.submodule.1"
        else:
            return [f"{path}.submodule", *reversed(ups)]


def _attention_unet_paths(net: nn.Module) -> list[str]:
    path, layers = "model.1", ["model.1"]
    while isinstance(inner := net.get_submodule(f"{path}.submodule"), nn.Sequential) and len(inner) == 2:
        path = f"{path}.submodule.1"
        layers.append(path)
    return [f"{path}.submodule", *reversed(layers)]


PATHS: dict[str, Callable[[nn.Module], list[str]]] = {
    "UNet": _unet_paths,  # finest map at the first stride: the last up-sampling gives logits
    "StemUNet": lambda net: [
        f"down.{len(net.get_submodule('down')._modules) - 1}",
        *(f"up.{i}" for i in range(len(net.get_submodule("up")._modules))),
    ],
    "BasicUNet": lambda net: ["down_4", "upcat_4", "upcat_3", "upcat_2", "upcat_1"],
    "AttentionUnet": _attention_unet_paths,
    "UNETR": lambda net: ["decoder5", "decoder4", "decoder3", "decoder2"],
    "SwinUNETR": lambda net: ["encoder10", "decoder5", "decoder4", "decoder3", "decoder2", "decoder1"],
    "VNet": lambda net: ["down_tr256", "up_tr256", "up_tr128", "up_tr64", "up_tr32"],
    "SegResNet": lambda net: [
        f"down_layers.{len(net.get_submodule('down_layers')._modules) - 1}",
        *(f"up_layers.{i}" for i in range(len(net.get_submodule("up_layers")._modules))),
    ],
    "DynUNet": lambda net: [
        "bottleneck",
        *(f"upsamples.{i}" for i in range(len(net.get_submodule("upsamples")._modules))),
    ],
}  # hook points, coarse to fine

JOINS: dict[str, Callable[[Sequence[str]], tuple[str, ...]]] = {
    "StemUNet": lambda paths: tuple(paths[1:]),
    "BasicUNet": lambda paths: tuple(paths[1:]),
    "UNet": lambda paths: (*paths[1:], "model.2"),  # the module that gives logits joins the finest skip
}  # the decoder modules that take a skip, coarse to fine, of the networks whose features can be perturbed
