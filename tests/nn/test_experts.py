"""Experts: gates, masks and mixing against their closed forms and the literal dense form; the router beside them."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anatolab.nn import (
    Concatenation,
    ExpertMask,
    Experts,
    Router,
    fused_map,
    pixel_centers,
    squared_variation,
)
from anatolab.types import InputError

CHANNELS, STRIDES = (8, 6, 4), (4, 2, 1)
MODES = {2: "bilinear", 3: "trilinear"}


def maps(dims: int = 2, side: int = 16, b: int = 2) -> list[Tensor]:
    return [torch.randn(b, c, *[side // s] * dims) for c, s in zip(CHANNELS, STRIDES, strict=True)]


def make(dims: int = 2, **fields) -> Experts:
    return Experts(CHANNELS, STRIDES, 8, 10, dims=dims, **fields)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# Shapes of the released code


@pytest.mark.parametrize(
    ("channels", "strides", "expected"),
    [((256, 128, 64, 32, 16), (16, 8, 4, 2, 1), 3_615_754), ((512, 256, 32), (8, 4, 1), 2_377_222)],
)
def test_as_many_parameters_as_the_released_fusion(channels, strides, expected: int) -> None:
    assert count(Experts(channels, strides)) == expected


@pytest.mark.parametrize("dims", [2, 3])
def test_points_only_equal_the_literal_dense_form_at_pixel_centers(dims: int) -> None:
    fusion, found = make(dims).eval(), maps(dims)
    full = [16] * dims

    def up(map_: Tensor) -> Tensor:
        return F.interpolate(map_, full, mode=MODES[dims], align_corners=False)

    each = [up(expert(map_)) for expert, map_ in zip(fusion.experts, found, strict=True)]
    gate = fusion.gate(torch.cat(each, 1)).softmax(1)
    mixed = sum(gate[:, n, None] * f for n, f in enumerate(each))
    dense = fusion.head(mixed.flatten(2)).unflatten(2, full)
    fused = fusion(found)
    torch.testing.assert_close(fused_map(fusion, fused, full), dense, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fused_map(fusion, fused, full, chunk=37), dense, atol=1e-5, rtol=1e-4)
    index = torch.randperm(16**dims)[:50].expand(2, -1)
    at = fusion.sample(fused, pixel_centers(index, full))
    torch.testing.assert_close(at, dense.flatten(2).gather(2, index[:, None].expand(-1, 10, -1)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_a_coarser_gate_still_gives_every_point_weights_of_sum_1(dims: int, stride: int) -> None:
    fusion = make(dims, gate_stride=stride).eval()
    fused = fusion(maps(dims))
    assert fused.gate.shape == (2, 3, *[16 // stride] * dims)
    everywhere = F.interpolate(fused.gate, [16] * dims, mode=MODES[dims], align_corners=False)
    torch.testing.assert_close(everywhere.sum(1), torch.ones(2, *[16] * dims), atol=1e-5, rtol=0)
    assert fusion.sample(fused, torch.rand(2, 30, dims)).shape == (2, 10, 30)


def test_grids_that_do_not_divide_are_resized_all_the_same() -> None:
    fusion = make(gate_stride=4).eval()
    fused = fusion([torch.randn(1, 8, 4, 3), torch.randn(1, 6, 7, 6), torch.randn(1, 4, 14, 11)])
    assert fused.gate.shape[2:] == (3, 2)
    assert torch.isfinite(fusion.sample(fused, torch.rand(1, 9, 2))).all()


# Gates


def test_gates_are_not_negative_and_sum_to_1_before_masking() -> None:
    fusion = make().train()
    fused = fusion(maps(), keep=torch.tensor([1.0, 0.0, 1.0]))
    assert fused.gate.min() >= 0
    torch.testing.assert_close(fused.gate.sum(1), torch.ones(2, 16, 16))
    assert bool((fused.weights[:, 1] == 0).all())


def test_equal_experts_are_fused_to_that_expert_and_a_single_one_has_weight_1() -> None:
    fusion = make().eval()
    fused = fusion(maps())
    same = torch.randn(2, 8, 16, 16)
    points = torch.rand(2, 40, 2)
    equal = type(fused)([same] * 3, fused.gate, fused.weights, fused.keep)
    alone = type(fused)([same], torch.ones(2, 1, 4, 4), torch.ones(2, 1, 4, 4), torch.ones(1))
    torch.testing.assert_close(fusion.sample(equal, points), fusion.sample(alone, points), atol=1e-5, rtol=1e-4)
    single = Experts((4,), (1,), 8, 10).eval()
    assert torch.equal(single([torch.randn(2, 4, 8, 8)]).weights, torch.ones(2, 1, 8, 8))


def test_a_gate_mixes_convexly_between_the_smallest_and_the_largest_expert() -> None:
    fusion = make().eval()
    fusion.head = torch.nn.Sequential()
    found = maps()
    fused, points = fusion(found), torch.rand(2, 100, 2)
    from anatolab.nn import point_sample

    each = torch.stack([point_sample(m, points) for m in fused.maps])
    mixed = fusion.sample(fused, points)
    assert bool((mixed >= each.amin(0) - 1e-5).all())
    assert bool((mixed <= each.amax(0) + 1e-5).all())


def test_a_logit_of_2_against_four_zeros_gets_65_percent() -> None:
    split = torch.tensor([2.0, 0, 0, 0, 0]).softmax(0)
    assert split.tolist() == pytest.approx([0.65, 0.09, 0.09, 0.09, 0.09], abs=0.005)
    fusion = make().train()
    logits = fusion.gate(torch.cat([torch.randn(2, 8, 16, 16)] * 3, 1))
    assert logits.min() >= 0  # the last ReLU is there before the softmax


# Masks


@pytest.mark.parametrize(
    ("experts", "strategy", "fields", "kept"),
    [
        (5, "uniform_count", {"most": 4}, 0.600),
        (3, "uniform_count", {"most": 2}, 0.667),
        (5, "uniform_count", {}, 0.600),
        (5, "dense", {}, 1.0),
    ],
)
def test_the_mean_share_kept_is_the_expected_one(experts: int, strategy, fields, kept: float) -> None:
    mask = ExpertMask(experts, strategy, **fields)
    draws = torch.stack([mask() for _ in range(4000)])
    assert set(draws.unique().tolist()) <= {0.0, 1.0}
    assert draws.sum(1).min() >= 1
    assert draws.mean().item() == pytest.approx(kept, abs=0.012)
    assert mask.expected == pytest.approx(kept, abs=0.001)
    assert draws.mean(0).tolist() == pytest.approx([kept] * experts, abs=0.03)  # no expert is preferred


@pytest.mark.parametrize("drop", [0.3, 0.7])
def test_bernoulli_is_what_drawing_again_where_none_is_left_gives(drop: float) -> None:
    mask, trials = ExpertMask(3, "bernoulli", drop=drop), 4000
    found = Counter(tuple(mask().int().tolist()) for _ in range(trials))
    literal: Counter[tuple[int, ...]] = Counter()
    while literal.total() < trials:
        draw = tuple((torch.rand(3) >= drop).int().tolist())
        literal[draw] += any(draw)
    assert (0, 0, 0) not in found
    for outcome, n in literal.items():
        assert found[outcome] / trials == pytest.approx(n / trials, abs=0.035)
    # Without drawing again, all of N experts vanish on drop^N of the steps: 34 % of N = 3, 17 % of N = 5 at 0.7.
    assert pytest.approx((0.343, 0.168, 0.027, 0.0024), abs=5e-4) == (0.7**3, 0.7**5, 0.3**3, 0.3**5)


def test_every_number_of_dropped_experts_is_as_likely() -> None:
    mask = ExpertMask(5)
    dropped = Counter(int(5 - mask().sum()) for _ in range(5000))
    assert sorted(dropped) == [0, 1, 2, 3, 4]
    assert all(n == pytest.approx(1000, abs=110) for n in dropped.values())


def test_settings_that_could_drop_all_are_refused() -> None:
    for fields in ({"most": 3}, {"drop": 1.0}, {"strategy": "some"}):
        with pytest.raises(InputError, match="keep at least one"):
            ExpertMask(3, **fields)
    with pytest.raises(InputError, match=r"rescale must be .* not 'half'"):
        make(rescale="half")


def test_evaluation_is_deterministic_and_keeps_all_experts_while_training_draws_one_mask_for_all() -> None:
    fusion, found = make(), maps()
    fusion.eval()
    one, two = fusion(found), fusion(found)
    assert torch.equal(one.keep, torch.ones(3))
    assert torch.equal(one.weights, two.weights)
    assert torch.equal(one.weights, one.gate)
    fusion.train()
    seen = set()
    for _ in range(60):
        fused = fusion(found)
        zero = fused.weights == 0
        assert torch.equal(zero.flatten(2).all(2), zero.flatten(2).any(2))  # the same for all pixels
        assert torch.equal(zero[0].flatten(1).any(1), zero[1].flatten(1).any(1))  # and images
        seen.add(tuple(fused.keep.tolist()))
    assert len(seen) == 7  # all but none


def test_what_is_kept_is_rescaled_as_asked() -> None:
    found, keep = maps(), torch.tensor([1.0, 0.0, 1.0])
    plain, renorm, inverted = (make(rescale=r).train() for r in ("none", "renorm", "inverted"))
    for other in (renorm, inverted):
        other.load_state_dict(plain.state_dict())
    a, b, c = (fusion(found, keep) for fusion in (plain, renorm, inverted))
    assert bool((a.weights.sum(1) < 1).all())  # in training the sum is less than in evaluation
    torch.testing.assert_close(b.weights.sum(1), torch.ones(2, 16, 16))
    torch.testing.assert_close(b.weights, a.weights / (1 - a.gate[:, 1:2]))
    torch.testing.assert_close(c.weights, a.weights / (2 / 3))
    mean = torch.stack([inverted(found).weights.mean() for _ in range(600)]).mean()
    assert mean.item() == pytest.approx(1 / 3, abs=0.02)  # as in evaluation, on average


def test_a_dropped_expert_says_nothing_but_still_moves_the_gate() -> None:
    fusion, found, points = make().train(), maps(), torch.rand(2, 30, 2)
    fusion.head[4].p = 0.0
    keep = torch.tensor([1.0, 0.0, 1.0])
    fused = fusion(found, keep)
    out = fusion.sample(fused, points)
    spoiled = type(fused)([m + 100 * (n == 1) for n, m in enumerate(fused.maps)], fused.gate, fused.weights)
    torch.testing.assert_close(fusion.sample(spoiled, points), out)  # its values are not read
    through = torch.autograd.grad(out.square().sum(), fusion.experts[1][0].weight)[0]
    assert through.abs().max() > 0  # but the gate looks at it
    frozen = fusion(found, keep)
    cut = type(frozen)(frozen.maps, frozen.gate, frozen.weights.detach(), frozen.keep)
    no = torch.autograd.grad(fusion.sample(cut, points).square().sum(), fusion.experts[1][0].weight)[0]
    assert no.abs().max() == 0


# Concatenation


def test_concatenation_is_the_released_climb_of_residual_layers_as_one_linear_map() -> None:
    found, points = maps(), torch.rand(2, 40, 2)
    fusion = Concatenation(CHANNELS, 10)
    step = [torch.randn(c, c) / c for c in (8, 14)]
    last = torch.randn(10, 18)
    # Climbing: x <- x + A x, resize, join the next map; all linear in a pixel, so resizing may come first.
    full = [F.interpolate(m, [16, 16], mode="bilinear", align_corners=False).flatten(2) for m in found]
    x = full[0]
    for a, following in zip(step, full[1:], strict=True):
        x = torch.cat([x + a @ x, following], 1)
    climbed = last @ x
    whole = torch.eye(18)
    for a in step:
        lift = torch.eye(18)
        lift[: len(a), : len(a)] += a
        whole = lift @ whole
    with torch.no_grad():
        fusion.linear.weight.copy_((last @ whole)[:, :, None])
    torch.testing.assert_close(fused_map(fusion, fusion(found), [16, 16]).flatten(2), climbed, atol=1e-3, rtol=1e-4)
    assert fusion.sample(fusion(found), points).shape == (2, 10, 40)


# Router


def test_a_router_chooses_k_experts_and_is_quiet_in_evaluation() -> None:
    router = Router(6, 5, 2, 2)
    torch.nn.init.normal_(router.choose.weight)
    x = torch.randn(3, 6, 8, 8)
    router.eval()
    gate, _ = router(x)
    assert torch.equal((gate > 0).sum(1), torch.full((3, 8, 8), 2))
    torch.testing.assert_close(gate.sum(1), torch.ones(3, 8, 8))
    assert torch.equal(gate, router(x)[0])
    best = router.choose(x).topk(2, 1)
    torch.testing.assert_close(gate.gather(1, best.indices), best.values.softmax(1))
    router.train()
    noisy = router(x)[0]
    assert torch.equal((noisy > 0).sum(1), torch.full((3, 8, 8), 2))
    assert not torch.equal(noisy, router(x)[0])


def test_variation_is_0_for_equal_amounts_and_n_minus_1_where_one_has_all() -> None:
    assert squared_variation(torch.full((5,), 3.0)).item() == 0
    assert squared_variation(torch.tensor([0.0, 0, 9, 0, 0])).item() == pytest.approx(4)
    one_hot = Router(1, 5, 1, 2).eval()
    with torch.no_grad():
        one_hot.choose.weight[2] = 10.0
    assert one_hot(torch.ones(1, 1, 8, 8))[1].item() == pytest.approx(4)


def test_the_load_is_the_chance_of_each_expert_to_be_among_the_k_best_of_a_new_draw() -> None:
    router = Router(4, 4, 2, 2).train().requires_grad_(False)
    torch.nn.init.normal_(router.choose.weight, std=0.5)
    x = torch.randn(1, 4, 1, 1)
    clean = router.choose(x)[0, :, 0, 0]
    scale = math.log(2) + 1e-2
    noisy = clean + torch.randn(4) * scale
    chance = []
    for i in range(4):  # literally: the k-th largest of the other noisy logits, and a new draw of this one
        bar = torch.cat([noisy[:i], noisy[i + 1 :]]).sort(descending=True).values[1]
        chance.append(0.5 * (1 + math.erf(float((clean[i] - bar) / scale) / math.sqrt(2))))
    best = noisy.topk(3)
    own = torch.where(noisy >= best.values[1], best.values[2], best.values[1])
    assert torch.special.ndtr((clean - own) / scale).tolist() == pytest.approx(chance, abs=1e-5)
    torch.manual_seed(5)
    gate, balance = router(x)
    torch.manual_seed(5)
    again = clean + torch.randn(1, 4, 1, 1)[0, :, 0, 0] * scale
    top = again.topk(3)
    bars = torch.where(again >= top.values[1], top.values[2], top.values[1])
    load = torch.special.ndtr((clean - bars) / scale)
    expected = squared_variation(gate[0, :, 0, 0]) + squared_variation(load)
    torch.testing.assert_close(balance, expected, atol=1e-4, rtol=1e-4)


def test_the_balance_loss_of_a_router_spreads_the_load() -> None:
    router = Router(3, 4, 1, 2).train()
    with torch.no_grad():
        router.choose.weight[0] = 1.0  # one expert takes nearly all
    x = torch.rand(2, 3, 12, 12)
    optimizer = torch.optim.SGD(router.parameters(), 0.05)
    values = []
    for _ in range(80):
        _, balance = router(x)
        optimizer.zero_grad()
        balance.backward()
        optimizer.step()
        values.append(balance.item())
    assert values[-1] < 0.3 * values[0]


@pytest.mark.parametrize("dims", [2, 3])
def test_a_router_takes_the_gates_place_behind_a_flag(dims: int) -> None:
    fusion = make(dims, router=2, gate_stride=2).train()
    fused = fusion(maps(dims))
    assert isinstance(fusion.gate, Router)
    assert fused.balance is not None
    assert fusion.sample(fused, torch.rand(2, 9, dims)).shape == (2, 10, 9)
    assert make(dims)(maps(dims)).balance is None
    with pytest.raises(InputError, match="cannot choose 4"):
        make(dims, router=4)
