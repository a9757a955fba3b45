"""Ensembles against the mean by hand, moves as a group, uncertainty against closed forms, and a bound on memory."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from anatolab.data import FieldOfView
from anatolab.ensembles import Member, averaged, moves_of, predict_ensemble
from anatolab.inference import predict_scores, predict_volume, slabs, sliding_window
from anatolab.types import Case, InputError

ROOT = Path(__file__).resolve().parents[1]


def case(shape: tuple[int, int, int] = (9, 20, 24)) -> Case:
    image = np.random.default_rng(0).random((1, *shape), np.float32)
    return Case("p", "", image, None, None, None, Path("p.nii.gz"))


def network(seed: int, classes: int = 3, dims: int = 3) -> Callable[[Tensor], Tensor]:
    """A random convolution, whose answer depends on the place in the window."""
    torch.manual_seed(seed)
    kind = torch.nn.Conv3d if dims == 3 else torch.nn.Conv2d
    return kind(1, classes, 3, padding=1).requires_grad_(False)


# --- sliding windows ------------------------------------------------------------------------------------------------


def as_it_was(predict: Callable[[Tensor], Tensor], image: Tensor, patch: tuple[int, ...]) -> Tensor:
    """The sliding window that kept sums of the whole volume: what slabs must equal to the bit."""
    from itertools import product

    step = [max(1, side // 2) for side in patch]
    starts = [
        [min(i * s, size - side) for i in range(-(-(size - side) // s) + 1)]
        for size, side, s in zip(image.shape[1:], patch, step, strict=True)
    ]
    windows = [tuple(slice(a, a + side) for a, side in zip(start, patch, strict=True)) for start in product(*starts)]
    total, count = torch.zeros(3, *image.shape[1:]), torch.zeros_like(image[0])
    for first in range(0, len(windows), 4):
        patches = torch.stack([image[(slice(None), *window)] for window in windows[first : first + 4]])
        probabilities = torch.softmax(predict(patches), 1)
        for window, probability in zip(windows[first : first + 4], probabilities, strict=True):
            total[(slice(None), *window)] += probability
            count[window] += 1
    return total / count


@pytest.mark.parametrize("shape", [(9, 20, 24), (17, 8, 8), (8, 13, 9)])
def test_slabs_equal_sums_of_the_whole_volume_to_the_bit(shape: tuple[int, int, int]) -> None:
    image = torch.from_numpy(case(shape).image)
    parts = list(slabs(network(0), image, (4, 8, 8)))
    assert torch.equal(torch.cat(parts, 1), as_it_was(network(0), image, (4, 8, 8)))
    assert max(part.shape[1] for part in parts) <= 4  # as many planes as a patch has


@pytest.mark.parametrize("window", ["constant", "gaussian"])
@pytest.mark.parametrize("shape", [(9, 20, 24), (3, 20, 7)])
def test_the_sliding_window_is_that_of_monai(window: str, shape: tuple[int, int, int]) -> None:
    from monai.inferers import sliding_window_inference

    image, predict = torch.from_numpy(case(shape).image), network(0)
    peer = sliding_window_inference(
        image[None],
        (4, 8, 8),
        4,
        lambda patches: torch.softmax(predict(patches), 1),
        overlap=0.5,
        mode=window,
    )
    ours = sliding_window(predict, image, (4, 8, 8), window=window)  # type: ignore[arg-type]
    torch.testing.assert_close(ours, peer[0], rtol=0, atol=0 if window == "constant" else 2e-7)
    torch.testing.assert_close(ours.sum(0), torch.ones(shape))


def test_a_gaussian_window_weighs_its_middle_most() -> None:
    image = torch.zeros(1, 4, 4, 12)

    def ramp(patches: Tensor) -> Tensor:  # certain of class 1 in the right half of each window
        x = torch.linspace(-9, 9, 8).expand(len(patches), 1, 4, 4, 8)
        return torch.cat([-x, x], 1)

    constant, gaussian = (sliding_window(ramp, image, (4, 4, 8), window=w)[1, 1, 1] for w in ("constant", "gaussian"))
    # Voxel 5 lies 1.5 voxels from the middle of the first window, which gives it 1, and 2.5 from that of the second.
    assert float(constant[5]) == pytest.approx(1 / 2, abs=0.001)
    assert float(gaussian[5]) == pytest.approx(1 / (1 + math.exp(-(2.5**2 - 1.5**2) / 2)), abs=0.001)
    with pytest.raises(InputError, match="window must be 'constant' or 'gaussian', not 'hann'"):
        sliding_window(ramp, image, (4, 4, 8), window="hann")  # type: ignore[arg-type]


def test_planes_outside_a_field_of_view_are_background() -> None:
    view = FieldOfView((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    scores = torch.cat(list(predict_scores(network(0), case((40, 20, 24)), (4, 8, 8), field_of_view=view)))
    assert scores.shape == (40, 3, 20, 24)
    torch.testing.assert_close(scores.sum(1), torch.ones(40, 20, 24))
    box = view.boxes(case((40, 20, 24)))[0]
    outside = np.ones((40, 20, 24), bool)
    box.paste(np.zeros(box.size, bool), outside)
    assert bool((scores.movedim(1, -1)[torch.from_numpy(outside)] == torch.tensor([1.0, 0, 0])).all())
    label = predict_volume(network(0), case((40, 20, 24)), (4, 8, 8), field_of_view=view)
    np.testing.assert_array_equal(label, scores.argmax(1).numpy())


# --- several networks -----------------------------------------------------------------------------------------------


def members(*sizes: tuple[int, ...]) -> list[Member]:
    return [Member(network(seed, dims=len(size)), size) for seed, size in enumerate(sizes)]


def test_an_ensemble_is_the_mean_of_probabilities_also_of_slices_and_patches() -> None:
    one, both = case(), members((4, 8, 8), (16, 16))
    probabilities = np.empty((3, 9, 20, 24), np.float32)
    predicted = predict_ensemble(both, [one, one], uncertainty=True, probabilities=probabilities)
    each = [
        torch.cat(list(predict_scores(both[0].predict, one, (4, 8, 8)))),
        torch.softmax(torch.cat(list(predict_scores(both[1].predict, one, (16, 16)))), 1),
    ]
    mean = (each[0] + each[1]) / 2
    np.testing.assert_allclose(probabilities, mean.transpose(0, 1), atol=1e-6)
    np.testing.assert_array_equal(predicted.label, mean.argmax(1))
    entropy = -(mean * mean.log()).sum(1)
    np.testing.assert_allclose(predicted.entropy, entropy, atol=1e-5)
    apart = torch.stack([-(p * p.log()).sum(1) for p in each]).mean(0)
    np.testing.assert_allclose(predicted.mutual_information, entropy - apart, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 8, 8), (16, 16)])
def test_a_single_member_predicts_as_alone_whatever_is_asked_beside(size: tuple[int, ...]) -> None:
    (member,), one = members(size), case()
    alone = predict_volume(member.predict, one, size)
    for uncertainty in (False, True):
        predicted = predict_ensemble([member], [one], uncertainty=uncertainty)
        np.testing.assert_array_equal(predicted.label, alone)
        assert (predicted.entropy is None, predicted.mutual_information) == (not uncertainty, None)


def fixed(*logits: float) -> Callable[[Tensor], Tensor]:
    values = torch.tensor(logits)
    return lambda image: values[None, :, None, None, None].expand(len(image), -1, *image.shape[2:])


def test_uncertainty_in_closed_form() -> None:
    one = case((4, 8, 8))
    certain = [Member(fixed(99.0, 0.0), (4, 8, 8)), Member(fixed(0.0, 99.0), (4, 8, 8))]
    opposed = predict_ensemble(certain, [one, one], uncertainty=True)  # each certain of another class
    np.testing.assert_allclose(opposed.entropy, math.log(2), rtol=1e-6)
    np.testing.assert_allclose(opposed.mutual_information, math.log(2), rtol=1e-6)
    undecided = [Member(fixed(0.0, 0.0), (4, 8, 8))] * 2  # both undecided, and agreed on it
    agreed = predict_ensemble(undecided, [one, one], uncertainty=True)
    np.testing.assert_allclose(agreed.entropy, math.log(2), rtol=1e-6)
    np.testing.assert_allclose(agreed.mutual_information, 0, atol=1e-7)
    stored = np.empty((2, 4, 8, 8), np.uint16)
    predict_ensemble([Member(fixed(math.log(3), 0.0), (4, 8, 8))], [one], probabilities=stored)
    assert np.abs(stored[0] / 65_535 - 0.75).max() < 1e-5


# --- flips and turns ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("augmentation", "size", "count"),
    [
        ({}, (8, 8), 1),
        ({"flip": True}, (8, 8), 4),
        ({"quarter_turns": True}, (8, 8), 4),
        ({"quarter_turns": True}, (8, 16), 1),  # never sampled in training either
        ({"flip": True, "quarter_turns": True}, (4, 8, 8), 8),
        ({"flip": True, "quarter_turns": True}, (4, 8, 16), 4),
    ],
)
def test_moves_are_those_of_the_augmentation(augmentation: dict, size: tuple[int, ...], count: int) -> None:
    moves = moves_of(augmentation, size)
    image = torch.arange(math.prod(size[-2:])).reshape(size[-2:]) if size[-2] == size[-1] else torch.rand(size[-2:])
    views = {tuple(_moved(image, *move).flatten().tolist()) for move in moves}
    assert len(moves) == len(views) == count
    assert moves[0] == (0, False)


def _moved(image: Tensor, turns: int, flip: bool) -> Tensor:
    turned = torch.rot90(image, turns, (-2, -1))
    return turned.flip(-1) if flip else turned


@pytest.mark.parametrize("dims", [2, 3])
def test_an_averaged_predictor_is_equivariant(dims: int) -> None:
    predict = averaged(network(0, dims=dims), moves_of({"flip": True, "quarter_turns": True}, (8,) * dims))
    image = torch.rand(2, 1, *(8,) * dims)
    answer = predict(image)
    torch.testing.assert_close(answer.exp().sum(1), torch.ones(2, *(8,) * dims))
    for turns in range(4):
        for flip in (False, True):
            torch.testing.assert_close(predict(_moved(image, turns, flip)), _moved(answer, turns, flip))
    plain = torch.softmax(network(0, dims=dims)(image), 1)
    assert (answer.exp() - plain).abs().max() > 0.01  # it is not the network's own answer
    with pytest.raises(InputError, match="average: needs flips or quarter turns"):
        averaged(predict, moves_of({}, (8, 8)))


# --- memory ---------------------------------------------------------------------------------------------------------

PEAK = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from anatolab.ensembles import Member, predict_ensemble
from anatolab.types import Case
torch.set_num_threads(1)
depth = int(sys.argv[1])
image = np.random.default_rng(0).random((1, depth, 128, 128), np.float32)
case = Case("p", "", image, None, None, None, Path("p.nii.gz"))
predict = lambda x: torch.cat([x * k for k in range(14)], 1)
predict_ensemble([Member(predict, (32, 64, 64))], [case])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory in units of Linux")
def test_fourteen_classes_on_a_whole_body_take_less_than_8_gb() -> None:
    peaks = [
        int(subprocess.run([sys.executable, "-c", PEAK, str(depth)], cwd=ROOT, capture_output=True, check=True).stdout)
        for depth in (64, 512)
    ]
    voxel = (peaks[1] - peaks[0]) / (448 * 128 * 128)  # bytes a voxel, beside what does not grow with depth
    sums = 2 * 4 * (14 + 1) * 128 * 512 * 512  # of a patch 128 planes deep, and the slab that is divided
    assert voxel * 512 * 512 * 800 + sums + 0.6e9 < 8e9, voxel


def test_sums_are_kept_of_a_patch_and_not_of_the_volume() -> None:
    deepest = []

    def watching(patches: Tensor) -> Tensor:
        import gc

        sums = [t for t in gc.get_objects() if type(t) is torch.Tensor and t.ndim == 4 and t.shape[::2] == (14, 16)]
        deepest.append(max((t.shape[1] for t in sums), default=0))
        return torch.cat([patches] * 14, 1)

    for _ in slabs(watching, torch.rand(1, 64, 16, 16), (8, 16, 16)):
        pass
    assert max(deepest) == 8
