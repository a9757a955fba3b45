"""Measures how much ARCO's samplers lower the variance of a loss and of its gradient, during a real training.

    python studies/variance.py --data acdc --seeds 0 1 2        # writes the records variance-acdc; or cardiac

ARCO with naive draws is trained at the demo preset for 600 updates, in the field of view of its labeled patients. At
the start, the middle and the end of its last stage a fixed batch is read once, keys and negatives are fixed, and the
pixels of three contrasts are drawn anew:

* `action`: anatomical contrast, anchors are the hard pixels of each class, as ACTION draws them;
* `info_nce`: plain pixel InfoNCE, anchors are all labeled pixels, the positive is the teacher's same pixel;
* `simclr`: images against images, an image's embedding being the mean of pixels drawn from it (not a mean of losses,
  so no theorem covers it).

Recorded, as ratios to naive draws, for each: the exact variance of the loss where it is a mean over pixels (else over
200 draws), and that of the gradient on the pixel projector over 60 draws (trace of its covariance).
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.nn.functional as F
from cohorts import COHORTS
from recording import Clock
from torch import Tensor

from anatolab import records
from anatolab.analysis import exact_variance
from anatolab.data import find_field_of_view, prepare, split_sha256
from anatolab.losses import anatomical_contrast, class_means
from anatolab.methods import Arco
from anatolab.methods._teacher_student import TeacherStudentOutput, forward_pair
from anatolab.nn import NETWORKS
from anatolab.presets import SIZES
from anatolab.sampling import (
    Strata,
    bin_pixels,
    flatten_pixels,
    negative_class_odds,
    pool_pixels,
    sample_negatives,
    sample_pixels,
)
from anatolab.training import Settings, train
from anatolab.training.loop import Feed
from anatolab.types import Batch

UPDATES, DRAWS, GRADIENTS = 600, 200, 60
KINDS: Any = ("naive", "stratified", "antithetic")
TAU = 0.5


def setups(method: Any, batch: Batch) -> dict[str, tuple[Strata, int, Callable[[Tensor], Tensor], Tensor | None]]:
    """Returns per contrast the strata, draws per group, the loss of sampled pixels, and each pixel's loss if any."""
    c, classes = method.config, method.student.net.classes
    output: TeacherStudentOutput = forward_pair(method, batch, 0.5)
    b, _, *grid = output.representation.shape
    with torch.no_grad():
        keys = flatten_pixels(method.teacher.net.pixel(method.teacher(output.views.image)[1]))[0]
    hard = output.label_probability <= c.hard_threshold
    pool = pool_pixels(output.pixel_label, classes, hard)
    prototypes = class_means(output.features, output.pixel_label, classes)
    negatives = sample_negatives(pool, negative_class_odds(prototypes, pool.present, TAU), c.num_negatives)
    label = output.pixel_label.reshape(b, *grid)
    contrasts: dict[str, Any] = {}

    def action(index: Tensor) -> Tensor:
        return anatomical_contrast(output.features, index, negatives, prototypes, pool.queried, pool.present, TAU)

    every = F.normalize(output.features.detach(), dim=1)
    center, far = F.normalize(prototypes, dim=1), F.normalize(keys, dim=1)[negatives]
    pixel_class = output.pixel_label.clamp_min(0)
    near = (every * center[pixel_class]).sum(1) / TAU
    away = torch.stack([every @ f.T / TAU for f in F.normalize(output.features.detach(), dim=1)[negatives]])
    apart = away[pixel_class, torch.arange(len(pixel_class))]
    by_pixel = torch.cat([near[:, None], apart], 1).logsumexp(1) - near
    contrasts["action"] = (bin_pixels(label, classes, hard.reshape(b, *grid)), c.num_anchors, action, by_pixel)

    labeled = torch.where(torch.arange(b)[:, None, None] < output.num_labeled, label, -1)
    positive = F.normalize(keys, dim=1)

    def pixels(rows: Tensor, of: Tensor, classes_of: Tensor) -> Tensor:
        q = F.normalize(rows, dim=1)
        near = (q * positive[of]).sum(1, keepdim=True)
        away = torch.einsum("nd,nkd->nk", q, far[classes_of])
        return (torch.cat([near, away], 1) / TAU).logsumexp(1) - near[:, 0] / TAU

    def info_nce(index: Tensor) -> Tensor:
        group = torch.arange(classes).repeat_interleave(index.shape[1])
        loss = pixels(output.features[index.flatten()], index.flatten(), group).reshape(index.shape).mean(1)
        present = pool_pixels(labeled.flatten(), classes).present
        return torch.where(present, loss, 0.0).sum() / present.sum()

    with torch.no_grad():
        chunks = torch.arange(len(pixel_class)).split(1024)
        alone = torch.cat([pixels(output.features[i], i, pixel_class[i]) for i in chunks])
    contrasts["info_nce"] = (bin_pixels(labeled, classes), c.num_anchors, info_nce, alone)

    image = torch.arange(b)[:, None, None].expand(b, *grid)
    whole = F.normalize(keys.reshape(b, -1, keys.shape[1]).mean(1), dim=1)

    def simclr(index: Tensor) -> Tensor:
        z = F.normalize(output.features[index].mean(1), dim=1)
        return F.cross_entropy(z @ whole.T / 0.1, torch.arange(b))

    contrasts["simclr"] = (bin_pixels(image, b), 64, simclr, None)
    return contrasts


