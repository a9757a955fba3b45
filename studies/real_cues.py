"""Measures the methods on real images whose cue is known, as studies of the last layer; writes the record `real-cues`.

    ANATOLAB_DATA=... python studies/real_cues.py     # draws 10 to 19; reads $ANATOLAB_DATA/spurious, numbers only

* `cue_conflict` (Geirhos et al., ICLR 2019, CC BY 4.0): animal or object by shape, while 95 % of the training rows have
  a texture of the same kind. Contents of training, validation and test are disjoint.
* `bar` (Nam et al., NeurIPS 2020): six actions; training rows all show the usual place, as published; the balanced
  validation rows and the test rows show both kinds.
* `clip`: 256 training images of Waterbirds in real CLIP RN50, zero-shot. Two groups have 4 and 8 rows.

The encoder of the first two is a network trained on ImageNet (EfficientNet-Lite0), no CLIP: there is no text, and class
means take its place (`frozen.py`). Validation is small and group-balanced: DFR fits on it, and what selects without
groups sees its classes. `erm_pooled` trains on both, unweighted: what the rows are worth. Settings are chosen on draws
100 and 101 of the same images, since there are no others; splits differ.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from frozen import CHOOSING, Rows, choose, compared
from PIL import Image
from recording import Clock
from robust import keep

from anatolab import records
from anatolab.metrics import group_accuracy
from anatolab.robust import ErmProjection, FeatureSet
from anatolab.types import InputError

ANIMALS = ("bear", "bird", "cat", "dog", "elephant")
ALIGNED, BALANCED = 0.95, 21  # share of the training rows of cue conflict; rows of each group of BAR in validation


def rows(x: np.ndarray, y: np.ndarray, a: np.ndarray, index: np.ndarray) -> FeatureSet:
    h, label, group = x[index].astype(np.float32), y[index].astype(np.int64), (2 * y + a)[index].astype(np.int64)
    return FeatureSet(torch.from_numpy(h), torch.from_numpy(label), torch.from_numpy(group))


def cue_conflict(root: Path, rng: np.random.Generator) -> tuple[FeatureSet, FeatureSet, FeatureSet]:
    """Returns training, balanced validation and test rows: five, two and three of the ten contents of each shape."""
    data = np.load(root / "cueconflict_effnetlite0.npz", allow_pickle=False)
    y, a = np.isin(data["shape"], ANIMALS).astype(int), np.isin(data["texture"], ANIMALS).astype(int)
    content = np.empty(len(y), int)
    for shape in np.unique(data["shape"]):
        same_shape = data["shape"] == shape
        content[same_shape] = rng.permutation(10)[data["content"][same_shape] - 1]
    train = np.flatnonzero(content < 5)
    same = y[train] == a[train]
    few = round(same.sum() * (1 - ALIGNED) / ALIGNED)
    train = np.concatenate([train[same], rng.permutation(train[~same])[:few]])
    val, test = np.flatnonzero((content >= 5) & (content < 7)), np.flatnonzero(content >= 7)
    least = np.bincount((2 * y + a)[val]).min()
    val = np.concatenate([rng.permutation(val[(2 * y + a)[val] == g])[:least] for g in range(4)])
    return rows(data["X"], y, a, train), rows(data["X"], y, a, val), rows(data["X"], y, a, test)


def bar(root: Path, rng: np.random.Generator) -> tuple[FeatureSet, FeatureSet, FeatureSet]:
    """Returns training rows on the usual background only, balanced validation, and test."""
    data = np.load(root / "bar_effnetlite0.npz", allow_pickle=False)
    y, a = data["y"].astype(int), data["conflicting"].astype(int)
    parts: list[list[np.ndarray]] = [[], [], []]
    for g in range(12):
        group = rng.permutation(np.flatnonzero(2 * y + a == g))
        rest, cut = group[BALANCED:], 0 if g % 2 else round(0.7 * len(group))
        for part, index in zip(parts, (rest[:cut], group[:BALANCED], rest[cut:]), strict=True):
            part.append(index)
    train, val, test = (rows(data["X"], y, a, np.concatenate(part)) for part in parts)
    return train, val, test


def study(rows: Rows, numbers: dict[str, int]) -> dict[str, Any]:
    """Runs every method on one set at its chosen setting."""
    results, _ = compared(rows, numbers)
    pooled = FeatureSet(torch.cat([rows.train.h, rows.val.h]), torch.cat([rows.train.y, rows.val.y]))
    head = ErmProjection(rows.start).fit(pooled.h, pooled.y, None, rows.generator())
    results["erm_pooled"] = rows.accuracy(head) | {"sees": {"training": ["y"], "selection": []}}
    counts = {k: torch.bincount(r.groups).tolist() for k, r in (("val", rows.val), ("test", rows.test))}  # type: ignore[arg-type]
    return {"methods": results, "counts": {"train": rows.counts.tolist(), **counts}}


def clip(root: Path) -> dict[str, Any]:
    """Measures zero-shot accuracy of real CLIP RN50 on the first 256 training images of Waterbirds."""
    data = np.load(root / "wb_rn50_first256.npz", allow_pickle=False)
    image, text = data["image"].astype(np.float32), data["text"].astype(np.float32)
    scores = group_accuracy(
        (image @ text.T).argmax(1), data["y"].astype(int), (2 * data["y"] + data["place"]).astype(int)
    )
    return {k: scores[k] for k in ("worst", "mean", "group_mean", "per_group", "counts")}


def picture(root: Path) -> None:
    """Draws eight cue conflicts side by side; the images are CC BY 4.0, see LICENSE.md beside the picture."""
    files = sorted((root / "cue_conflict_112").glob("*/*.jpg"))
    chosen = [file for file in files if file.parent.name in ANIMALS][:: len(files) // 25][:4]
    chosen += [file for file in files if file.parent.name not in ANIMALS][:: len(files) // 7][:4]
    sheet = Image.new("RGB", (8 * 116 - 4, 112), "white")
    for i, file in enumerate(chosen):
        sheet.paste(Image.open(file), (116 * i, 0))
    path = records.root() / "figures" / "cue-conflict.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(128).save(path, optimize=True)
    print(path, path.stat().st_size, "bytes:", ", ".join(file.stem for file in chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10, 20)))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not os.environ.get("ANATOLAB_DATA"):
        raise InputError("ANATOLAB_DATA is not set; let it name the folder that holds spurious/.")
    root = Path(os.environ["ANATOLAB_DATA"]) / "spurious"
    picture(root)
    sets = {"cue_conflict": cue_conflict, "bar": bar}

    def drawn(name: str, seed: int) -> Rows:
        return Rows(seed, *sets[name](root, np.random.default_rng((seed, list(sets).index(name)))))

    numbers = {name: choose([drawn(name, seed) for seed in CHOOSING]) for name in sets}
    for seed in args.seeds:
        clock, cpu = Clock(), time.process_time()
        results = {name: study(drawn(name, seed), numbers[name]) for name in sets}
        values = {**results, "clip": clip(root), "cpu_s": time.process_time() - cpu}
        config = {"aligned": ALIGNED, "balanced": BALANCED, "components": 64, "settings": numbers}
        keep("real-cues", seed, "real images with a known cue, last layers", config, values, clock)
        print({k: {m: v.get("worst") for m, v in results[k]["methods"].items()} for k in sets}, flush=True)


if __name__ == "__main__":
    main()
