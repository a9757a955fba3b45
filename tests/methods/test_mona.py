"""MONA and ARCO: banks of every class, what the released switches do, and how the two methods meet."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import anatolab.methods._mining as mining
import anatolab.methods._teacher_student as _teacher_student
from anatolab.losses import anatomical_contrast
from anatolab.methods import Action, ActionPP, Arco, Mona
from anatolab.nn import light_unet
from anatolab.types import IGNORE
from tests.methods.small import batch, make, stage

PAIR = pytest.mark.parametrize("kind", [Mona, Arco])


def keys_of(anchor: torch.Tensor, keys: torch.Tensor) -> float:
    """The contrast of one class's anchor with its own direction as positive, all keys as negatives."""
    features = torch.stack([anchor, anchor])
    negatives = torch.arange(len(keys)).repeat(2, 1)
    yes, no = torch.ones(2, dtype=torch.bool), torch.tensor([True, False])
    loss = anatomical_contrast(features, torch.zeros(2, 1).long(), negatives, features, no, yes, 0.5, keys=keys)
    return 2 * loss.item()  # one of two classes has an anchor


def test_contrast_against_a_bank_in_closed_form() -> None:
    east = torch.eye(8)[0]
    assert keys_of(east, torch.zeros(512, 8)) == pytest.approx(math.log(1 + 512 * math.exp(-2)), abs=1e-4)  # 4.253
    assert keys_of(east, east.repeat(512, 1)) == pytest.approx(math.log(513), abs=1e-4)  # 6.240
    turning = [torch.stack([math.cos(a) * east + math.sin(a) * torch.eye(8)[1]] * 512) for a in (0.0, 0.8, 1.6, 2.4)]
    values = [keys_of(east, keys) for keys in turning]
    assert values == sorted(values, reverse=True)


def with_classes(kind: type, classes: int, **fields: Any) -> nn.Module:
    torch.manual_seed(0)
    config = kind.Config(updates=40, representation=8, representation_stride=2, num_anchors=16, num_negatives=32)
    fields = {"bank": 64, "neighbor_cells": 4, **fields}
    config = type(config)(**{**vars(config), **fields})
    return kind(light_unet(1, classes, width=4, depth=4), config).train()


