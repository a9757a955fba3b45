"""Optimizer, learning rate, precision: what the settings of a training resolve to."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from anatolab.training import Settings, train
from anatolab.training.settings import build_optimizer, learning_rate, resolve_precision
from anatolab.types import Batch, InputError, Losses, Stage
from tests.training import toy


def test_none_is_the_default_of_the_optimizer() -> None:
    adamw, sgd = Settings().resolved(), Settings(optimizer="sgd").resolved()
    assert (adamw.lr, adamw.weight_decay, adamw.clip, adamw.schedule, adamw.floor) == (0.002, 0.02, 1.0, "cosine", 0.01)
    assert (sgd.lr, sgd.weight_decay, sgd.clip, sgd.schedule, sgd.floor) == (0.01, 1e-4, 10.0, "poly", 0.0)
    assert Settings(optimizer="sgd", floor=0.1, lr=0.5).resolved().floor == 0.1
    with pytest.raises(InputError, match="optimizer must be 'adamw' or 'sgd', not 'adam'"):
        Settings(optimizer="adam").resolved()  # type: ignore[arg-type]


def test_cosine_warms_up_over_a_twentieth_and_ends_at_a_hundredth() -> None:
    settings, n = Settings().resolved(), 200
    rates = [learning_rate(settings, step, n) for step in range(n)]
    assert rates[0] == pytest.approx(0.002 / 10)  # of ten updates of warm-up, the first
    assert max(rates) == rates[9] == pytest.approx(0.002)
    middle = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (105 / 200 - 0.05) / 0.95))
    assert rates[104] == pytest.approx(0.002 * middle)
    assert rates[-1] == pytest.approx(2e-5)


def test_poly_falls_to_its_floor() -> None:
    settings = replace(Settings(optimizer="sgd", floor=0.1).resolved())
    assert learning_rate(settings, 0, 100) == pytest.approx(0.01)
    assert learning_rate(settings, 50, 100) == pytest.approx(0.01 * (0.1 + 0.9 * 0.5**0.9))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_non_finite_update_is_skipped_by_both_optimizers(name: str) -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = build_optimizer([weight], Settings(optimizer=name).resolved())  # type: ignore[arg-type]
    weight.grad, optimizer.found_inf = torch.full((3,), math.nan), torch.tensor(1.0)
    optimizer.step()
    assert weight.tolist() == [1.0, 1.0, 1.0]
    weight.grad, optimizer.found_inf = torch.ones(3), torch.tensor(0.0)
    optimizer.step()
    assert bool((weight < 1).all())


def test_auto_is_bf16_only_where_the_device_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for native, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert resolve_precision("auto", "cpu") == precision
        assert resolve_precision("auto", "cpu", dims=3) == "32-true"
    assert resolve_precision("32-true", "cpu") == "32-true"
    with pytest.raises(InputError, match="'bf16-mixed' gives wrong gradients of 3-D convolutions on a CPU"):
        resolve_precision("bf16-mixed", "cpu", dims=3)


@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="needs a CPU that computes in bf16")
@pytest.mark.parametrize(("dims", "side", "right"), [(2, 2, True), (2, 12, True), (3, 3, True), (3, 2, False)])
def test_why_three_dimensions_stay_in_fp32_on_a_cpu(dims: int, side: int, right: bool) -> None:
    """The weight gradient in bf16 against fp32; when the last row turns right, the exception can go."""
    torch.manual_seed(0)
    conv, image = (nn.Conv2d, nn.Conv3d)[dims - 2](16, 16, 3, padding=1), torch.randn(4, 16, *[side] * dims)
    gradients = []
    for enabled in (True, False):
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = conv(image)
        output.float().square().mean().backward()
        assert conv.weight.grad is not None
        gradients.append(conv.weight.grad.clone())
    error = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    assert bool(error < 0.05) is right


def test_training_learns_with_the_default_optimizer() -> None:
    run = train(
        toy.method("supervised", updates=150), toy.rows(), toy.SPLIT, Settings(lr=0.05, accelerator="cpu", log_every=1)
    )
    dice = [line["dice"] for line in run.log]
    assert sum(dice[-10:]) / 10 < 0.5 * sum(dice[:3]) / 3


def test_images_reach_a_method_in_fp32_also_where_networks_compute_in_bf16() -> None:
    class Probe(nn.Module):
        """Notes what it is given."""

        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Conv2d(1, 2, 1)

        def stages(self) -> list[Stage]:
            return [Stage("train", 1, self.net, (2, 0), self.step)]

        def step(self, batch: Batch, progress: float) -> Losses:
            self.dtypes = batch.image.dtype, self.net(batch.image).dtype
            return Losses({"loss": self.net(batch.image).float().mean()})

        def after_step(self) -> None:
            """Nothing follows."""

    probe = Probe()
    train(probe, toy.rows(), toy.SPLIT, Settings(precision="bf16-mixed", accelerator="cpu"), progress=False)
    assert probe.dtypes == (torch.float32, torch.bfloat16)
