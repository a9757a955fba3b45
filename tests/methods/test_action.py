"""ACTION, ACTION++, MONA, ARCO: every term alive, teacher without gradient, nothing waits, switches."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from anatolab.methods import Action, ActionPP, Arco, Mona
from anatolab.types import IGNORE, Batch
from tests.methods.small import STAGED, STILL, batch, make, stage
from tests.syncs import Synchronizations

EACH = pytest.mark.parametrize("kind", [Action, ActionPP, Mona, Arco])


@EACH
@pytest.mark.parametrize("dims", [2, 3])
def test_every_stage_reaches_all_that_it_trains_and_nothing_of_the_teacher(kind: type, dims: int) -> None:
    method, given = make(kind, dims, STAGED, weak_threshold=0.0), batch(dims)
    for step in method.stages():
        for _ in range(2):  # the first meets an empty bank
            method.zero_grad()
            losses = step.step(given, 0.5)
            losses.total.backward()
            method.after_step()
        assert all(bool(torch.isfinite(v)) for v in losses.terms.values())
        trained = {id(p) for p in step.trainable}
        for name, p in method.named_parameters():
            if id(p) in trained:
                assert p.grad is not None, (step.name, name)
                assert p.grad.abs().max() > 0, (step.name, name)
            elif not name.startswith("student.") or step.name != "contrast":
                assert p.grad is None or step.name == "global", (step.name, name)
            if name.startswith("teacher."):
                assert p.grad is None, name
    assert method.predict(given.image).shape == (6, 3, *given.image.shape[2:])


@EACH
def test_the_first_stage_trains_the_encoder_alone_and_reads_no_label(kind: type) -> None:
    method = make(kind, pretraining=STAGED)
    given = batch()
    step = stage(method, "global")
    before = {n: p.clone() for n, p in method.student.net.named_parameters()}
    method.distiller.images.push(torch.randn(36, 16))
    state, totals = copy.deepcopy(method.state_dict()), []
    for label in (given.label, torch.full_like(given.label, IGNORE)):
        method.load_state_dict(state)
        torch.manual_seed(3)
        totals.append(step.step(Batch(given.image, label, 3), 0.0).total)
    assert totals[0].item() == totals[1].item() > 0
    totals[1].backward()
    torch.optim.SGD(step.trainable, 0.1).step()
    moved = {n for n, p in method.student.net.named_parameters() if not torch.equal(p, before[n])}
    encoder = {id(p) for p in method.student.net.encoder_parameters()}
    names = {n for n, p in method.student.net.named_parameters() if id(p) in encoder}
    assert moved <= names
    assert {n for n in names if n.endswith("conv.weight")} <= moved  # a bias in front of a batch norm stays


@EACH
def test_banks_fill_with_distinct_rows_of_the_teacher(kind: type) -> None:
    method = make(kind, pretraining=STAGED)
    for i in range(7):
        for name in ("global", "local"):
            stage(method, name).step(batch(seed=i), 0.5)
    for bank in (method.distiller.images, method.distiller.patches):
        assert bank.fill == 36
        assert len(bank.rows.flatten(1).unique(dim=0)) == 36
        assert not bank.rows.requires_grad
    assert method.distiller.patches.rows.shape == (36, 49, 3 * 64)


@pytest.mark.parametrize(
    ("kind", "term"),
    [
        *[(Action, t) for t in ("global", "local", "ce", "dice", "unsup", "anco")],
        *[(ActionPP, t) for t in ("global", "local", "ce", "dice", "unsup", "anco", "aaco_class", "aaco_center")],
        *[(Mona, t) for t in ("unsup", "contrast", "nearest", "equivariance")],
        *[(Arco, t) for t in ("contrast", "nearest")],
    ],
)
def test_each_term_alone_lowers_itself_in_50_steps(kind: type, term: str) -> None:
    constant = {"schedule": "constant", "temperature": (0.5, 0.5), "assignment": "random"} if kind is ActionPP else {}
    distillation = {**STAGED, "student_temperature": (0.1, 0.1), "teacher_temperature": (0.01, 0.01)}
    if term == "contrast":  # the keys of an untrained teacher lie close together: they must be told apart
        constant = {"temperature": 0.1}
    method = make(kind, pretraining=distillation, augmentation=STILL, ema_decay=1.0, **constant)
    given = batch()
    with torch.no_grad():  # a fixed teacher that disagrees and is confident: each term is a plain regression
        for p in method.teacher.net.net.parameters():
            p.add_(0.5 * torch.randn_like(p) * p.std(correction=0))
        logits = method.teacher(given.image)[0]
        scale = 20 / logits.std()
        last = [m for m in method.teacher.net.net.modules() if isinstance(m, nn.Conv2d)][-1]
        last.weight.mul_(scale)
        last.bias.mul_(scale)
    name = "global" if term == "global" else "local" if term == "local" else "contrast"
    step = stage(method, name)
    if name != "contrast":
        for seed in range(6):
            step.step(batch(seed=seed + 10), 0.5)
    frozen = {
        b: bank.rows.clone() for b, bank in (("images", method.distiller.images), ("patches", method.distiller.patches))
    }
    optimizer = torch.optim.Adam(step.trainable, 1e-2)  # no matter how small the term is
    values = []
    for _ in range(15):  # of the 50 that it may take
        for key, rows in frozen.items():
            if len(rows):
                getattr(method.distiller, key).push(rows)  # the anchors stay the same
        value = step.step(given, 0.5).terms[term]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
        if term == "aaco_class":  # its keys are the teacher's: it can fall no further than they let it
            method.teacher.net.load_state_dict(method.student.state_dict())
    assert sum(values[-5:]) < 0.97 * sum(values[:5]), values[::4]


@EACH
@pytest.mark.parametrize("profile", ["recommended", "staged"])
def test_every_term_moves_the_backbone_after_warm_up(kind: type, profile: str) -> None:
    staged = profile == "staged"
    method = make(kind, pretraining=STAGED if staged else None, updates=120 if staged else 50)
    rows = [batch(seed=s) for s in range(4)]
    for step in method.stages():
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(step.trainable, 0.002, weight_decay=0.02)
        if staged:  # as the papers train
            optimizer = torch.optim.SGD(step.trainable, 0.05, 0.9)
        for i in range(step.updates):
            optimizer.zero_grad()
            step.step(rows[i % 4], i / step.updates).total.backward()
            optimizer.step()
            method.after_step()
        encoder = step.name == "global"
        weights = list(method.student.net.encoder_parameters() if encoder else method.student.net.parameters())
        losses = step.step(
            rows[0], 0.999 if step.name == "contrast" else 0.5
        )  # ACTION++'s temperatures meet at the end
        whole = gradient_norm(losses.total, weights)
        shares_of = {t: gradient_norm(losses.weights.get(t, 1.0) * v, weights) / whole for t, v in losses.terms.items()}
        assert min(shares_of.values()) > 1e-3, (step.name, shares_of)


def gradient_norm(value: torch.Tensor, weights: list[torch.Tensor]) -> float:
    gradient = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
    return torch.stack([g.norm() for g in gradient if g is not None]).norm().item()


@EACH
def test_the_teacher_reads_each_image_once(kind: type) -> None:
    method = make(kind)
    rows: list[int] = []
    method.teacher.net.net.net.register_forward_pre_hook(lambda m, args: rows.append(len(args[0])))
    stage(method, "contrast").step(batch(), 0.5)
    assert rows == [3 if kind is Action else 6]  # ACTION has no use for the teacher's reading of labeled rows


@EACH
def test_no_step_waits_for_the_device(kind: type) -> None:
    method = make(kind, pretraining=STAGED)
    for step in method.stages():
        step.step(batch(), 0.5).total.backward()
        with Synchronizations() as mode:
            step.step(batch(seed=2), 0.5).total.backward()
            method.after_step()
        assert not mode.found, (step.name, mode.found)


def test_the_tracer_counts_what_waits() -> None:
    x = torch.rand(9)
    with Synchronizations() as mode:
        float(x[0])
        x[x > 0.5]
        (x > 2).nonzero()
        bool((x > 0).all())
    assert sum(mode.found.values()) >= 4


# --- switches -----------------------------------------------------------------------------------------------------


def test_labeled_images_keep_their_intensities_where_the_settings_say_so() -> None:
    intense = replace(STILL, strong_probability=1.0, noise=0.0)
    for strong in (True, False):
        method = make(Action, augmentation=intense, strong_labeled=strong)
        views: list[torch.Tensor] = []
        method.student.net.net.register_forward_pre_hook(lambda m, args, views=views: views.append(args[0]))
        given = batch()
        stage(method, "contrast").step(given, 0.5)
        changed = (views[0] - given.image).abs().flatten(1).mean(1) > 0.01
        assert changed.tolist() == [strong] * 3 + [True] * 3


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_the_weight_of_the_labels_is_that_of_the_settings_in_every_stage(weight: float) -> None:
    for kind in (Action, Mona):
        method = make(kind, pretraining=STAGED, sup_weight=weight)
        for name in ("local", "contrast"):
            weights = stage(method, name).step(batch(), 0.5).weights
            assert (weights["ce"], weights["dice"]) == (weight, weight)


@pytest.mark.parametrize("strong", ["student", "teacher"])
def test_the_strong_view_goes_to_one_of_the_two(strong: str) -> None:
    intense = replace(STILL, strong_probability=1.0, noise=0.0)
    method = make(Action, pretraining={**STAGED, "strong": strong}, augmentation=intense)
    views: dict[str, torch.Tensor] = {}
    method.student.net.net.register_forward_pre_hook(lambda m, args: views.update(student=args[0]))
    method.teacher.net.net.net.register_forward_pre_hook(lambda m, args: views.update(teacher=args[0]))
    given = batch()
    stage(method, "local").step(given, 0.5)
    weak = {"student": "teacher", "teacher": "student"}[strong]
    torch.testing.assert_close(views[weak], given.image, atol=1e-5, rtol=0)
    assert (views[strong] - given.image).abs().mean() > 0.01


def test_restarting_copies_the_student_into_the_teacher_at_the_first_step_only() -> None:
    for restart in (True, False):
        method = make(Action, restart_teacher=restart)
        with torch.no_grad():
            for p in method.student.parameters():
                p.add_(0.1)
        step = stage(method, "contrast")
        step.step(batch(), 0.0)
        pairs = list(zip(method.student.parameters(), method.teacher.net.parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b in pairs) is restart
        with torch.no_grad():
            for p in method.student.parameters():
                p.add_(0.1)
        step.step(batch(), 0.5)
        assert not any(torch.equal(a, b) for a, b in pairs)


def test_the_teacher_weighs_its_start_with_the_power_of_its_decay() -> None:
    method = make(Action, ema_warm_up=False)
    start = next(method.teacher.net.parameters()).clone()
    with torch.no_grad():
        for p in method.student.parameters():
            p.zero_()
    for _ in range(100):
        method.after_step()
    torch.testing.assert_close(next(method.teacher.net.parameters()), 0.99**100 * start)
