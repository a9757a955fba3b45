"""Computes features of the frozen trunk once and caches them on disk.

A cache is a folder named by a hash of the weights, the preprocessing and the images (for files: names, sizes and
modification times; for generated images: pixels). It is written under a temporary name and then renamed, verified by
checksums when it is opened, and mapped copy-on-write. RN50 maps take 400 kB per image in float32; use float16 if that
is too much.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anatolab.data import LabeledImages, cache_root
from anatolab.data.blocks import open_verified
from anatolab.data.store import GrowingArray, open_or_build
from anatolab.robust._fit import FeatureSet, Start, in_chunks
from anatolab.robust.clip import TEMPLATES, Clip
from anatolab.types import InputError

VERSION = 2  # part of every key: raise it when anything below changes what is written


def extract(
    clip: Clip,
    images: LabeledImages,
    *,
    cache: str | Path | None = None,
    dtype: str = "float32",
    batch: int = 256,
) -> Tensor:
    """Returns the trunk's feature of every image, computed on the first call and cached.

    Args:
        clip: Its trunk runs on the device that its weights are on.
        images: A data set or a part of one.
        cache: The folder of the caches; ``cache_root()`` where not given.
        dtype: ``float32``, or ``float16`` for half of the space.
        batch: Images at a time.

    Returns:
        ``(n, width)`` or ``(n, width, h, w)``, memory-mapped; rows are read when they are used.

    Raises:
        InputError: An image cannot be read, or the cache cannot be written.
    """
    folder = (
        Path(cache or cache_root()).expanduser() / f"features-{clip.name.split('/')[-1]}-{_key(clip, images, dtype)}"
    )
    return open_or_build(
        folder,
        lambda: _write(folder, clip, images, dtype, batch),
        lambda: _open(folder),
        name="features",
        damaged="these features are damaged",
        again="computing them",
        stacklevel=3,
    )


def _open(folder: Path) -> Tensor:
    """Opens and verifies cached features; on damage raises whatever the parsers raise."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    file = folder / "features.npy"
    open_verified(file, index["blocks"], index["layout"], lambda what: InputError(f"{file}: {what}.")).verify()
    return torch.from_numpy(np.load(file, mmap_mode="c"))


def features_of(clip: Clip, images: LabeledImages, batch: int = 256) -> Iterator[Tensor]:
    """Yields the trunk's features batch by batch, without a cache."""
    transform = clip.transform() if images.pixels is None else None
    device = next(clip.model.parameters()).device
    for start in range(0, len(images), batch):
        end = min(start + batch, len(images))
        if images.pixels is not None:
            pictures = clip.preprocess(images.pixels[start:end])
        else:
            assert transform is not None
            pictures = torch.stack([transform(images.image(row)) for row in range(start, end)])
        yield clip.trunk(pictures.to(device)).cpu()


def rows_of(
    clip: Clip, images: LabeledImages, *, groups: bool = True, cache: str | Path | None = None, dtype: str = "float32"
) -> FeatureSet:
    """Returns features, classes and, if wanted, groups of a data set, ready for a method."""
    h = extract(clip, images, cache=cache, dtype=dtype)
    return FeatureSet(h, torch.from_numpy(images.y), torch.from_numpy(images.group) if groups else None)


def start_of(clip: Clip, names: tuple[str, ...], templates: tuple[str, ...] = TEMPLATES) -> Start:
    """Returns the starting point of every method, from a model and the names of the classes."""
    return Start(clip.projection(), clip.text_head(names, templates), clip.scale)


def start_of_means(clip: Clip, train: FeatureSet) -> Start:
    """Returns a starting point without text: the unit mean embedding of each class replaces its prompt.

    Args:
        clip: The frozen model.
        train: Training rows; their classes are used.
    """
    z = in_chunks(lambda part: F.normalize(clip.projection()(part), dim=-1), train.h)
    text = torch.stack([F.normalize(z[train.y == k].mean(0), dim=0) for k in train.y.unique()], 1)
    return Start(clip.projection(), text, clip.scale)


def _write(folder: Path, clip: Clip, images: LabeledImages, dtype: str, batch: int) -> None:
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
        with GrowingArray(part / "features.npy") as out:
            for h in features_of(clip, images, batch):
                out.append(h.numpy().astype(dtype), images.name)
        index = {"blocks": out.blocks, "layout": out.layout}
        (part / "index.json").write_text(json.dumps(index), encoding="utf-8")
        part.chmod(0o755)  # people of one machine may share a cache
        with suppress(OSError):  # another process was first, and its cache is as good as this one
            part.rename(folder)
    except OSError as error:
        raise InputError(
            f"{folder}: the features cannot be written ({error.strerror or error}); "
            "free some space there, or set ANATOLAB_CACHE to a folder that has it."
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _key(clip: Clip, images: LabeledImages, dtype: str) -> str:
    recipe = [VERSION, clip.sha256, clip.size, clip.mean, clip.std, dtype, len(images)]
    digest = hashlib.sha256(json.dumps(recipe).encode())
    if images.pixels is not None:
        digest.update(np.ascontiguousarray(images.pixels).data)
    for path in images.files:
        try:
            stat = path.stat()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); copy it there again.") from error
        digest.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:20]
