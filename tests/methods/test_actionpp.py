"""ACTION++: its class centers in training, its keys, and its temperatures; without them it is ACTION."""

from typing import Any

import pytest
import torch

import anatolab.methods._pretrain as pretrain
import anatolab.methods.actionpp as actionpp
from anatolab.methods import Action, ActionPP
from tests.methods.small import STAGED, batch, make, stage


def weights_after(kind: type, steps: int = 6, **fields: Any) -> list[torch.Tensor]:
    method = make(kind, weak_threshold=0.0, **fields)
    step = stage(method, "contrast")
    optimizer = torch.optim.SGD(step.trainable, 0.05, 0.9)
    for i in range(steps):
        optimizer.zero_grad()
        step.step(batch(seed=i), i / steps).total.backward()
        optimizer.step()
        method.after_step()
    return [p.detach().clone() for p in method.student.parameters()]


def test_with_its_new_parts_off_action_plus_plus_is_action_step_for_step() -> None:
    off = {"aaco_weight": 0.0, "schedule": "constant", "temperature": (0.5, 0.5)}
    ours, theirs = weights_after(ActionPP, **off), weights_after(Action, temperature=0.5)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    on = weights_after(ActionPP, schedule="constant", temperature=(0.5, 0.5), assignment="random")
    assert not all(torch.equal(a, b) for a, b in zip(on, theirs, strict=True))


def test_labeled_pixels_alone_enter_the_class_centers_256_a_present_class() -> None:
    method = make(ActionPP, num_anchors=256)
    entered = []
    update = method.centers.update_means
    method.centers.update_means = lambda features, label: (entered.append((features, label)), update(features, label))
    given = batch()
    given.label[:3][given.label[:3] == 2] = 0  # no labeled pixel of class 2
    stage(method, "contrast").step(given, 0.5)
    features, label = entered[0]
    assert label.clamp_min(-1).unique().tolist() == [-1, 0, 1]
    assert [(label == c).sum().item() for c in (0, 1)] == [256, 256]
    assert method.centers.observed.tolist() == [True, True, False]
    assert features.shape == (3 * 256, 16)


def test_one_labeled_class_alone_is_not_contrasted() -> None:
    method = make(ActionPP)
    given = batch()
    given.label[:3] = 0
    terms = stage(method, "contrast").step(given, 0.5).terms
    assert terms["aaco_class"].item() == terms["aaco_center"].item() == 0


def test_means_are_assigned_one_period_later_and_the_center_pulls_only_then() -> None:
    method = make(ActionPP, assign_every=5)
    step, centers = stage(method, "contrast"), method.centers
    for i in range(1, 11):
        losses = step.step(batch(seed=i), 0.5)
        assert losses.terms["aaco_center"].item() == 0
        if i == 5:
            means = centers.means.clone()
        method.after_step()
        assert centers.ready is (i == 10)
    nearest = (means @ centers.centers.T)[torch.arange(3), centers.assigned].sum()
    every = [
        (means @ centers.centers.T)[torch.arange(3), torch.tensor(p)].sum()
        for p in ([0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1], [1, 0, 2], [2, 1, 0])
    ]
    torch.testing.assert_close(nearest, max(every))
    assert step.step(batch(), 0.5).terms["aaco_center"].item() > 0


def test_a_random_assignment_stays_and_pulls_from_the_start() -> None:
    method = make(ActionPP, assignment="random")
    before = method.centers.assigned.clone()
    for i in range(25):
        losses = stage(method, "contrast").step(batch(seed=i), 0.5)
        assert losses.terms["aaco_center"].item() > 0
        method.after_step()
    assert torch.equal(method.centers.assigned, before)


def test_a_queue_keeps_past_pixels_with_their_labels() -> None:
    method = make(ActionPP, keys="queue", queue=300)
    for i in range(4):
        stage(method, "contrast").step(batch(seed=i), 0.5)
    assert method.queue.fill == method.queue_label.fill == 300
    assert sorted(method.queue_label.rows.unique().tolist()) == [0, 1, 2]


def test_keys_are_the_projection_of_the_teacher_not_of_the_student() -> None:
    method = make(ActionPP)
    with torch.no_grad():
        method.teacher.net.pixel.linear.weight.zero_()
        method.teacher.net.pixel.linear.weight[0] = 1.0
    keys = []

    def spy(*args: Any, **kwargs: Any) -> Any:
        keys.append(kwargs["keys"])
        return real(*args, **kwargs)

    real, actionpp.sampled_center_contrast = actionpp.sampled_center_contrast, spy
    try:
        stage(method, "contrast").step(batch(), 0.5)
    finally:
        actionpp.sampled_center_contrast = real
    assert keys[0][:, 1:].abs().max() == 0
    assert keys[0][:, 0].abs().max() > 0


def test_sampled_keys_of_the_centers_contrast_estimate_that_of_all_keys() -> None:
    """With all keys of a class and very many samples of the others the two agree; one labeled class is exactly 0."""
    values = []
    for sample in (False, True):
        method = make(ActionPP, sample_keys=sample, num_negatives=50_000, assignment="random")
        generator = torch.Generator().manual_seed(5)
        features, keys = (torch.randn(900, 16, generator=generator) for _ in range(2))
        label = torch.arange(900) % 3
        torch.manual_seed(0)  # the same anchors
        values.append(method.adaptive_contrast(features, label, keys, 0.5))
        alone = method.adaptive_contrast(features, 0 * label, keys, 0.5)
        assert alone["aaco_class"].item() == alone["aaco_center"].item() == 0
    for name, full in values[0].items():
        torch.testing.assert_close(values[1][name], full, rtol=5e-3, atol=0)


def test_the_schedule_drives_every_contrastive_temperature() -> None:
    method = make(ActionPP, pretraining=STAGED)
    values = [stage(method, "contrast").step(batch(), t).diagnostics["temperature"].item() for t in (0.0, 0.5)]
    assert values == pytest.approx([1.0, 0.1])

    taus: list[tuple[float, float]] = []
    real = pretrain.relational_distillation

    def spy(*args: Any, **kwargs: Any) -> Any:
        taus.append((kwargs["student_temperature"], kwargs["teacher_temperature"]))
        return real(*args, **kwargs)

    pretrain.relational_distillation = spy
    try:
        for t in (0.0, 0.5):
            stage(method, "global").step(batch(), t)
    finally:
        pretrain.relational_distillation = real
    assert taus == [pytest.approx((1.0, 1.0)), pytest.approx((0.1, 0.01))]
