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
from anatolab.sampling import bin_pixels, sample_pixels
from anatolab.transforms import Affine
from tests.methods.small import STILL, batch, make, stage

PAIR = pytest.mark.parametrize("kind", [Mona, Arco])


def keys_of(anchor: torch.Tensor, keys: torch.Tensor) -> float:
    """Returns the contrast of one class's anchor with its own direction as positive, all keys as negatives."""
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
    images = method.miner.images  # ten batches of six fill it
    assert images.fill == len(images.rows.unique(dim=0)) == 36


RANK = {"bank_rule": "rank", "weak_threshold": 0.0}


@pytest.mark.parametrize("classes", [2, 3])
def test_a_bank_of_the_rank_rule_keeps_its_zero_row_and_pulls_to_the_class_mean(classes: int) -> None:
    """No pixel of up to three classes has three likelier ones: each anchor meets 512 zero rows, closed form 4.253."""
    method = with_classes(Mona, classes, num_negatives=512, key_views="strong", **RANK)
    for seed in range(10):
        losses = stage(method, "contrast").step(striped(classes, seed), 0.5)
    bank = method.miner.bank
    assert bank.fill.tolist() == [1] * classes
    assert bank.rows.abs().max() == 0
    term = losses.terms["contrast"]
    assert term.item() >= math.log(1 + 512 * math.exp(-2)) - 1e-4
    gradient = torch.autograd.grad(term, list(method.student.net.parameters()), allow_unused=True)
    assert max(float(g.abs().max()) for g in gradient if g is not None) > 0

    output = mining.forward_pair(method, striped(classes, 0), 0.5, read_labeled=False)
    means = torch.zeros(classes, 8)
    for c in range(classes):  # every pixel of a class looks the same: cosine 1 to its mean
        means[c, c] = 1
    same = replace(output, features=means[output.pixel_label], label_probability=torch.zeros(len(output.features)))
    loss, pool = method.miner.contrast(same, same.features, output.logits.detach(), 0.5)
    expected = math.log(1 + 512 * math.exp(-2)) * (pool.queried & pool.present).sum() / pool.present.sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)


