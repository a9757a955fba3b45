"""The methods on frozen features: known special cases, what each looks at, and what training leaves untouched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anatolab.losses import calibration_loss
from anatolab.robust import (
    Afr,
    Best,
    Cfr,
    Cnc,
    ContrastiveAdapter,
    Dfr,
    ErmLinearProbe,
    ErmProjection,
    FeatureSet,
    GroupDro,
    Jtt,
    Sgd,
    Start,
    WiseFt,
    ZeroShot,
    calibration_set,
    nearest_negatives,
    predict,
)
from anatolab.robust._fit import balanced, batches, draw_distinct, embed, logistic
from anatolab.types import InputError

SHORT = Sgd(epochs=2, batch=64)
pytestmark = pytest.mark.filterwarnings("ignore:CFR. the calibration set")


def short(start: Start, select: str = "val_worst_class") -> list[Any]:
    """Every method with a recipe of seconds, selecting by a rule."""
    cfr = Cfr.Config(erm=SHORT, sgd=SHORT, select=select, num_positives=4, num_negatives=4)
    return [
        ZeroShot(start),
        ErmProjection(start, ErmProjection.Config(SHORT, select)),
        ErmLinearProbe(start, ErmLinearProbe.Config((0.1,))),
        Dfr(start, Dfr.Config(refits=2, strengths=(0.1,))),
        GroupDro(start, GroupDro.Config(SHORT, select=select)),
        Jtt(start, Jtt.Config(SHORT, SHORT, select=select)),
        Afr(start, Afr.Config(SHORT, steps=20, select=select)),
        Cnc(start, Cnc.Config(SHORT, SHORT, steps=4, select=select)),
        ContrastiveAdapter(start, ContrastiveAdapter.Config(sgd=SHORT, num=8, select=select)),
        WiseFt(start, WiseFt.Config(SHORT)),
        Cfr(start, cfr),
    ]


def weights(head: torch.nn.Module) -> Tensor:
    return torch.cat([v.flatten().float() for v in head.state_dict().values()])


NAMES = [type(m).__name__ for m in short(Start(torch.nn.Identity(), torch.zeros(2, 2), 1.0))]
GROUP_FREE = [n for n in NAMES if n not in ("Dfr", "GroupDro")]


def test_the_declared_labels_are_those_of_the_literature(small) -> None:
    said = {type(m).__name__: (m.sees_in_training, m.sees_in_selection) for m in short(small.start)}
    assert said["ZeroShot"] == ((), ())
    assert said["WiseFt"] == (("y",), ())
    assert said["GroupDro"][0] == said["Dfr"][0] == ("y", "group")
    assert all(said[name][0] == ("y",) for name in ("ErmProjection", "Jtt", "Afr", "Cnc", "ContrastiveAdapter", "Cfr"))
    assert Cfr(small.start, Cfr.Config(select="val_worst_group")).sees_in_selection == ("y", "group")
    assert Cfr(small.start).sees_in_selection == ("y",)
    assert Cfr(small.start, Cfr.Config(reference="erm_best")).sees_in_selection == ("y", "group")


@pytest.mark.parametrize("index", [NAMES.index(name) for name in GROUP_FREE], ids=GROUP_FREE)
@pytest.mark.parametrize("select", ["val_worst_class", "val_average", "last"])
def test_an_attribute_of_noise_changes_no_weight_of_what_is_declared_free_of_groups(small, index, select) -> None:
    """Groups are replaced by noise in training, and in validation as well where selection is declared free of them."""
    one, two = short(small.start, select)[index], short(small.start, select)[index]
    noise = torch.Generator().manual_seed(9)
    strange = torch.randint(4, small.train.y.shape, generator=noise)
    val = FeatureSet(small.val.h, small.val.y, torch.randint(4, small.val.y.shape, generator=noise))
    assert "group" not in one.sees_in_training + one.sees_in_selection
    first = one.fit(small.train.h, small.train.y, small.train.groups, small.generator(), small.val)
    second = two.fit(small.train.h, small.train.y, strange, small.generator(), val)
    assert torch.equal(weights(first), weights(second))


@pytest.mark.parametrize("index", [NAMES.index("Dfr"), NAMES.index("GroupDro")], ids=["Dfr", "GroupDro"])
def test_the_same_noise_changes_the_weights_of_methods_that_see_groups(small, index: int) -> None:
    noise = torch.Generator().manual_seed(9)
    val = FeatureSet(small.val.h, small.val.y, torch.randint(4, small.val.y.shape, generator=noise))
    strange = torch.randint(4, small.train.y.shape, generator=noise)
    first = small.fit(short(small.start)[index])
    second = short(small.start)[index].fit(small.train.h, small.train.y, strange, small.generator(), val)
    assert not torch.equal(weights(first), weights(second))


@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_training_leaves_everything_but_its_own_head_as_it_was(small, index: int) -> None:
    model, start = copy.deepcopy(small.clip.model.state_dict()), copy.deepcopy(small.start)
    one, two = (small.fit(short(small.start)[index]) for _ in range(2))
    assert torch.equal(weights(one), weights(two))  # the same seed, the same draws
    assert all(torch.equal(v, small.clip.model.state_dict()[k]) for k, v in model.items())
    assert torch.equal(start.text, small.start.text)
    assert torch.equal(weights(start.projection), weights(small.start.projection))
    assert one.logits(small.test.h).shape == (120, 2)


def test_training_a_resnet_changes_no_statistic_of_its_batch_norms(small_rn) -> None:
    before = copy.deepcopy(small_rn.clip.model.state_dict())
    sgd = Sgd(epochs=1, batch=64, lr=1e-3)
    head = ErmProjection(small_rn.start, ErmProjection.Config(sgd)).fit(small_rn.train.h, small_rn.train.y)
    assert any("running_mean" in key for key in before)
    assert all(torch.equal(v, small_rn.clip.model.state_dict()[k]) for k, v in before.items())
    trained = sum(p.numel() for p in head.parameters() if p.requires_grad)
    assert trained == sum(p.numel() for p in small_rn.clip.model.visual.attnpool.parameters())


# --- what methods share ------------------------------------------------------------------------------------------


def test_zero_shot_is_the_nearest_prompt(small) -> None:
    z = embed(small.start, small.test.h)
    assert torch.equal(predict(small.fit(ZeroShot(small.start)), small.test.h), (z @ small.start.text).argmax(1))


def test_group_prompts_score_a_class_by_its_best_prompt(small) -> None:
    prompts = [f"{c} on {a}" for c in ("finch", "duck") for a in ("land", "water")]
    start = Start(small.start.projection, small.clip.text_head(prompts), 1.0)
    head = ZeroShot(start, ZeroShot.Config(attributes=2)).fit(small.train.h, small.train.y)
    plain = embed(start, small.test.h) @ start.text
    expected = torch.stack([plain[:, :2].amax(1), plain[:, 2:].amax(1)], 1)
    torch.testing.assert_close(head.logits(small.test.h), expected)


def test_draws_are_distinct_of_the_pool_and_uniform() -> None:
    pool = torch.arange(10, 22)
    drawn = draw_distinct(pool, 4000, 5, torch.Generator().manual_seed(0))
    assert (drawn.sort(1).values.diff(dim=1) > 0).all()
    assert set(drawn.flatten().tolist()) == set(pool.tolist())
    repeated = torch.cat([draw_distinct(pool, 20, 5, torch.Generator().manual_seed(s)) for s in range(200)])
    share = torch.bincount(repeated.flatten(), minlength=22)[10:] / repeated.numel()
    assert (share - 1 / 12).abs().max() < 0.01


def test_balanced_rows_are_as_many_of_each_group_as_of_the_smallest() -> None:
    groups = torch.tensor([0] * 9 + [1] * 4 + [3] * 6)
    rows = balanced(groups, torch.Generator().manual_seed(0))
    assert torch.bincount(groups[rows]).tolist() == [4, 4, 0, 4]
    assert len(rows.unique()) == 12


def test_an_epoch_shows_each_row_once_and_leaves_out_the_last_part() -> None:
    parts = list(batches(130, 32, torch.Generator().manual_seed(0)))
    assert [len(p) for p in parts] == [32, 32, 32, 32]
    assert len(torch.cat(parts).unique()) == 128
    assert [len(p) for p in batches(20, 32, None)] == [20]


@pytest.mark.parametrize(
    ("rule", "kept"), [("val_worst_group", 1), ("val_worst_class", 2), ("val_average", 0), ("last", 2)]
)
def test_each_rule_keeps_the_head_that_it_should(rule: str, kept: int) -> None:
    """Three heads whose right answers are written down; groups (y, a) have 8, 1, 2 and 1 rows."""
    y = torch.tensor([0] * 9 + [1] * 3)
    groups = torch.tensor([0] * 8 + [1] + [2] * 2 + [3])
    answers = torch.stack([y.clone() for _ in range(3)])
    answers[0, [8]] = 1  # 11 of 12 right; class 0 8/9, class 1 3/3; group 1 none
    answers[1, :4] = 1  # 8 of 12 right; class 0 5/9; group 0 half
    answers[2, [8]] = 1  # as head 0
    rows = FeatureSet(torch.arange(12), y, groups)

    class Table(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("answer", torch.zeros(12, dtype=torch.long))

        def logits(self, h: Tensor) -> Tensor:
            return F.one_hot(self.answer[h], 2).float()

    if rule == "val_worst_class":
        answers[0, 9] = 0  # class 1 2/3
        answers[1, 9:11] = 0  # class 1 1/3
    best, head = Best(rule, rows), Table()
    for answer in answers:
        head.answer = answer
        best.offer(head)
    best.restore(head)
    assert best.epoch == kept
    assert torch.equal(head.answer, answers[kept])


def test_the_head_before_training_counts_in_the_selection(small) -> None:
    bad = Sgd(epochs=2, batch=64, lr=1e4)
    head = small.fit(ErmProjection(small.start, ErmProjection.Config(bad, "val_average")))
    assert torch.equal(weights(head.projection), weights(small.start.projection))


def test_labels_that_a_rule_needs_and_does_not_get_are_said(small) -> None:
    bare = FeatureSet(small.val.h, small.val.y)
    with pytest.raises(InputError, match="val_worst_group' needs groups on validation"):
        GroupDro(small.start).fit(small.train.h, small.train.y, small.train.groups, None, bare)
    with pytest.raises(InputError, match="needs validation rows"):
        Cfr(small.start).fit(small.train.h, small.train.y)
    with pytest.raises(InputError, match="GroupDRO needs the group of each training row"):
        GroupDro(small.start).fit(small.train.h, small.train.y, None, None, small.val)
    with pytest.raises(InputError, match="DFR needs validation rows with their groups"):
        Dfr(small.start).fit(small.train.h, small.train.y, None, None, bare)


# --- special cases -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "end"), [(0.0, "zero"), (1.0, "erm")])
def test_wise_ft_has_zero_shot_and_erm_as_its_ends(small, alpha: float, end: str) -> None:
    head = small.fit(WiseFt(small.start, WiseFt.Config(SHORT, alpha)))
    erm = small.fit(ErmProjection(small.start, ErmProjection.Config(SHORT)))
    torch.testing.assert_close(weights(head), weights(erm if end == "erm" else small.start.head()), rtol=0, atol=1e-6)


def test_jtt_without_extra_copies_is_erm(small) -> None:
    jtt = small.fit(Jtt(small.start, Jtt.Config(SHORT, SHORT, extra=0, select="last")))
    assert torch.equal(weights(jtt), weights(small.fit(ErmProjection(small.start, ErmProjection.Config(SHORT)))))


def test_jtt_counts_each_error_of_its_first_stage_one_and_extra_times(small, monkeypatch) -> None:
    import anatolab.robust.jtt as module

    seen: list[Tensor | None] = []
    inner = module.train_projection

    def spy(start, h, y, settings, best, generator, rows=None):
        seen.append(rows)
        return inner(start, h, y, settings, best, generator, rows)

    monkeypatch.setattr(module, "train_projection", spy)
    small.fit(Jtt(small.start, Jtt.Config(SHORT, SHORT, extra=3)))
    count = torch.bincount(seen[1])
    first = small.fit(ErmProjection(small.start, ErmProjection.Config(SHORT)))
    wrong = predict(first, small.train.h) != small.train.y
    assert seen[0] is None
    assert wrong.any()
    assert torch.equal(count, 1 + 3 * wrong.long())


def test_dfr_with_one_refit_is_one_logistic_regression_on_balanced_rows(small) -> None:
    head = small.fit(Dfr(small.start, Dfr.Config(refits=1, strengths=(0.3,))))
    generator = small.generator()
    torch.randperm(len(small.val.y), generator=generator)  # the halves, drawn though there is nothing to tune
    at = balanced(small.val.groups, generator)
    z, z_val = embed(small.start, small.train.h), embed(small.start, small.val.h)
    z_val = (z_val - z.mean(0)) / z.std(0)
    weight, bias = logistic(z_val[at], small.val.y[at], 0.3, penalty="l1")
    torch.testing.assert_close(head.weight, weight)
    torch.testing.assert_close(head.bias, bias)


def test_dfr_averages_coefficients(small) -> None:
    two = small.fit(Dfr(small.start, Dfr.Config(refits=2, strengths=(0.3,))))
    generator = small.generator()
    torch.randperm(len(small.val.y), generator=generator)
    z, z_val = embed(small.start, small.train.h), embed(small.start, small.val.h)
    z_val = (z_val - z.mean(0)) / z.std(0)
    fits = []
    for _ in range(2):
        at = balanced(small.val.groups, generator)
        fits.append(logistic(z_val[at], small.val.y[at], 0.3, penalty="l1")[0])
    torch.testing.assert_close(two.weight, (fits[0] + fits[1]) / 2)


def test_dfr_on_training_rows_needs_and_uses_their_groups(small) -> None:
    method = Dfr(small.start, Dfr.Config(on="training", refits=2, strengths=(1.0, 0.1)))
    assert small.score(small.fit(method), small.val)["worst"] > 0.5
    with pytest.raises(InputError, match="DFR on training rows needs the group"):
        method.fit(small.train.h, small.train.y, None, small.generator(), small.val)


def test_dfr_on_training_rows_tunes_its_strength_by_the_worst_group_and_weighs_classes_alike(small) -> None:
    def fitted(*strengths: float) -> Any:
        config = Dfr.Config(on="training", refits=1, strengths=strengths)
        return small.fit(Dfr(small.start, config))

    alone = {c: small.score(fitted(c), small.val)["worst"] for c in (1.0, 1e-4)}
    assert alone[1.0] > alone[1e-4]  # so strong a penalty leaves one class
    torch.manual_seed(0)
    assert small.score(fitted(1e-4, 1.0), small.val)["worst"] > alone[1e-4]


def test_an_l1_penalty_takes_more_than_two_classes_one_against_the_rest() -> None:
    z = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    y = z[:, :3].argmax(1)
    weight, bias = logistic(z, y, 10.0, penalty="l1")
    assert (weight.shape, bias.shape) == ((3, 4), (3,))
    assert ((z @ weight.T + bias).argmax(1) == y).double().mean() > 0.95
    assert weight[:, 3].abs().max() < 0.2 * weight[:, :3].abs().max()


def test_the_second_direction_of_cnc_contrasts_a_positive_with_easy_negatives(small, monkeypatch) -> None:
    """Labels are written into the features, so that the loss sees whose features it is given."""
    import anatolab.robust.cnc as module

    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def spy(z, near, far, tau, *, joint):
        calls.append((z.detach().argmax(-1), near.detach().argmax(-1), far.detach().argmax(-1)))
        return calibration_loss(z, near, far, tau, joint=joint)

    monkeypatch.setattr(module, "calibration_loss", spy)
    y = torch.arange(200) % 2
    shown = torch.where(torch.arange(200) < 40, 1 - y, y)  # what the feature, and with it the first model, says
    start = Start(torch.nn.Linear(2, 2, bias=False), torch.eye(2), 5.0)
    torch.nn.init.eye_(start.projection.weight)
    config = Cnc.Config(Sgd(epochs=0), Sgd(epochs=1, batch=8, lr=0.0), num=5, easy=3, steps=2, select="last")
    Cnc(start, config).fit(F.one_hot(shown, 2).float(), y, None, small.generator())
    assert len(calls) == 4
    for (anchor, positive, hard), (second, like_anchor, easy) in zip(calls[::2], calls[1::2], strict=True):
        assert (positive == 1 - anchor[:, None]).all()  # of the anchor's class, taken for the other
        assert (hard == anchor[:, None]).all()  # of the other class, taken for the anchor's
        assert torch.equal(second, positive[:, 0])
        assert (like_anchor == anchor[:, None]).all()
        assert (easy == 1 - anchor[:, None]).all()  # of the other class, and taken for it
        assert (like_anchor.shape[1], easy.shape[1]) == (5, 3)


def test_afr_stays_with_its_first_stage_where_it_is_held_there(small) -> None:
    first = Afr.Config(SHORT, steps=20, select="last")
    order = torch.randperm(600, generator=small.generator())
    free = small.fit(Afr(small.start, first))
    held = small.fit(Afr(small.start, Afr.Config(SHORT, steps=20, select="last", stay=1e3, lr=1e-5)))
    generator = small.generator()
    torch.randperm(600, generator=generator)
    from anatolab.robust._fit import train_projection

    erm = train_projection(small.start, small.train.h, small.train.y, SHORT, Best("last", None), generator, order[:480])
    assert (weights(held) - weights(erm)).norm() < 1e-3
    assert (weights(free) - weights(erm)).norm() > 1e-2


def test_cnc_without_errors_to_contrast_says_so(small) -> None:
    y = predict(small.start.head(), small.train.h)  # labels that the model gets right from the start
    idle = Cnc.Config(Sgd(epochs=0), SHORT)
    with pytest.raises(InputError, match="makes no errors to contrast"):
        Cnc(small.start, idle).fit(small.train.h, y, None, small.generator(), small.val)


# --- CFR ---------------------------------------------------------------------------------------------------------


def test_the_calibration_set_is_exactly_what_the_reference_gets_wrong(small) -> None:
    sets = calibration_set(small.start.head(), small.train.h, small.train.y)
    wrong = predict(small.start.head(), small.train.h) != small.train.y
    assert torch.equal(sets.anchors, torch.nonzero(wrong).flatten())
    for k, rows in enumerate(sets.correct):
        assert (small.train.y[rows] == k).all()
        assert not wrong[rows].any()
        assert (small.train.y[sets.other[k]] != k).all()
    assert len(sets.anchors) + sum(len(rows) for rows in sets.correct) == 600


def test_nearest_negatives_equal_a_search_one_by_one(small) -> None:
    z, y = embed(small.start, small.train.h), small.train.y
    anchors = torch.tensor([3, 77, 140, 599])
    found = nearest_negatives(z, y, anchors, 5)
    for row, near in zip(anchors, found, strict=True):
        cosine = [(-float(z[row] @ z[j]), int(j)) for j in range(600) if y[j] != y[row]]
        assert [j for _, j in sorted(cosine)[:5]] == near.tolist()


@pytest.mark.parametrize("negative", ["nearest", "random", "same_class_as_released"])
@pytest.mark.parametrize("positive", ["samples", "centroid"])
def test_every_positive_is_of_the_anchors_class_and_every_negative_of_another(
    small, negative: str, positive: str, monkeypatch
) -> None:
    """Labels are written into the features, so that the loss sees whose features it is given."""
    import anatolab.robust.cfr as module

    seen = []

    def spy(z, near, far, tau):
        seen.append((z.detach().argmax(-1), near.detach().argmax(-1), far.detach().argmax(-1)))
        return calibration_loss(z, near, far, tau)

    monkeypatch.setattr(module, "calibration_loss", spy)
    y = small.train.y
    h = F.one_hot(y, 2).float() + 0.05 * torch.randn(600, 2, generator=small.generator())
    given = y.clone()
    start = Start(torch.nn.Linear(2, 2, bias=False), torch.eye(2), 5.0)
    torch.nn.init.eye_(start.projection.weight)
    h[:40] = 1 - h[:40]  # rows that the reference gets wrong; their feature says the other class
    config = Cfr.Config(
        reference="zero_shot", negative=negative, positive=positive, select="last", sgd=Sgd(epochs=1, lr=0.0)
    )
    method = Cfr(start, config)
    method.fit(h, given, None, small.generator())
    assert method.calibration.anchors.tolist() == list(range(40))
    for anchor, near, far in seen:
        own = 1 - anchor[:, None]  # the class of an anchor is the one its feature does not show
        assert (near == own).all()
        assert near.shape[1] == (1 if positive == "centroid" else 16)
        shown_right = (far == 1 - own).float().mean()
        # A negative may itself be one of the 40; all others show their class.
        if negative == "same_class_as_released":
            assert shown_right < 0.2
        elif negative == "random":
            assert shown_right > 0.85


def test_positives_are_drawn_anew_at_each_step_and_the_seed_fixes_them(small) -> None:
    config = Cfr.Config(reference="zero_shot", select="last", sgd=SHORT)
    one, two = (small.fit(Cfr(small.start, config), seed=0) for _ in range(2))
    three = small.fit(Cfr(small.start, config), seed=1)
    assert torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(three))


@pytest.mark.parametrize("holistic", ["cross_entropy", "cosine", "targeted", "none"])
@pytest.mark.parametrize("reference", ["zero_shot", "erm_last", "erm_best"])
def test_every_reference_and_every_form_of_the_holistic_term_trains(small, holistic: str, reference: str) -> None:
    config = Cfr.Config(reference=reference, holistic=holistic, erm=SHORT, sgd=SHORT, select="last")
    head = small.fit(Cfr(small.start, config))
    assert torch.isfinite(weights(head)).all()
    assert not torch.equal(weights(head), weights(small.start.head()))


def test_the_released_profile_runs_and_differs_from_the_recommended_one(small) -> None:
    official = Cfr.Config.official(erm=SHORT, sgd=SHORT)
    assert (official.temperature, official.negative, official.holistic) == (1.0, "same_class_as_released", "targeted")
    assert Cfr(small.start, official).start.scale == pytest.approx(14.2857, abs=1e-3)
    assert torch.isfinite(weights(small.fit(Cfr(small.start, official)))).all()


def test_the_printed_profile_refuses_to_guess() -> None:
    with pytest.raises(InputError, match="temperature, positive, negative, holistic, select could not be read"):
        Cfr.Config.paper(sgd=SHORT)


@pytest.mark.parametrize(
    "switch",
    [
        {"schedule": True},
        {"dropout": 0.3},
        {"balance_classes": True},
        {"max_anchors": 5},
        {"search": "feature"},
        {"refresh": 1, "sgd": Sgd(epochs=3, batch=64, lr=0.1)},
        {"temperature": 0.5},
        {"scale": 14.3},
        {"ce_weight": 0.0},
        {"cal_weight": 0.0},
    ],
    ids=lambda s: next(iter(s)),
)
def test_each_switch_has_an_effect(small, switch: dict[str, Any]) -> None:
    base = {"reference": "zero_shot", "select": "last", "sgd": switch.get("sgd", SHORT), "num_negatives": 4}
    torch.manual_seed(0)
    one = small.fit(Cfr(small.start, Cfr.Config(**base)))
    torch.manual_seed(0)
    two = small.fit(Cfr(small.start, Cfr.Config(**{**base, **switch})))
    assert not torch.equal(weights(one), weights(two))


@pytest.mark.parametrize("alone", ["ce_weight", "cal_weight", "holistic_weight"])
def test_each_term_alone_lowers_itself(small, alone: str, monkeypatch) -> None:
    import anatolab.robust.cfr as module

    seen: list[float] = []
    inner = module.descend

    def spy(head, settings, losses, best, clip=float("inf")):
        def watched(epoch):
            for loss in losses(epoch):
                seen.append(loss.item())
                yield loss

        return inner(head, settings, watched, best)

    monkeypatch.setattr(module, "descend", spy)
    off = {"ce_weight": 0.0, "cal_weight": 0.0, "holistic_weight": 0.0} | {alone: 1.0}
    config = Cfr.Config(reference="zero_shot", select="last", sgd=Sgd(epochs=7, batch=64, lr=1e-3), **off)
    small.fit(Cfr(small.start, config))
    assert len(seen) == 63
    assert sum(seen[-9:]) < 0.98 * sum(seen[:9])


def test_the_calibration_loss_of_a_vit_does_not_know_the_length_of_a_feature(small) -> None:
    p, h = small.start.projection, small.train.h
    parts = [h[:4], h[4:12].view(4, 2, -1), h[12:24].view(4, 3, -1)]
    one = calibration_loss(*(p(x) for x in parts), 0.1)
    torch.testing.assert_close(one, calibration_loss(*(p(7 * x) for x in parts), 0.1))


def test_a_reference_that_leaves_nothing_to_calibrate_is_said(small) -> None:
    right = predict(small.start.head(), small.train.h)
    with pytest.raises(InputError, match="makes no error in training"):
        calibration_set(small.start.head(), small.train.h, right)
    with pytest.raises(InputError, match="gets no row of class 0 right"):
        calibration_set(small.start.head(), small.train.h, 1 - right)


@pytest.mark.filterwarnings("default:CFR. the calibration set")
def test_few_anchors_or_a_class_without_any_are_warned_of(small) -> None:
    y = predict(small.start.head(), small.train.h)
    first = torch.nonzero(y == 0).flatten()[:3]
    y[first] = 1  # three rows of class 1 that look like class 0
    method = Cfr(small.start, Cfr.Config(reference="zero_shot", select="last", sgd=Sgd(epochs=1, batch=64)))
    with pytest.warns(UserWarning, match="has 3 anchors, none of class 0"):
        method.fit(small.train.h, y, None, small.generator())
