"""The exponential-moving-average teacher."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    r"""Holds an exponential moving average of the student that receives no gradient.

    After every optimizer step :math:`\theta_t \leftarrow m\,\theta_t + (1-m)\,\theta_s`. Floating-point buffers
    (batch-norm statistics) are averaged as well, so the teacher can stay in evaluation mode and its predictions are
    deterministic; integer buffers are copied.

    Args:
        student: The network to copy; the teacher starts equal to it.
        decay: :math:`m` in [0, 1].
        warm_up: Use :math:`\min(m, 1 - 1/(t+1))` at update *t* = 1, 2, ..., which forgets the random start.

    Reference:
        Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, section 2.
    """

    def __init__(self, student: nn.Module, decay: float = 0.99, *, warm_up: bool = False) -> None:
        super().__init__()
        self.net = copy.deepcopy(student).requires_grad_(False)
        self.decay = decay
        self.warm_up = warm_up
        self._updates = 0
        self.eval()

    @torch.no_grad()
    def forward(self, image: Tensor) -> Any:
        """Returns the output of the copied network for ``image``, without gradient."""
        return self.net(image)

    def train(self, mode: bool = True) -> Teacher:
        """Stays in evaluation mode, whatever the argument."""
        return super().train(False)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Moves parameters and floating-point buffers towards the student's, in two fused calls without a loop."""
        self._updates += 1
        decay = min(self.decay, 1 - 1 / (self._updates + 1)) if self.warm_up else self.decay
        teacher_tensors = [*self.net.parameters(), *self.net.buffers()]
        student_tensors = [*student.parameters(), *student.buffers()]
        floating = [t.is_floating_point() for t in teacher_tensors]
        torch._foreach_lerp_(
            [t for t, f in zip(teacher_tensors, floating, strict=True) if f],
            [s for s, f in zip(student_tensors, floating, strict=True) if f],
            1 - decay,
        )
        for target, source, f in zip(teacher_tensors, student_tensors, floating, strict=True):
            if not f:
                target.copy_(source)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self._updates)

    def set_extra_state(self, state: Tensor) -> None:
        self._updates = int(state)
