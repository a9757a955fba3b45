r"""What the model looked at: three attribution maps for towers of open_clip, and their share of the background.

Explained is the margin :math:`m(x) = s\,z(x)\cdot(w_1 - w_0)`, normalization inside the graph. Maps are compared with
the mask of the foreground. A map's share of the background alone can hide reliance (a model that reads almost the
background alone may have most of the mass of its map on the object's edge), so that no conclusion is drawn from maps
without counterfactual sets (:func:`anatolab.metrics.counterfactual_scores`).

Grad-CAM reads the input of the last block's first norm in a ViT: its *output* gets no gradient at the patch tokens,
since the class token alone is read out. Attention is recomputed as an explicit softmax, since the weights that
torch's own module returns carry no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.robust import Head, LinearHead, ProjectionHead
from anatolab.robust.clip import Clip
from anatolab.types import InputError

Margin = Callable[[Tensor], Tensor]
BATCH = 256  # images on the path of integrated gradients at a time; all at once take gigabytes, and twice as long


def margin_of(model: nn.Module, text: Tensor, scale: float) -> Margin:
    """Returns an open_clip model's margin of class 1 over class 0 as a function of normalized images, with gradient.

    Args:
        model: With the projection that is to be explained (see :meth:`anatolab.robust.clip.Clip.written_back`).
        text: Text head ``(d, 2)``.
        scale: The factor s.
    """
    direction = text[:, 1] - text[:, 0]

    def margin(images: Tensor) -> Tensor:
        return scale * model.encode_image(images, normalize=True) @ direction  # type: ignore[operator]

    return margin


def margin_through(clip: Clip, head: Head, pair: tuple[int, int] = (0, 1)) -> tuple[nn.Module, Margin]:
    """Returns CLIP with a fitted head as one function from pixels to margin, so that both can be explained.

    Args:
        clip: The model that the head's features come from.
        head: A projection with its text head, or a linear layer on the pre-trained embedding.
        pair: Two classes; the margin is that of the second over the first.

    Returns:
        The open_clip model with the head's projection, for the maps that hook into it; and its margin, a function of
        normalized images through which gradient flows. It is the difference of the head's logits.

    Raises:
        InputError: The head is of another kind.
    """
    low, high = pair
    if type(head) is ProjectionHead:
        model = clip.written_back(head.projection)
        return model, margin_of(model, head.text[:, [low, high]], head.scale)
    if not isinstance(head, LinearHead):
        raise InputError(
            f"{type(head).__name__}: only projections and linear heads can be explained; fit another method."
        )
    model = clip.written_back(head.start.projection)
    direction = (head.weight[high] - head.weight[low]) / head.std
    offset = head.bias[high] - head.bias[low] - head.mean @ direction

    def margin(images: Tensor) -> Tensor:
        return model.encode_image(images, normalize=True) @ direction + offset  # type: ignore[operator]

    return model, margin


def counterfactual_margins(margin: Margin, clip: Clip, images: np.ndarray, batch: int = 256) -> np.ndarray:
    """Returns the margins of counterfactual sets.

    Args:
        margin: A function of normalized images.
        clip: Says how images are normalized.
        images: ``(n, 2, 2, h, w, 3)`` uint8 of :func:`anatolab.data.phantoms.counterfactual_scenes`.
        batch: Images at a time.

    Returns:
        ``(n, 2, 2)``, foreground then background.
    """
    flat = images.reshape(-1, *images.shape[3:])
    with torch.no_grad():
        parts = [margin(clip.preprocess(flat[i : i + batch])) for i in range(0, len(flat), batch)]
    return torch.cat(parts).view(images.shape[:3]).numpy()


def grad_cam(model: nn.Module, margin: Margin, images: Tensor) -> Tensor:
    """Computes Grad-CAM: activations weighted by their mean gradient, where positive.

    Args:
        model: An open_clip model; its last norm or last stage is read.
        margin: Runs this model.
        images: ``(b, 3, size, size)``, normalized.

    Returns:
        ``(b, size, size)``, not negative; without gradient.

    Reference:
        Selvaraju et al., Grad-CAM, ICCV 2017.
    """
    visual: Any = model.visual
    resnet = hasattr(visual, "layer4")
    caught: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        output = output if output.requires_grad else output.requires_grad_()
        caught.append(output)
        return output

    place = visual.layer4 if resnet else visual.transformer.resblocks[-1].ln_1
    handle = place.register_forward_hook(keep)
    try:
        value = margin(images).sum()
        (gradient,) = torch.autograd.grad(value, caught[0])
    finally:
        handle.remove()
    activation = caught[0].detach()
    if not resnet:
        activation, gradient = (_grid(x[:, 1:].movedim(1, 2)) for x in (activation, gradient))
    weight = gradient.mean((2, 3), keepdim=True)
    return _stretch(F.relu((weight * activation).sum(1)), images.shape[-1])


def attention_rollout(model: nn.Module, margin: Margin, images: Tensor) -> Tensor:
    r"""Rolls out gradient times attention over the blocks of a ViT; a ResNet has its attention pooling only.

    .. math:: R \leftarrow R + \bar A R,\qquad \bar A = \mathrm{mean}_h\,\mathrm{relu}(\nabla A \odot A)

    Arguments and result as :func:`grad_cam`.

    Reference:
        Chefer, Gur and Wolf, Generic attention-model explainability, ICCV 2021, without cross-attention.
    """
    with _explicit_attention(model) as kept:
        value = margin(images.detach().requires_grad_()).sum()
        gradients = torch.autograd.grad(value, kept)
    rolled = None
    for attention, gradient in zip(kept, gradients, strict=True):
        a = F.relu(attention.detach() * gradient).mean(1)
        rolled = torch.eye(a.shape[-1], dtype=a.dtype).expand_as(a) if rolled is None else rolled
        rolled = rolled + a @ rolled
    assert rolled is not None
    return _stretch(_grid(rolled[:, 0, None, 1:])[:, 0], images.shape[-1])


def integrated_gradients(margin: Margin, images: Tensor, baseline: Tensor, steps: int = 64) -> Tensor:
    r"""Returns integrated gradients: the share of each value in :math:`m(x) - m(\text{baseline})`, which they sum to.

    By captum, with its Gauss-Legendre rule.

    Args:
        margin: A function of normalized images.
        images: ``(b, 3, size, size)``.
        baseline: The same shape, or one that broadcasts to it, such as zeros (the mean color).
        steps: Steps of the rule.

    Returns:
        ``(b, 3, size, size)``, signed; for a map take the sum of absolute values over channels.

    Raises:
        InputError: captum is not installed.

    Reference:
        Sundararajan, Taly and Yan, Axiomatic attribution for deep networks, ICML 2017.
    """
    try:
        from captum.attr import IntegratedGradients
    except ImportError as error:
        raise InputError("integrated gradients need captum; install it with: pip install captum") from error
    attributions: Tensor = IntegratedGradients(margin).attribute(
        images, baseline.expand_as(images), n_steps=steps, internal_batch_size=max(BATCH, len(images))
    )
    return attributions.detach()


def outside_share(maps: Tensor | np.ndarray, masks: Tensor | np.ndarray) -> dict[str, np.ndarray]:
    """Returns the share of each map outside the foreground, absolute and relative to a constant map.

    Args:
        maps: ``(b, h, w)``, not negative.
        masks: ``(b, h, w)`` bool, the foreground.

    Returns:
        ``share`` in [0, 1] (NaN where a map is zero everywhere), ``lift`` (share over that of a map which is the same
        everywhere; 1 says nothing), ``pointing`` (whether the largest value lies on the foreground).

    Raises:
        InputError: Shapes differ, or a map is negative somewhere.

    Example:
        >>> mask = np.array([[[True, False], [False, False]]])
        >>> scores = outside_share(np.array([[[3.0, 1.0], [0.0, 0.0]]]), mask)
        >>> float(scores["share"][0]), round(float(scores["lift"][0]), 4), bool(scores["pointing"][0])
        (0.25, 0.3333, True)
    """
    a, m = np.asarray(maps, float), np.asarray(masks, bool)
    if a.shape != m.shape or a.ndim != 3 or (a < 0).any():
        raise InputError(f"maps {a.shape} and masks {m.shape} must be (b, h, w), maps not negative; take their size.")
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (a * ~m).sum((1, 2)) / a.sum((1, 2))
        lift = share / (~m).mean((1, 2))
    peak = a.reshape(len(a), -1).argmax(1)
    return {"share": share, "lift": lift, "pointing": m.reshape(len(m), -1)[np.arange(len(m)), peak]}


@contextmanager
def _explicit_attention(model: nn.Module) -> Iterator[list[Tensor]]:
    """Makes attention an explicit softmax and collects it per block, ``(b, heads, tokens, tokens)``."""
    kept: list[Tensor] = []
    visual: Any = model.visual
    saved: list[tuple[nn.Module, str]] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1)
        kept.append(weights)
        return (weights @ v).transpose(1, 2).flatten(2)

    def block(attn: Any) -> Callable[..., Tensor]:
        def attention(q_x: Tensor, k_x: Any = None, v_x: Any = None, attn_mask: Any = None) -> Tensor:
            q, k, v = F.linear(q_x, attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)
            return attn.out_proj(attend(q, k, v, attn.num_heads))

        return attention

    def pooling(pool: Any) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            x = x.flatten(2).transpose(1, 2)
            x = torch.cat([x.mean(1, keepdim=True), x], 1) + pool.positional_embedding
            return pool.c_proj(attend(pool.q_proj(x), pool.k_proj(x), pool.v_proj(x), pool.num_heads))[:, 0]

        return forward

    try:
        if hasattr(visual, "attnpool"):
            visual.attnpool.forward = pooling(visual.attnpool)
            saved.append((visual.attnpool, "forward"))
        else:
            for part in visual.transformer.resblocks:
                part.attention = block(part.attn)
                saved.append((part, "attention"))
        yield kept
    finally:
        for module, name in saved:
            delattr(module, name)  # the method of the class shows again


def _grid(x: Tensor) -> Tensor:
    """Tokens ``(b, c, n)`` as a square ``(b, c, side, side)``."""
    side = math.isqrt(x.shape[-1])
    return x.unflatten(-1, (side, side))


def _stretch(maps: Tensor, size: int) -> Tensor:
    return F.interpolate(maps[:, None].detach(), (size, size), mode="bilinear", align_corners=False)[:, 0].clamp_min(0)
