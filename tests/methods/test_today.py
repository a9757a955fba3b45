"""FixMatch, UniMatch, BCP and CPS: every term alive, closed forms, published settings, resuming, nothing waits."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anatolab.losses import confident_cross_entropy, confident_dice_loss, confident_pseudo_label_loss
from anatolab.methods import METHODS, Base, Bcp, Cps, FixMatch, UniMatch
from anatolab.methods._teacher_student import in_evaluation, unsupervised_loss, weak_views
from anatolab.methods.bcp import copy_paste
from anatolab.methods.cps import reinitialized
from anatolab.nn import NETWORKS, light_unet
from anatolab.training import Settings, train
from anatolab.types import IGNORE, InputError
from tests.methods.small import STILL, batch
from tests.syncs import Synchronizations
from tests.training import toy

NAMES = ("fixmatch", "unimatch", "bcp", "cps")
EACH = pytest.mark.parametrize("name", NAMES)
TERMS = {
    "fixmatch": ("ce", "dice", "unsup"),
    "unimatch": ("ce", "dice", "strong_1", "strong_2", "perturbed"),
    "bcp": ("ce", "dice", "unsup"),
    "cps": ("ce", "dice", "unsup", "ce_second", "dice_second", "unsup_second"),
}
SUPERVISED = ("ce", "dice", "ce_second", "dice_second")


def make(name: str, dims: int = 2, seed: int = 0, profile: str = "", **fields: Any) -> Any:
    """A method on a small U-Net, after its warm-up; recommended, or a profile such as ``paper``."""
    torch.manual_seed(seed)
    kind = METHODS[name]
    given = {"updates": 40, "labeled": 3, "unlabeled": 3, "ramp": 0.0, "ramp_updates": 0, **fields}
    config = getattr(kind.Config, profile)(**given) if profile else kind.Config(**given)
    return kind(light_unet(1, 3, spatial_dims=dims, width=4, depth=4), config).train()


def students(method: Any) -> list[nn.Parameter]:
    return [p for n, p in method.named_parameters() if n.startswith(("student.", "second."))]


# Every term


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("profile", ["", "paper"])
@EACH
def test_gradient_reaches_every_student_parameter_and_no_teacher(name: str, profile: str, dims: int) -> None:
    method, given = make(name, dims, profile=profile), batch(dims)
    for stage in method.stages():
        method.zero_grad()
        losses = stage.step(given, 0.5)
        assert all(bool(torch.isfinite(v)) for v in losses.terms.values())
        if stage.name == "train":
            assert tuple(sorted(losses.terms)) == tuple(sorted(TERMS[name]))
        losses.total.backward()
        for key, parameter in method.named_parameters():
            if key.startswith(("student.", "second.")):
                assert parameter.grad is not None, key
                assert parameter.grad.abs().max() > 0, key
            else:
                assert parameter.grad is None, key
        method.after_step()
    assert method.predict(given.image).shape == (6, 3, *given.image.shape[2:])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("network", ["stem_unet", "basic_unet"])
@EACH
def test_a_step_on_the_networks_of_the_sizes(name: str, network: str, channels: int) -> None:
    """The light U-Net is that of all other tests; a stem reads four times the channels of the image."""
    kind, given = METHODS[name], batch()
    given.image = given.image.repeat(1, channels, 1, 1)
    method = kind(NETWORKS[network](channels, 3), kind.Config(updates=40, labeled=3, unlabeled=3)).train()
    method.training_step(given, 0.5).total.backward()
    method.after_step()
    assert method.predict(given.image).shape == (6, 3, 32, 32)


@pytest.mark.parametrize(("name", "term"), [(name, term) for name in NAMES for term in TERMS[name]])
def test_each_term_alone_lowers_itself_in_50_steps(name: str, term: str) -> None:
    """The teacher stands still and disagrees, so that an unsupervised term is a plain regression."""
    method = make(name, augmentation=STILL, ema_decay=1.0, ema_warm_up=False, confidence_threshold=0.0)
    for part in (getattr(method, key, None) for key in ("teacher", "second_teacher")):
        if part is not None:
            part.net = reinitialized(part.net).requires_grad_(False)
    optimizer = torch.optim.Adam(students(method), 0.01)
    values = []
    given = batch()
    for _ in range(15):  # of the 50 that it may take
        value = method.training_step(given, 0.5).terms[term]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        method.after_step()
        values.append(value.item())
    assert sum(values[-5:]) < 0.8 * sum(values[:5]), values[::4]


@EACH
def test_every_unsupervised_term_moves_the_backbone(name: str) -> None:
    method = make(name)
    optimizer = torch.optim.Adam(students(method), 0.01)
    for seed in range(60):
        optimizer.zero_grad()
        method.training_step(batch(seed=seed), 0.5).total.backward()
        optimizer.step()
        method.after_step()
    losses = method.training_step(batch(seed=99), 0.5)
    assert losses.diagnostics["confident"] > 0.1

    def norm(value: Tensor) -> float:
        gradient = torch.autograd.grad(value, students(method), retain_graph=True, allow_unused=True)
        return torch.stack([g.norm() for g in gradient if g is not None]).norm().item()

    total = norm(losses.total)
    for term in set(TERMS[name]) - set(SUPERVISED):
        assert norm(losses.weights[term] * losses.terms[term]) > 1e-3 * total, term


@EACH
def test_unsupervised_terms_ramp_up_from_nothing(name: str) -> None:
    method = make(name, ramp=0.5)
    unsupervised = set(TERMS[name]) - set(SUPERVISED)
    weights = [method.training_step(batch(), progress).weights for progress in (0.0, 0.25, 0.5, 1.0)]
    for term in unsupervised:
        full = weights[-1][term]
        assert [w[term] for w in weights] == pytest.approx([0.0, full / 2, full, full])


# Closed forms


def weights_after(method: Any, steps: int = 5) -> list[Tensor]:
    optimizer = torch.optim.Adam(method.student.parameters(), 0.01)
    for seed in range(steps):
        torch.manual_seed(seed)
        optimizer.zero_grad()
        method.training_step(batch(seed=seed), 0.5).total.backward()
        optimizer.step()
        method.after_step()
    return [p.detach().clone() for p in method.student.parameters()]


@pytest.mark.parametrize(("other", "partner"), [("fixmatch", False), ("base", True)])
def test_with_one_stream_and_nothing_dropped_unimatch_is(other: str, partner: bool) -> None:
    shared = {"confidence_threshold": 0.4, "labeled_partner": partner}
    one = {"stream_weights": (1.0,), "perturbed_weight": 0.0}
    theirs = weights_after(make(other, **shared))
    ours = weights_after(make("unimatch", **shared, **one))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    both = weights_after(make("unimatch", **shared))
    assert not all(torch.equal(a, b) for a, b in zip(both, theirs, strict=True))


def test_fixmatch_and_the_base_differ_in_labeled_partners_alone() -> None:
    fields = {k: v for k, v in vars(FixMatch.Config()).items() if k != "pseudo_labels_from"}
    assert {k for k, v in vars(Base.Config()).items() if fields[k] != v} == {"labeled_partner"}


@pytest.mark.parametrize("profile", ["", "paper"])
@pytest.mark.parametrize("form", ["confident", "share_weighted", "cross_entropy", "dice"])
def test_fixmatch_without_a_confident_pixel_has_no_loss_at_all(form: str, profile: str) -> None:
    method = make("fixmatch", profile=profile, unsup=form, confidence_threshold=1.1)
    losses = method.training_step(batch(), 1.0)
    assert losses.terms["unsup"].item() == 0
    assert losses.diagnostics["confident"].item() == 0
    losses.terms["unsup"].backward()
    assert all(p.grad is None or not p.grad.any() for p in method.student.parameters())


def test_forms_of_the_pseudo_label_loss_on_a_quarter_of_confident_pixels() -> None:
    logits, label = torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
    confidence, valid = torch.tensor([[[0.99, 0.5], [0.5, 0.99]]]), torch.tensor([[[True, True], [True, False]]])
    given = logits, label, confidence, valid, 0.95
    dice = 1 - (2 * 0.25 / (0.25**2 + 1) + 0 + 0 + 0) / 4  # one pixel of class 0, a quarter sure of each class
    assert confident_cross_entropy(*given).item() == pytest.approx(math.log(4) / 3)
    assert confident_dice_loss(*given).item() == pytest.approx(dice, abs=1e-3)
    assert confident_pseudo_label_loss(*given).item() == pytest.approx(0.5 * math.log(4) + 0.5 * dice, abs=1e-3)


def test_the_streams_of_unimatch_are_mixed_apart_and_weigh_a_quarter_a_quarter_and_a_half() -> None:
    method = make("unimatch", confidence_threshold=0.0)
    losses = method.training_step(batch(), 1.0)
    assert {k: v for k, v in losses.weights.items() if k not in SUPERVISED} == {
        "strong_1": 0.25,
        "strong_2": 0.25,
        "perturbed": 0.5,
    }
    assert losses.terms["strong_1"].item() != losses.terms["strong_2"].item()
    halved = make("unimatch", profile="paper").training_step(batch(), 1.0).weights
    assert halved == {"ce": 0.25, "dice": 0.25, "strong_1": 0.125, "strong_2": 0.125, "perturbed": 0.25}


def test_features_are_dropped_of_the_weak_view_alone() -> None:
    """In evaluation mode rows do not meet, so each stream can be computed by itself."""
    terms = []
    for dropout in (0.0, 0.5):
        method = make("unimatch", augmentation=STILL, confidence_threshold=0.0, channel_dropout=dropout).eval()
        torch.manual_seed(1)
        terms.append(method.training_step(batch(), 1.0).terms)
    for name in ("ce", "dice", "strong_1", "strong_2"):
        assert terms[0][name].item() == pytest.approx(terms[1][name].item(), rel=1e-5)
    assert abs(terms[0]["perturbed"].item() - terms[1]["perturbed"].item()) > 1e-3
    weak = weak_views(method.teacher, batch(), method.config)
    logits, _ = method.student(weak.image[3:])
    assert terms[0]["perturbed"].item() == pytest.approx(
        unsupervised_loss(logits, weak, method.config).item(), rel=1e-5
    )


@pytest.mark.parametrize(("labeled", "unlabeled"), [(3, 3), (2, 5), (4, 1)])
@pytest.mark.parametrize("dims", [2, 3])
def test_inside_its_box_a_pasted_label_is_the_labeled_one(dims: int, labeled: int, unlabeled: int) -> None:
    method = make("bcp", dims)
    views = weak_views(method.teacher, batch(dims, labeled, unlabeled, side=32), method.config)
    pasted = copy_paste(views, 2 / 3)
    assert pasted.image.shape == views.image.shape
    for row in range(labeled + unlabeled):
        inward = row >= labeled
        partner = (row - labeled) % labeled if inward else labeled + (row + 1) % unlabeled
        i, j = (k if k < labeled else k - labeled for k in (row, partner))
        known = torch.where(views.valid, views.pseudo_label, IGNORE)
        annotation, pseudo = (views.label[j], known[i]) if inward else (views.label[i], known[j])
        annotated = pasted.annotated[row]
        assert torch.equal(pasted.label[row], torch.where(annotated, annotation, pseudo))
        box = annotated if inward else ~annotated
        assert torch.equal(pasted.image[row, 0], torch.where(box, views.image[partner, 0], views.image[row, 0]))
        assert bool((pasted.confidence[row][annotated] == 1).all())
        assert box.sum().item() == pytest.approx((32 * 2 / 3) ** dims, rel=0.1)
        for axis in range(dims):  # a box: its projections have as many pixels as its sides
            inside = box.any(tuple(a for a in range(dims) if a != axis))
            assert inside.sum().item() in (21, 22)


def test_the_losses_of_bcp_on_a_network_without_a_clue() -> None:
    """Cross-entropy is log 3 everywhere: two directions of half of 1 + alpha of it, as printed."""

    class Blank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, image: Tensor) -> Tensor:
            return self.weight.reshape(1, 3, 1, 1) * torch.ones_like(image)

    given = batch()
    for config, total in ((Bcp.Config(ramp_updates=0), 0.75), (Bcp.Config.paper(), 1.5)):
        config = type(config)(**{**vars(config), "confidence_threshold": 0.0, "unsup": "confident"})
        losses = Bcp(Blank(), config).train().training_step(given, 1.0)
        assert losses.terms["ce"].item() == pytest.approx(math.log(3), rel=1e-5)
        share = losses.weights["ce"] + 0.5 * losses.weights["unsup"]  # half of L_unsup is cross-entropy
        assert share == pytest.approx(total)


def test_the_teacher_of_bcp_starts_from_what_was_pre_trained() -> None:
    method = make("bcp", pretraining_share=0.25, ema_warm_up=False)
    first, second = method.stages()
    assert (first.name, first.updates, first.batch, second.updates, second.batch) == (
        "pretrain",
        10,
        (3, 0),
        30,
        (3, 3),
    )
    with torch.no_grad():
        for p in method.student.parameters():
            p.add_(1.0)
    trained = copy.deepcopy(method.student.state_dict())
    second.step(batch(), 0.0)
    assert all(torch.equal(v, trained[k]) for k, v in method.teacher.net.state_dict().items())
    assert [s.name for s in make("bcp").stages()] == ["train"]


@pytest.mark.parametrize("source", ["teacher", "student"])
def test_the_networks_of_cps_differ_and_each_learns_from_the_other_alone(source: str) -> None:
    method = make("cps", confidence_threshold=0.0, augmentation=STILL, pseudo_labels_from=source, labeled_partner=False)
    for (name, a), (_, b) in zip(method.student.named_parameters(), method.second.named_parameters(), strict=True):
        if a.ndim > 1:
            assert not torch.equal(a, b), name
    method.eval()  # so that a term of a network is a function of its weights and of the labels alone

    def terms() -> tuple[float, float]:
        result = method.training_step(batch(), 1.0)
        for term, network in (("unsup", method.second), ("unsup_second", method.student)):
            gradient = torch.autograd.grad(
                result.terms[term], list(network.parameters()), allow_unused=True, retain_graph=True
            )
            assert all(g is None for g in gradient)
        return result.terms["unsup"].item(), result.terms["unsup_second"].item()

    before = terms()
    first = method.teacher.net if source == "teacher" else method.student
    changed = reinitialized(first)
    if source == "teacher":
        method.teacher.net = changed.requires_grad_(False)
    else:
        method.student = changed
    after = terms()
    assert after[1] != before[1]  # the second network has other labels
    assert (after[0] == before[0]) is (source == "teacher")  # the first has the same labels


def test_a_second_network_needs_modules_that_can_start_anew() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

    with pytest.raises(InputError, match="'1' \\(Scale\\) has parameters but no reset_parameters"):
        Cps(nn.Sequential(nn.Conv2d(1, 2, 1), Scale()))


def test_a_student_that_labels_is_left_as_it_was() -> None:
    network = make("fixmatch").student
    network.model[0].eval()
    modes = [m.training for m in network.modules()]
    state = copy.deepcopy(network.state_dict())
    logits = in_evaluation(network, batch().image)
    assert not logits.requires_grad
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    assert torch.equal(logits, network.eval()(batch().image))


# Settings, training


PUBLISHED: dict[type, dict[str, Any]] = {  # of the released codes
    FixMatch: {"confidence_threshold": 0.95, "unsup_weight": 1.0, "ema_decay": 0.999, "unsup": "cross_entropy"},
    UniMatch: {"confidence_threshold": 0.95, "stream_weights": (0.25, 0.25), "perturbed_weight": 0.5, "unsup": "dice"},
    Bcp: {"confidence_threshold": 0.0, "box": 2 / 3, "updates": 40_000, "pretraining_share": 0.25, "ema_decay": 0.99},
    Cps: {"confidence_threshold": 0.0, "unsup_weight": 1.0, "unsup": "cross_entropy"},
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_settings(kind: Any) -> None:
    printed, recommended = kind.Config.paper(), kind.Config()
    assert {k: getattr(printed, k) for k in PUBLISHED[kind]} == PUBLISHED[kind]
    assert (printed.ramp_up(0.0), printed.labeled_partner, printed.ema_warm_up) == (1.0, False, False)
    if kind is not Bcp:
        assert (printed.pseudo_labels_from, recommended.pseudo_labels_from) == ("student", "teacher")
    for shared in ("confidence_threshold", "ema_decay", "unsup", "sup_weight", "ramp", "augmentation", "predict_with"):
        assert getattr(recommended, shared) == getattr(Base.Config(), shared)
    assert kind.Config.paper(labeled=5).labeled == 5


@pytest.mark.parametrize("profile", ["", "paper"])
@EACH
def test_no_step_waits_for_the_device(name: str, profile: str) -> None:
    method = make(name, profile=profile)
    for stage in method.stages():
        stage.step(batch(), 0.5).total.backward()
        with Synchronizations() as mode:
            stage.step(batch(seed=2), 0.5).total.backward()
            method.after_step()
        assert not mode.found, mode.found


class Stop(Exception):
    """Stands for a power cut."""


@pytest.mark.parametrize("dims", [2, 3])
@EACH
def test_a_run_killed_between_two_checkpoints_resumes_bitwise(name: str, dims: int, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"unlabeled": 2, "updates": 8, "confidence_threshold": 0.5, "dims": dims}
    fields |= {"pretraining_share": 0.25} if name == "bcp" else {}
    rows = toy.rows() if dims == 2 else toy.volumes()
    settings = Settings(accelerator="cpu", precision="32-true", checkpoint_every=5, log_every=1)
    whole, cut, resumed = (toy.method(name, seed=seed, **fields) for seed in (0, 0, 9))
    train(whole, rows, toy.SPLIT, settings, progress=False)
    after, steps = cut.after_step, 0

    def after_step() -> None:
        nonlocal steps
        steps += 1
        after()
        if steps == 7:
            raise Stop

    cut.after_step = after_step
    with pytest.raises(Stop):
        train(cut, rows, toy.SPLIT, settings, out=tmp_path, progress=False)
    assert train(resumed, rows, toy.SPLIT, settings, out=tmp_path, progress=False).finished
    state = resumed.state_dict()
    assert [k for k, v in whole.state_dict().items() if not torch.equal(v, state[k])] == []
