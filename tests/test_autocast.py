"""Under bf16 autocast, only networks compute in bf16: positions, intensities, losses and odds keep their digits."""

from collections.abc import Callable

import pytest
import torch

from anatolab import losses
from anatolab.nn import FourierEncoding
from anatolab.sampling import negative_class_odds
from anatolab.transforms import Affine, Augmentation, gaussian_blur, strong_view, weak_view

IMAGE, LABEL = torch.rand(2, 1, 64, 64), torch.randint(0, 3, (2, 64, 64))
LOGITS, FEATURES, KEYS = torch.randn(2, 3, 64, 64), torch.randn(40, 8), torch.randn(30, 8)
CLASS = torch.randint(0, 3, (40,))
EVERY = torch.ones(3, dtype=torch.bool)
ENCODING = FourierEncoding(2, 16)
FUNCTIONS: dict[str, Callable[[], torch.Tensor]] = {
    "weak_view": lambda: weak_view(IMAGE, LABEL, Augmentation(), (48, 48))[0],
    "weak_view, label": lambda: weak_view(IMAGE, LABEL, Augmentation(), (48, 48))[1].float(),
    "strong_view": lambda: strong_view(IMAGE, Augmentation()),
    "blur": lambda: gaussian_blur(IMAGE, torch.tensor([0.5, 1.0])),
    "inverse": lambda: Affine.sample(IMAGE, Augmentation()).inverse().grid((64, 64)),
    "encoding": lambda: ENCODING(torch.rand(2, 50, 2), (64, 64)),
    "odds": lambda: negative_class_odds(KEYS[:3], EVERY, 0.5),
    "cross_entropy": lambda: losses.cross_entropy(LOGITS, LABEL),
    "dice": lambda: losses.dice_loss(LOGITS, LABEL),
    "confident": lambda: losses.confident_pseudo_label_loss(LOGITS, LABEL, IMAGE[:, 0], LABEL > 0, 0.5),
    "share": lambda: losses.share_weighted_pseudo_label_loss(LOGITS, LABEL, IMAGE[:, 0], LABEL > 0, 0.5),
    "consistency": lambda: losses.consistency(LOGITS, LOGITS.softmax(1).flip(0)),
    "equivariance": lambda: losses.equivariance(LOGITS, LOGITS.flip(0), IMAGE[:, 0]),
    "contrast": lambda: losses.anatomical_contrast(
        FEATURES, CLASS.new_zeros(3, 4), CLASS.new_ones(3, 5), KEYS[:3], EVERY, EVERY, 0.1
    ),
    "means": lambda: losses.class_means(FEATURES, CLASS, 3),
    "running means": lambda: losses.update_means(KEYS[:3], EVERY, FEATURES, CLASS, 0.1)[0],
    "neighbors": lambda: losses.nearest_neighbors(FEATURES, FEATURES.flip(0), KEYS, 3),
    "distillation": lambda: losses.relational_distillation(
        FEATURES, FEATURES.flip(0), KEYS, student_temperature=0.1, teacher_temperature=0.1
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_autocast_changes_nothing_outside_of_networks(name: str) -> None:
    values = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values.append(FUNCTIONS[name]())
    assert values[0].dtype == values[1].dtype == torch.float32
    torch.testing.assert_close(values[1], values[0], rtol=1e-6, atol=1e-6)