def test_the_rank_rule_admits_uncertain_unlabeled_pixels_with_three_likelier_classes() -> None:
    method = with_classes(Mona, 4, **RANK)
    output = mining.forward_pair(method, striped(4, 0), 0.0, read_labeled=False)
    logits = torch.zeros_like(output.logits).scatter_(1, output.label.clamp_min(0)[:, None], -1.0)  # last
    likely = torch.zeros_like(logits).scatter_(1, output.label.clamp_min(0)[:, None], 1.0)
    keys = torch.randn(len(output.features), 8)
    method.miner.store(output, keys, likely, 0.0)
    assert method.miner.bank.fill.tolist() == [1] * 4
    method.miner.store(output, keys, logits, 0.0)
    admitted = torch.cat([rows[1:n] for rows, n in zip(method.miner.bank.rows, method.miner.bank.fill, strict=True)])
    number = torch.cdist(admitted, keys, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    half = len(keys) // 2
    assert (number >= half).all()  # no labeled pixel
    _, uncertain = method.miner.by_entropy(output, 0.0)
    assert uncertain[number].all()
    assert uncertain[half:].float().mean() == pytest.approx(0.2, abs=0.01)
    assert len(number) == len(number.unique()) > 0


def test_under_the_rank_rule_negatives_of_a_class_are_of_its_own_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    sampled: list[torch.Tensor] = []
    sample = mining.sample_negatives
    monkeypatch.setattr(mining, "sample_negatives", lambda *a: sampled.append(sample(*a)) or sampled[-1])
    for rule in ("rank", "class"):
        method = with_classes(Mona, 4, **{**RANK, "bank_rule": rule})
        method.miner.bank.fill.fill_(64)
        method.miner.bank.rows.normal_()
        stage(method, "contrast").step(striped(4, 0), 0.5)
        same = sampled[-1] // 64 == torch.arange(4)[:, None]
        assert same.all() if rule == "rank" else not same.any()


@PAIR
def test_rows_of_a_bank_are_keys_of_its_class_and_negatives_come_from_other_classes(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = with_classes(kind, 4)
    kept: list[Any] = []
    sample, forward_pair = mining.sample_negatives, mining.forward_pair
    monkeypatch.setattr(mining, "sample_negatives", lambda *a: kept.append(sample(*a)) or kept[-1])
    monkeypatch.setattr(mining, "forward_pair", lambda *a, **k: kept.append(forward_pair(*a, **k)) or kept[-1])
    stage(method, "contrast").step(striped(4, 0), 0.5)
    output, negatives = kept
    with torch.no_grad():
        keys = mining.flatten_pixels(output.views.mixed(method.teacher.net.pixel(output.views.teacher_maps)))[0]
    for c, (rows, fill) in enumerate(zip(method.miner.bank.rows, method.miner.bank.fill.tolist(), strict=True)):
        distance = torch.cdist(rows[:fill], keys, compute_mode="donot_use_mm_for_euclid_dist")
        assert distance.min(1).values.max() == 0
        nearest = output.pixel_label[distance.argmin(1)]
        assert (nearest == c).all()
        sampled_from = negatives[c] // 64
        assert (sampled_from != c).all()
        assert (negatives[c] % 64 < method.miner.bank.fill[sampled_from]).all()


def test_keys_of_strong_views_are_a_second_read_of_what_the_student_read() -> None:
    method = make(Mona, key_views="strong")
    images: list[torch.Tensor] = []
    method.teacher.net.net.net.register_forward_pre_hook(lambda m, args: images.append(args[0]))
    method.student.net.net.register_forward_pre_hook(lambda m, args: images.append(args[0]))
    stage(method, "contrast").step(batch(), 0.5)
    weak, student, again = images[:3]
    assert len(weak) == 3  # the unlabeled rows, for pseudo-labels
    assert torch.equal(student, again)


def test_measured_on_the_teacher_the_neighbors_train_nothing() -> None:
    for measured, alive in (("student", True), ("teacher", False)):
        method = make(Mona, measured=measured)
        step = stage(method, "contrast")
        step.step(batch(), 0.5)
        term = step.step(batch(seed=2), 0.5).terms["nearest"]
        assert term.item() > 0
        assert term.requires_grad is alive


def test_reliable_anchors_are_the_certain_pixels_which_alone_make_the_class_means() -> None:
    method = make(Mona, anchors="reliable", weak_threshold=0.0)
    given = batch()
    with torch.no_grad():
        output = mining.forward_pair(method, given, 0.5)
        logits_t, _ = method.teacher(output.image)
        (label, start), (_, end) = (method.miner.candidates(output, logits_t, progress) for progress in (0.0, 1.0))
    half = len(start) // 2
    probability = torch.softmax(logits_t, 1).gather(1, output.label.clamp_min(0)[:, None])[:, 0]
    assert 0 < start[half:].sum() <= 0.2 * half + 1  # the lowest fifth of the entropies
    assert end[half:].sum() <= 1
    assert start[:half].sum() <= (probability[:3] > 0.3).sum()
    assert (label[start & (output.pixel_label >= 0)] >= 0).all()
    assert (label[:half] == output.pixel_label[:half]).all()
    assert (label[half:] >= 0).float().mean() == pytest.approx(0.2, abs=0.01)


def test_anchors_pass_the_predictor_where_the_settings_say_so() -> None:
    for query in (True, False):
        method = make(Mona, query_predictor=query)
        step = stage(method, "contrast")
        step.step(batch(), 0.5)
        term = step.step(batch(seed=2), 0.5).terms["contrast"]
        weight = next(method.miner.predictor.parameters())
        assert (torch.autograd.grad(term, weight, allow_unused=True)[0] is not None) is query


def weights_after(kind: type, **fields: Any) -> list[torch.Tensor]:
    method = make(kind, weak_threshold=0.0, **fields)
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


def test_the_weight_of_the_equivariance_rises_linearly_or_is_there_at_once() -> None:
    for ramp, expected in ((0.0, [2.0, 2.0, 2.0]), (0.4, [0.0, 1.0, 2.0])):
        step = stage(make(Mona, equivariance_weight=2.0, ramp=ramp), "contrast")
        weights = [step.step(batch(), progress).weights["equivariance"] for progress in (0.0, 0.2, 0.4)]
        assert weights == pytest.approx(expected)


def pair(method: Any, given: Any = None) -> Any:
    return _teacher_student.forward_pair(method, given or batch(), 0.0)


def term(method: Any, output: Any, logits: torch.Tensor, **views: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)  # the same warp
    return method.eval().equivariance(replace(output, logits=logits, views=replace(output.views, **views)))


def test_the_released_equivariance_compares_confident_foreground_alone() -> None:
    """Predictions elsewhere do not count, no foreground is no loss, and one side learns."""
    method = make(Mona, augmentation=STILL)
    output = pair(method)
    views = output.views
    where, elsewhere = torch.zeros_like(views.pseudo_label), torch.zeros_like(output.logits)
    where[:, :8], elsewhere[:, :, 16:] = 1, 9 * torch.rand_like(elsewhere[:, :, 16:])
    confident = torch.full_like(views.confidence, 0.7)
    logits = output.logits.detach().requires_grad_()
    value = term(method, output, logits, pseudo_label=where, confidence=confident)
    assert value > 0
    assert torch.equal(term(method, output, logits + elsewhere, pseudo_label=where, confidence=confident), value)
    assert term(method, output, logits, pseudo_label=torch.zeros_like(where), confidence=confident) == 0
    assert term(method, output, logits, pseudo_label=where, confidence=confident - 0.01) == 0
    assert (
        term(method, output, logits, pseudo_label=where, confidence=confident, valid=torch.zeros_like(where) > 0) == 0
    )
    value.backward()
    assert logits.grad is None
    assert max(float(p.grad.abs().max()) for p in method.student.net.parameters() if p.grad is not None) > 0
    method.config = replace(method.config, everywhere=True)
    assert term(method, output, logits, pseudo_label=0 * where, confidence=confident) > 0


def test_labeled_rows_enter_the_equivariance_with_their_known_foreground() -> None:
    """With no confident pseudo-label the term is that of the annotation: 0 exactly where an image has none."""
    method = make(Mona, augmentation=STILL, equivariance_rows="all", strong_labeled=False)
    images: list[torch.Tensor] = []
    output = pair(method)
    method.student.net.net.register_forward_pre_hook(lambda m, args: images.append(args[0]))
    unsure = torch.zeros_like(output.views.confidence)
    logits = output.logits.detach()
    assert term(method, output, logits, confidence=unsure) > 0
    assert term(method, output, logits, confidence=unsure, label=torch.zeros_like(output.views.label)) == 0
    method.config = replace(method.config, equivariance_rows="unlabeled")
    assert term(method, output, logits, confidence=unsure) == 0
    assert [len(image) for image in images] == [6, 6, 3]


def test_the_released_warp_turns_by_60_degrees_scales_by_a_fifth_shifts_by_a_tenth_and_mirrors() -> None:
    warp = Affine.sample(torch.zeros(4_000, 1, 100, 100), Mona.Config.official().equivariance_warp)
    angle = torch.rad2deg(torch.atan2(-warp.matrix[:, 0, 1].abs(), warp.matrix[:, 0, 0].abs())).abs()
    assert 59 < angle.max() <= 60.01
    zoom = 1 / warp.matrix.det().abs().sqrt()
    assert (zoom.min(), zoom.max()) == pytest.approx((0.8, 1.2), abs=0.01)
    assert warp.shift.abs().max() == pytest.approx(10, abs=0.1)
    assert (warp.matrix.det() < 0).float().mean() == pytest.approx(0.5, abs=0.05)


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


def test_all_pixels_are_anchors_and_strata_are_cells_of_the_region_in_the_printed_arco() -> None:
    printed = Arco.Config.paper(updates=40, representation=16, representation_stride=2, bank=300, neighbor_cells=4)
    torch.manual_seed(0)
    method = Arco(light_unet(1, 3, width=4, depth=4), printed).train()
    output = pair(method)
    assert torch.equal(output.image, output.views.image)  # no strong view
    assert not output.views.mask.any()  # no CutMix
    label, anchors = method.miner.candidates(output, output.logits.detach(), 0.5)
    assert anchors.all()
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[0, 4:12, 4:12] = 1  # a region of 8 x 8: 16 cells of 2 x 2, one anchor of 16 in each
    sampled = sample_pixels(bin_pixels(labels, 2, grid=printed.grid), 16, printed.pixel_sampler)[1]
    cells = (sampled // 16 - 4) // 2 * 4 + (sampled % 16 - 4) // 2
    assert sorted(cells.tolist()) == list(range(16))
    assert (label >= 0).float().mean() > 0.5
