"""The pixel-contrastive loss, the teacher's update, host synchronizations, and the cost of a pre-training step.

* Anatomical contrast, forward and backward, against the literal loop of ReCo-style code on the same indices: 4
  classes, representations of 4 x 64 x 64 x 64 (batch, width, grid), 256 anchors per class, 512 negatives per anchor.
  The values must agree to 1e-6; ours must be at least 10 times as fast. Most of that is that negatives are shared by
  the anchors of a class, another estimator than ReCo's: beside it stands the ratio with negatives of each anchor's own.
* The teacher's update in fused calls against one parameter after the other (no floor).
* Host synchronizations inside a step of each stage of ACTION and ACTION++, counted by a dispatch tracer: 0.
* Floating-point operations of a global pre-training step: the released one runs student and teacher as a whole and
  trains the encoder; ours runs the encoder alone (no floor).

Parts are interleaved in one process; each ratio is that of the fastest rounds. Exits with 1 where a floor is missed;
``--report`` prints the same and exits with 0.

    python benchmarks/bench_contrast.py [--report] [--repeats 7] [--json FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from timing import conclude, flags, interleaved, milliseconds, ratio

from anatolab.losses import anatomical_contrast, class_means
from anatolab.methods import Action, ActionPP
from anatolab.nn import Teacher, basic_unet, light_unet
from anatolab.presets import SIZES
from anatolab.sampling import negative_class_odds, pool_pixels, sample_anchors, sample_negatives
from anatolab.types import IGNORE, Batch
from tests.syncs import Synchronizations

CLASSES, ANCHORS, NEGATIVES, TAU, FLOOR = 4, 256, 512, 0.5, 10.0


def literal(features: Tensor, anchors: Tensor, negatives: Tensor, prototypes: Tensor) -> Tensor:
    """Class after class: gather a set of negatives for every anchor, compare with all, cross-entropy."""
    loss = torch.zeros((), device=features.device)
    for c in range(CLASSES):
        query = features[anchors[c]]
        with torch.no_grad():
            keys = features[negatives[c].flatten()].reshape(ANCHORS, NEGATIVES, -1)
            positive = prototypes[c].expand(ANCHORS, 1, -1)
            everything = torch.cat((positive, keys), dim=1)
        logits = F.cosine_similarity(query[:, None], everything, dim=2)
        loss = loss + F.cross_entropy(logits / TAU, torch.zeros(ANCHORS, dtype=torch.long, device=features.device))
    return loss / CLASSES


def equal_estimator(features: Tensor, anchors: Tensor, negatives: Tensor, prototypes: Tensor) -> Tensor:
    """The literal loss, of negatives of each anchor's own, by rows normalized once and one product a class."""
    unit, positive = F.normalize(features, dim=1), F.normalize(prototypes, dim=1)
    known, loss = unit.detach(), torch.zeros((), device=features.device)
    for c in range(CLASSES):
        query = unit[anchors[c]]
        keys = known.index_select(0, negatives[c].flatten()).view(ANCHORS, NEGATIVES, -1)
        logits = torch.cat([query @ positive[c, :, None], torch.bmm(keys, query[..., None])[..., 0]], 1)
        loss = loss + F.cross_entropy(logits / TAU, torch.zeros(ANCHORS, dtype=torch.long, device=features.device))
    return loss / CLASSES


def contrast(device: torch.device) -> tuple[dict[str, Callable[[], None]], float]:
    """Ours and the literal form on the same pixels, and how far their values lie apart."""
    torch.manual_seed(0)
    features = torch.randn(4, 64, 64, 64, device=device).movedim(1, -1).flatten(0, -2).requires_grad_()
    label = torch.randint(-1, CLASSES, (len(features),), device=device)
    pool = pool_pixels(label, CLASSES)
    prototypes = class_means(features, label, CLASSES)
    anchors = sample_anchors(pool, ANCHORS)
    negatives = sample_negatives(pool, negative_class_odds(prototypes, pool.present, TAU), NEGATIVES)
    each = negatives[:, None].expand(-1, ANCHORS, -1)

    def ours() -> Tensor:
        return anatomical_contrast(features, anchors, negatives, prototypes, pool.queried, pool.present, TAU)

    def run(loss: Callable[[], Tensor]) -> None:
        features.grad = None
        loss().backward()

    odds = negative_class_odds(prototypes, pool.present, TAU)
    alone = sample_negatives(pool, odds, ANCHORS * NEGATIVES).view(CLASSES, ANCHORS, NEGATIVES)  # each anchor's own
    given = (features, anchors, alone, prototypes)
    apart = max(
        abs(ours().item() - literal(features, anchors, each, prototypes).item()),
        abs(equal_estimator(*given).item() - literal(*given).item()),
    )
    return {
        "ours": lambda: run(ours),
        "literal": lambda: run(lambda: literal(features, anchors, each, prototypes)),
        "equal estimator": lambda: run(lambda: equal_estimator(*given)),
        "literal, equal": lambda: run(lambda: literal(*given)),
    }, apart


