"""CLIP in the two parts that recalibration needs: a frozen trunk, and a trainable projection.

Any model of open_clip whose image tower is a ViT or a ResNet with attention pooling works. Two small ones come with the
package, pre-trained on generated scenes (:mod:`anatolab.data.phantoms.scenes`). The image trunk gives a feature *h*,
the projection P the embedding ``z = normalize(P(h))``, and the text head W, with one unit column per class, the logits
``s z W``. For a ViT, *h* is the class token after the last norm and P one matrix; for a ResNet, *h* is the last feature
map and P the whole attention pooling.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.data.files import reason
from anatolab.records import seal
from anatolab.types import InputError

WEIGHTS = Path(__file__).parent / "weights"
SMALL = ("scenes-vit", "scenes-rn")  # come with the package
TEMPLATES = ("a photo of a {}", "a picture of a {}", "an image of a {}", "there is a {}")


class Matrix(nn.Module):
    """The projection of a ViT: ``h @ weight``, from ``(n, width)`` to ``(n, d)``."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())

    def forward(self, h: Tensor) -> Tensor:
        return h @ self.weight


@dataclass(frozen=True, eq=False)
class Clip:
    """A frozen CLIP in evaluation mode, with its tokenizer and its image normalization."""

    name: str
    model: nn.Module  # of open_clip
    tokenize: Callable[[list[str]], Tensor]
    sha256: str  # of all weights
    mean: tuple[float, ...]  # of the three channels, subtracted from values in [0, 1]
    std: tuple[float, ...]
    record: dict[str, Any] = field(default_factory=dict)  # how a small model was pre-trained

    @property
    def size(self) -> int:
        """Side of the images that the trunk takes, in pixels."""
        size = self.model.visual.image_size  # type: ignore[union-attr]
        return int(size[0] if isinstance(size, tuple) else size)  # type: ignore[arg-type]

    @property
    def scale(self) -> float:
        """The factor s of the logits; learned in pre-training, frozen here."""
        return float(self.model.logit_scale.detach().exp())  # type: ignore[operator]

    @torch.no_grad()
    def trunk(self, images: Tensor) -> Tensor:
        """Returns features before the projection, without gradient.

        Args:
            images: ``(b, 3, size, size)``, normalized.

        Returns:
            ``(b, width)`` for a ViT, ``(b, width, h, w)`` for a ResNet.
        """
        visual: Any = self.model.visual
        if hasattr(visual, "attnpool"):
            return visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(images)))))
        return visual._pool(visual.transformer(visual._embeds(images)))[0]

    def projection(self) -> nn.Module:
        """Returns a copy of P for training: the only part that recalibration changes."""
        visual: Any = self.model.visual
        part = copy.deepcopy(visual.attnpool) if hasattr(visual, "attnpool") else Matrix(visual.proj)
        return part.requires_grad_()

    def written_back(self, projection: nn.Module) -> nn.Module:
        """Returns a copy of the open_clip model with this projection, for ``encode_image``."""
        model = copy.deepcopy(self.model)
        visual: Any = model.visual
        with torch.no_grad():
            if hasattr(visual, "attnpool"):
                visual.attnpool.load_state_dict(projection.state_dict())
            else:
                visual.proj.copy_(projection.weight)
        return model

    @torch.no_grad()
    def text_head(self, names: Sequence[str], templates: Sequence[str] = TEMPLATES) -> Tensor:
        """Returns the text head W: per name, the normalized mean over templates of normalized text embeddings.

        Args:
            names: One per class, such as ``finch``; or whole prompts, with the template ``{}``.
            templates: Sentences with ``{}`` in place of the name.

        Returns:
            ``(d, names)``, unit columns.

        Raises:
            InputError: A word is in no caption of a small model.
        """
        columns = []
        for name in names:
            tokens = self.tokenize([template.format(name) for template in templates])
            unit = F.normalize(self.model.encode_text(tokens), dim=-1)  # type: ignore[operator]
            columns.append(F.normalize(unit.mean(0), dim=0))
        return torch.stack(columns, 1)

    def preprocess(self, pixels: np.ndarray) -> Tensor:
        """Converts generated images to input of the trunk: resized to its size if needed, and normalized.

        Args:
            pixels: ``(b, h, w, 3)`` uint8, square.

        Returns:
            ``(b, 3, size, size)`` float32.
        """
        images = torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, 1)
        if images.shape[-1] != self.size:  # in uint8, as Pillow does it
            images = F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
        return (images / 255 - mean) / std

    def transform(self) -> Callable[[Any], Tensor]:
        """Returns open_clip's evaluation transform of a picture: resize, crop the middle, normalize."""
        from open_clip import image_transform

        return image_transform(self.size, is_train=False, mean=self.mean, std=self.std)


