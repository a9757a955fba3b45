"""Every baseline: each loss term alive, teacher without gradient, labels of unlabeled rows unread, 2-D and 3-D."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from anatolab.methods import METHODS, UAMT, MeanTeacher
from anatolab.transforms import Augmentation
from anatolab.types import IGNORE, Batch, Losses

BASELINES = ("supervised", "mean_teacher", "ua_mt")


def network(dims: int = 2, classes: int = 3) -> nn.Module:
    """A small network with batch norm, quick to import and to run."""
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
    return nn.Sequential(conv(1, 8, 3, padding=1), norm(8), nn.ReLU(), conv(8, classes, 3, padding=1))


def batch(dims: int = 2, labeled: int = 3, unlabeled: int = 3) -> Batch:
    """Returns images whose brightness tells the class, with labels on the labeled rows only."""
    sides = [16] * dims if dims == 2 else [4, 16, 16]
    label = torch.randint(0, 3, (labeled + unlabeled, *sides))
    image = (label.float()[:, None] / 3 + 0.1 * torch.rand(len(label), 1, *sides)).clamp(0, 1)
    label[labeled:] = IGNORE
    return Batch(image, label, labeled)


def make(name: str, dims: int = 2, **fields: object):
    kind = METHODS[name]
    return kind(network(dims), replace(kind.Config(updates=50), **fields))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", BASELINES)
def test_a_step_gives_finite_terms_and_gradient_to_every_student_parameter_only(name: str, dims: int) -> None:
    method = make(name, dims).train()
    (stage,) = method.stages()
    given = batch(dims, unlabeled=3 if stage.batch[1] else 0)
    losses: Losses = stage.step(given, 0.5)
    assert all(torch.isfinite(v) for v in losses.terms.values())
    losses.total.backward()
    for key, parameter in method.named_parameters():
        if key.startswith("student."):
            assert parameter.grad is not None, key
            assert parameter.grad.abs().max() > 0, key
        else:
            assert parameter.grad is None, key
    method.after_step()
    assert method.predict(given.image).shape == (len(given.image), 3, *given.image.shape[2:])


@pytest.mark.parametrize(
    ("name", "term"),
    [
        (name, term)
        for name in BASELINES
        for term in ("ce", "dice", "consistency")
        if term != "consistency" or name != "supervised"
    ],
)
def test_each_term_alone_lowers_itself_in_50_steps(name: str, term: str) -> None:
    still = Augmentation(
        rotate=0, scale=0, translate=0, flip=False, quarter_turns=False, strong_probability=0, mix="none"
    )
    method = make(name, augmentation=still, **({"ema_decay": 1.0, "noise": 0.0} if name == "ua_mt" else {}))
    if name == "mean_teacher":
        method.teacher.decay = 1.0
    if name != "supervised":  # a fixed teacher that disagrees: the term is a plain regression
        method.teacher.warm_up = False
        for p in method.teacher.parameters():
            nn.init.normal_(p, std=0.5)
    optimizer = torch.optim.SGD(method.student.parameters(), 0.05, 0.9)
    given = batch(unlabeled=0 if name == "supervised" else 3)
    values = []
    for _ in range(50):
        value = method.training_step(given, 0.5).terms[term]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        method.after_step()
        values.append(value.item())
    assert values[-1] < 0.8 * values[0], values[::7]


@pytest.mark.parametrize("name", ["mean_teacher", "ua_mt"])
def test_the_consistency_term_moves_the_backbone(name: str) -> None:
    method = make(name).train()
    given = batch()
    optimizer = torch.optim.SGD(method.student.parameters(), 0.05, 0.9)
    for _ in range(60):  # past the warm-up, when the teacher is sure of some pixels
        optimizer.zero_grad()
        method.training_step(given, 0.5).total.backward()
        optimizer.step()
        method.after_step()
    losses = method.training_step(given, 0.5)
    weights = list(method.student.parameters())
    term = losses.weights["consistency"] * losses.terms["consistency"]
    alone = torch.autograd.grad(term, weights, retain_graph=True)
    whole = torch.autograd.grad(losses.total, weights)
    norm = [torch.stack([g.norm() for g in gradient]).norm() for gradient in (alone, whole)]
    assert norm[0] > 1e-3 * norm[1]


def test_the_teacher_of_the_first_step_is_the_student() -> None:
    method = make("mean_teacher")
    image = torch.rand(2, 1, 16, 16)
    assert torch.equal(method.teacher(image), method.student.eval()(image))


def test_the_consistency_weight_ramps_up_to_its_value() -> None:
    method = make("mean_teacher", ramp=0.2, ramp_updates=0, consistency_weight=10.0)
    weights = [method.training_step(batch(), progress).weights["consistency"] for progress in (0.0, 0.1, 0.2, 1.0)]
    assert weights == pytest.approx([0.0, 5.0, 10.0, 10.0])


def test_ua_mt_with_silent_passes_and_no_threshold_is_mean_teacher() -> None:
    net, given = network(), batch()
    fixed = Augmentation(
        strong_probability=0.0, mix="none", rotate=0, scale=0, translate=0, flip=False, quarter_turns=False
    )
    mean_teacher = MeanTeacher(net, MeanTeacher.Config(augmentation=fixed))
    ua_mt = UAMT(net, UAMT.Config(augmentation=fixed, passes=2, noise=0.0, threshold=(2.0, 2.0)))
    one, two = (method.eval().training_step(given, 0.5) for method in (mean_teacher, ua_mt))
    assert one.weights == two.weights
    torch.testing.assert_close(one.terms, two.terms)


def test_ua_mt_follows_the_teacher_only_where_it_is_certain() -> None:
    method = make("ua_mt", threshold=(0.0, 0.0))
    losses = method.training_step(batch(), 0.5)
    assert losses.terms["consistency"].item() == 0
    assert losses.diagnostics["certain"].item() == 0
    method = make("ua_mt", threshold=(1.1, 1.1))
    assert method.training_step(batch(), 0.5).diagnostics["certain"].item() == 1


def test_ua_mt_noise_scales_with_the_contrast_of_the_image() -> None:
    class Echo(nn.Module):
        """Remembers its inputs."""

        def __init__(self) -> None:
            super().__init__()
            self.inputs: list[torch.Tensor] = []

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            self.inputs.append(image.clone())
            return torch.cat([image, -image], 1)

    method = UAMT(Echo(), UAMT.Config(passes=40, noise=0.1))
    image = torch.rand(2, 1, 32, 32) * torch.tensor([1.0, 0.1]).reshape(2, 1, 1, 1)
    method.mean_prediction(image)
    added = (torch.cat(method.teacher.net.inputs) - image.repeat(40, 1, 1, 1)).unflatten(0, (40, 2))
    ratio = added.std((0, 2, 3, 4)) / image.std((1, 2, 3))
    torch.testing.assert_close(ratio, torch.full((2,), 0.0959), rtol=0.05, atol=0)  # 0.1 clipped at 2 sigma
    assert added[:, 1].abs().max() <= 0.2 * image[1].std() + 1e-6


def test_ua_mt_runs_its_passes_in_chunks_of_four_images_and_keeps_their_layout() -> None:
    inputs: list[torch.Tensor] = []
    net = nn.Conv2d(3, 2, 3, padding=1)
    method = UAMT(net, UAMT.Config(passes=5, noise=0.0))
    method.teacher.net.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    image = torch.rand(6, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    mean = method.mean_prediction(image)
    torch.testing.assert_close(mean, torch.softmax(net(image), 1))
    assert [len(chunk) for chunk in inputs] == [4, 2] * 5
    assert torch.equal(torch.cat(inputs), image.repeat(5, 1, 1, 1))
    assert all(chunk.is_contiguous(memory_format=torch.channels_last) for chunk in inputs)


def test_ua_mt_switches_dropout_on_for_its_passes_and_off_again() -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Dropout2d(0.5), nn.Conv2d(8, 3, 1))
    method = UAMT(net, UAMT.Config(passes=2, noise=0.0))
    image = torch.rand(1, 1, 8, 8)
    drawn = {method.mean_prediction(image).sum(0).flatten()[0].item() for _ in range(20)}
    assert len(drawn) > 1
    assert not any(m.training for m in method.teacher.modules())
