"""What only a GPU can show: agreement with the CPU, bf16, no synchronization inside a step, resume, compile, memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anatolab.losses import (
    anatomical_contrast,
    center_contrast,
    class_means,
    consistency,
    cross_entropy,
    dice_loss,
    equivariance,
    nearest_neighbors,
    predictive_entropy,
    relational_distillation,
    simplex_centers,
)
from anatolab.methods import METHODS
from anatolab.sampling import bin_pixels, sample_pixels
from anatolab.training import Settings, train
from anatolab.training.loop import Feed
from anatolab.transforms import Affine, Augmentation, cut_mask, mix, strong_view, weak_view
from anatolab.types import Stage
from tests.training import toy

CUDA = Settings(optimizer="sgd", precision="32-true", accelerator="cuda", checkpoint_every=4, log_every=5, lr=0.05)


def logits_and_label(dims: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sides = [24] * dims
    logits = torch.randn(3, 4, *sides, generator=generator)
    return logits, torch.randint(-1, 4, (3, *sides), generator=generator)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("loss", [cross_entropy, dice_loss])
def test_supervised_losses_agree_with_the_cpu(loss: Any, dims: int) -> None:
    logits, label = logits_and_label(dims)
    torch.testing.assert_close(loss(logits.cuda(), label.cuda()).cpu(), loss(logits, label), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_consistency_and_entropy_agree_with_the_cpu(dims: int) -> None:
    logits, label = logits_and_label(dims)
    target, mask = torch.softmax(logits.flip(1), 1), label > 0
    on_gpu = consistency(logits.cuda(), target.cuda(), mask.cuda()).cpu()
    torch.testing.assert_close(on_gpu, consistency(logits, target, mask), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        predictive_entropy(target.cuda()).cpu(), predictive_entropy(target), rtol=1e-5, atol=1e-5
    )


def test_affine_maps_agree_with_the_cpu() -> None:
    image, label = torch.rand(4, 1, 32, 40), torch.randint(0, 4, (4, 32, 40))
    affine = Affine.sample(image, Augmentation())
    there = Affine(affine.matrix.cuda(), affine.shift.cuda())
    torch.testing.assert_close(there.warp_image(image.cuda()).cpu(), affine.warp_image(image), rtol=0, atol=1e-4)
    assert (
        there.warp_label(label.cuda()).cpu() != affine.warp_label(label)
    ).float().mean() < 0.01  # ties of nearest neighbor


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", METHODS)
def test_nothing_waits_for_the_device_inside_a_step(name: str, precision: str) -> None:
    method = toy.method(name).cuda().train()
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimizer: Any = torch.optim.SGD(parameters, 0.1, 0.9, fused=True)
    feed = Feed(toy.rows(), torch.device("cuda"))

    def step(stage: Stage) -> None:
        batch = feed(torch.arange(sum(stage.batch)), stage.batch[0])
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16-mixed"):
            losses = stage.step(batch, 0.5)
        optimizer.zero_grad()
        losses.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 10.0, foreach=True)
        optimizer.found_inf = (~torch.isfinite(norm)).float()
        optimizer.step()
        method.after_step()

    for stage in method.stages():
        step(stage)
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(12):  # past an assignment of class centers
                step(stage)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_contrastive_losses_agree_with_the_cpu() -> None:
    features, keys, label = torch.randn(300, 16), torch.randn(40, 16), torch.randint(-1, 4, (300,))
    anchors, negatives = torch.randint(0, 300, (4, 32)), torch.randint(0, 300, (4, 64))
    all_, centers = torch.ones(4, dtype=torch.bool), simplex_centers(4, 16)
    means = class_means(features, label, 4)

    def values(move: Any) -> list[Tensor]:
        f, k, y = move(features), move(keys), move(label)
        at = {"student_temperature": 0.1, "teacher_temperature": 0.01}
        parts = center_contrast(f, y, f, y, move(centers), move(torch.arange(4)), 0.3)
        return [
            class_means(f, y, 4),
            anatomical_contrast(f, move(anchors), move(negatives), move(means), move(all_), move(all_), 0.5),
            relational_distillation(f[:8], f[8:16], k, **at),
            parts["class"],
            parts["center"],
            anatomical_contrast(
                f, move(anchors), move(negatives) % 40, move(means), move(all_), move(all_), 0.5, keys=k
            ),
            nearest_neighbors(f[:8], f[8:16], k),
            equivariance(f[:64].T.reshape(1, 16, 8, 8), f[64:128].T.reshape(1, 16, 8, 8), move(torch.ones(1, 8, 8))),
        ]

    for here, there in zip(values(lambda t: t), values(lambda t: t.cuda()), strict=True):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["naive", "stratified", "antithetic"])
def test_strata_agree_with_the_cpu_and_draws_are_unbiased(kind: Any) -> None:
    label = torch.randint(-1, 3, (4, 40, 48))
    here, there = bin_pixels(label, 3), bin_pixels(label.cuda(), 3)
    for name in ("order", "start", "count", "first", "size"):
        assert torch.equal(getattr(here, name), getattr(there, name).cpu()), name
    field = torch.rand(label.numel(), device="cuda")
    mean = torch.stack([field[sample_pixels(there, 256, kind)].mean(1) for _ in range(300)]).mean(0)
    for c in range(3):
        assert abs(mean[c] - field[(label.flatten() == c).cuda()].mean()) < 5 * 0.29 / (256 * 300) ** 0.5


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", METHODS)
def test_training_learns(name: str, precision: str) -> None:
    run = train(toy.method(name, updates=200), toy.rows(), toy.SPLIT, replace(CUDA, lr=0.1, precision=precision))
    supervised = [line["ce"] + line["dice"] for line in run.log if "ce" in line]
    assert supervised[-1] < 0.8 * supervised[0]


def test_a_finished_run_opens_on_the_cpu_and_a_new_process_of_training_continues(tmp_path: Path) -> None:
    method = toy.method()
    train(method, toy.rows(), toy.SPLIT, CUDA, out=tmp_path)
    again = toy.method(seed=3)
    run = train(again, toy.rows(), toy.SPLIT, CUDA, out=tmp_path)
    assert run.finished
    for one, two in zip(method.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_patches_of_volumes_train_on_the_device() -> None:
    run = train(toy.method(updates=60, dims=3), toy.volumes(foreground=1.0), toy.SPLIT, replace(CUDA, lr=0.1))
    assert run.finished
    assert run.log[-1]["ce"] < run.log[0]["ce"]


def test_compiled_training_learns() -> None:
    run = train(toy.method(updates=60), toy.rows(), toy.SPLIT, replace(CUDA, compile=True, lr=0.1))
    assert run.log[-1]["ce"] < run.log[0]["ce"]


def test_peak_memory_of_a_demo_step_is_bounded() -> None:
    from anatolab.methods import MeanTeacher
    from anatolab.nn import light_unet
    from anatolab.types import Batch

    method = MeanTeacher(light_unet(1, 4)).cuda().train()
    image = torch.rand(8, 1, 128, 128, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    losses = method.training_step(Batch(image, torch.randint(0, 4, (8, 128, 128), device="cuda"), 4), 0.5)
    losses.total.backward()
    assert torch.cuda.max_memory_allocated() < 1 << 30


def test_views_keep_their_range() -> None:
    image = torch.rand(4, 1, 64, 64, device="cuda")
    moved, _ = weak_view(image, torch.zeros(4, 64, 64, dtype=torch.long, device="cuda"), Augmentation())
    strong = strong_view(moved, Augmentation())
    mixed, _ = mix(cut_mask(strong), strong, torch.rand(4, 3, 64, 64, device="cuda"))
    assert mixed.min() >= 0
    assert mixed.max() <= 1
