"""Classifiers without a view of the anatomy, which a generated cohort must not be solved by: intensity and position."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.data.volumes import volume_of
from anatolab.types import Case, Cohort

SIDE = 128  # pixels of the slices on which shortcuts are measured


class PerPixel(nn.Module):
    """Classifies pixels by their position alone (atlas), or by intensity and position (boosted trees).

    Scores are multiplied by the classes' shares to the power that is best on training patients, in the shortcut's
    favor.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, classes: int, *, atlas: bool) -> None:
        super().__init__()
        shares = np.bincount(labels.ravel(), minlength=classes) / labels.size
        self.log_shares = torch.from_numpy(np.log(shares)).float()[:, None, None]
        self.power, self.atlas = 0.0, None
        if atlas:
            maps = np.stack([(labels == c).mean(0) for c in range(classes)])
            self.atlas = torch.from_numpy(np.log(maps / shares[:, None, None] + 1e-6)).float()
        else:
            from sklearn.ensemble import HistGradientBoostingClassifier

            rng = np.random.default_rng(0)
            chosen = np.concatenate(
                [rng.choice(np.flatnonzero(labels.ravel() == c), 40_000) for c in range(classes)]
            )  # equally many of each class
            self.trees = HistGradientBoostingClassifier(max_iter=150, random_state=0)
            self.trees.fit(self.features(images).reshape(-1, 3)[chosen], labels.ravel()[chosen])
        scores = self.predict(torch.from_numpy(images[::25]))
        self.power = max((0.0, 0.25, 0.5, 0.75, 1.0), key=lambda p: self.dice_at(p, scores, labels[::25]))

    @staticmethod
    def features(images: np.ndarray) -> np.ndarray:
        """Returns intensity, row and column of each pixel, ``(n, h, w, 3)``."""
        y, x = (np.broadcast_to(a, images[:, 0].shape) for a in np.ogrid[0 : 1 : SIDE * 1j, 0 : 1 : SIDE * 1j])
        return np.stack([images[:, 0], y, x], axis=-1)

    def dice_at(self, power: float, scores: Tensor, labels: np.ndarray) -> float:
        """Computes the mean Dice over foreground classes at a power of the shares, all pixels pooled."""
        predicted = (scores + power * self.log_shares).argmax(1).numpy()
        hits = [((predicted == c) & (labels == c)).sum() for c in range(1, scores.shape[1])]
        sizes = [(predicted == c).sum() + (labels == c).sum() for c in range(1, scores.shape[1])]
        return float(np.mean(2 * np.array(hits) / np.array(sizes)))

    def predict(self, image: Tensor) -> Tensor:
        """Returns scores ``(b, classes, h, w)``."""
        if self.atlas is not None:
            scores = self.atlas.expand(len(image), -1, -1, -1)
        else:
            flat = self.trees.predict_proba(self.features(image.numpy()).reshape(-1, 3))
            scores = torch.from_numpy(np.log(flat + 1e-6)).float().unflatten(0, image[:, 0].shape).permute(0, 3, 1, 2)
        return scores + self.power * self.log_shares


class PerVoxel:
    """The same two shortcuts in 3-D, for one foreground class.

    Positions are shares of each axis of the volume; the threshold on the probability is the best one on training
    patients.
    """

    GRID = (32, 48, 48)  # voxels of the atlas

    def __init__(self, cohort: Cohort, patients: tuple[str, ...], *, atlas: bool) -> None:
        rng, features, truths, maps = np.random.default_rng(0), [], [], []
        for case in (ref.load() for ref in cohort.of(patients)):
            assert case.label is not None
            inside = torch.from_numpy(case.label > 0).float()
            maps.append(F.interpolate(inside[None, None], self.GRID, mode="trilinear", align_corners=False)[0, 0])
            chosen = rng.choice(case.label.size, 3_000)
            features.append(self.features(case)[chosen])
            truths.append(case.label.ravel()[chosen])
        self.atlas = torch.stack(maps).mean(0) if atlas else None
        if not atlas:
            from sklearn.ensemble import HistGradientBoostingClassifier

            self.trees = HistGradientBoostingClassifier(max_iter=150, random_state=0)
            self.trees.fit(np.concatenate(features), np.concatenate(truths))
        self.threshold = 0.5
        thresholds = np.linspace(0.1, 0.7, 13)
        scores = [[self.dice(p, case, t) for t in thresholds] for p, case in self.predicted(cohort, patients[::4])]
        self.threshold = float(thresholds[np.mean(scores, axis=0).argmax()])

    @staticmethod
    def features(case: Case) -> np.ndarray:
        """Returns intensity and position along z, y and x in [0, 1] of every voxel, ``(voxels, 4)``."""
        places = np.meshgrid(*[np.linspace(0, 1, n) for n in case.image.shape[1:]], indexing="ij")
        return np.stack([volume_of(case)[0], *places], axis=-1).reshape(-1, 4).astype(np.float32)

    def predicted(self, cohort: Cohort, patients: tuple[str, ...]) -> Iterator[tuple[np.ndarray, Case]]:
        """Yields the probability of the foreground (z, y, x) for each case."""
        for case in (ref.load() for ref in cohort.of(patients)):
            shape = case.image.shape[1:]
            if self.atlas is not None:
                moved = F.interpolate(self.atlas[None, None], shape, mode="trilinear", align_corners=False)[0, 0]
                yield moved.numpy(), case
            else:
                yield self.trees.predict_proba(self.features(case))[:, 1].reshape(shape), case

    @staticmethod
    def dice(probability: np.ndarray, case: Case, threshold: float) -> float:
        """Computes the Dice of voxels above a threshold."""
        assert case.label is not None
        predicted, truth = probability > threshold, case.label == 1
        return float(2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()))

    def dice_of(self, cohort: Cohort, patients: tuple[str, ...]) -> dict[str, float]:
        """Returns the mean Dice over patients, per class and as ``mean``."""
        mean = float(np.mean([self.dice(p, case, self.threshold) for p, case in self.predicted(cohort, patients)]))
        return {cohort.classes[1]: mean, "mean": mean}