def measured(method: Any, batch: Batch) -> dict[str, Any]:
    """Computes the variances of loss and gradient relative to naive sampling, per contrast and sampler."""
    method.train()
    ratios: dict[str, Any] = {}
    for name, (strata, num, loss, by_pixel) in setups(method, batch).items():
        variances: dict[str, dict[str, float]] = {}
        for kind in KINDS:
            torch.manual_seed(0)
            with torch.no_grad():
                losses = torch.stack([loss(sample_pixels(strata, num, kind)) for _ in range(DRAWS)])
            gradients = [
                torch.autograd.grad(
                    loss(sample_pixels(strata, num, kind)), method.student.pixel.linear.weight, retain_graph=True
                )[0].flatten()
                for _ in range(GRADIENTS)
            ]
            row = {"loss": losses.var().item(), "gradient": torch.stack(gradients).var(0).sum().item()}
            if by_pixel is not None:
                exact = exact_variance(by_pixel, strata, num, kind)
                present = ~exact.isnan()
                row["exact"] = (exact[present].sum() / present.sum() ** 2).item()
            variances[kind] = row
        ratios[name] = {
            kind: {part: variances[kind][part] / variances["naive"][part] for part in variances[kind]}
            for kind in KINDS[1:]
        } | {"naive_loss_sd": variances["naive"]["loss"] ** 0.5}
    return ratios


def along_training(data: str, seed: int, updates: int) -> records.Record:
    """Trains once and measures a copy of the method at three moments, which leaves the training as it is."""
    clock = Clock()
    size = SIZES["demo"]
    cohort, split_of = COHORTS[data]()
    split = split_of(3)
    view = find_field_of_view(cohort, split.labeled_patients)
    rows = prepare(cohort, split.train, size=size.image, field_of_view=view)
    torch.manual_seed(seed)
    config = replace(Arco.Config(pixel_sampler="naive").for_size(size), updates=updates)
    method: Any = Arco(NETWORKS[size.network](1, len(cohort.classes)), config)

    is_labeled = torch.tensor([p in split.labeled_patients for p in rows.patients])
    shuffled = torch.randperm(len(is_labeled), generator=torch.Generator().manual_seed(seed))
    is_labeled = is_labeled[shuffled]
    chosen = torch.cat([shuffled[is_labeled][: size.labeled], shuffled[~is_labeled][: size.unlabeled]])
    batch = Feed(rows, torch.device("cpu"))(chosen, size.labeled)
    last = method.stages()[-1].updates
    moments = {updates - last + 1: "start", updates - last // 2: "middle", updates: "end"}
    values: dict[str, Any] = {}
    after, count = method.after_step, 0

    def after_step() -> None:
        nonlocal count
        after()
        count += 1
        if count in moments:
            state = torch.get_rng_state()
            values[moments[count]] = measured(copy.deepcopy(method), batch)
            torch.set_rng_state(state)

    method.after_step = after_step
    if not train(method, rows, split, Settings(seed=seed, accelerator="cpu"), progress=False).finished:
        raise KeyboardInterrupt  # a stopped training leaves no record
    values["bank_fill"] = (method.miner.bank.fill / config.bank).tolist()
    record = records.Record(
        experiment=f"variance-{data}",
        seed=seed,
        kind="variance",
        title="variance of three contrasts under stratified and antithetic draws",
        config=records.plain({"fields": asdict(config), "draws": DRAWS, "gradients": GRADIENTS}),
        values=records.plain(values),
        provenance=clock.provenance(),
        code=records.code_of("anatolab.methods.arco"),
        split_sha256=split_sha256(split),
    )
    records.write(record)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["acdc", "cardiac"], default="acdc")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=UPDATES)
    args = parser.parse_args()
    for seed in args.seeds:
        record = along_training(args.data, seed, args.updates)
        print(record.run_id, {name: row["stratified"] for name, row in record.values["end"].items()}, flush=True)


if __name__ == "__main__":
    main()
