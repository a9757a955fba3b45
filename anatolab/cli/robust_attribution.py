"""Computes the maps of ``anatolab robust attribute``: which pixels raise a margin, compared with masks."""

from __future__ import annotations

import json as text
from pathlib import Path
from typing import Any

import numpy as np

from anatolab.cli.common import print_json
from anatolab.cli.robust_report import as_png
from anatolab.errors import InputError
from anatolab.files import check_target, write_atomically


def attribute(flags: Any) -> int:
    """Computes two maps of some test images, measures them against masks, and draws them.

    Args:
        flags: The flags of the sub-command.
    """
    import torch

    from anatolab.analysis.attribution import grad_cam, integrated_gradients, margin_through, outside_share
    from anatolab.data import open_images
    from anatolab.records import plain
    from anatolab.robust.heads import load_head

    files = {name: flags.out / name for name in ("maps.png", "maps.json")}
    for file in files.values():
        check_target(file, overwrite=flags.overwrite)
    if flags.images < 1 or flags.steps < 1:
        raise InputError("--images, --steps: must be at least 1.")
    head, card, clip = load_head(flags.head)
    pair = _pair(flags, card)
    images = open_images(flags.data).of("test")
    rows = np.linspace(0, len(images) - 1, min(flags.images, len(images))).astype(int)
    part = images.take(rows)
    transform = clip.transform()
    pictures = [part.image(row) for row in range(len(part))]
    x = torch.stack([transform(picture) for picture in pictures])
    model, margin = margin_through(clip, head, pair=pair)
    with torch.enable_grad():
        maps = {
            "Grad-CAM": grad_cam(model, margin, x),
            "integrated gradients": integrated_gradients(margin, x, torch.zeros_like(x), flags.steps).abs().sum(1),
        }
    with torch.no_grad():
        margins = margin(x).tolist()
    masks = None if flags.masks is None else np.stack([_mask(flags.masks, file, clip.size) for file in part.files])
    shares = {}
    if masks is not None:
        for name, values in maps.items():
            measured = outside_share(values.detach(), masks)
            shares[name] = {key: float(np.nanmean(value)) for key, value in measured.items()}
    names = [card["classes"][k] for k in pair]
    result = {
        "head": flags.head,
        "margin": f"{names[1]} over {names[0]}",
        "images": [str(file) for file in part.files],
        "margins": margins,
        "maps": shares,
    }
    write_atomically(files["maps.json"], text.dumps(plain(result), indent=1) + "\n", overwrite=flags.overwrite)
    shown = ((x * torch.tensor(clip.std)[:, None, None]) + torch.tensor(clip.mean)[:, None, None]).clamp(0, 1)
    figure = _sheet(
        shown.movedim(1, -1).numpy(), {k: v.detach().numpy() for k, v in maps.items()}, margins, masks, names
    )
    write_atomically(files["maps.png"], figure, overwrite=flags.overwrite)
    if flags.json:
        print_json(result)
        return 0
    print(f"{files['maps.png']}: {len(part)} test images, margin of {result['margin']}")
    for name, share in shares.items():
        print(f"{name}: {share['share']:.2f} of its mass outside the masks, {share['lift']:.2f} of chance")
    if masks is None:
        print("note: without --masks a map is a picture and no measurement")
    return 0


def _pair(flags: Any, card: dict[str, Any]) -> tuple[int, int]:
    """Returns the numbers of the two classes."""
    if flags.classes is None:
        return 0, 1
    for name in flags.classes:
        if name not in card["classes"]:
            raise InputError(
                f"--classes {name}: is not a class of this head, which knows {', '.join(card['classes'])}."
            )
    return card["classes"].index(flags.classes[0]), card["classes"].index(flags.classes[1])


def _mask(folder: Path, image: Path, size: int) -> np.ndarray:
    """Reads the mask of an image, resized and cropped like the model's input: ``(size, size)`` bool."""
    from PIL import Image

    from anatolab.data.labeled import read_picture

    path = folder / f"{image.stem}.png"
    if not path.is_file():
        raise InputError(f"{path}: this mask is missing; name it as its image, or leave --masks out.")
    mask = Image.fromarray((np.asarray(read_picture(path)).max(-1) > 0).astype(np.uint8) * 255)
    short = min(mask.size)
    sides = [max(round(side * size / short), size) for side in mask.size]
    resized = np.asarray(mask.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)) >= 128
    top, left = (resized.shape[0] - size) // 2, (resized.shape[1] - size) // 2
    return resized[top : top + size, left : left + size]


def _sheet(
    pictures: np.ndarray, maps: dict[str, np.ndarray], margins: list[float], masks: np.ndarray | None, names: list[str]
) -> bytes:
    """Draws pictures above their maps, as PNG, with the masks as outlines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(pictures)
    figure = Figure(figsize=(1.5 * n + 0.6, 1.7 * (1 + len(maps))), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + len(maps), n, squeeze=False)
    for k in range(n):
        axes[0, k].imshow(pictures[k])
        axes[0, k].set_title(f"{margins[k]:+.1f}", fontsize=8)
        for row, values in enumerate(maps.values(), 1):
            axes[row, k].imshow(pictures[k].mean(-1), cmap="gray", vmin=-0.5, vmax=1.5)
            axes[row, k].imshow(values[k], cmap="Reds", alpha=0.7)
            if masks is not None:
                axes[row, k].contour(masks[k], levels=[0.5], colors="k", linewidths=0.8)
    for axis, label in zip(axes[:, 0], (f"{names[1]} over {names[0]}", *maps), strict=True):
        axis.set_ylabel(label, fontsize=8)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return as_png(figure)
