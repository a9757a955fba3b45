"""Measures where models look and what they follow, before and after calibration; writes `attribution-<tower>`.

    python studies/attribution.py --tower vit --seeds 0 1 2 3 4 5  # half a minute of one core per seed; rn: a minute

A seed decides the rows of the task, the fit, and 100 counterfactual sets. For each method (zero-shot, ERM, CFR, DFR)
the record holds the accuracy per group; the counterfactual scores; and for three maps, on the first 16 sets, the share
outside the object, its lift over a flat map and the pointing game. The ResNet is fitted for fewer epochs, as in the
chapter, because its projection is a whole attention pooling.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from recording import Clock
from torch import Tensor

from anatolab import records
from anatolab.analysis.attribution import (
    attention_rollout,
    counterfactual_margins,
    grad_cam,
    integrated_gradients,
    margin_through,
    outside_share,
)
from anatolab.data.phantoms import counterfactual_scenes, finch_or_duck
from anatolab.metrics import counterfactual_scores, group_accuracy
from anatolab.robust import Cfr, Dfr, ErmProjection, Sgd, Start, ZeroShot, load_clip, predict, rows_of, start_of

SETS, MAPPED, STEPS = 100, 16, 64


def methods_of(tower: str, start: Start) -> dict[str, Any]:
    """Returns the four methods at the settings of the chapter."""
    if tower == "vit":
        return {"zero-shot": ZeroShot(start), "ERM": ErmProjection(start), "CFR": Cfr(start), "DFR": Dfr(start)}
    short = Sgd(epochs=8)
    config = Cfr.Config(erm=short, sgd=Sgd(epochs=3, lr=1e-4), num_positives=8, num_negatives=8, anchors=32)
    erm = ErmProjection(start, ErmProjection.Config(sgd=short))
    return {"zero-shot": ZeroShot(start), "ERM": erm, "CFR": Cfr(start, config), "DFR": Dfr(start)}


def maps_of(model: Any, margin: Any, images: Tensor) -> dict[str, np.ndarray]:
    """Computes three maps of each image, ``(b, 32, 32)``; finer ones are averaged, which preserves shares."""
    signed = integrated_gradients(margin, images, torch.zeros_like(images), STEPS)
    maps = {
        "Grad-CAM": grad_cam(model, margin, images),
        "rollout": attention_rollout(model, margin, images),
        "IG": signed.abs().sum(1),
    }
    return {name: F.adaptive_avg_pool2d(m[:, None], 32)[:, 0].numpy() for name, m in maps.items()}


def measured(tower: str, seed: int) -> records.Record:
    """Fits and measures once."""
    clock = Clock()
    torch.manual_seed(seed)
    clip, birds, sets = load_clip(f"scenes-{tower}"), finch_or_duck(seed=seed), counterfactual_scenes(SETS, seed)
    start = start_of(clip, birds.classes)
    train, val, test = (rows_of(clip, birds.of(split)) for split in ("train", "val", "test"))
    pictures = sets.images[:MAPPED].reshape(-1, *sets.images.shape[3:])
    masks = np.repeat(sets.masks[:MAPPED], 2, 1).reshape(-1, *sets.masks.shape[2:])
    values: dict[str, Any] = {}
    config: dict[str, Any] = {"tower": tower, "sets": SETS, "mapped": MAPPED, "steps": STEPS}
    assert train.groups is not None
    assert test.groups is not None
    for name, method in methods_of(tower, start).items():
        head = method.fit(train.h, train.y, train.groups, torch.Generator().manual_seed(seed), val)
        model, margin = margin_through(clip, head)
        predicted = predict(head, test.h).numpy()
        groups = group_accuracy(predicted, test.y.numpy(), test.groups.numpy(), train_counts=birds.of("train").counts)
        scores = counterfactual_scores(counterfactual_margins(margin, clip, sets.images))
        shares = {
            kind: {key: float(np.nanmean(v)) for key, v in outside_share(maps, masks).items()}
            for kind, maps in maps_of(model, margin, clip.preprocess(pictures)).items()
        }
        values[name] = {**scores, "worst": groups["worst"], "train_weighted": groups["train_weighted"], "maps": shares}
        config[name] = asdict(method.config) if hasattr(method, "config") else {}
    values["outside"] = float((~masks).mean())
    record = records.Record(
        experiment=f"attribution-{tower}",
        seed=seed,
        kind="attribution",
        title=f"attribution and counterfactual reliance, {'ViT' if tower == 'vit' else 'ResNet'}",
        config=records.plain(config),
        values=records.plain(values),
        provenance=clock.provenance(),
        code=records.code_of("anatolab.robust.cfr"),
    )
    records.write(record)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", choices=["vit", "rn"], default="vit")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    for seed in args.seeds:
        record = measured(args.tower, seed)
        says = {
            k: (round(v["srr"], 3), round(v["maps"]["IG"]["lift"], 3))
            for k, v in record.values.items()
            if k != "outside"
        }
        print(record.run_id, "SRR and lift of IG:", says, flush=True)


if __name__ == "__main__":
    main()
