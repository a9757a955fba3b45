"""What ACTION, ACTION++, MONA and ARCO share before they differ: a student with projectors, and two distillations.

Global: student and teacher say how similar an image is to other images (embeddings of the coarsest map, in a bank).
Local: the same for patches of the class scores, each compared with patches at the same place. The targets are the
teacher's, without gradient; the student alone has predictors behind its projectors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from anatolab.losses import cross_entropy, dice_loss, relational_distillation
from anatolab.memory import Bank
from anatolab.nn import ImageProjector, PatchProjector, PixelProjector, Teacher, mlp, tap
from anatolab.schedules import Temperature
from anatolab.transforms import strong_view, weak_view
from anatolab.types import Batch, Losses, Stage


@dataclass(frozen=True)
class PretrainingConfig:
    """Settings of the two distillations; the paper's are those of ACTION, the code its released one."""

    shares: tuple[float, float] = (0.25, 0.25)  # of all updates: global, then global and local together
    bank: int = 36  # n, embeddings of other images to compare with (paper)
    embedding: int = 512  # of an image (code)
    student_temperature: tuple[float, float] = (0.1, 0.1)  # tau_s, lowest and highest; ACTION: .1 (paper)
    teacher_temperature: tuple[float, float] = (0.01, 0.01)  # tau_t; ACTION: .01 (paper)
    global_weight: float = 1.0  # k_1 (paper)
    local_weight: float = 1.0  # k_2 (paper)
    patch: float = 0.25  # side of a patch, share of the image's shortest side: 64 of 256 (paper)
    cells: int = 8  # a side of a patch after pooling (code); 4 in 3-D
    linear_heads: bool = False  # no ReLU in projectors and predictors (code); the text calls them non-linear
    strong: Literal["student", "teacher"] = "student"  # whose view is strong (paper); the teacher's in the code


class Student(nn.Module):
    """A tapped network with projectors for images, patches and pixels; the teacher is a slow copy of all of it.

    Args:
        network: From images ``(b, c, *s)`` to logits ``(b, classes, *s)``, in 2-D or 3-D, that ``tap`` knows.
        settings: Of the image and patch projectors.
        representation: Width of a pixel's embedding.
        stride: Of the grid on which pixels are embedded.
    """

    def __init__(self, network: nn.Module, settings: PretrainingConfig, representation: int, stride: int) -> None:
        super().__init__()
        first = next(m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))
        dims = first.weight.ndim - 2
        self.net = tap(network, in_channels=first.in_channels, spatial_dims=dims)
        c, channels = settings, self.net.channels
        self.image = ImageProjector(channels[0], c.embedding, linear=c.linear_heads)
        self.patch = PatchProjector(self.net.classes, share=c.patch, cells=c.cells, linear=c.linear_heads, dims=dims)
        self.pixel = PixelProjector(channels, self.net.strides, representation, stride=stride)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits ``(b, classes, *s)`` and the decoder's maps, coarse to fine."""
        return self.net(image)


class Distiller(nn.Module):
    """Predictors and banks of both distillations; a bank is filled with the teacher's embeddings after each use."""

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
    """Both distillations and the method's own stage, each with its share of the updates.

    Args:
        method: Has ``student``, ``teacher``, ``distiller`` and ``config`` (``updates``, ``pretraining``, ``labeled``,
            ``unlabeled``, ``augmentation``).
        schedule: Shape of the temperatures' course in each stage; their ranges are those of the settings.
        last: The method's own stage; its number of updates is replaced by what is left.
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
    planned = [
        Stage("global", first, encoder, rows, partial(global_step, method, schedule)),
        Stage("local", second, everything, rows, partial(local_step, method, schedule)),
        Stage(last.name, c.updates - first - second, last.trainable, rows, last.step),
    ]
    return [stage for stage in planned if stage.updates]


def global_step(method: Any, schedule: Temperature, batch: Batch, progress: float) -> Losses:
    """Stage i: no label is read, and of the network only the encoder runs.

    Reference:
        ACTION, global contrastive distillation.
    """
    c, student, teacher, distiller = method.config, method.student, method.teacher, method.distiller
    one, two = (weak_view(batch.image, batch.label, c.augmentation)[0] for _ in range(2))
    view, target = _views(one, two, method)
    with torch.no_grad():
        z_t = teacher.net.image(teacher.net.net.encode(target))
    z_s = distiller.image_predictor(student.image(student.net.encode(view)))
    loss = distiller.distill(z_s, z_t, distiller.images, _temperatures(c.pretraining, schedule, progress))
    return Losses({"global": loss}, {}, _agreement(z_s, z_t))


def local_step(method: Any, schedule: Temperature, batch: Batch, progress: float) -> Losses:
    """Stage ii: supervised loss on labeled rows, global and local distillation on all of them.

    Both views share one weak map, so that patches stay aligned.

    Reference:
        ACTION, local contrastive distillation: L_sup + k_1 L_global + k_2 L_local.
    """
    c, student, teacher, distiller = method.config, method.student, method.teacher, method.distiller
    n, p = batch.num_labeled, method.config.pretraining
    image, label = weak_view(batch.image, batch.label, c.augmentation)
    view, target = _views(image, image, method)
    with torch.no_grad():
        logits_t, maps_t = teacher(target)
        z_t, v_t = teacher.net.image(maps_t[0]), teacher.net.patch(logits_t)
    logits, maps = student(view)
    z_s = distiller.image_predictor(student.image(maps[0]))
    v_s = student.patch(logits, distiller.patch_predictor)
    temperatures = _temperatures(p, schedule, progress)
    terms = {
        "ce": cross_entropy(logits[:n], label[:n]),
        "dice": dice_loss(logits[:n], label[:n]),
        "global": distiller.distill(z_s, z_t, distiller.images, temperatures),
        "local": distiller.distill(v_s, v_t, distiller.patches, temperatures),
    }
    weights = {"ce": 0.5, "dice": 0.5, "global": p.global_weight, "local": p.local_weight}
    return Losses(terms, weights, _agreement(z_s, z_t))


def start_teacher(student: nn.Module, decay: float) -> Teacher:
    """The teacher of these methods: an exact copy at the start, no warm-up of its decay (ACTION)."""
    return Teacher(student, decay)


def _views(for_student: Tensor, for_teacher: Tensor, method: Any) -> tuple[Tensor, Tensor]:
    augmentation = method.config.augmentation
    if method.config.pretraining.strong == "student":
        return strong_view(for_student, augmentation), for_teacher
    return for_student, strong_view(for_teacher, augmentation)


def _temperatures(settings: PretrainingConfig, schedule: Temperature, progress: float) -> tuple[float, float]:
    """The student's and the teacher's temperature, each in its own range."""
    (s_low, s_high), (t_low, t_high) = settings.student_temperature, settings.teacher_temperature
    return replace(schedule, low=s_low, high=s_high)(progress), replace(schedule, low=t_low, high=t_high)(progress)


def _agreement(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """How the embeddings spread: a mean cosine between different images that nears 1 is collapse."""
    unit = nn.functional.normalize(teacher.float(), dim=1)
    b = len(unit)
    alike = ((unit @ unit.T).sum() - b) / max(b * (b - 1), 1)
    return {"cosine_between_images": alike}
