"""ACTION, ACTION++, MONA, ARCO as whole runs: the base where their terms are off, and bitwise where one was stopped."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from anatolab.data import Rows
from anatolab.methods import Action, ActionPP, Arco, Base, Mona
from anatolab.nn import light_unet
from anatolab.training import Settings, train
from anatolab.types import Split
from tests.methods.small import STAGED, make

EACH = pytest.mark.parametrize("kind", [Action, ActionPP, Mona, Arco])
ROWS = Rows.from_arrays(
    torch.rand(24, 1, 32, 32, generator=torch.Generator().manual_seed(0)).numpy(),
    torch.randint(0, 3, (24, 32, 32), generator=torch.Generator().manual_seed(1)).byte().numpy(),
    [f"p{i // 4}" for i in range(24)],
)
SPLIT = Split(tuple(f"p{i}" for i in range(6)), 2)
OFF: dict[type, dict[str, Any]] = {
    Action: {"anco_weight": 0.0},
    ActionPP: {"anco_weight": 0.0, "aaco_weight": 0.0},
    Mona: {"contrast_weight": 0.0, "neighbor_weight": 0.0, "equivariance_weight": 0.0},
    Arco: {"contrast_weight": 0.0, "neighbor_weight": 0.0},
}


@functools.cache
def trained(kind: type, off: bool = True) -> list[torch.Tensor]:
    """All weights and statistics of network and teacher after 12 updates of the recommended optimizer."""
    torch.manual_seed(0)
    network = light_unet(1, 3, width=4, depth=4)
    shared = {"updates": 12, "ramp_updates": 2, "labeled": 3, "unlabeled": 3}
    heads = {} if kind is Base else {"representation": 16, "representation_stride": 2}
    method = kind(network, kind.Config(**shared, **heads, **(OFF.get(kind, {}) if off else {})))
    train(method, ROWS, SPLIT, Settings(precision="32-true", accelerator="cpu"), progress=False)
    both = (method.student, method.teacher.net) if kind is Base else (method.student.net, method.teacher.net.net)
    return [t.detach().clone() for net in both for t in net.state_dict().values()]


@EACH
def test_without_its_terms_a_method_is_the_base_bit_for_bit(kind: type) -> None:
    ours, base = trained(kind), trained(Base)
    assert all(torch.equal(a, b) for a, b in zip(ours, base, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(trained(kind, off=False), base, strict=True))


SETTINGS = Settings(optimizer="sgd", precision="32-true", lr=0.05, accelerator="cpu", checkpoint_every=1)


@functools.cache
def uninterrupted(kind: type) -> dict[str, Any]:
    """Returns the state after 8 updates: 2 global, 2 local, 4 of contrast, before which the teacher restarts."""
    method = make(kind, pretraining=STAGED, restart_teacher=True, updates=8)
    train(method, ROWS, SPLIT, SETTINGS, progress=False)
    return method.state_dict()


class Stop(Exception):
    """Stands for a power cut."""


@EACH
@pytest.mark.parametrize("updates", [1, 2, 3, 4, 6])  # inside each stage, and between two
def test_a_run_stopped_inside_any_stage_goes_on_bitwise(kind: type, updates: int, tmp_path: Path) -> None:
    halted, count = make(kind, pretraining=STAGED, restart_teacher=True, updates=8), 0
    after = halted.after_step

    def stopping() -> None:
        nonlocal count
        count += 1
        after()
        if count > updates:
            raise Stop

    halted.after_step = stopping
    with pytest.raises(Stop):
        train(halted, ROWS, SPLIT, SETTINGS, out=tmp_path, progress=False)
    resumed = make(kind, pretraining=STAGED, seed=9, restart_teacher=True, updates=8)
    run = train(resumed, ROWS, SPLIT, SETTINGS, out=tmp_path, progress=False)
    assert run.finished
    assert run.step == 8
    state = resumed.state_dict()
    for key, value in uninterrupted(kind).items():
        same = torch.equal(value, state[key]) if isinstance(value, torch.Tensor) else str(value) == str(state[key])
        assert same, key