def load_clip(name: str = "scenes-vit", pretrained: str | None = None) -> Clip:
    """Loads a frozen CLIP by name or from a local folder.

    Args:
        name: ``scenes-vit`` or ``scenes-rn``, which come with the package; a model of open_clip, such as
            ``ViT-L-14-336-quickgelu``; or a folder with ``open_clip_config.json`` and ``open_clip_model.safetensors``.
        pretrained: Weights of a model of open_clip: a tag such as ``openai``, which is downloaded, or a file.

    Raises:
        InputError: There is no such model, its weights are not there, or its image tower is of another kind.

    Example:
        >>> clip = load_clip("scenes-vit")
        >>> clip.size, clip.trunk(torch.zeros(2, 3, 32, 32)).shape
        (32, torch.Size([2, 64]))
    """
    if name in SMALL:
        return load_small(name)
    import open_clip

    folder = Path(name).is_dir()
    if not folder and pretrained is None:
        raise InputError(f"{name}: without weights its predictions mean nothing; name them, such as pretrained=openai.")
    label = f"local-dir:{name}" if folder else name
    try:
        model, _, _ = open_clip.create_model_and_transforms(label, pretrained=None if folder else pretrained)
        tokenizer = open_clip.get_tokenizer(label)
    except Exception as error:  # whatever a damaged file, a wrong name or a missing network makes it raise
        if isinstance(error, MemoryError):
            raise
        raise InputError(
            f"{name}: open_clip cannot load this model ({next(iter(str(error).splitlines()), '')[:200]}); give a name "
            "of open_clip.list_models() with a tag of its weights (off-line only where they were downloaded before) "
            f"or a file of them, a folder that holds a model, or one of {', '.join(SMALL)}."
        ) from error
    visual: Any = model.visual
    if not hasattr(visual, "attnpool") and getattr(visual, "proj", None) is None:
        raise InputError(f"{name}: its image tower is no ViT with a projection and no ResNet; use another model.")
    preprocessing = open_clip.get_model_preprocess_cfg(model)
    return _frozen(name, model, tokenizer, preprocessing["mean"], preprocessing["std"])


def load_small(name: str, folder: Path = WEIGHTS) -> Clip:
    """Loads a model that ``studies/weights.py`` pre-trained on generated scenes.

    Args:
        name: ``scenes-vit`` or ``scenes-rn``.
        folder: Folder of weights and record; by default that of the package.

    Raises:
        InputError: The description is missing or not as it was written, or the weights are not those it describes.
    """
    from open_clip import CLIP
    from safetensors.torch import load_file

    file, about = folder / f"{name}.safetensors", folder / f"{name}.json"
    try:
        record = json.loads(about.read_text(encoding="utf-8"))
        sealed = record.pop("seal", None)  # not there in descriptions from before there were seals
        due, whole = record["sha256"], hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{about}: cannot be read ({reason(error)}); restore it from the package.") from error
    if sealed is not None and seal(record) != sealed:
        raise InputError(f"{about}: is not as it was written; restore it from the package.")
    if whole != due:
        raise InputError(f"{file}: is not the file that {name}.json describes; restore both from the package.")
    model = CLIP(**record["model"])
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(file).items()})
    return _frozen(name, model, small_tokenizer(record), record["mean"], record["std"], record)


def small_tokenizer(record: dict[str, Any]) -> Callable[[list[str]], Tensor]:
    """Returns open_clip's tokenizer with ids renumbered over the words of the pre-training captions.

    Ids keep their order, so that the end-of-text token stays the largest id, at which open_clip reads the feature.
    """
    from open_clip import SimpleTokenizer

    inner = SimpleTokenizer(context_length=record["model"]["text_cfg"]["context_length"])
    known = torch.tensor(record["tokens"])

    def tokenize(texts: list[str]) -> Tensor:
        ids = inner(texts)
        position = torch.searchsorted(known, ids).clamp_max(len(known) - 1)
        if (strange := ids[known[position] != ids]).numel():
            word = inner.decode([int(strange[0])]).strip()
            raise InputError(f"prompt: {word!r} is in no caption of the small model; use words of its captions.")
        return position

    return tokenize


def _frozen(
    name: str, model: nn.Module, tokenize: Any, mean: Any, std: Any, record: dict[str, Any] | None = None
) -> Clip:
    model.eval().requires_grad_(False)
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return Clip(name, model, tokenize, digest.hexdigest(), tuple(mean), tuple(std), record or {})
