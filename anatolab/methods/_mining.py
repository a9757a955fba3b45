"""The parts that MONA and ARCO share: banks of pixels by class, and neighbors among images.

The teacher reads weak views, the student strong views of the same images. The teacher's pixels, mixed like the images,
are the keys. They first enter the bank of their class; then negatives are sampled from the banks along the class graph.

``bank_rule="rank"`` and ``anchors="reliable"`` reproduce the released code: a bank holds the negatives *of* its class,
starts with one row of zeros, and no graph is used; keys come from a second teacher pass, on the strong views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.losses import anatomical_contrast, class_means, nearest_neighbors, predictive_entropy
from anatolab.memory import Bank, ClassBank
from anatolab.methods._config import RELEASED_PRETRAINING, TURNED, ContrastConfig
from anatolab.methods._pretrain import Student
from anatolab.methods._teacher_student import (
    TeacherStudentOutput,
    anchors,
    forward_pair,
    hard_share,
    pseudo_label_terms,
)
from anatolab.nn import mlp
from anatolab.sampling import (
    PixelPool,
    flatten_pixels,
    label_probability,
    negative_class_odds,
    pool_pixels,
    sample_negatives,
)
from anatolab.types import IGNORE, Batch, Losses, Size


@dataclass(frozen=True)
class MiningConfig(ContrastConfig):
    """Holds the settings of MONA and ARCO; "paper" marks values that the ARCO paper prints for itself and for MONA."""

    temperature: float = 0.5  # tau (paper)
    anchors: Literal["hard", "reliable"] = "hard"  # hard pixels (from memory, unverified); confident ones (code)
    query_predictor: bool = False  # anchors pass through the predictor before the comparison (code)
    positive: Literal["teacher", "student"] = "teacher"  # its class mean is the positive key (code; paper: student)
    key_views: Literal["weak", "strong"] = "weak"  # weak views, mixed after one pass; or a second pass (code)
    bank: int = 30_000  # rows per class (code; 50,000 for background)
    bank_rule: Literal["class", "rank"] = "class"  # a pixel enters the bank of its class; or the code's rank rule
    images: int = 36  # past embeddings among which neighbors are searched (paper)
    neighbors: int = 5  # k, nearest neighbors (code; as in Mean Shift)
    neighbor_cells: int = 16  # cells along a side to which representations are pooled before the comparison
    measured: Literal["student", "teacher"] = "student"  # the network compared with the neighbors; teacher: code
    contrast_weight: float = 0.01  # lambda_1, weight of L_contrast (paper and code); 0 switches the term off
    neighbor_weight: float = 1.0  # weight of L_nn (paper and code); 0 switches the term off
    head_widths: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {**ContrastConfig.head_widths["tiny"], "bank": 512},
        "demo": {**ContrastConfig.head_widths["demo"], "bank": 2_048},
    }

    def widths(self, size: Size) -> dict[str, Any]:
        """Returns the widths of heads and banks at a size; in 3-D images are compared on 4 cells per side."""
        cells = {"neighbor_cells": 4} if size.depth else {}
        return {**super().widths(size), **cells}


# What the released 2-D code of MONA and ARCO does, in addition to the base that it shares with ACTION.
RELEASED_MINING: dict[str, Any] = {
    "updates": 60_000,  # 30,000 of pre-training, 30,000 after it
    "sup_weight": 1.0,  # the plain sum of Dice and cross-entropy
    "pretraining": RELEASED_PRETRAINING,
    "augmentation": TURNED,
    "nesterov": True,
    "restart_teacher": True,
    "anchors": "reliable",
    "query_predictor": True,
    "key_views": "strong",
    "weak_threshold": 0.0,  # no weak gate in the contrast
    "bank_rule": "rank",
    "measured": "teacher",
    "representation": 496,
    "representation_stride": 1,
}


class Miner(nn.Module):
    """Holds the banks, and the predictor that only the student has."""

    def __init__(self, student: Student, config: MiningConfig) -> None:
        super().__init__()
        c, width = config, config.representation
        self.config, self.classes, dims = c, student.net.classes, student.patch.dims
        self.predictor = mlp(width, width, width, linear=c.pretraining.linear_heads, dims=dims)
        dtype = torch.float16 if self.classes * c.bank * width > 2**24 else torch.float32
        self.bank = ClassBank(self.classes, c.bank, width, dtype)
        if c.bank_rule == "rank":  # its first row is zero, at cosine 0 to every anchor
            self.bank.fill.fill_(1)
            self.bank.pointer.fill_(1 % c.bank)
        self.images = Bank(c.images)

    def contrast(
        self, output: TeacherStudentOutput, keys: Tensor, teacher_logits: Tensor, progress: float
    ) -> tuple[Tensor, PixelPool]:
        """Computes tailness, L_contrast: anchors are pulled to their class's mean key and pushed from its negatives.

        Args:
            output: That of the student.
            keys: The teacher's embeddings of the same pixels ``(m, d)``.
            teacher_logits: ``(b, classes, *s)`` of the same views; used by the released code's switches alone.
            progress: Completed share of the stage, in [0, 1).

        Returns:
            The loss, which is 0 while the banks hold no other class, and the pixels by class.

        Reference:
            ARCO, eqs. (E.2) and (E.3), with cosines and a mean over anchors and classes.
        """
        c, bank = self.config, self.bank
        label, candidates = self.candidates(output, teacher_logits, progress)
        pool = pool_pixels(label, self.classes, candidates)
        self.store(output, keys, teacher_logits, progress)
        features = output.features
        if c.query_predictor:
            features = flatten_pixels(self.predictor(output.representation))[0]
        prototypes = class_means(keys if c.positive == "teacher" else features, label, self.classes)
        rows = torch.arange(self.classes * c.bank, device=keys.device)
        odds = torch.eye(self.classes, device=keys.device)  # released: bank c holds what is negative for class c
        if c.bank_rule == "class":
            odds = negative_class_odds(prototypes, bank.fill > 0, c.temperature)
        loss = anatomical_contrast(
            features,
            anchors(output, pool, candidates, c),
            sample_negatives(PixelPool(rows, rows[:: c.bank], bank.fill, bank.fill), odds, c.num_negatives),
            prototypes,
            pool.queried & (odds.sum(1) > 0),
            pool.present,
            c.temperature,
            keys=bank.rows.flatten(0, 1),
        )
        return loss, pool

    def candidates(
        self, output: TeacherStudentOutput, teacher_logits: Tensor, progress: float
    ) -> tuple[Tensor, Tensor]:
        """Returns the class of each pixel ``(m,)`` and whether it may be an anchor ``(m,)``.

        Hard pixels may. With ``anchors="reliable"``, as released, those may whose student entropy is low and to whose
        label the teacher gives more than .3; class means are those of the low-entropy pixels.
        """
        c, label = self.config, output.pixel_label
        if c.anchors == "hard":
            return label, output.label_probability <= c.hard_threshold
        certain, _ = self.by_entropy(output, progress)
        probability = flatten_pixels(output.representation.detach(), label_probability(teacher_logits, output.label))[1]
        return torch.where(certain, label, IGNORE), certain & (probability > 0.3)

    @torch.no_grad()
    def by_entropy(self, output: TeacherStudentOutput, progress: float) -> tuple[Tensor, Tensor]:
        """Returns two masks ``(m,)``, low and high entropy: all labeled pixels, a falling share of the unlabeled."""
        entropy = predictive_entropy(torch.softmax(output.logits.detach().float(), 1))
        entropy = flatten_pixels(output.representation, entropy)[1]
        labeled = torch.arange(len(entropy), device=entropy.device) < _labeled_pixels(output)
        share = 0.2 * (1 - progress)
        unlabeled = entropy[_labeled_pixels(output) :]
        low, high = (torch.quantile(unlabeled, q) for q in (share, 1 - share))
        return labeled | (entropy <= low), labeled | (entropy >= high)

    @torch.no_grad()
    def store(self, output: TeacherStudentOutput, keys: Tensor, teacher_logits: Tensor, progress: float) -> None:
        """Pushes keys into the bank of their class, at most ``num_anchors`` distinct pixels of each, at random."""
        c, label = self.config, output.pixel_label
        if c.bank_rule == "rank":  # as released: unlabeled, uncertain, and three classes are likelier
            rank = (teacher_logits > teacher_logits.gather(1, output.label.clamp_min(0)[:, None])).sum(1)
            rank = flatten_pixels(output.representation, rank)[1]
            unlabeled = torch.arange(len(label), device=label.device) >= _labeled_pixels(output)
            label = torch.where(unlabeled & self.by_entropy(output, progress)[1] & (rank >= 3), label, IGNORE)
        shuffled = torch.randperm(len(label), device=label.device)
        pool = pool_pixels(label[shuffled], self.classes)
        most = min(c.num_anchors, c.bank)
        position = pool.start[:, None] + torch.arange(most, device=label.device)
        chosen = shuffled[pool.order[position.clamp_max(len(label) - 1)]]
        self.bank.push(keys[chosen], pool.count.clamp_max(most))

    def nearest(self, output: TeacherStudentOutput, teacher_representation: Tensor) -> Tensor:
        """Computes diversity, L_nn: the distance of pooled representations to their nearest past neighbors.

        Args:
            output: That of the student.
            teacher_representation: ``(b, d, *grid)`` of the same views; it enters the bank afterwards.
        """
        c = self.config
        query = self.predictor(_pooled(output.representation, c.neighbor_cells)).flatten(1)
        target = _pooled(teacher_representation, c.neighbor_cells).flatten(1)
        measured, chosen_by = (query, target) if c.measured == "student" else (target, query)
        loss = nearest_neighbors(measured, chosen_by, self.images.rows, c.neighbors)
        self.images.push(target)
        return loss


def mining_step(method: Any, batch: Batch, progress: float) -> tuple[TeacherStudentOutput, Losses]:
    """Computes L_sup + L_unsup + lambda_1 L_contrast + L_nn of the last stage; a term of weight 0 is not computed.

    Args:
        method: Has ``student``, ``teacher``, ``miner`` and ``config``, a :class:`MiningConfig`.
        batch: Labeled rows first.
        progress: Completed share of the stage, in [0, 1).

    Returns:
        What both networks predicted, and the losses.
    """
    c, miner = method.config, method.miner
    needs_keys = bool(c.contrast_weight or c.neighbor_weight)
    output = forward_pair(method, batch, progress, read_labeled=needs_keys and c.key_views == "weak")
    losses = pseudo_label_terms(output.logits, output.views, c, progress)
    if not needs_keys:
        return output, losses
    representation, teacher_logits = _keys(method.teacher, output, c.key_views)
    if c.contrast_weight:
        keys = flatten_pixels(representation)[0]
        losses.terms["contrast"], pool = miner.contrast(output, keys, teacher_logits, progress)
        losses.weights["contrast"] = c.contrast_weight
        losses.diagnostics |= {"hard": hard_share(pool), "fill": miner.bank.fill.float().mean() / c.bank}
    if c.neighbor_weight:
        losses.terms["nearest"] = miner.nearest(output, representation)
        losses.weights["nearest"] = c.neighbor_weight
    return output, losses


@torch.no_grad()
def _keys(teacher: Any, output: TeacherStudentOutput, key_views: str) -> tuple[Tensor, Tensor]:
    """Returns the teacher's representation ``(b, d, *grid)`` and logits ``(b, classes, *s)`` of the mixed views."""
    views = output.views
    if key_views == "strong":
        logits, maps = teacher(output.image)
        return teacher.net.pixel(maps), logits
    return views.mixed(teacher.net.pixel(views.teacher_maps)), views.mixed(views.teacher_logits)


def _labeled_pixels(output: TeacherStudentOutput) -> int:
    """Returns how many of the pixels, which come first, belong to labeled rows."""
    return len(output.pixel_label) * output.num_labeled // len(output.logits)


def _pooled(representation: Tensor, cells: int) -> Tensor:
    """Returns means over at most ``cells`` cells per side."""
    sides: Any = [min(cells, side) for side in representation.shape[2:]]
    pool = F.adaptive_avg_pool2d if representation.ndim == 4 else F.adaptive_avg_pool3d
    return pool(representation, sides)
