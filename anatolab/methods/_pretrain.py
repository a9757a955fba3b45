"""The parts that ACTION, ACTION++, MONA and ARCO share: a student with projectors, and two distillations.

Global: the student learns how similar the teacher finds an image to other images (embeddings of the coarsest map, in a
bank). Local: the same for patches of the logits, each compared with patches at the same place. The teacher gives the
targets, without gradient. Only the student has predictors behind its projectors.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from anatolab.losses import relational_distillation
from anatolab.memory import Bank
from anatolab.methods._config import ContrastConfig, PretrainingConfig
from anatolab.methods._teacher_student import supervised_terms
from anatolab.nn import ConvPixelProjector, ImageProjector, PatchProjector, PixelProjector, Tap, mlp, tap
from anatolab.schedules import Temperature
from anatolab.transforms import strong_view, weak_view
from anatolab.types import Batch, Losses, Stage


class Student(nn.Module):
    """Holds a tapped network with projectors for images, patches and pixels; the teacher averages all of it.

    Args:
        network: From images ``(b, c, *s)`` to logits ``(b, classes, *s)``, in 2-D or 3-D, that ``tap`` knows.
        config: ``pretraining``, ``representation``, ``representation_stride`` and ``pixel_head`` are read.
    """

    def __init__(self, network: nn.Module, config: ContrastConfig) -> None:
        super().__init__()
        self.net = network if isinstance(network, Tap) else tap(network)
        c, channels, dims = config.pretraining, self.net.channels, self.net.dims
        self.image = ImageProjector(channels[0], c.embedding, linear=c.linear_heads)
        self.patch = PatchProjector(self.net.classes, share=c.patch, cells=c.cells, linear=c.linear_heads, dims=dims)
        head = channels, self.net.strides, config.representation
        if config.pixel_head == "linear":
            self.pixel = PixelProjector(*head, stride=config.representation_stride)
        else:
            self.pixel = ConvPixelProjector(*head, stride=config.representation_stride, dims=dims)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns logits ``(b, classes, *s)`` and the decoder's maps, coarse to fine."""
        return self.net(image)


class Distiller(nn.Module):
    """Holds predictors and banks of both distillations; the teacher's embeddings enter a bank after each use."""

    def __init__(self, student: Student, settings: PretrainingConfig) -> None:
        super().__init__()
        c = settings
        self.image_predictor = mlp(c.embedding, c.embedding, c.embedding, linear=c.linear_heads)
        classes, dims = student.net.classes, student.patch.dims
        self.patch_predictor = mlp(classes, classes, classes, linear=c.linear_heads, dims=dims)
        self.images, self.patches = Bank(c.bank), Bank(c.bank)

    def distill(self, student: Tensor, teacher: Tensor, bank: Bank, temperatures: tuple[float, float]) -> Tensor:
        """Returns KL(teacher || student) over the bank as it was before this batch, which then enters it."""
        tau_s, tau_t = temperatures
        loss = relational_distillation(
            student, teacher, bank.rows, student_temperature=tau_s, teacher_temperature=tau_t
        )
        bank.push(teacher)
        return loss


def stages(method: Any, schedule: Temperature, last: Stage) -> list[Stage]:
    """Returns both distillations and the method's last stage, each with its share of the updates.

    Args:
        method: Has ``student``, ``teacher``, ``distiller`` and ``config`` (``updates``, ``pretraining``, ``labeled``,
            ``unlabeled``, ``augmentation``).
        schedule: How the temperatures change over a stage; their ranges come from the settings.
        last: The last stage; its updates become those that are left, its batch that of the settings.
    """
    c, student, distiller = method.config, method.student, method.distiller
    first, second = (round(share * c.updates) for share in c.pretraining.shares)
    encoder = [*student.net.encoder_parameters(), *student.image.parameters(), *distiller.image_predictor.parameters()]
    everything = [
        *student.net.parameters(),
        *student.image.parameters(),
        *student.patch.parameters(),
        *distiller.image_predictor.parameters(),
        *distiller.patch_predictor.parameters(),
    ]
    rows = (c.labeled, c.unlabeled)
    before = c.pretraining.batch or rows
    planned = [
        Stage("global", first, encoder, before, partial(global_step, method, schedule)),
        Stage("local", second, everything, before, partial(local_step, method, schedule)),
        replace(last, updates=c.updates - first - second, batch=rows),
    ]
    return [stage for stage in planned if stage.updates]


def global_step(method: Any, schedule: Temperature, batch: Batch, progress: float) -> Losses:
    """Computes stage i, global distillation: no label is read, and only the network's encoder runs.

    Reference:
        ACTION, global contrastive distillation.
    """
    c, student, teacher, distiller = method.config, method.student, method.teacher, method.distiller
    one, two = (weak_view(batch.image, batch.label, c.augmentation, batch.view)[0] for _ in range(2))
    view, target = _views(one, two, method)
    with torch.no_grad():
        z_t = teacher.net.image(teacher.net.net.encode(target))
    z_s = distiller.image_predictor(student.image(student.net.encode(view)))
    loss = distiller.distill(z_s, z_t, distiller.images, _temperatures(c.pretraining, schedule, progress))
    return Losses({"global": loss}, {}, _agreement(z_s, z_t))


def local_step(method: Any, schedule: Temperature, batch: Batch, progress: float) -> Losses:
    """Computes stage ii: supervised loss on labeled rows, global and local distillation on all of them.

    Both views share one random warp, so that patches stay aligned.

    Reference:
        ACTION, local contrastive distillation: L_sup + k_1 L_global + k_2 L_local.
    """
    c, student, teacher, distiller = method.config, method.student, method.teacher, method.distiller
    n, p = batch.num_labeled, method.config.pretraining
    image, label = weak_view(batch.image, batch.label, c.augmentation, batch.view)
    view, target = _views(image, image, method)
    with torch.no_grad():
        logits_t, maps_t = teacher(target)
        z_t, v_t = teacher.net.image(maps_t[0]), teacher.net.patch(logits_t)
    logits, maps = student(view)
    z_s = distiller.image_predictor(student.image(maps[0]))
    v_s = student.patch(logits, distiller.patch_predictor)
    temperatures = _temperatures(p, schedule, progress)
    losses = supervised_terms(logits[:n], label[:n], c)
    losses.terms |= {
        "global": distiller.distill(z_s, z_t, distiller.images, temperatures),
        "local": distiller.distill(v_s, v_t, distiller.patches, temperatures),
    }
    losses.weights |= {"global": p.global_weight, "local": p.local_weight}
    losses.diagnostics |= _agreement(z_s, z_t)
    return losses


def _views(for_student: Tensor, for_teacher: Tensor, method: Any) -> tuple[Tensor, Tensor]:
    augmentation = method.config.augmentation
    if method.config.pretraining.strong == "student":
        return strong_view(for_student, augmentation), for_teacher
    return for_student, strong_view(for_teacher, augmentation)


def _temperatures(settings: PretrainingConfig, schedule: Temperature, progress: float) -> tuple[float, float]:
    """Returns the student's and the teacher's temperature, each in its own range."""
    (s_low, s_high), (t_low, t_high) = settings.student_temperature, settings.teacher_temperature
    return replace(schedule, low=s_low, high=s_high)(progress), replace(schedule, low=t_low, high=t_high)(progress)


def _agreement(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """Returns the mean cosine between the teacher's embeddings of different images; near 1 it shows collapse."""
    unit = nn.functional.normalize(teacher.float(), dim=1)
    b = len(unit)
    alike = ((unit @ unit.T).sum() - b) / max(b * (b - 1), 1)
    return {"cosine_between_images": alike}
