"""The pixel-contrastive loss end to end against the code that ReCo and ARCO released, which the reader clones.

    git clone https://github.com/lorenmt/reco peers/reco
    git clone https://github.com/charlesyou999648/ARCO peers/ARCO

``ANATOLAB_PEERS`` names another folder for the two; a clone that is not there is left out. From the maps of a batch
to the gradient of the representation, 4 images of 64 x 64 with 4 classes and width 64, 256 anchors a class and 512
negatives an anchor:

* ReCo, ``compute_reco_loss``. Means over the rounds must agree within 1 %: in expectation both are the same number.
* ARCO, ``compute_contra_memobank_loss`` with its stratified sampler and banks of 30,000 rows, against ARCO-SG here.
  Both push the keys of the batch first. Negatives come from other banks, so that values are not compared.

Ours must be at least 10 times as fast. Most of that is that the anchors of a class share negatives; what is left with
negatives of each anchor's own stands in ``bench_contrast.py``. Exits with 1 where a floor is missed; ``--report``
prints the same and exits with 0.

    python benchmarks/bench_released.py [--report] [--repeats 7] [--json FILE]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from timing import conclude, flags, interleaved, milliseconds, ratio

from anatolab.losses import anatomical_contrast, class_means
from anatolab.methods import Arco
from anatolab.nn import light_unet
from anatolab.presets import SIZES
from anatolab.sampling import (
    flatten_pixels,
    label_probability,
    negative_class_odds,
    pool_pixels,
    sample_anchors,
    sample_negatives,
)

CLASSES, BATCH, WIDTH, SIDE, ANCHORS, NEGATIVES, BANK = 4, 4, 64, 64, 256, 512, 30_000
TAU, THRESHOLD, FLOOR, APART = 0.5, 0.97, 10.0, 0.01
Sides = dict[str, Callable[[], float]]


def module(path: Path) -> ModuleType | None:
    """Returns a file of a clone as a module, or None where the clone is not there."""
    if not path.exists():
        return None
    spec = spec_from_file_location(f"released_{path.stem}", path)
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def maps() -> tuple[Tensor, Tensor, Tensor]:
    """Returns a representation with gradient, a label with a tenth of its pixels void, and logits."""
    torch.manual_seed(0)
    shape = (BATCH, CLASSES, SIDE, SIDE)
    label = F.interpolate(torch.randn(BATCH, CLASSES, 8, 8), size=(SIDE, SIDE), mode="bilinear").argmax(1)
    logits = 2 * F.one_hot(label, CLASSES).movedim(-1, 1) + torch.randn(shape)
    representation = torch.randn(BATCH, WIDTH, SIDE, SIDE) + torch.randn(CLASSES, WIDTH)[label].movedim(-1, 1)
    label = label.masked_fill(torch.rand(label.shape) < 0.1, -1)
    return representation.requires_grad_(), label, logits


def timed(representation: Tensor, loss: Callable[[], Tensor]) -> Callable[[], float]:
    """Returns a call that computes a loss and its gradient."""

    def run() -> float:
        representation.grad = None
        value = loss()
        value.backward()
        return value.item()

    return run


def against_reco(peer: ModuleType) -> Sides:
    """Both losses on the maps of one batch."""
    representation, label, logits = maps()
    valid = (label >= 0)[:, None].float()
    one_hot = F.one_hot(label.clamp_min(0), CLASSES).movedim(-1, 1).float()

    def ours() -> Tensor:
        features, pixel, probability = flatten_pixels(representation, label, label_probability(logits, label))
        pool = pool_pixels(pixel, CLASSES, probability < THRESHOLD)
        prototypes = class_means(features, pixel, CLASSES)
        negatives = sample_negatives(pool, negative_class_odds(prototypes, pool.present, TAU), NEGATIVES)
        anchors = sample_anchors(pool, ANCHORS)
        return anatomical_contrast(features, anchors, negatives, prototypes, pool.queried, pool.present, TAU)

    def released() -> Tensor:
        probability = logits.softmax(1)
        return peer.compute_reco_loss(representation, one_hot, valid, probability, THRESHOLD, TAU, ANCHORS, NEGATIVES)

    return {"ours": timed(representation, ours), "released": timed(representation, released)}


def against_arco(peer: ModuleType) -> Sides:
    """Both losses on the maps of one batch, half of it labeled, with full banks."""
    representation, label, logits = maps()
    keys = representation.detach() + 0.1 * torch.randn_like(representation)
    settings = {"representation": WIDTH, "num_anchors": ANCHORS, "num_negatives": NEGATIVES, "bank": BANK}
    miner = Arco(light_unet(1, CLASSES), replace(Arco.Config().for_size(SIZES["demo"]), **settings)).miner
    full = torch.randn(CLASSES, BANK, WIDTH)
    miner.bank.push(full, torch.full((CLASSES,), BANK))

    def ours() -> Tensor:
        features, pixel, probability = flatten_pixels(representation, label, label_probability(logits, label))
        output = SimpleNamespace(
            representation=representation,
            features=features,
            pixel_label=pixel,
            label_probability=probability,
            label=label,
            num_labeled=BATCH // 2,
        )
        return miner.contrast(output, flatten_pixels(keys)[0], logits, 0.5)[0]

    one_hot = F.one_hot(label.clamp_min(0), CLASSES).movedim(-1, 1)
    known = (label >= 0)[:, None].float()
    banks = [[rows.clone()] for rows in full]
    pointers = [torch.zeros(1, dtype=torch.long) for _ in banks]

    def released() -> Tensor:
        half, probability = BATCH // 2, logits.softmax(1)
        parts = (one_hot[:half], one_hot[half:], probability[:half], probability[half:], known, known)
        return peer.compute_contra_memobank_loss(
            representation,
            *parts,
            banks,
            pointers,
            [BANK] * CLASSES,
            keys,
            func="smc",
            num_queries=ANCHORS,
            num_negatives=NEGATIVES,
            temp=TAU,
        )[-1]

    return {"ours": timed(representation, ours), "released": timed(representation, released)}


def main() -> int:
    args = flags(__doc__, 7).parse_args()
    folder, device = Path(os.environ.get("ANATOLAB_PEERS") or "peers"), torch.device("cpu")
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # the released code of ARCO asks for a GPU by name
    rows, passed = [], True
    print(f"{'end to end':<12}{'ours ms':>10}{'released ms':>13}{'ratio':>8}{'floor':>8}")
    for name, path, build in (
        ("ReCo", folder / "reco" / "module_list.py", against_reco),
        ("ARCO", folder / "ARCO" / "code" / "loss_helper_3d.py", against_arco),  # its 2-D script imports this file
    ):
        peer = module(path)
        if peer is None:
            print(f"{name:<12}left out: no {path}; clone it and let ANATOLAB_PEERS name the folder")
            continue
        sides = build(peer)
        rounds = interleaved(sides, device, args.repeats)
        row = {"part": name, "ours_ms": milliseconds(rounds, "ours"), "released_ms": milliseconds(rounds, "released")}
        row |= {"ratio": ratio(rounds, "released", "ours"), "floor": FLOOR, "apart": None}
        if name == "ReCo":
            means = [sum(side() for _ in range(20)) / 20 for side in sides.values()]
            row["apart"] = abs(means[0] / means[1] - 1)
            passed &= row["apart"] <= APART
        rows.append(row)
        print(f"{name:<12}{row['ours_ms']:>10.2f}{row['released_ms']:>13.2f}{row['ratio']:>8.1f}{FLOOR:>8.1f}")
        if row["apart"] is not None:
            print(f"{'':<12}means of 20 values differ by {row['apart']:.2%} (at most {APART:.0%})")
        passed &= row["ratio"] >= FLOOR
    return conclude(args, "released", passed, "a floor was missed, or values differ", rows=rows)


if __name__ == "__main__":
    sys.exit(main())
