"""What MONA and ARCO share after the pre-training: settings, banks of pixels by class, neighbors among images.

The teacher reads the same images as the student, before their intensities change: its pixels are the keys. They enter
the bank of their class first, then negatives are drawn from the banks along the class graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.losses import anatomical_contrast, class_means, nearest_neighbors, predictive_entropy
from anatolab.memory import Bank, ClassBank
from anatolab.methods._pretrain import PretrainingConfig, Student
from anatolab.methods._teacher_student import TeacherStudentOutput, forward_pair, select_anchors
from anatolab.nn import mlp
from anatolab.sampling import (
    PixelPool,
    PixelSampler,
    flatten_pixels,
    label_probability,
    negative_class_odds,
    pool_pixels,
    sample_negatives,
)
from anatolab.transforms import Augmentation
from anatolab.types import IGNORE, Batch, Losses


@dataclass(frozen=True)
class MiningConfig:
    """Settings of MONA and ARCO; the values named "paper" are those that ARCO prints as its own and MONA's."""

    updates: int = 30_000  # of the student in all stages
    labeled: int = 4  # labeled images a step (code)
    unlabeled: int = 4  # unlabeled images a step (code)
    ema_decay: float = 0.99  # t (paper)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)  # tau_s .1, tau_t .01, bank 36 (paper)
    restart_teacher: bool = False  # before the last stage the teacher becomes the student again
    representation: int = 512  # D, width of a pixel's embedding (paper; 496 in the code)
    representation_stride: int = 4  # of its grid; 1 in the code
    temperature: float = 0.5  # tau (paper)
    pixel_sampler: PixelSampler = "naive"  # of anchors
    grid: int = 4  # cells a side of a class's region in an image, where the sampler has cells (code)
    num_anchors: int = 256  # pixels a class (code); as many at most enter its bank
    num_negatives: int = 512  # keys a class; shared by its anchors, drawn for each of them in the code
    anchors: Literal["hard", "reliable"] = "hard"  # of low probability; or reliable ones (code)
    positive: Literal["teacher", "student"] = "teacher"  # whose class mean is the positive key (code; student: paper)
    strong_threshold: float = 0.97  # delta: below it a pixel is hard; from it on a pseudo-label is confident (code)
    weak_threshold: float = 0.7  # below it a pseudo-label is not used (code)
    bank: int = 30_000  # rows a class (code; 50,000 of background)
    bank_rule: Literal["class", "rank"] = "class"  # a pixel enters the bank of its class; or the code's rank rule
    images: int = 36  # embeddings in which neighbors are searched (paper)
    neighbors: int = 5  # k (not printed by ARCO; of Mean Shift)
    neighbor_cells: int = 16  # representations are pooled to so many cells a side before they are compared
    measured: Literal["student", "teacher"] = "student"  # who is measured against the neighbors; teacher: code
    contrast_weight: float = 0.01  # lambda_1 (paper and code)
    unsup_weight: float = 1.0  # of L_unsup (paper and code)
    neighbor_weight: float = 1.0  # of L_nn (paper and code)
    augmentation: Augmentation = field(default_factory=Augmentation)  # shared by all methods of a table


