"""Generated scenes as files, for the reader of plain tables."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from anatolab.data.labeled import SPLITS, LabeledImages


def write_scenes(root: Path, scenes: LabeledImages) -> Path:
    """Writes generated scenes as files: ``table.csv`` with filename, split, y and a; ``images`` and ``masks`` as PNG.

    Returns the folder, for :func:`anatolab.data.table.read_table`.
    """
    assert scenes.pixels is not None
    assert scenes.masks is not None
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    lines = ["filename,split,y,a"]
    for i, (image, mask) in enumerate(zip(scenes.pixels, scenes.masks, strict=True)):
        name = f"{i:05d}.png"
        Image.fromarray(image).save(root / "images" / name)
        Image.fromarray(mask).save(root / "masks" / name)
        lines.append(f"images/{name},{SPLITS[scenes.split[i]]},{scenes.y[i]},{scenes.a[i]}")
    (root / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = {"name": scenes.name, "classes": scenes.classes, "attributes": scenes.attributes}
    (root / "table.json").write_text(json.dumps({**names, **scenes.provenance}, indent=1) + "\n", encoding="utf-8")
    return root
