"""Weak and strong augmentation of a batch against batchgenerators, MONAI and kornia, on equal pipelines.

Every side does the same to every sample of image and label: one map of the plane (turn by up to 40 degrees, zoom by up
to 25 %), image linear and label nearest; then contrast, brightness, gamma, blur and noise, each with probability 1/2.
In 3-D the plane is that of the last two axes. Ours takes a batch as one tensor; MONAI takes one sample after the
other, which is how it is built; kornia has no 3-D form of this pipeline and no label in its intensity part.

At least 2 times as fast as batchgenerators and MONAI in 3-D, at least 1.3 times in 2-D; kornia is reported. A peer
that is not installed is left out (``pip install batchgenerators kornia``). Exits with 1 below a floor; ``--report``
prints the same and exits with 0.

    python benchmarks/bench_augmentation.py [--report] [--repeats 7] [--json FILE]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from timing import conclude, flags, interleaved, milliseconds, ratio

from anatolab.training.settings import keep_memory
from anatolab.transforms import Augmentation, strong_view, weak_view

SETTING = Augmentation(translate=0.0)
TURN, ZOOM = math.radians(SETTING.rotate), SETTING.scale
CASES = {"2-D, 8 x 128 x 128": (8, 1, 128, 128), "3-D, 4 x 48 x 64 x 64": (4, 1, 48, 64, 64)}
FLOORS = {2: 1.3, 3: 2.0}
HALF = 0.5  # probability of each intensity change
Work = Callable[[], Any]


def ours(image: torch.Tensor, label: torch.Tensor) -> Work:
    return lambda: strong_view(weak_view(image, label, SETTING)[0], SETTING)


def batchgenerators(image: torch.Tensor, label: torch.Tensor) -> Work:
    """Warps each sample by a map of its own; the planes of a 3-D patch are warped as its channels, as in nnU-Net."""
    from batchgenerators.augmentations.spatial_transformations import augment_spatial
    from batchgenerators.transforms.color_transforms import (
        BrightnessTransform,
        ContrastAugmentationTransform,
        GammaTransform,
    )
    from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform

    low, high = SETTING.blur
    intensity = [
        ContrastAugmentationTransform((1 - SETTING.contrast, 1 + SETTING.contrast), p_per_sample=HALF),
        BrightnessTransform(0.0, SETTING.brightness / 2, p_per_sample=HALF),
        GammaTransform((math.exp(-SETTING.gamma), math.exp(SETTING.gamma)), p_per_sample=HALF),
        GaussianBlurTransform((low, high), p_per_sample=HALF),
        GaussianNoiseTransform((0, SETTING.noise**2), p_per_sample=HALF),
    ]
    data, seg = image.numpy(), label.numpy()[:, None].astype("float32")
    b, *_, height, width = data.shape
    planes = (data.reshape(b, -1, height, width), seg.reshape(b, -1, height, width))

    def work() -> Any:
        warped, _ = augment_spatial(
            *planes,
            (height, width),
            None,
            do_elastic_deform=False,
            angle_x=(-TURN, TURN),
            scale=(1 - ZOOM, 1 + ZOOM),
            border_mode_data="constant",
            order_data=1,
            random_crop=False,
        )
        batch = {"data": warped.reshape(data.shape)}
        for transform in intensity:
            batch = transform(**batch)
        return batch["data"]

    return work


def monai(image: torch.Tensor, label: torch.Tensor) -> Work:
    from monai.transforms import (
        Compose,
        RandAdjustContrastd,
        RandAffined,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
        RandShiftIntensityd,
    )

    flat, keys = image.ndim == 4, ["image", "label"]
    turn = TURN if flat else ((-TURN, TURN), 0.0, 0.0)
    zoom = (ZOOM, ZOOM) if flat else (0.0, ZOOM, ZOOM)
    blur = {f"sigma_{axis}": SETTING.blur for axis in "xyz"}
    blur |= {} if flat else {"sigma_x": (1e-3, 1e-3)}  # of the slice axis: none
    transform = Compose(
        [
            RandAffined(
                keys,
                prob=1.0,
                rotate_range=turn,
                scale_range=zoom,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            RandScaleIntensityd("image", SETTING.contrast, prob=HALF),
            RandShiftIntensityd("image", SETTING.brightness, prob=HALF),
            RandAdjustContrastd("image", HALF, (math.exp(-SETTING.gamma), math.exp(SETTING.gamma))),
            RandGaussianSmoothd("image", prob=HALF, **blur),
            RandGaussianNoised("image", HALF, 0.0, SETTING.noise),
        ]
    )
    samples = [{"image": i, "label": k[None].float()} for i, k in zip(image, label, strict=True)]
    return lambda: [transform(sample) for sample in samples]


def kornia(image: torch.Tensor, label: torch.Tensor) -> Work:
    from kornia import augmentation as k

    warp = k.RandomAffine(SETTING.rotate, scale=(1 - ZOOM, 1 + ZOOM), p=1.0)
    nearest = k.RandomAffine(SETTING.rotate, scale=(1 - ZOOM, 1 + ZOOM), p=1.0, resample="nearest")
    intensity = torch.nn.Sequential(
        k.RandomContrast((1 - SETTING.contrast, 1 + SETTING.contrast), p=HALF),
        k.RandomBrightness((1 - SETTING.brightness, 1 + SETTING.brightness), p=HALF),
        k.RandomGamma((math.exp(-SETTING.gamma), math.exp(SETTING.gamma)), p=HALF),
        k.RandomGaussianBlur((9, 9), SETTING.blur, p=HALF),
        k.RandomGaussianNoise(std=SETTING.noise / 2, p=HALF),
    )
    mask = label[:, None].float()

    def work() -> Any:
        warped = warp(image)
        nearest(mask, params=warp._params)
        return intensity(warped)

    return work


PEERS = {"batchgenerators": batchgenerators, "monai": monai, "kornia": kornia}


def main() -> int:
    args = flags(__doc__, 7).parse_args()

    keep_memory()
    device, table = torch.device("cpu"), []  # where the peers work
    print(f"{'case':<24}{'peer':<18}{'ours ms':>9}{'peer ms':>9}{'ratio':>8}{'floor':>7}")
    for case, shape in CASES.items():
        torch.manual_seed(0)
        image, label = torch.rand(shape), torch.randint(4, (shape[0], *shape[2:]))
        dims = len(shape) - 2
        peers = {p: make for p, make in PEERS.items() if find_spec(p) and (dims == 2 or p != "kornia")}
        work = {"ours": ours(image, label), **{peer: make(image, label) for peer, make in peers.items()}}
        rounds = interleaved(work, device, args.repeats)
        for peer in peers:
            row = {
                "case": case,
                "dims": dims,
                "peer": peer,
                "ours_ms": milliseconds(rounds, "ours"),
                "peer_ms": milliseconds(rounds, peer),
                "ratio": ratio(rounds, peer, "ours"),
                "floor": None if peer == "kornia" else FLOORS[dims],
            }
            table.append(row)
            print(
                f"{case:<24}{peer:<18}{row['ours_ms']:>9.1f}{row['peer_ms']:>9.1f}{row['ratio']:>8.2f}"
                f"{'-' if row['floor'] is None else row['floor']:>7}"
            )
    passed = all(row["floor"] is None or row["ratio"] >= row["floor"] for row in table)
    return conclude(args, "augmentation", passed, "a ratio is below its floor", rows=table)


if __name__ == "__main__":
    sys.exit(main())
