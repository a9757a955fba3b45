"""The profiles, against the values that the papers print and the released scripts pass."""

from typing import Any

import pytest
import torch

from anatolab.methods import Action, ActionPP, Arco, Mona
from anatolab.nn import light_unet
from anatolab.types import InputError
from tests.methods.small import batch

# What the released 2-D scripts have in common; the flags of the loop (SGD .01, momentum .9, decay 1e-4, poly .9) aside.
COMMON: dict[str, Any] = {
    "labeled": 4,
    "unlabeled": 4,
    "ema_decay": 0.99,
    "ema_warm_up": False,
    "predict_with": "student",
    "unsup": "share_weighted",
    "unsup_weight": 1.0,
    "confidence_threshold": 0.97,
    "ramp": 0.0,
    "ramp_updates": 0,
    "labeled_partner": False,
    "strong_labeled": False,
    "augmentation.mix": "cutmix",
    "augmentation.scale": 0.0,
    "augmentation.translate": 0.0,
    "restart_teacher": True,
    "nesterov": True,
    "representation_stride": 1,
    "num_anchors": 256,
    "num_negatives": 512,
    "pretraining.batch": (3, 3),
    "pretraining.bank": 36,
    "pretraining.embedding": 512,
    "pretraining.student_temperature": (0.1, 0.1),
    "pretraining.global_weight": 1.0,
    "pretraining.local_weight": 1.0,
    "pretraining.patch": 0.25,  # 64 of 256
    "pretraining.cells": 8,
    "pretraining.linear_heads": True,
    "pretraining.strong": "teacher",
}
UNWARPED = {"augmentation.rotate": 0.0, "augmentation.flip": False, "augmentation.quarter_turns": False}
ACTION = {
    **COMMON,
    **UNWARPED,
    "sup_weight": 0.5,
    "pretraining.teacher_temperature": (0.01, 0.01),
    "temperature": 0.5,
    "anco_weight": 0.01,
    "hard_threshold": 0.97,
    "weak_threshold": 0.7,
    "representation": 512,
    "pixel_head": "conv",
    "pixel_sampler": "naive",
}
ACTION_PLUS = {
    **ACTION,
    "pretraining.student_temperature": (0.1, 1.0),
    "pretraining.teacher_temperature": (0.01, 1.0),
    "temperature": (0.1, 1.0),
    "schedule": "cosine",
    "periods": 10.0,
    "aaco_temperature": (0.07, 1.0),
    "aaco_weight": 0.01,
    "center_weight": 0.1,
    "norm": "joint",
    "keys": "queue",
    "queue": 12_288,
    "sample_keys": False,
    "assign_every": 1,
    "mean_rate": 0.1,
    "first_means": "random",
    "representation": 496,
}
MONA = {
    **COMMON,
    "augmentation.rotate": 20.0,
    "augmentation.flip": True,
    "augmentation.quarter_turns": True,
    "sup_weight": 1.0,
    "pretraining.teacher_temperature": (0.1, 0.1),
    "temperature": 0.5,
    "representation": 496,
    "anchors": "reliable",
    "query_predictor": True,
    "positive": "teacher",
    "key_views": "strong",
    "weak_threshold": 0.0,
    "bank_rule": "rank",
    "bank": 30_000,
    "images": 36,
    "neighbors": 5,
    "measured": "teacher",
    "contrast_weight": 0.01,
    "neighbor_weight": 1.0,
}
ARCO = {**MONA, "pixel_sampler": "released"}
MONA = {
    **MONA,
    "pixel_sampler": "naive",
    "equivariance_weight": 1.0,
    "equivariance_rows": "all",
    "equivariance_threshold": 0.7,
    "equivariance_warp.rotate": 60.0,
    "equivariance_warp.scale": 0.2,
    "equivariance_warp.translate": 0.1,
    "equivariance_warp.flip": True,
    "equivariance_warp.quarter_turns": False,
    "symmetric": False,
    "everywhere": False,
}
OFFICIAL: dict[type, dict[str, Any]] = {Action: ACTION, ActionPP: ACTION_PLUS, Mona: MONA, Arco: ARCO}

PRINTED: dict[type, dict[str, Any]] = {
    Action: {
        "labeled": 3,
        "unlabeled": 3,
        "sup_weight": 0.5,
        "ema_decay": 0.99,
        "anco_weight": 1.0,
        "temperature": 0.5,
        "hard_threshold": 0.97,
        "num_anchors": 256,
        "num_negatives": 512,
        "representation": 512,
        "pretraining.bank": 36,
        "pretraining.student_temperature": (0.1, 0.1),
        "pretraining.teacher_temperature": (0.01, 0.01),
        "pretraining.strong": "student",
        "pretraining.linear_heads": False,
    },
    ActionPP: {
        "labeled": 4,
        "unlabeled": 4,
        "sup_weight": 0.5,
        "anco_weight": 1.0,
        "representation": 128,
        "temperature": (0.1, 1.0),
        "aaco_temperature": None,
        "schedule": "cosine",
        "periods": 1.0,
        "center_weight": 0.2,
        "norm": "sum",
        "sample_keys": False,
        "assignment": "adaptive",
    },
    Mona: {
        "labeled": 4,
        "unlabeled": 4,
        "sup_weight": 1.0,
        "positive": "student",
        "anchors": "hard",
        "bank_rule": "class",
        "measured": "student",
        "contrast_weight": 0.01,
        "neighbor_weight": 1.0,
        "symmetric": True,
        "everywhere": True,
        "equivariance_rows": "all",
        "pixel_sampler": "naive",
        "representation": 512,
        "pretraining.batch": (3, 3),
        "pretraining.bank": 36,
        "pretraining.student_temperature": (0.1, 0.1),
        "pretraining.teacher_temperature": (0.01, 0.01),
    },
    Arco: {
        "labeled": 4,
        "unlabeled": 4,
        "sup_weight": 1.0,
        "augmentation.strong_probability": 0.0,
        "augmentation.mix": "none",
        "hard_threshold": 1.0,
        "weak_threshold": 0.0,
        "positive": "student",
        "measured": "student",
        "temperature": 0.5,
        "contrast_weight": 0.01,
        "unsup_weight": 1.0,
        "neighbor_weight": 1.0,
        "pixel_sampler": "stratified",
        "representation": 512,
        "pretraining.batch": (3, 3),
        "pretraining.bank": 36,
        "pretraining.student_temperature": (0.1, 0.1),
        "pretraining.teacher_temperature": (0.01, 0.01),
    },
}
NEEDED: dict[type, dict[str, Any]] = {ActionPP: {"aaco_weight": 0.01}}  # not known from the text
TINY: dict[str, Any] = {"representation": 16, "bank": 64, "queue": 64, "num_anchors": 16, "num_negatives": 32}


