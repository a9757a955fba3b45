"""Features of the small models on the generated task, extracted once for all tests here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anatolab.data import LabeledImages
from anatolab.data.phantoms import finch_or_duck
from anatolab.metrics import group_accuracy
from anatolab.robust import Clip, FeatureSet, Head, Start, load_clip, predict, rows_of, start_of


@dataclass(frozen=True)
class Task:
    """The generated task as a method sees it."""

    clip: Clip
    start: Start
    train: FeatureSet
    val: FeatureSet
    test: FeatureSet
    images: LabeledImages
    counts: np.ndarray

    def generator(self, seed: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    def fit(self, method: Any, seed: int = 0) -> Any:
        """A method fitted as a user would, with everything at hand."""
        return method.fit(self.train.h, self.train.y, self.train.groups, self.generator(seed), self.val)

    def score(self, head: Head, rows: FeatureSet | None = None) -> dict[str, Any]:
        rows = rows or self.test
        return group_accuracy(
            predict(head, rows.h).numpy(), rows.y.numpy(), rows.groups.numpy(), train_counts=self.counts
        )


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="session")
def vit() -> Clip:
    return load_clip("scenes-vit")


@pytest.fixture(scope="session")
def rn() -> Clip:
    return load_clip("scenes-rn")


def task_of(clip: Clip, images: LabeledImages, cache: Path) -> Task:
    train, val, test = (rows_of(clip, images.of(split), cache=cache) for split in ("train", "val", "test"))
    return Task(clip, start_of(clip, images.classes), train, val, test, images, images.of("train").counts)


@pytest.fixture(scope="session")
def full(vit: Clip, cache: Path) -> Task:
    """The task at its size, with the ViT."""
    return task_of(vit, finch_or_duck(), cache)


@pytest.fixture(scope="session")
def small(vit: Clip, cache: Path) -> Task:
    """A smaller one of more errors, for what does not need accuracy."""
    return task_of(vit, finch_or_duck((600, 120, 120), aligned=0.8, seed=1), cache)


@pytest.fixture(scope="session")
def small_rn(rn: Clip, cache: Path) -> Task:
    return task_of(rn, finch_or_duck((300, 60, 60), aligned=0.8, seed=1), cache)
