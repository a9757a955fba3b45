"""Contrastive adapter: a small network after the frozen embedding, trained on the errors of zero-shot.

It has one hidden layer on unit embeddings; its output is compared with the prompts. Epochs alternate between two
losses. The contrast pulls rows to rows of their class that zero-shot classifies differently (right or wrong), and
pushes them from the nearest rows of other classes. Cross-entropy is on rows sampled evenly over (class, zero-shot
prediction). The definition of positives is from memory, unverified.

Reference:
    Zhang and Re, Contrastive adapters for foundation model group robustness, NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.data.checks import check_features
from anatolab.losses import calibration_loss
from anatolab.robust._fit import (
    Best,
    FeatureSet,
    Method,
    Select,
    Sgd,
    Start,
    batches,
    descend,
    draw_distinct,
    embed,
    nearest_negatives,
)


class AdapterHead(nn.Module):
    """Logits ``100 normalize(A(z)) W`` of a network A on frozen unit embeddings z."""

    text: Tensor

    def __init__(self, start: Start, width: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.start = start
        d = start.text.shape[0]
        first, last = nn.Linear(d, width), nn.Linear(width, d)
        for layer in (first, last):  # torch's own initialization, from this generator
            bound = layer.in_features**-0.5
            for p in layer.parameters():
                nn.init.uniform_(p, -bound, bound, generator=generator)
        self.adapter = nn.Sequential(first, nn.ReLU(), last)
        self.register_buffer("text", start.text.clone())

    def adapt(self, z: Tensor) -> Tensor:
        """Maps unit embeddings to unit embeddings ``(n, d)``; gradient flows to the adapter."""
        return F.normalize(self.adapter(z), dim=-1)

    def of(self, z: Tensor) -> Tensor:
        """Returns logits ``(n, classes)`` of unit embeddings."""
        return 100 * self.adapt(z) @ self.text

    def logits(self, h: Tensor) -> Tensor:
        """Returns logits ``(n, classes)``; gradient flows to the adapter."""
        return self.of(embed(self.start, h))


class ContrastiveAdapter(Method["ContrastiveAdapter.Config"]):
    """Trains an adapter by contrast between rows that zero-shot gets right and wrong, and by cross-entropy."""

    @dataclass(frozen=True)
    class Config:
        width: int = 128  # of the hidden layer (code)
        sgd: Sgd = field(default_factory=lambda: Sgd(epochs=20, lr=1e-2, weight_decay=5e-5))  # 100 epochs, 1e-3 (code)
        num: int = 16  # positives and negatives per anchor; 2048 in the code
        neighbors: int = 64  # nearest other-class rows that negatives are sampled from; 4096 in the code
        temperature: float = 0.1  # code
        select: Select = "val_worst_group"

    def fit(
        self,
        features: Tensor,
        y: Tensor,
        groups: Tensor | None = None,
        generator: torch.Generator | None = None,
        validation: FeatureSet | None = None,
    ) -> AdapterHead:
        """Trains the adapter; groups of training rows are not used."""
        check_features(features, y)
        c, best = self.config, Best(self.config.select, validation)
        z = embed(self.start, features)
        zero_shot = (z @ self.start.text).argmax(1)
        kind = 2 * y + (zero_shot == y)
        pools = {int(k): torch.nonzero(kind == k).flatten() for k in kind.unique()}
        facing = {k: pools.get(k ^ 1, pool) for k, pool in pools.items()}  # the own side where the other has no row
        num = min(c.num, *(len(pool) for pool in facing.values()))
        cells = y * int(zero_shot.max() + 1) + zero_shot
        odds = 1 / torch.bincount(cells).float()[cells]
        others = len(y) - int(torch.bincount(y).max())  # rows of other classes, of the class that has fewest
        nearest = nearest_negatives(z, y, torch.arange(len(y)), min(c.neighbors, others))
        head = AdapterHead(self.start, c.width, generator)

        def losses(epoch: int) -> Iterator[Tensor]:
            for batch in batches(len(y), c.sgd.batch, generator):
                if epoch % 2:
                    batch = torch.multinomial(odds, len(batch), replacement=True, generator=generator)
                    yield F.cross_entropy(head.of(z[batch]), y[batch])
                    continue
                near = torch.empty(len(batch), num, dtype=torch.long)
                for k in kind[batch].unique():
                    rows = kind[batch] == k
                    near[rows] = draw_distinct(facing[int(k)], int(rows.sum()), num, generator)
                close = nearest[batch]
                pick = draw_distinct(torch.arange(close.shape[1]), len(batch), min(c.num, close.shape[1]), generator)
                far = close.gather(1, pick)
                yield calibration_loss(head.adapt(z[batch]), head.adapt(z[near]), head.adapt(z[far]), c.temperature)

        descend(head, c.sgd, losses, best)
        return head