def striped(classes: int, seed: int) -> Any:
    given = batch(seed=seed)
    stripes = (torch.arange(32) * classes // 32).expand(6, 32, 32)
    given.label[:3] = stripes[:3].roll(seed, -1)
    return given


@PAIR
@pytest.mark.parametrize("classes", [2, 3, 4, 8])
def test_every_class_has_distinct_rows_in_its_bank_within_ten_steps(kind: type, classes: int) -> None:
    method = with_classes(kind, classes)
    for seed in range(10):
        stage(method, "contrast").step(striped(classes, seed), 0.5)
        method.after_step()
    bank = method.miner.bank
    assert bank.fill.min() > 1
    for rows, fill in zip(bank.rows, bank.fill.tolist(), strict=True):
        assert len(rows[:fill].unique(dim=0)) > 0.9 * fill


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_the_released_rank_rule_leaves_the_banks_empty(classes: int) -> None:
    method = with_classes(Mona, classes, bank_rule="rank", weak_threshold=0.0)
    for seed in range(10):
        losses = stage(method, "contrast").step(striped(classes, seed), 0.5)
    fill = method.miner.bank.fill
    if classes < 4:
        assert fill.tolist() == [0] * classes
        assert losses.terms["contrast"].item() == 0
    free = with_classes(Mona, classes, weak_threshold=0.0)
    for seed in range(10):
        stage(free, "contrast").step(striped(classes, seed), 0.5)
    assert free.miner.bank.fill.sum() > 10 * fill.sum()


@PAIR
def test_rows_of_a_bank_are_keys_of_its_class_and_negatives_come_from_other_classes(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = with_classes(kind, 4)
    seen: list[Any] = []
    draw = mining.sample_negatives
    monkeypatch.setattr(mining, "sample_negatives", lambda *a: seen.append(draw(*a)) or seen[-1])
    forward_pair = mining.forward_pair
    monkeypatch.setattr(mining, "forward_pair", lambda *a: seen.append(forward_pair(*a)) or seen[-1])
    stage(method, "contrast").step(striped(4, 0), 0.5)
    output, negatives = seen
    with torch.no_grad():
        keys = mining.flatten_pixels(method.teacher.net.pixel(method.teacher(output.image)[1]))[0]
    for c, (rows, fill) in enumerate(zip(method.miner.bank.rows, method.miner.bank.fill.tolist(), strict=True)):
        distance = torch.cdist(rows[:fill], keys, compute_mode="donot_use_mm_for_euclid_dist")
        assert distance.min(1).values.max() == 0
        nearest = output.pixel_label[distance.argmin(1)]
        assert (nearest == c).all()
        drawn_from = negatives[c] // 64
        assert (drawn_from != c).all()
        assert (negatives[c] % 64 < method.miner.bank.fill[drawn_from]).all()


def test_measured_on_the_teacher_the_neighbors_train_nothing() -> None:
    for measured, alive in (("student", True), ("teacher", False)):
        method = make(Mona, measured=measured)
        step = stage(method, "contrast")
        step.step(batch(), 0.5)
        term = step.step(batch(seed=2), 0.5).terms["nearest"]
        assert term.item() > 0
        assert term.requires_grad is alive


def test_reliable_anchors_are_those_that_hard_ones_leave_out() -> None:
    method = make(Mona, anchors="reliable", weak_threshold=0.0)
    given = batch()
    with torch.no_grad():
        output = mining.forward_pair(method, given, 0.5)
        logits_t, _ = method.teacher(output.image)
        start, end = (method.miner.anchor_mask(output, logits_t, progress) for progress in (0.0, 1.0))
    labeled = len(start) // 2
    own_t = torch.softmax(logits_t, 1).gather(1, output.label.clamp_min(0)[:, None])[:, 0]
    unlabeled = start[labeled:].sum()
    assert 0 < unlabeled <= 0.2 * labeled + 1  # the lowest fifth of the entropies
    assert end[labeled:].sum() <= 1
    assert start[:labeled].sum() <= (own_t[:3] > 0.3).sum()


def weights_after(kind: type, **fields: Any) -> list[torch.Tensor]:
    method = make(kind, pretraining={"shares": (0.0, 0.0)}, weak_threshold=0.0, **fields)
    step = stage(method, "contrast")
    optimizer = torch.optim.SGD(step.trainable, 0.05, 0.9)
    for i in range(5):
        optimizer.zero_grad()
        step.step(batch(seed=i), i / 5).total.backward()
        optimizer.step()
        method.after_step()
    return [p.detach().clone() for p in method.student.parameters()]


def test_without_equivariance_mona_is_arco_with_naive_draws_step_for_step() -> None:
    ours, theirs = weights_after(Mona, equivariance_weight=0.0), weights_after(Arco, pixel_sampler="naive")
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    for other in (weights_after(Mona), weights_after(Arco), weights_after(Arco, pixel_sampler="antithetic")):
        assert not all(torch.equal(a, b) for a, b in zip(other, theirs, strict=True))


def test_the_equivariance_has_its_weight_at_once_or_ramps_up_over_a_share_of_the_stage() -> None:
    for ramp, expected in ((0.0, [2.0, 2.0, 2.0]), (0.4, [2 * math.exp(-5), 2 * math.exp(-5 / 4), 2.0])):
        step = stage(make(Mona, equivariance_weight=2.0, equivariance_ramp=ramp), "contrast")
        weights = [step.step(batch(), progress).weights["equivariance"] for progress in (0.0, 0.2, 0.4)]
        assert weights == pytest.approx(expected)


def test_the_released_equivariance_looks_at_sure_foreground_alone() -> None:
    """What the student says elsewhere does not count, no foreground is no loss, and one side learns."""
    method = make(Mona, pretraining={"shares": (0.0, 0.0)}, symmetric=False, everywhere=False)
    b = batch()
    everything = _teacher_student.forward_pair(method, b, 0.0)
    where, elsewhere = torch.zeros_like(everything.label), torch.zeros_like(everything.logits)
    where[:, :8], elsewhere[:, :, 16:] = 1, 9 * torch.rand_like(elsewhere[:, :, 16:])

    def term(label: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)  # the same motion
        return method.eval().equivariance(replace(everything, label=label, logits=logits))

    logits = everything.logits.detach().requires_grad_()
    found = term(where, logits)
    assert found > 0
    assert torch.equal(term(where, logits + elsewhere), found)
    for nothing in (0, IGNORE):
        assert term(torch.full_like(where, nothing), logits) == 0
    method.config = replace(method.config, everywhere=True)
    assert not torch.isclose(term(where, logits + elsewhere), term(where, logits))
    found.backward()
    assert logits.grad is None
    assert max(float(p.grad.abs().max()) for p in method.student.net.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize("kind", [Action, ActionPP, Mona, Arco])
@pytest.mark.parametrize("sampler", ["stratified", "antithetic", "released"])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_sampler_serves_every_method(kind: type, sampler: str, dims: int) -> None:
    method = make(kind, dims, pixel_sampler=sampler, weak_threshold=0.0)
    step = stage(method, "contrast")
    losses = step.step(batch(dims), 0.5)
    term = losses.terms["contrast" if "contrast" in losses.terms else "anco"]
    term.backward()
    assert max(float(p.grad.abs().max()) for p in method.student.net.parameters() if p.grad is not None) > 0


def test_a_sampler_of_arco_serves_mona_too() -> None:
    ours = weights_after(Mona, equivariance_weight=0.0, pixel_sampler="stratified")
    theirs = weights_after(Arco)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@PAIR
def test_the_profiles(kind: type) -> None:
    assert kind.Config.paper().positive == "student"
    official = kind.Config.official()
    assert official.pretraining.linear_heads
    assert (official.anchors, official.bank_rule, official.measured) == ("reliable", "rank", "teacher")
    if kind is Mona:
        assert not official.symmetric
        assert not official.everywhere
    assert kind.Config().pixel_sampler == {Mona: "naive", Arco: "stratified"}[kind]
