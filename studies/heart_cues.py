"""Measures the methods on slices of generated hearts with a marker or scanner cue; writes `hearts-marker`, `-scanner`.

    python studies/heart_cues.py --cue marker scanner     # draws 10 to 19; settings are chosen on 100 and 101

The label is an enlarged left ventricle. The encoder is a small convolutional network trained here in about half a
minute of one core, on slices of 100 other patients in which the cue goes with the class most times, so that its frozen
features hold the heart and the cue. Recorded are accuracies by group and, of some methods: how far the cue alone moves
the margin and turns predictions, on the same slices with and without it; and how much of integrated gradients lies on
the marker (the known place of the cue) and on the heart (the known mask), over the share of a flat map.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from frozen import CHOOSING, Rows, choose, compared
from recording import Clock
from robust import keep
from torch import Tensor, nn

from anatolab import records
from anatolab.analysis.attribution import integrated_gradients
from anatolab.data import LabeledImages
from anatolab.data.phantoms.hearts import MARKER, counterfactual_hearts, heart_slices
from anatolab.metrics import counterfactual_scores
from anatolab.robust import FeatureSet, LinearHead
from anatolab.robust._fit import batches, in_chunks

PATIENTS = (60, 30, 40)  # of training, validation and test
RECIPE = {"patients": 100, "aligned": 0.98, "seed": 900, "epochs": 20, "batch": 64, "lr": 2e-3, "weight_decay": 1e-2}
EXPLAINED = {"zero_shot": "class means", "erm": "ERM", "cfr_zero_shot": "CFR", "dfr": "DFR"}
SETS, MAPPED = 100, 16


class Encoder(nn.Module):
    """Four strided convolutions and a mean over places: gray images ``(b, 1, 32, 32)`` to ``(b, 64)``."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32, 64, 64)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(4, b), nn.ReLU()]
        self.layers, self.last = nn.Sequential(*layers), nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean((2, 3))


def gray(pixels: np.ndarray) -> Tensor:
    """Pictures ``(n, 32, 32, 3)`` uint8 as the encoder takes them."""
    return torch.from_numpy(pixels[..., 0].astype(np.float32) / 255 - 0.5)[:, None]


def pretrained(cue: Any) -> Encoder:
    """Trains an encoder by :data:`RECIPE`, always the same."""
    torch.manual_seed(0)
    seed, share = int(RECIPE["seed"]), float(RECIPE["aligned"])
    slices = heart_slices(cue, (int(RECIPE["patients"]), 1, 1), aligned=share, seed=seed).of("train")
    x, y, encoder = gray(slices.pixels), torch.from_numpy(slices.y), Encoder()  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(encoder.parameters(), RECIPE["lr"], weight_decay=RECIPE["weight_decay"])
    generator = torch.Generator().manual_seed(0)
    for _ in range(int(RECIPE["epochs"])):
        for rows in batches(len(y), int(RECIPE["batch"]), generator):
            optimizer.zero_grad()
            F.cross_entropy(encoder.last(encoder(x[rows])), y[rows]).backward()
            optimizer.step()
    return encoder.eval().requires_grad_(False)


def rows_of(encoder: Encoder, slices: LabeledImages, seed: int) -> Rows:
    """One draw in frozen features."""
    parts = [slices.of(split) for split in ("train", "val", "test")]
    sets = [
        FeatureSet(in_chunks(encoder, gray(p.pixels)), torch.from_numpy(p.y), torch.from_numpy(p.group))  # type: ignore[arg-type]
        for p in parts
    ]
    return Rows(seed, sets[0], sets[1], sets[2], d=48)


def margin_through(encoder: Encoder, rows: Rows, head: Any) -> Callable[[Tensor], Tensor]:
    """Returns the margin of enlarged over normal as a function of images, through which gradient flows."""

    def margin(x: Tensor) -> Tensor:
        h = (encoder(x) - rows.mean) / rows.std
        if isinstance(head, LinearHead):
            z = (F.normalize(head.start.projection(h), dim=-1) - head.mean) / head.std
            return (z @ head.weight.T + head.bias) @ torch.tensor([-1.0, 1.0])
        return head.logits(h) @ torch.tensor([-1.0, 1.0])

    return margin


def looked_at(margin: Callable[[Tensor], Tensor], images: np.ndarray, masks: np.ndarray) -> dict[str, Any]:
    """Measures reliance on the cue by adding it, and where integrated gradients lie.

    Args:
        margin: Of enlarged over normal.
        images: ``(n, 2, 2, 32, 32, 3)``: normal and enlarged, without and with the cue.
        masks: ``(n, 2, 32, 32)``, of the hearts.
    """
    x = gray(images.reshape(-1, *images.shape[3:]))
    scores = counterfactual_scores(in_chunks(margin, x).view(-1, 2, 2).numpy())
    some = x.view(-1, 2, 2, *x.shape[1:])[:MAPPED, :, 1].flatten(0, 1)  # with the cue
    maps = integrated_gradients(margin, some, torch.full_like(some, -0.5)).abs().sum(1).numpy()
    marker = np.zeros(maps.shape[1:], bool)
    marker[MARKER] = True
    parts = {"marker": marker[None], "heart": masks[:MAPPED].reshape(-1, *maps.shape[1:])}
    share = {name: (maps * part).sum((1, 2)) / maps.sum((1, 2)) for name, part in parts.items()}
    lifts = {name: float(np.mean(share[name] / part.mean((1, 2)))) for name, part in parts.items()}
    return {**scores, "share": {name: float(v.mean()) for name, v in share.items()}, "lift": lifts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cue", choices=["marker", "scanner"], nargs="+", default=["marker", "scanner"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10, 20)))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for cue in args.cue:
        clock = Clock()
        encoder = pretrained(cue)
        digest = hashlib.sha256(b"".join(v.numpy().tobytes() for v in encoder.state_dict().values())).hexdigest()
        count = sum(p.numel() for p in encoder.parameters())
        about = {"wall_s": clock.provenance()["wall_s"], "sha256": digest, "numbers": count}
        print(f"{cue}: encoder trained, {about}", flush=True)
        numbers = choose([rows_of(encoder, heart_slices(cue, PATIENTS, seed=seed), seed) for seed in CHOOSING])
        for seed in args.seeds:
            path = records.path_of(f"hearts-{cue}", seed)
            if path.exists() and not records.is_stale(records.read(path)):
                continue
            clock = Clock()
            slices = heart_slices(cue, PATIENTS, seed=seed)
            rows = rows_of(encoder, slices, seed)
            values, kept = compared(rows, numbers)
            sets = counterfactual_hearts(cue, SETS, seed=seed)
            for run in EXPLAINED:
                if "head" in kept[run]:
                    margin = margin_through(encoder, rows, kept[run]["head"])
                    values[run]["cue"] = looked_at(margin, sets.images, sets.masks)
            config = {"world": slices.provenance, "patients": PATIENTS, "recipe": RECIPE, "encoder": about}
            record = {"methods": values, "train_counts": rows.counts}
            keep(f"hearts-{cue}", seed, f"enlarged ventricle, {cue} cue, frozen features", config, record, clock)
            print({run: v.get("worst") for run, v in values.items()}, flush=True)


if __name__ == "__main__":
    main()