class Miner(nn.Module):
    """The banks, and the predictor that only the student has."""

    def __init__(self, student: Student, settings: MiningConfig) -> None:
        super().__init__()
        c, width = settings, settings.representation
        self.config, self.classes, dims = c, student.net.classes, student.patch.dims
        self.predictor = mlp(width, width, width, linear=c.pretraining.linear_heads, dims=dims)
        dtype = torch.float16 if self.classes * c.bank * width > 2**24 else torch.float32
        self.bank = ClassBank(self.classes, c.bank, width, dtype)
        self.images = Bank(c.images)

    def contrast(
        self, output: TeacherStudentOutput, keys: Tensor, logits_t: Tensor, progress: float
    ) -> tuple[Tensor, PixelPool]:
        """Tailness, L_contrast: anchors to the mean key of their class, away from banked keys of alike classes.

        Args:
            output: Of :func:`forward_pair`.
            keys: The teacher's embeddings of the same pixels ``(m, d)``.
            logits_t: The teacher's ``(b, classes, *s)``; only the switches of the released code read them.
            progress: Share of the stage that is over, in [0, 1).

        Returns:
            The loss, 0 where the banks hold no other class, and the pixels by class.

        Reference:
            ARCO, eqs. (E.2) and (E.3), with cosines and a mean over anchors and classes.
        """
        c, bank = self.config, self.bank
        hard = self.anchor_mask(output, logits_t, progress)
        pool = pool_pixels(output.pixel_label, self.classes, hard)
        self.store(output, keys, logits_t)
        prototypes = class_means(keys if c.positive == "teacher" else output.features, output.pixel_label, self.classes)
        row = torch.arange(self.classes * c.bank, device=keys.device)
        stored = PixelPool(row, row[:: c.bank], bank.fill, bank.fill)
        odds = negative_class_odds(prototypes, stored.present, c.temperature)
        loss = anatomical_contrast(
            output.features,
            select_anchors(output, pool, hard, c),
            sample_negatives(stored, odds, c.num_negatives),
            prototypes,
            pool.queried & (odds.sum(1) > 0),
            pool.present,
            c.temperature,
            keys=bank.rows.flatten(0, 1),
        )
        return loss, pool

    def anchor_mask(self, output: TeacherStudentOutput, logits_t: Tensor, progress: float) -> Tensor:
        """Pixels that may be anchors ``(m,)``: hard ones; or, as released, reliable ones by entropy and teacher."""
        c = self.config
        if c.anchors == "hard":
            return output.label_probability <= c.strong_threshold
        entropy = predictive_entropy(torch.softmax(output.logits.detach().float(), 1))
        maps = entropy, label_probability(logits_t, output.label)
        _, entropy, probability_t = flatten_pixels(output.representation.detach(), *maps)
        labeled = len(entropy) * output.num_labeled // len(output.logits)
        limit = torch.quantile(entropy[labeled:], 0.2 * (1 - progress))
        reliable = torch.cat([torch.ones_like(entropy[:labeled], dtype=torch.bool), entropy[labeled:] <= limit])
        return reliable & (probability_t > 0.3)

    @torch.no_grad()
    def store(self, output: TeacherStudentOutput, keys: Tensor, logits_t: Tensor) -> None:
        """Keys enter the bank of their class, at most ``num_anchors`` distinct pixels of each, drawn at random."""
        c, label = self.config, output.pixel_label
        if c.bank_rule == "rank":  # as released: no labeled pixel, and three classes likelier than its own
            rank = (logits_t > logits_t.gather(1, output.label.clamp_min(0)[:, None])).sum(1)
            rank = flatten_pixels(output.representation.detach(), rank)[1]
            labeled = len(label) * output.num_labeled // len(output.logits)
            unlabeled = torch.arange(len(label), device=label.device) >= labeled
            label = torch.where(unlabeled & (rank >= 3), label, IGNORE)
        shuffled = torch.randperm(len(label), device=label.device)
        pool = pool_pixels(label[shuffled], self.classes)
        most = min(c.num_anchors, c.bank)
        place = pool.start[:, None] + torch.arange(most, device=label.device)
        chosen = shuffled[pool.order[place.clamp_max(len(label) - 1)]]
        self.bank.push(keys[chosen], pool.count.clamp_max(most))

    def nearest(self, output: TeacherStudentOutput, representation_t: Tensor) -> Tensor:
        """Diversity, L_nn: an image's pooled representation to the nearest past ones of other images.

        Args:
            output: Of :func:`forward_pair`.
            representation_t: The teacher's of the same images ``(b, d, *grid)``, which then enter the bank.
        """
        c = self.config
        q = self.predictor(_pooled(output.representation, c.neighbor_cells)).flatten(1)
        t = _pooled(representation_t, c.neighbor_cells).flatten(1)
        measured, chooser = (q, t) if c.measured == "student" else (t, q)
        loss = nearest_neighbors(measured, chooser, self.images.rows, c.neighbors)
        self.images.push(t)
        return loss


def mining_step(method: Any, batch: Batch, progress: float) -> tuple[TeacherStudentOutput, Losses]:
    """Computes one step of the last stage, L_sup + lambda_1 L_contrast + L_unsup + L_nn, and the output it used.

    Args:
        method: Has ``student``, ``teacher``, ``miner`` and ``config``, a :class:`MiningConfig`.
        batch: Labeled rows first.
        progress: Share of the stage that is over, in [0, 1).
    """
    c, teacher, miner = method.config, method.teacher, method.miner
    output = forward_pair(method, batch, progress)
    with torch.no_grad():
        logits_t, maps_t = teacher(output.image)
        representation_t = teacher.net.pixel(maps_t)
    keys = flatten_pixels(representation_t)[0]
    contrast, pool = miner.contrast(output, keys, logits_t, progress)
    terms = {
        **output.base_terms(c.strong_threshold),
        "contrast": contrast,
        "nearest": miner.nearest(output, representation_t),
    }
    weights = {
        "ce": 0.5,
        "dice": 0.5,
        "unsup": c.unsup_weight,
        "contrast": c.contrast_weight,
        "nearest": c.neighbor_weight,
    }
    fill = miner.bank.fill.float().mean() / c.bank
    return output, Losses(terms, weights, {**output.diagnostics(pool, c.strong_threshold), "fill": fill})


def _pooled(representation: Tensor, cells: int) -> Tensor:
    """Means over at most ``cells`` cells a side."""
    sides: Any = [min(cells, side) for side in representation.shape[2:]]
    pool = F.adaptive_avg_pool2d if representation.ndim == 4 else F.adaptive_avg_pool3d
    return pool(representation, sides)
