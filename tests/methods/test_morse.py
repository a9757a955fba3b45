"""MORSE: loss by loss, ramp, gradients, ablations, refinement in 2-D and 3-D, sliding windows, and resuming."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anatolab.inference import sliding_window
from anatolab.losses import cross_entropy, dice_loss
from anatolab.methods import Morse
from anatolab.metrics import evaluate_volume
from anatolab.nn import Concatenation, Experts, light_unet, point_labels, tap
from anatolab.schedules import late_ramp
from anatolab.training import Settings, train
from anatolab.transforms import Augmentation
from anatolab.types import IGNORE, Batch, InputError
from tests.syncs import Synchronizations
from tests.training import toy

STILL = Augmentation(rotate=0, scale=0, translate=0, flip=False, quarter_turns=False, strong_probability=0, mix="none")
SMALL: dict[str, Any] = {
    "updates": 40,
    "labeled": 2,
    "experts": 8,
    "fused": 8,
    "hidden": 8,
    "gate_stride": 4,
    "points": 128,
    "render_points": 128,
    "frequencies": 8,
    "head_width": 16,
    "augmentation": STILL,
}


def make(dims: int = 2, seed: int = 0, **fields: Any) -> Morse:
    torch.manual_seed(seed)
    return Morse(light_unet(1, 3, spatial_dims=dims, width=4, depth=3), Morse.Config(**{**SMALL, **fields})).train()


def batch(dims: int = 2, side: int = 32, seed: int = 1) -> Batch:
    """Bright discs (or balls) in which the brightness of two of them tells the class, on a darker ground."""
    generator = torch.Generator().manual_seed(seed)
    at = torch.stack(torch.meshgrid(*[torch.arange(side) + 0.5] * dims, indexing="ij"))
    label = torch.zeros(2, *[side] * dims, dtype=torch.long)
    for row in label:
        for c, radius in ((1, 0.3), (2, 0.17)):
            center = (0.4 + 0.2 * torch.rand(dims, generator=generator)) * side
            row[(at - center.reshape(-1, *[1] * dims)).square().sum(0).sqrt() < radius * side] = c
    image = label[:, None] / 3 + 0.05 * torch.rand(2, 1, *[side] * dims, generator=generator)
    return Batch(image.clamp(0, 1), label, 2)


def fit(method: Morse, given: Batch, steps: int, progress: float = 0.9, lr: float = 5e-3) -> list[dict[str, float]]:
    optimizer, found = torch.optim.Adam(method.parameters(), lr), []
    for _ in range(steps):
        losses = method.training_step(given, progress)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        found.append({k: v.item() for k, v in losses.terms.items()})
    return found


# Ramp and terms


def test_the_ramp_is_0_for_the_first_half_then_rises_to_one_half_an_eighth_on_average() -> None:
    assert [late_ramp(t) for t in (0.0, 0.5, 0.75, 1.0)] == [0.0, 0.0, 0.25, 0.5]
    assert sum(late_ramp(i / 10_000) for i in range(10_000)) / 10_000 == pytest.approx(0.125, abs=1e-4)
    method = make(render_weight=0.1)
    weights = [method.training_step(batch(), t).weights["render"] for t in (0.0, 0.5, 0.75, 0.99)]
    assert weights == pytest.approx([0.0, 0.0, 0.025, 0.049])
    assert make(ramp="constant").training_step(batch(), 0.0).weights["render"] == 1.0


def test_the_loss_is_half_of_cross_entropy_and_dice_with_squared_sums_and_the_rendered_cross_entropy() -> None:
    method, given = make().eval(), batch()
    losses = method.training_step(given, 0.9)
    logits = method.predict_coarse(given.image)
    soft, truth = logits.softmax(1), F.one_hot(given.label, 3).movedim(-1, 1).float()
    over = (0, 2, 3)
    dice = 1 - ((2 * (soft * truth).sum(over) + 1e-5) / ((soft**2).sum(over) + truth.sum(over) + 1e-5)).mean()
    assert losses.terms["dice"].item() == pytest.approx(dice.item(), abs=1e-5)
    assert losses.terms["ce"].item() == pytest.approx(F.cross_entropy(logits, given.label).item(), abs=1e-5)
    total = 0.5 * losses.terms["ce"] + 0.5 * losses.terms["dice"] + 0.4 * losses.terms["render"]
    assert losses.total.item() == pytest.approx(total.item(), abs=1e-6)
    assert dice_loss(100.0 * (truth - 0.5), given.label).item() == pytest.approx(0, abs=1e-5)
    assert cross_entropy(torch.zeros(2, 3, 9), torch.ones(2, 9, dtype=torch.long)).item() == pytest.approx(math.log(3))


def test_with_dice_in_the_rendering_loss_half_of_it_is_the_dice_of_the_points(monkeypatch: pytest.MonkeyPatch) -> None:
    points, given = torch.rand(2, 128, 2), batch()
    monkeypatch.setattr("anatolab.methods.morse.training_points", lambda *_, **__: points)
    plain, both = (make(render_dice=flag).eval() for flag in (False, True))
    logits, maps = both.student(given.image)
    soft, label = both.student.renderer(logits, maps)(points).softmax(1), point_labels(given.label, points)
    truth = F.one_hot(label, 3).movedim(-1, 1).float()
    dice = 1 - (2 * (soft * truth).sum((0, 2)) / ((soft**2).sum((0, 2)) + truth.sum((0, 2)))).mean()
    ce = plain.training_step(given, 0.9).terms["render"]
    assert ce.item() == pytest.approx(F.nll_loss(soft.log(), label).item(), abs=1e-5)
    assert both.training_step(given, 0.9).terms["render"].item() == pytest.approx((ce + dice).item() / 2, abs=1e-5)


def test_while_the_ramp_is_0_heads_are_not_run_and_their_statistics_stand_still() -> None:
    method = make()
    before = {k: v.clone() for k, v in method.student.fusion.state_dict().items()}
    ran: list[nn.Module] = []
    for part in (*method.student.fusion.modules(), *method.student.head.modules()):
        part.register_forward_hook(lambda m, *_: ran.append(m))
    losses = method.training_step(batch(), 0.4)
    assert not ran
    assert losses.terms["render"].item() == 0
    losses.total.backward()
    heads = [
        *method.student.fusion.parameters(),
        *method.student.head.parameters(),
        *method.student.encoding.parameters(),
    ]
    assert all(p.grad is not None and not p.grad.any() for p in heads)  # several processes wait for each of them
    assert all(torch.equal(before[k], v) for k, v in method.student.fusion.state_dict().items())
    method.training_step(batch(), 0.6)
    assert ran
    assert any(not torch.equal(before[k], v) for k, v in method.student.fusion.state_dict().items())


def test_maps_that_overflow_while_the_ramp_is_0_do_not_turn_the_loss_into_nan() -> None:
    method, given = make(), batch()
    logits, maps = method.student(given.image)
    method.student.forward = lambda image: (logits, [m * math.inf for m in maps])  # type: ignore[method-assign]
    losses = method.training_step(given, 0.0)
    assert torch.isfinite(losses.total)
    assert not torch.isfinite(0.0 * method.training_step(given, 0.9).terms["render"])  # a weight of 0 would not do


@pytest.mark.parametrize("dims", [2, 3])
def test_every_parameter_gets_gradient_once_the_ramp_rises_whatever_is_dropped(dims: int) -> None:
    method = make(dims)
    for _ in range(4):
        method.zero_grad()
        losses = method.training_step(batch(dims, 16), 0.9)
        assert all(torch.isfinite(v) for v in losses.terms.values())
        losses.total.backward()
        assert [n for n, p in method.student.named_parameters() if p.grad is None] == []
    assert method.predict(batch(dims, 16).image).shape == (2, 3, *[16] * dims)


def test_the_rendering_loss_trains_the_backbone_through_features_and_coarse_logits() -> None:
    method = make()
    weights = list(method.student.parameters())
    fit(method, batch(), 20)
    losses = method.training_step(batch(), 0.9)
    term = losses.weights["render"] * losses.terms["render"]
    alone = torch.autograd.grad(term, weights, retain_graph=True)
    whole = torch.autograd.grad(losses.total, weights)
    norm = [torch.stack([g.norm() for g in gradient]).norm() for gradient in (alone, whole)]
    assert norm[0] > 1e-3 * norm[1]
    logits, maps = method.student(batch().image)
    points = torch.rand(2, 30, 2)
    for through in (logits, maps[-1]):
        rendered = method.student.renderer(logits, maps)(points)
        assert torch.autograd.grad(rendered.sum(), through, retain_graph=True)[0].abs().sum() > 0


@pytest.mark.parametrize("term", ["ce", "dice", "render"])
def test_each_term_alone_lowers_itself_in_50_steps(term: str) -> None:
    method, given = make(), batch()
    optimizer, values = torch.optim.Adam(method.parameters(), 5e-3), []
    for _ in range(50):
        value = method.training_step(given, 0.9).terms[term]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert sum(values[-5:]) < 0.8 * sum(values[:5]), values[::7]


def test_labels_of_unlabeled_rows_and_pixels_to_ignore_are_not_read() -> None:
    method, given = make().eval(), batch()
    halved = given.label.clone()
    halved[:, :, 16:] = IGNORE
    found = []
    for other in (given.label, 2 - given.label):
        label = torch.where(halved == IGNORE, IGNORE, given.label)
        torch.manual_seed(4)
        found.append(method.training_step(Batch(given.image, label, 2), 0.9).total.item())
        extra = Batch(torch.cat([given.image, given.image]), torch.cat([given.label, other]), 2)
        torch.manual_seed(4)
        found.append(method.training_step(extra, 0.9).total.item())
    assert found[0] == found[2]
    assert found[1] == found[3]


# Ablations and profiles


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("encoding", ["none", "fixed", "trainable"])
@pytest.mark.parametrize("fusion", ["concat", "dense", "stochastic"])
def test_every_row_of_the_ablation_trains_and_predicts(fusion: str, encoding: str, dims: int) -> None:
    method, given = make(dims, fusion=fusion, encoding=encoding), batch(dims, 16)
    method.training_step(given, 0.9).total.backward()
    assert isinstance(method.student.fusion, Concatenation if fusion == "concat" else Experts)
    if isinstance(method.student.fusion, Experts):
        kept = {tuple(method.student.fusion.mask().tolist()) for _ in range(30)}
        assert (len(kept) > 1) is (fusion == "stochastic")
    coarse, refined = method.eval().predict_both(given.image)
    assert coarse.shape == refined.shape == (2, 3, *[16] * dims)
    assert (len(list(method.student.encoding.parameters())) == 1) is (encoding == "trainable")


def test_without_rendering_it_is_the_supervised_backbone() -> None:
    method = make(render=False)
    assert {n.split(".")[0] for n, _ in method.student.named_parameters()} == {"net"}
    losses = method.training_step(batch(), 0.9)
    assert set(losses.terms) == {"ce", "dice"}
    image = batch().image
    coarse, refined = method.eval().predict_both(image)
    assert torch.equal(coarse, refined)
    assert torch.equal(method.predict(image), method.teacher.net.net.net(image))


def test_a_router_adds_its_balance_loss() -> None:
    losses = make(router=2).training_step(batch(), 0.9)
    assert losses.weights["balance"] == 0.01
    assert losses.terms["balance"].item() >= 0
    assert "balance" not in make().training_step(batch(), 0.9).terms


def test_widths_are_the_released_ones_where_none_is_given() -> None:
    for dims, d, out, hidden in ((2, 256, 256, 256), (3, 64, 64, 32)):
        fusion = Morse(light_unet(1, 3, spatial_dims=dims, width=4, depth=3)).student.fusion
        assert isinstance(fusion, Experts)
        assert (fusion.head[0].in_channels, fusion.head[0].out_channels, fusion.head[5].out_channels) == (
            d,
            hidden,
            out,
        )


def test_unverified_values_of_the_paper_must_be_given() -> None:
    with pytest.raises(InputError, match="drop and render_weight and sigma of the paper"):
        Morse.Config.paper()
    with pytest.raises(InputError, match="MORSE: sigma of"):
        Morse.Config.paper(drop=0.7, render_weight=0.1)
    config = Morse.Config.paper(drop=0.7, render_weight=0.1, sigma=1.0)
    assert (config.mask, config.encoding, config.drop) == ("bernoulli", "trainable", 0.7)


def test_what_the_released_code_does_is_switched_on_by_its_profile() -> None:
    small = {k: v for k, v in SMALL.items() if k != "frequencies"}
    method = Morse(light_unet(1, 3, width=4, depth=3), Morse.Config.official(**small)).eval()
    image = batch().image
    coarse, refined = method.predict_both(image)
    assert not torch.equal(coarse, refined)
    assert torch.equal(method.predict(image), coarse)  # the coarse output is scored
    assert not list(method.student.encoding.parameters())
    assert 0 <= method.student.encoding.frequencies.min() < method.student.encoding.frequencies.max() < 1
    logits, maps = method.student(image)
    border = torch.full((2, 1, 2), 0.0)
    faded = method.student.renderer(logits, maps)(border)
    method.student.config = replace(method.config, padding="border")
    assert not torch.allclose(method.student.renderer(logits, maps)(border), faded)  # of the coarse logits alone, here


def test_a_backbone_trained_alone_before_is_a_stage_of_its_own() -> None:
    method = make(pretrain=0.5)
    first, second = method.stages()
    assert (first.name, first.updates, second.name, second.updates) == ("backbone", 20, "train", 20)
    assert first.trainable is method.student.net
    assert set(first.step(batch(), 0.9).terms) == {"ce", "dice"}
    assert [s.name for s in make().stages()] == ["train"]
    assert [s.name for s in make(render=False, pretrain=0.5).stages()] == ["train"]


# Prediction


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("passes", [1, 2])
def test_only_the_rendered_pixels_change_and_in_3d_they_lie_in_all_slices(dims: int, passes: int) -> None:
    method = make(dims, render_points=200, passes=passes, head_init="torch").eval()
    with torch.no_grad():
        coarse, refined = method.predict_both(batch(dims, 16).image)
    changed = (coarse != refined).any(1)
    per_image = changed.flatten(1).sum(1)
    if passes == 1:
        assert per_image.tolist() == [200, 200]
    assert per_image.max() <= 200 * passes
    if dims == 3:
        assert int((changed.sum((2, 3)) > 0).sum(1).min()) > 8


def test_prediction_is_deterministic_and_every_image_of_a_batch_has_its_own_points() -> None:
    method = make().eval()
    with torch.no_grad():
        image = batch().image
        together = method.predict(image)
        assert torch.equal(together, method.predict(image))
        alone = torch.cat([method.predict(image[:1]), method.predict(image[1:])])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_more_pixels_to_render_than_there_are_renders_all() -> None:
    method = make(render_points=10_000, passes=1).eval()
    with torch.no_grad():
        image = batch().image
        logits, maps = method.student(image)
        from anatolab.nn import pixel_centers

        everywhere = pixel_centers(torch.arange(1024).expand(2, -1), (32, 32))
        rendered = method.student.renderer(logits, maps)(everywhere).unflatten(2, (32, 32))
        torch.testing.assert_close(method.predict(image), rendered, atol=1e-4, rtol=1e-4)


def test_it_works_inside_a_sliding_window_where_the_coarse_output_is_reachable_too() -> None:
    method = make(3).eval()
    volume = batch(3, 24).image[0]
    refined = sliding_window(method.predict, volume, (16, 16, 16))
    coarse = sliding_window(method.predict_coarse, volume, (16, 16, 16))
    assert refined.shape == coarse.shape == (3, 24, 24, 24)
    torch.testing.assert_close(refined.sum(0), torch.ones(24, 24, 24))
    changed = (refined - coarse).abs().amax(0) > 1e-6
    assert int((changed.sum((1, 2)) > 0).sum()) == 24  # in every slice, window by window


@pytest.mark.parametrize("dims", [2, 3])
def test_rendered_boundaries_beat_coarse_ones_after_some_hundred_steps(dims: int) -> None:
    """A backbone whose logits come from stride 4 blurs what its own features at stride 1 could tell."""

    class Blurred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            conv = nn.Conv2d if dims == 2 else nn.Conv3d
            self.fine, self.down, self.out = (conv(1, 8, 3, padding=1), conv(8, 12, 4, stride=4), conv(12, 3, 1))

        def forward(self, image: Tensor) -> Tensor:
            mode = "bilinear" if dims == 2 else "trilinear"
            coarse = self.down(self.fine(image).relu()).relu()
            return F.interpolate(self.out(coarse), image.shape[2:], mode=mode, align_corners=False)

    torch.manual_seed(0)
    side, points = (32, 256) if dims == 2 else (16, 512)
    tapped = tap(Blurred(), ["down", "fine"], spatial_dims=dims, size=16)
    method = Morse(
        tapped, Morse.Config(**{**SMALL, "points": points, "render_points": points, "predict_with": "student"})
    ).train()
    given = batch(dims, side)
    fit(method, given, 250 if dims == 2 else 200, lr=1e-2)
    method.eval()
    with torch.no_grad():
        found = [z.argmax(1).numpy().astype("uint8") for z in method.predict_both(given.image)]
    truth = given.label.numpy().astype("uint8")
    names = ("ground", "outer", "inner")
    if dims == 2:
        values = [evaluate_volume(p, truth, names, None) for p in found]
    else:
        values = [evaluate_volume(p[0], truth[0], names, None) for p in found]
    for organ in names[1:]:
        coarse, refined = (v[organ] for v in values)
        assert refined["dice"] > coarse["dice"], (organ, coarse, refined)
        assert refined["hd95"] <= coarse["hd95"], (organ, coarse, refined)
        assert refined["assd"] < coarse["assd"], (organ, coarse, refined)


def test_metrics_at_the_edges_are_those_a_table_relies_on() -> None:
    box = torch.zeros(4, 12, 12, dtype=torch.uint8)
    box[1:3, 3:8, 3:8] = 1
    one, names = box.numpy(), ("ground", "organ")
    assert evaluate_volume(one, one, names, None)["organ"]["dice"] == 1
    assert evaluate_volume(one, one, names, None)["organ"]["hd95"] == 0
    empty = 0 * one
    missed = evaluate_volume(empty, one, names, None)["organ"]
    assert missed["dice"] == 0
    assert math.isnan(missed["hd95"])  # the released code scores a perfect 0 here
    assert math.isnan(evaluate_volume(empty, empty, names, None)["organ"]["dice"])
    moved = torch.roll(box, 2, 2).numpy()
    voxels, mm = (evaluate_volume(moved, one, names, s)["organ"]["hd95"] for s in (None, (1.0, 1.0, 3.0)))
    assert mm > voxels == 2


# Training


def test_no_step_asks_the_device() -> None:
    for fields in ({}, {"mask": "bernoulli"}, {"router": 2}, {"fusion": "concat"}, {"spacing": (1.0, 2.0)}):
        method, given = make(**fields), batch()
        with Synchronizations() as counted:
            for progress in (0.2, 0.9):
                method.training_step(given, progress).total.backward()
                method.after_step()
        assert not counted.found, (fields, counted.found)


def test_the_state_holds_the_encoding_and_a_resumed_run_is_bitwise_equal(tmp_path: Path) -> None:
    whole = toy.method("morse", updates=8)
    settings = Settings(accelerator="cpu", checkpoint_every=5, log_every=1)
    train(whole, toy.rows(), toy.SPLIT, settings, out=tmp_path / "whole", progress=False)

    class Stop(Exception):
        """Stands for a power cut."""

    cut, steps = toy.method("morse", updates=8), 0
    follow = cut.after_step

    def after_step() -> None:
        nonlocal steps
        follow()
        steps += 1
        if steps == 7:
            raise Stop

    cut.after_step = after_step  # type: ignore[method-assign]
    with pytest.raises(Stop):
        train(cut, toy.rows(), toy.SPLIT, settings, out=tmp_path / "cut", progress=False)
    resumed = toy.method("morse", updates=8, seed=9)
    assert not torch.equal(resumed.student.encoding.frequencies, whole.student.encoding.frequencies)
    run = train(resumed, toy.rows(), toy.SPLIT, settings, out=tmp_path / "cut", progress=False)
    assert run.finished
    assert [k for k, v in whole.state_dict().items() if not torch.equal(v, resumed.state_dict()[k])] == []
    assert "student.encoding.frequencies" in whole.state_dict()
    assert {line["render"] == 0 for line in run.log} == {True, False}  # both halves of the ramp


def test_a_run_on_volumes_learns() -> None:
    method = toy.method("morse", updates=40, dims=3, ramp="constant")
    settings = Settings(accelerator="cpu", log_every=1, lr=0.05)
    run = train(method, toy.volumes(foreground=1.0), toy.SPLIT, settings, progress=False)
    mean = [sum(line[k] for line in run.log[part] for k in ("ce", "render")) for part in (slice(5), slice(-5, None))]
    assert mean[1] < 0.9 * mean[0]
