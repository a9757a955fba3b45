r"""MORSE: renders the ambiguous pixels of a decoder from features that one expert per scale provides.

You, Dai, Min, Staib and Duncan, *Implicit anatomical rendering for medical image segmentation with stochastic experts*,
MICCAI 2023 (arXiv 2304.03209). It is supervised and attaches to any encoder-decoder with coarse logits and decoder
maps. Experts, one per scale, are fused by a gate with weights for each pixel; some of them are dropped at random
(:mod:`anatolab.nn.experts`). At ambiguous points a small network predicts the class again, from fused features, coarse
logits and encoded coordinates (:mod:`anatolab.nn.rendering`); at inference its logits replace the coarse ones.

Only the paper's abstract was read first-hand. Everything else attributed to the paper is from memory, unverified, and
:meth:`Morse.Config.paper` asks for the least certain values. The released code differs from the paper and from this
file. Switches of :meth:`Morse.Config.official` reproduce: frequencies fixed and uniform in [0, 1); samples that fade at
the border; torch's default initialization of the head; the *coarse* logits scored in 2-D. Not reproduced: in 3-D every
rendered voxel is written into the first slice; 3-D scripts whose channel counts disagree and stop with an error;
features of random training points read from an interpolated fused map (here they are computed at the point, see
:mod:`anatolab.nn.experts`); heads whose batch statistics run while their loss has no weight (here they are skipped);
the ramp, which is defined but unused for TransUNet and 3-D (``ramp="constant"`` is that); a no-expert baseline shifted
by half a pixel; checkpoints of pre-trained transformers, which may have seen the test cases. The optimizer is the
loop's, as in every method here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from anatolab.losses import cross_entropy, dice_loss
from anatolab.methods._config import SharedConfig
from anatolab.methods._teacher_student import supervised_terms
from anatolab.nn import (
    Concatenation,
    ExpertMask,
    Experts,
    FourierEncoding,
    Fused,
    PointHead,
    Tap,
    Teacher,
    point_labels,
    point_sample,
    refine,
    tap,
    training_points,
)
from anatolab.schedules import late_ramp
from anatolab.transforms import strong_view, weak_view
from anatolab.types import Batch, InputError, Losses, Size, Stage


class Morse(nn.Module):
    """Trains ``network`` and renders its ambiguous pixels, in 2-D or 3-D.

    Args:
        network: From images ``(b, c, *s)`` to logits ``(b, classes, *s)``: a network that :func:`anatolab.nn.tap`
            knows, or one that is already tapped (``tap(net, ["name.of.a.module", ...])``).
        config: See :class:`Config`; its recommended settings where None.
    """

    title: ClassVar[str] = "MORSE"
    color: ClassVar[str] = "#a15895"

    @dataclass(frozen=True)
    class Config(SharedConfig):
        """Settings of MORSE, recommended by default; "code" marks values of the released code.

        From memory, unverified, the paper has the code's points, candidates, share and frequencies, trainable
        encoding, a Bernoulli mask with alpha = 0.7 (of dropping or of keeping), and no value of sigma.
        """

        fusion: Literal["concat", "dense", "stochastic"] = "stochastic"  # fusion of decoder maps; paper: the last
        encoding: Literal["none", "fixed", "trainable"] = "trainable"  # of coordinates; code: fixed
        render: bool = True  # False: the backbone is trained and evaluated alone
        experts: int | None = None  # d, width of an expert; None: 256 in 2-D, 64 in 3-D (code)
        fused: int | None = None  # channels of fused features; None: 256 (code) in 2-D, 64 in 3-D
        hidden: int | None = None  # width after the sum; None: 256 in 2-D, 32 in 3-D (code)
        gate_stride: int = 1  # stride of the gate's grid (code)
        mask: Literal["uniform_count", "bernoulli"] = "uniform_count"  # how experts are dropped (code)
        most_dropped: int | None = None  # K, most experts that uniform_count drops; None: all but one (code)
        drop: float = 0.3  # probability with which bernoulli drops an expert (from memory, unverified)
        rescale: Literal["none", "renorm", "inverted"] = "none"  # how weights of kept experts are rescaled (code)
        router: int = 0  # experts per pixel of a noisy router; 0: the gate. Not part of the paper
        balance_weight: float = 0.01  # weight of the router's losses
        points: int = 2048  # N_p, training points per image at 256 x 256 (code)
        oversample: int = 3  # k, candidates per point (code)
        hard_share: float = 0.75  # rho, share of points chosen by ambiguity (code)
        render_points: int = 8192  # pixels rendered per pass and image at 256 x 256 (code)
        passes: int = 2  # S, rendering passes (code)
        frequencies: int = 128  # L, waves of the encoding (code)
        sigma: float = 1.0  # standard deviation of their Gaussian, cycles per half image
        spacing: tuple[float, ...] | None = None  # mm of a pixel, in array order: equal wavelengths along all axes
        head_width: int = 512  # width of the head's hidden layers (code, with encoding)
        head_layers: int = 3  # hidden layers of the head (code)
        head_init: Literal["small", "torch"] = "small"  # last layer near 0, as in PointRend; torch's in the code
        padding: Literal["border", "zeros"] = "border"  # outside sampled maps; zeros in the code
        render_weight: float = 1.0  # lambda_rend, weight of L_rend (code); 0.1 (from memory, unverified)
        render_dice: bool = False  # half of L_rend is the Dice loss of the points, as in L_sup; not part of the paper
        ramp: Literal["late", "constant"] = "late"  # of L_rend: 0 for half the stage, then up to 0.5 (code, U-Net)
        pretrain: float = 0.0  # share of updates in which the backbone alone is trained; 0.5 with TransUNet in the code
        scored: Literal["refined", "coarse"] = "refined"  # logits that are evaluated; coarse in the code, in 2-D

        def widths(self, size: Size) -> dict[str, Any]:
            """Returns widths of experts and head at a size, and numbers of points in proportion to its image."""
            widths = WIDTHS.get(size.name, {})
            if size.name != "full":
                share = math.prod(size.image) / (96**3 if size.depth else 256**2)
                widths = {**widths, **{k: round(share * getattr(self, k)) for k in ("points", "render_points")}}
            return widths

        @classmethod
        def paper(cls, **overrides: Any) -> Morse.Config:
            """Returns the paper's settings from memory, unverified; the least certain ones must be given.

            Raises:
                InputError: ``drop``, ``render_weight`` or ``sigma`` is not given.
            """
            if missing := [name for name in ("drop", "render_weight", "sigma") if name not in overrides]:
                raise InputError(
                    f"MORSE: {' and '.join(missing)} of the paper could not be read first-hand; give them, such as "
                    "drop=0.7 or 0.3 (alpha is 0.7 from memory, of dropping or keeping), render_weight=0.1, sigma=1."
                )
            return cls(**{"mask": "bernoulli", "predict_with": "student", **overrides})

        @classmethod
        def official(cls, **overrides: Any) -> Morse.Config:
            """Returns what the released code does in 2-D, as far as it is reproduced (see the head of this file).

            Its learning rate falls to a tenth, not to 0, where the late ramp weighs most: train it with
            ``Settings(optimizer="sgd", floor=0.1)``.
            """
            code = {"encoding": "fixed", "padding": "zeros", "head_init": "torch", "scored": "coarse"}
            return cls(**{"ema_warm_up": False, "predict_with": "student", **code, **overrides})

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.config = c = config or self.Config()
        self.student = RenderedNetwork(network, c)
        self.teacher = Teacher(self.student, c.ema_decay, warm_up=c.ema_warm_up)

    def stages(self) -> Sequence[Stage]:
        """Returns the backbone alone for a share of the updates, where there is one; then everything."""
        c = self.config
        alone = round(c.pretrain * c.updates) if c.render else 0
        planned = [
            Stage("backbone", alone, self.student.net, (c.labeled, 0), self.backbone_step),
            Stage("train", c.updates - alone, self.student, (c.labeled, 0), self.training_step),
        ]
        return [stage for stage in planned if stage.updates]

    def backbone_step(self, batch: Batch, progress: float) -> Losses:
        """Computes L_sup of the coarse logits alone."""
        logits, _, label = self._forward_view(batch)
        return supervised_terms(logits, label, self.config)

    def training_step(self, batch: Batch, progress: float) -> Losses:
        """Computes L_sup + lambda_t L_rend."""
        c, student = self.config, self.student
        logits, maps, label = self._forward_view(batch)
        losses = supervised_terms(logits, label, c)
        if not c.render:
            return losses

        # lambda_t: while it is 0 the heads are not run, so that their batch statistics do not change. They still enter
        # the loss with weight 0, because DDP waits for the gradient of every parameter.
        losses.weights["render"] = weight = c.render_weight * (late_ramp(progress) if c.ramp == "late" else 1.0)
        if weight == 0:
            heads = [*student.fusion.parameters(), *student.encoding.parameters(), *student.head.parameters()]
            losses.terms["render"] = 0.0 * torch.stack([p.sum() for p in heads]).sum()
            return losses

        # F: fused decoder maps. p: the most ambiguous of 3 N_p points, and some uniform ones. r(p): their logits.
        fused = student.fusion(maps)
        points = training_points(logits, c.points, oversample=c.oversample, hard_share=c.hard_share, padding=c.padding)
        rendered, coarse = student.render(fused, logits, points)

        # L_rend: cross-entropy of the rendered points; half of it Dice with `render_dice`.
        truth = point_labels(label, points)
        losses.terms["render"] = cross_entropy(rendered, truth)
        if c.render_dice:
            losses.terms["render"] = 0.5 * losses.terms["render"] + 0.5 * dice_loss(rendered, truth)
        if fused.balance is not None:
            losses.terms["balance"], losses.weights["balance"] = fused.balance, c.balance_weight
        for name, predicted in (("coarse_wrong", coarse), ("render_wrong", rendered)):
            losses.diagnostics[name] = (predicted.detach().argmax(1) != truth).float().mean()
        return losses

    def after_step(self) -> None:
        """Moves the averaged weights towards the student's."""
        self.teacher.update(self.student)

    def predict(self, image: Tensor) -> Tensor:
        """Returns refined logits ``(b, classes, *s)``, or coarse ones if ``scored`` is ``coarse``."""
        return self.predict_coarse(image) if self.config.scored == "coarse" else self.predict_both(image)[1]

    def predict_coarse(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of the backbone."""
        return self._predictor()(image)[0]

    def predict_both(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Returns coarse logits, and refined ones, which differ at the rendered pixels."""
        return self._predictor().refined(image)

    def _predictor(self) -> RenderedNetwork:
        """Returns the averaged network, or the student if ``predict_with`` is ``student``."""
        return self.teacher.net if self.config.predict_with == "teacher" else self.student  # type: ignore[return-value]

    def _forward_view(self, batch: Batch) -> tuple[Tensor, list[Tensor], Tensor]:
        """Returns coarse logits, decoder maps and labels of an augmented view of the labeled rows."""
        image, label = weak_view(*batch.labeled, self.config.augmentation, batch.view)
        view = strong_view(image, self.config.augmentation)
        logits, maps = self.student(view)
        if logits.ndim > view.ndim:  # deep supervision, stacked: the first entry is the full-resolution one
            logits = logits[:, 0]
        return logits, maps, label


class RenderedNetwork(nn.Module):
    """A backbone with its fusion of decoder maps, encoding of coordinates and point head.

    Args:
        network: A network that :func:`anatolab.nn.tap` knows, or one that is tapped already.
        config: Widths and kinds of the parts; without ``render`` there is only the backbone.
    """

    def __init__(self, network: nn.Module, config: Morse.Config) -> None:
        super().__init__()
        self.config = c = config
        self.net = tapped = network if isinstance(network, Tap) else tap(network)
        dims = tapped.dims
        out = c.fused or (256 if dims == 2 else 64)
        if not c.render:
            return
        self.fusion: Experts | Concatenation
        if c.fusion == "concat":
            self.fusion = Concatenation(tapped.channels, out, padding=c.padding)
        else:
            strategy = c.mask if c.fusion == "stochastic" else "dense"
            self.fusion = Experts(
                tapped.channels,
                tapped.strides,
                c.experts or (256 if dims == 2 else 64),
                out,
                hidden=c.hidden or c.experts or (256 if dims == 2 else 32),
                dims=dims,
                gate_stride=c.gate_stride,
                mask=ExpertMask(len(tapped.channels), strategy, most=c.most_dropped, drop=c.drop),
                rescale=c.rescale,
                router=c.router,
                padding=c.padding,
            )
        self.encoding = FourierEncoding(dims, c.frequencies, kind=c.encoding, sigma=c.sigma, spacing=c.spacing)
        features = out + self.encoding.channels
        self.head = PointHead(features, tapped.classes, c.head_width, layers=c.head_layers, init=c.head_init)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns coarse logits ``(b, classes, *s)`` and the decoder's maps, coarse to fine, with gradient."""
        return self.net(image)

    def refined(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Returns coarse logits, and the same with the most ambiguous pixels rendered."""
        logits, maps = self.net(image)
        if not self.config.render:
            return logits, logits
        return logits, refine(logits, self.renderer(logits, maps), self.config.render_points, passes=self.config.passes)

    def renderer(self, logits: Tensor, maps: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        """Returns a function from points ``(b, p, d)`` in [0, 1] to rendered logits ``(b, classes, p)``.

        Args:
            logits: Coarse logits of the backbone; every pass reads these, not what an earlier pass wrote.
            maps: Its decoder maps.
        """
        fused = self.fusion(maps)
        return lambda points: self.render(fused, logits, points)[0]

    def render(self, fused: Fused, logits: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Returns rendered and coarse logits at points; gradient flows into the backbone through both."""
        coarse = point_sample(logits, points, self.config.padding)
        features = torch.cat([self.encoding(points, logits.shape[2:]), self.fusion.sample(fused, points)], 1)
        return self.head(features, coarse), coarse


# Widths of experts and point head by size; points keep the share of the image that they have in the released code.
WIDTHS: dict[str, dict[str, Any]] = {
    "tiny": {"experts": 16, "fused": 16, "hidden": 16, "gate_stride": 4, "frequencies": 16, "head_width": 32},
    "demo": {"experts": 32, "fused": 32, "hidden": 32, "gate_stride": 4, "frequencies": 16, "head_width": 64},
}
