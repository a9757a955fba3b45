"""Parts that the methods on frozen features share: heads, the selection of an epoch, one SGD loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.data.checks import check_features
from anatolab.types import InputError

Select = Literal["val_worst_group", "val_worst_class", "val_average", "last"]
Labels = tuple[str, ...]  # of ("y", "group"): the labels that a method uses


class Head(Protocol):
    """The result of a method's ``fit``."""

    def logits(self, h: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Features with their labels, such as those of a validation split."""

    h: Tensor  # (n, width), or (n, width, h, w) of a ResNet
    y: Tensor  # (n,) int64
    groups: Tensor | None = None  # (n,) int64; never read by a method that selects without groups

    def __post_init__(self) -> None:
        check_features(self.h)


@dataclass(frozen=True, eq=False)
class Start:
    """The starting point of every method: projection, text head and scale of the pre-trained model."""

    projection: nn.Module  # from h to (n, d)
    text: Tensor  # (d, classes), unit columns
    scale: float

    def head(self) -> ProjectionHead:
        """Returns a head with its own copy of the projection."""
        return ProjectionHead(copy.deepcopy(self.projection), self.text, self.scale)


class ProjectionHead(nn.Module):
    """Logits ``s normalize(P(h)) W``: a projection that may be trained, a text head that is not."""

    text: Tensor

    def __init__(self, projection: nn.Module, text: Tensor, scale: float) -> None:
        super().__init__()
        self.projection, self.scale = projection, scale
        self.register_buffer("text", text.detach().clone())

    def embed(self, h: Tensor) -> Tensor:
        """Returns unit embeddings ``(n, d)``; gradient flows to the projection."""
        return F.normalize(self.projection(h), dim=-1)

    def logits(self, h: Tensor) -> Tensor:
        """Returns logits ``(n, classes)``; gradient flows to the projection."""
        return self.scale * self.embed(h) @ self.text

    forward = logits


class LinearHead(nn.Module):
    """Logits of a linear layer on standardized unit embeddings of a frozen projection."""

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, start: Start, mean: Tensor, std: Tensor, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.start = start
        for name, value in (("mean", mean), ("std", std), ("weight", weight), ("bias", bias)):
            self.register_buffer(name, value)

    @torch.no_grad()
    def logits(self, h: Tensor) -> Tensor:
        """Returns logits ``(n, classes)``, without gradient."""
        z = (embed(self.start, h) - self.mean) / self.std
        return z @ self.weight.T + self.bias


def in_chunks(function: Callable[[Tensor], Tensor], h: Tensor, size: int = 4096) -> Tensor:
    """Applies a function to rows in chunks, without gradient."""
    with torch.no_grad():
        return torch.cat([function(part) for part in h.split(size)])


def embed(start: Start, h: Tensor) -> Tensor:
    """Returns unit embeddings of the pre-trained projection, ``(n, d)``, without gradient."""
    return in_chunks(lambda part: F.normalize(start.projection(part), dim=-1), h)


def predict(head: Head, h: Tensor) -> Tensor:
    """Returns predicted classes, ``(n,)`` int64."""
    return in_chunks(head.logits, h).argmax(1)


def worst(correct: Tensor, part: Tensor) -> float:
    """Returns the lowest accuracy over the parts that occur."""
    return min(float(correct[part == k].double().mean()) for k in part.unique())


def fraction(correct: Tensor) -> float:
    """Returns the share of entries that are true."""
    return float(correct.double().mean())


def selection_labels(select: Select) -> Labels:
    """Returns the validation labels that a selection rule uses."""
    return {"val_worst_group": ("y", "group"), "last": ()}.get(select, ("y",))


C = TypeVar("C")


class Method(Generic[C]):
    """A method on frozen features: its settings, and the labels that it uses.

    Args:
        start: Projection, text head and scale of the pre-trained model.
        config: Settings; the recommended ones where None.
    """

    Config: Any  # the class of the settings, of each method its own
    sees_in_training: Labels = ("y",)

    def __init__(self, start: Start, config: C | None = None) -> None:
        self.start = start
        self.config: C = config or self.Config()

    @property
    def sees_in_selection(self) -> Labels:
        """The validation labels that the selection rule uses; none if the settings name no rule."""
        return selection_labels(getattr(self.config, "select", "last"))


class Best:
    """Keeps the head with the highest score by a selection rule, the first of equals.

    Args:
        rule: ``val_worst_group`` needs groups on validation; ``val_worst_class`` and ``val_average`` use classes only;
            ``last`` needs no validation.
        validation: Rows on which heads are scored.

    Raises:
        InputError: The rule needs labels that are not given.
    """

    def __init__(self, rule: Select, validation: FeatureSet | None) -> None:
        if rule != "last" and validation is None:
            raise InputError(f"select={rule!r} needs validation rows; give them, or take select='last'.")
        if rule == "val_worst_group" and validation is not None and validation.groups is None:
            raise InputError(
                "select='val_worst_group' needs groups on validation; give them, or take select='val_worst_class'."
            )
        self.rule, self.validation = rule, validation
        self.scores: list[float] = []  # of each head offered
        self.epoch = 0  # number of the head that was kept
        self._state: dict[str, Tensor] = {}

    def score(self, head: Head) -> float:
        """Computes the score of a head by the rule, in [0, 1]."""
        rows = self.validation
        if rows is None or self.rule == "last":
            return float(len(self.scores))
        correct = predict(head, rows.h) == rows.y
        if self.rule == "val_average":
            return fraction(correct)
        part = rows.groups if self.rule == "val_worst_group" else rows.y
        assert part is not None
        return worst(correct, part)

    def offer(self, head: nn.Module) -> None:
        """Scores a head, and keeps a copy of its state where no earlier one scored as high."""
        score = self.score(head)  # type: ignore[arg-type]
        if not self.scores or score > max(self.scores):
            self._state, self.epoch = copy.deepcopy(head.state_dict()), len(self.scores)
        self.scores.append(score)

    def restore(self, head: nn.Module) -> None:
        """Gives a head the state that was kept."""
        head.load_state_dict(self._state)


@dataclass(frozen=True)
class Sgd:
    """Settings of SGD for a projection."""

    epochs: int = 100
    batch: int = 128  # rows per step
    lr: float = 1e-2  # 1e-4 in the released commands, at the widths of real backbones
    momentum: float = 0.9
    weight_decay: float = 1e-5


def descend(
    head: nn.Module, settings: Sgd, losses: Callable[[int], Iterable[Tensor]], best: Best, clip: float = math.inf
) -> nn.Module:
    """Trains the parameters of a head that require gradient, and restores the selected epoch.

    Args:
        head: Trained in place. It counts as epoch 0 of the selection.
        settings: Settings of SGD.
        losses: Maps the number of an epoch, from 0, to an iterator over the losses of its steps.
        best: Selects the epoch.
        clip: Largest gradient norm.
    """
    trained = [p for p in head.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, settings.lr, settings.momentum, weight_decay=settings.weight_decay)
    best.offer(head)
    for epoch in range(settings.epochs):
        head.train()
        for loss in losses(epoch):
            optimizer.zero_grad()
            loss.backward()
            if clip < math.inf:
                nn.utils.clip_grad_norm_(trained, clip)
            optimizer.step()
        head.eval()
        best.offer(head)
    best.restore(head)
    return head


def batches(n: int, size: int, generator: torch.Generator | None) -> Iterator[Tensor]:
    """Yields shuffled row numbers of one epoch; a last, smaller batch is dropped unless it is the only one."""
    order = torch.randperm(n, generator=generator)
    yield from order[: max(n // size, 1) * size].split(size) if n >= size else (order,)


def train_projection(
    start: Start,
    h: Tensor,
    y: Tensor,
    settings: Sgd,
    best: Best,
    generator: torch.Generator | None,
    rows: Tensor | None = None,
) -> ProjectionHead:
    """Trains the projection by ERM: cross-entropy of the text head on all rows, or on the listed ones.

    A row that is listed several times counts several times.
    """
    head = start.head()
    if rows is not None:
        h, y = h[rows], y[rows]

    def losses(epoch: int) -> Iterator[Tensor]:
        for batch in batches(len(y), settings.batch, generator):
            yield F.cross_entropy(head.logits(h[batch]), y[batch])

    descend(head, settings, losses, best)
    return head


def draw_distinct(pool: Tensor, n: int, k: int, generator: torch.Generator | None) -> Tensor:
    """Samples k distinct pool entries for each of n rows, as random windows of one permutation.

    Args:
        pool: ``(m,)`` row numbers, m at least k.
        n: Rows.
        k: Entries per row.
        generator: Generator of the draw.

    Returns:
        ``(n, k)``.
    """
    m = len(pool)
    order = torch.randperm(m, generator=generator)
    positions = torch.randint(m, (n, 1), generator=generator) + torch.arange(k)
    return pool[order[positions % m]]


def nearest_negatives(unit: Tensor, y: Tensor, anchors: Tensor, k: int) -> Tensor:
    """Returns the ``k`` rows of other classes with the highest cosine to each anchor, nearest first; in float32.

    Args:
        unit: ``(n, d)``, normalized here.
        y: ``(n,)`` int64.
        anchors: ``(c,)`` row numbers.
        k: At most the rows of other classes.

    Returns:
        ``(c, k)`` row numbers.
    """
    z, nearest = F.normalize(unit.float(), dim=1), []
    for rows in anchors.split(512):
        cosine = (z[rows] @ z.T).masked_fill(y[rows][:, None] == y, -2.0)
        nearest.append(cosine.topk(k, 1).indices)
    return torch.cat(nearest)


def checked(y: Tensor, groups: Tensor | None, who: str) -> Tensor:
    """Returns the groups of the training rows for a method that needs them.

    Raises:
        InputError: No groups are given.
    """
    if groups is None or groups.shape != y.shape:
        raise InputError(f"{who} needs the group of each training row; give groups, or take a method without, as CFR.")
    return groups


def logistic(z: Tensor, y: Tensor, c: float, *, penalty: Literal["l1", "l2"] = "l2") -> tuple[Tensor, Tensor]:
    """Fits a logistic regression of scikit-learn; returns weight ``(classes, d)`` and bias ``(classes,)``.

    Args:
        z: ``(n, d)``.
        y: ``(n,)`` int64, all classes from 0 present.
        c: Inverse strength of the penalty.
        penalty: ``l1`` by liblinear, a class against the rest where there are more than two; ``l2`` by L-BFGS.
    """
    from sklearn.linear_model import LogisticRegression

    solver = {"solver": "liblinear", "l1_ratio": 1.0} if penalty == "l1" else {"max_iter": 1000}
    classes = y.unique()
    split = penalty == "l1" and len(classes) > 2
    fits = [
        LogisticRegression(C=c, random_state=0, **solver).fit(z.numpy(), target.numpy())
        for target in ([y == k for k in classes] if split else [y])
    ]
    coef = torch.cat([torch.from_numpy(fit.coef_) for fit in fits]).float()
    bias = torch.cat([torch.from_numpy(fit.intercept_) for fit in fits]).float()
    if len(coef) == 1:  # two classes: the logit of the second over the first
        coef, bias = torch.cat([torch.zeros_like(coef), coef]), torch.cat([torch.zeros_like(bias), bias])
    return coef, bias


def balanced(groups: Tensor, generator: torch.Generator | None) -> Tensor:
    """Samples row numbers without replacement, of each group as many as the smallest has."""
    parts: Sequence[Tensor] = [torch.nonzero(groups == g).flatten() for g in groups.unique()]
    least = min(len(part) for part in parts)
    return torch.cat([part[torch.randperm(len(part), generator=generator)[:least]] for part in parts])