def teacher_update(device: torch.device) -> dict[str, Callable[[], None]]:
    """Measures one teacher update of the published U-Net, fused and parameter by parameter."""
    student = basic_unet(1, CLASSES).to(device)
    teacher = Teacher(student)

    @torch.no_grad()
    def one_by_one() -> None:
        for t, s in zip(teacher.net.parameters(), student.parameters(), strict=True):
            t.data = 0.99 * t.data + 0.01 * s.data

    return {"ours": lambda: teacher.update(student), "literal": one_by_one}


def synchronizations(device: torch.device) -> dict[str, int]:
    """Counts host synchronizations of one step of each stage."""
    size, counts = SIZES["tiny"], {}
    label = torch.randint(0, CLASSES, (8, size.side, size.side), device=device)
    label[4:] = IGNORE
    batch = Batch(torch.rand(8, 1, size.side, size.side, device=device), label, 4)
    for kind in (Action, ActionPP):
        method = kind(light_unet(1, CLASSES), kind.Config().for_size(size)).to(device).train()
        for stage in method.stages():
            stage.step(batch, 0.5).total.backward()
            with Synchronizations() as mode:
                stage.step(batch, 0.5).total.backward()
                method.after_step()
            counts[f"{kind.__name__}, {stage.name}"] = mode.found.total()
    return counts


def operations() -> dict[str, float]:
    """Counts the operations (GFLOP) of a global pre-training step: forward of student and teacher, and backward."""
    size = SIZES["full"]
    method = Action(basic_unet(1, CLASSES), Action.Config().for_size(size)).train()
    stage = method.stages()[0]
    label = torch.zeros(2, size.side, size.side, dtype=torch.long)
    batch = Batch(torch.rand(2, 1, size.side, size.side), label, 1)
    trained = {id(p) for p in stage.trainable}
    for p in method.parameters():
        p.requires_grad_(id(p) in trained)
    stage.step(batch, 0.0)  # something for the bank

    def released() -> None:
        with torch.no_grad():
            method.teacher(batch.image)
        logits, maps = method.student(batch.image)  # the decoder runs, and no gradient is asked of it
        (method.distiller.image_predictor(method.student.image(maps[0])).sum() + 0 * logits.sum()).backward()

    flops = {}
    for name, work in (("ours", lambda: stage.step(batch, 0.0).total.backward()), ("released", released)):
        with FlopCounterMode(display=False) as counter:
            work()
        flops[name] = counter.get_total_flops() / 1e9
    return flops


def main() -> int:
    args = flags(__doc__, 7).parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{device.type}, {torch.get_num_threads()} threads")
    loss, apart = contrast(device)
    rows, passed = [], apart < 1e-6
    print(f"{'part':<34}{'ours ms':>10}{'literal ms':>12}{'ratio':>8}{'floor':>8}")
    of_loss = interleaved(loss, device, args.repeats, warm_up=1)
    of_teacher = interleaved(teacher_update(device), device, args.repeats, warm_up=1)
    for part, rounds, ours, peer, floor in (
        ("anatomical contrast", of_loss, "ours", "literal", FLOOR),
        ("equal estimator", of_loss, "equal estimator", "literal, equal", 0.0),
        ("teacher update", of_teacher, "ours", "literal", 0.0),
    ):
        times = ratio(rounds, peer, ours)
        row = {"part": part, "ours_ms": milliseconds(rounds, ours), "literal_ms": milliseconds(rounds, peer)}
        rows.append({**row, "ratio": times, "floor": floor})
        print(f"{part:<34}{row['ours_ms']:>10.2f}{row['literal_ms']:>12.2f}{times:>8.1f}{floor:>8.1f}")
        passed &= times >= floor
    print(f"values differ by {apart:.1e} (at most 1e-06)")
    waits = synchronizations(device)
    print("host synchronizations per step:", ", ".join(f"{k} {v}" for k, v in waits.items()))
    passed &= not any(waits.values())
    flops = operations()
    share = flops["ours"] / flops["released"]
    print(f"global pre-training step: {flops['ours']:.1f} GFLOP, released {flops['released']:.1f} ({share:.0%})")
    return conclude(
        args, "contrast", passed, "a floor was missed", rows=rows, apart=apart, synchronizations=waits, gflop=flops
    )


if __name__ == "__main__":
    sys.exit(main())