def value(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def built(kind: type, profile: Any, **overrides: Any) -> Any:
    torch.manual_seed(0)
    small = {k: v for k, v in TINY.items() if hasattr(kind.Config(), k)}
    config = profile(**{**NEEDED.get(kind, {}), **small, **overrides})
    return kind(light_unet(1, 4, width=4, depth=4), config).train()


@pytest.mark.parametrize("kind", OFFICIAL)
def test_the_official_profile_has_the_released_values(kind: type) -> None:
    config = kind.Config.official()
    assert {name: value(config, name) for name in OFFICIAL[kind]} == OFFICIAL[kind]


@pytest.mark.parametrize("kind", PRINTED)
def test_the_paper_profile_has_the_printed_values(kind: type) -> None:
    config = kind.Config.paper(**NEEDED.get(kind, {}))
    assert {name: value(config, name) for name in PRINTED[kind]} == PRINTED[kind]


JOINT = [("local", 30_000, (3, 3), False), ("contrast", 30_000, (4, 4), True)]
STAGES: dict[tuple[type, str], list[tuple[str, int, tuple[int, int], bool]]] = {
    (Action, "official"): [("global", 30_000, (3, 3), False), *JOINT],
    (ActionPP, "official"): JOINT,
    (Mona, "official"): JOINT,
    (Arco, "official"): JOINT,
    (Action, "paper"): [(n, u, (3, 3), False) for n, u in (("global", 7_500), ("local", 7_500), ("contrast", 15_000))],
    (ActionPP, "paper"): [
        (n, u, (4, 4), False) for n, u in (("global", 5_000), ("local", 5_000), ("contrast", 20_000))
    ],
    (Mona, "paper"): [("local", 15_000, (3, 3), False), ("contrast", 15_000, (4, 4), False)],
    (Arco, "paper"): [("local", 15_000, (3, 3), False), ("contrast", 15_000, (4, 4), False)],
}


@pytest.mark.parametrize(("kind", "profile"), STAGES)
def test_the_stages_of_a_profile(kind: type, profile: str) -> None:
    method = built(kind, getattr(kind.Config, profile))
    planned = [(s.name, s.updates, s.batch, s.nesterov) for s in method.stages()]
    assert planned == STAGES[kind, profile]


@pytest.mark.parametrize("kind", OFFICIAL)
def test_the_recommended_profile_is_one_stage_of_the_base(kind: type) -> None:
    (only,) = built(kind, kind.Config).stages()
    assert (only.name, only.updates, only.batch) == ("contrast", 30_000, (4, 4))
    config = kind.Config()
    assert (config.unsup, config.confidence_threshold, config.sup_weight) == ("confident", 0.9, 0.5)
    assert config.labeled_partner
    assert config.strong_labeled
    assert config.predict_with == "teacher"


@pytest.mark.parametrize(("kind", "profile"), STAGES)
def test_every_stage_of_a_profile_runs_and_the_joint_one_has_all_its_terms_at_once(kind: type, profile: str) -> None:
    method = built(kind, getattr(kind.Config, profile))
    for step in method.stages():
        for seed in range(2):
            losses = step.step(batch(seed=seed), 0.0 if seed == 0 else 0.5)
            losses.total.backward()
            method.after_step()
        assert all(bool(torch.isfinite(v)) for v in losses.terms.values())
        if step.name == "local":
            assert set(losses.terms) == {"ce", "dice", "global", "local"}
            assert losses.terms["global"] > 0
            assert losses.terms["local"] > 0


def test_the_released_pixel_head_is_a_3x3_and_a_1x1_convolution_on_the_full_grid() -> None:
    method = built(Action, Action.Config.official, representation=24)
    kernels = [tuple(m.kernel_size) for m in method.student.pixel.modules() if isinstance(m, torch.nn.Conv2d)]
    assert kernels == [(3, 3), (1, 1)]
    _, maps = method.student(batch().image)
    finest = 32 // min(method.student.net.strides)  # light_unet's finest map is at half of the image
    assert method.student.pixel(maps).shape == (6, 24, finest, finest)


@pytest.mark.parametrize("kind", OFFICIAL)
def test_official_heads_are_linear_and_the_recommended_ones_are_not(kind: type) -> None:
    for profile, linear in ((kind.Config.official, True), (kind.Config, False)):
        method = built(kind, profile)
        heads = [method.student.image, method.student.patch, method.distiller]
        heads += [method.miner.predictor] if hasattr(method, "miner") else []
        for head in heads:
            assert linear is not any(isinstance(m, torch.nn.ReLU) for m in head.modules())


def test_the_paper_profile_asks_for_what_is_not_known_from_the_text() -> None:
    with pytest.raises(InputError, match="aaco_weight"):
        ActionPP.Config.paper()
