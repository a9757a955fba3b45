r"""ACTION++: class centers that reserve room for rare anatomy, and a temperature that falls and rises.

You, Dai, Min, Staib, Sekhon and Duncan, *ACTION++: Improving semi-supervised medical image segmentation with adaptive
anatomical contrast*, MICCAI 2023 (arXiv 2304.02689). Beside ACTION's terms, labeled pixels are contrasted with keys of
their class and pulled to one of K fixed, evenly spread class centers. Classes are assigned to centers repeatedly during
training, by the positions of their means. All temperatures follow one cosine: large ones form groups, small ones
separate single pixels.

The recommended profile adds both contrasts, with their schedule, to the base (:mod:`anatolab.methods.base`).

The released code differs from the paper. :meth:`ActionPP.Config.official` reproduces: one joint pre-training stage and
one of contrast, 30,000 updates each; one normalization for all positives, which weakens the pull to the center several
hundredfold; keys from a queue of past pixels; ten dips of the temperature instead of one, down to .07 in L_aaco; half
of the center's weight; class means that start at random; embeddings of 496 channels; and what
:mod:`anatolab.methods.action` lists.

Not reproduced: the student's projected features paired with the teacher's raw decoder channels (here the teacher has
its own averaged copy of the projection); centers from a descent that stalls short of the simplex (here the closed form,
to which the descent in :func:`anatolab.losses.optimized_centers` agrees); a queue that starts with random rows as
negatives (here it starts empty); temperatures that change once an epoch (here every update); two scripts that stop with
an error; and what ``action.py`` lists. The assignment is computed every few updates on a copy of the means that left
the device earlier, so that no update waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from anatolab.losses import (
    assign_centers,
    center_contrast,
    sampled_center_contrast,
    simplex_centers,
    update_means,
)
from anatolab.memory import Bank
from anatolab.methods._config import RELEASED_BASE, UNWARPED, ContrastConfig, PretrainingConfig
from anatolab.methods._pretrain import Distiller, Student, stages
from anatolab.methods._teacher_student import batch_contrast, forward_pair, hard_share, pseudo_label_terms
from anatolab.nn import Teacher
from anatolab.sampling import PixelPool, flatten_pixels, pool_pixels, sample_anchors, sample_negatives
from anatolab.schedules import Temperature
from anatolab.types import IGNORE, Batch, InputError, Losses, Stage


class ActionPP(nn.Module):
    """Trains ``network`` like ACTION, with class centers for labeled pixels and scheduled temperatures.

    Args:
        network: A network that :func:`anatolab.nn.tap` knows, from images ``(b, c, *s)`` to logits
            ``(b, classes, *s)``, in 2-D or 3-D.
        config: See :class:`Config`; its recommended settings where None.
    """

    title: ClassVar[str] = "ACTION++"
    color: ClassVar[str] = "#fa578e"

    @dataclass(frozen=True)
    class Config(ContrastConfig):
        """Holds the settings of ACTION++, recommended by default; a comment names paper and code where they differ."""

        pretraining: PretrainingConfig = field(
            default_factory=lambda: PretrainingConfig(student_temperature=(0.1, 1.0), teacher_temperature=(0.01, 1.0))
        )  # no pre-training by default; with it, both temperatures fall from 1 (code)
        representation: int = 128  # d, width of a pixel's embedding (paper)
        schedule: Literal["constant", "cosine", "linear", "exponential", "step"] = "cosine"  # of all temperatures
        periods: float = 1.0  # dips over a stage, updates / T (paper; 10 in the code's default)
        temperature: tuple[float, float] = (0.1, 1.0)  # tau-, tau+ (paper)
        aaco_temperature: tuple[float, float] | None = None  # range in L_aaco; None: the same (paper); .07 to 1 (code)
        anco_weight: float = 0.01  # lambda_1, weight of L_anco (code; 1 in the paper's text); 0 switches it off
        aaco_weight: float = 0.01  # lambda_2, weight of L_aaco (code); 0 switches it off
        center_weight: float = 0.2  # lambda_a, weight of the pull to the center (paper; .1 in the code)
        norm: Literal["mean", "sum", "joint"] = "mean"  # over positives: mean; sum as printed; joint as released
        keys: Literal["batch", "queue"] = "batch"  # teacher pixels of this batch; or past ones too (code)
        queue: int = 12_288  # past pixels kept (code)
        sample_keys: bool = True  # samples num_negatives keys of other classes, not all (paper, code): linear cost
        assignment: Literal["adaptive", "random"] = "adaptive"  # how classes are assigned to centers
        assign_every: int = 10  # updates between assignments (every update in the code)
        mean_rate: float = 0.1  # eta, rate of the running class means (code)
        first_means: Literal["batch", "random"] = "batch"  # start of these means: first batch means; random (code)
        centers_seed: int = 0  # seed of the simplex' rotation and of a random assignment

        @classmethod
        def paper(cls, **overrides: Any) -> ActionPP.Config:
            """Returns the method as printed, 10,000 updates of pre-training and 20,000 of contrast.

            The paper's weight of L_aaco is not known here and must be given.

            Raises:
                InputError: ``aaco_weight`` is not given.
            """
            if "aaco_weight" not in overrides:
                raise InputError(
                    "ACTION++: the weight of L_aaco in the paper's text is not known here; "
                    "give aaco_weight, such as the released code's 0.01."
                )
            pretraining = replace(cls().pretraining, shares=(1 / 6, 1 / 6))  # 10,000 of 30,000 updates (ACDC)
            printed = {"pretraining": pretraining, "anco_weight": 1.0, "norm": "sum", "sample_keys": False}
            return cls(**{**RELEASED_BASE, **printed, **overrides})

        @classmethod
        def official(cls, **overrides: Any) -> ActionPP.Config:
            """Returns what the released code does, as far as it is reproduced (see the head of this file)."""
            pretraining = replace(
                cls().pretraining, shares=(0.0, 0.5), batch=(3, 3), linear_heads=True, strong="teacher"
            )  # 30,000 of 60,000 updates
            released = {
                "updates": 60_000,
                "pretraining": pretraining,
                "augmentation": UNWARPED,
                "restart_teacher": True,
                "nesterov": True,
                "representation": 496,
                "representation_stride": 1,
                "pixel_head": "conv",
                "periods": 10.0,
                "aaco_temperature": (0.07, 1.0),
                "first_means": "random",
                "center_weight": 0.1,
                "norm": "joint",
                "keys": "queue",
                "sample_keys": False,
                "assign_every": 1,
            }
            return cls(**{**RELEASED_BASE, **released, **overrides})

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.config = c = config or self.Config()
        self.student = Student(network, c)
        self.teacher = Teacher(self.student, c.ema_decay, warm_up=c.ema_warm_up)
        self.distiller = Distiller(self.student, c.pretraining)
        self.centers = Centers(self.student.net.classes, c)
        self.queue, self.queue_label = Bank(c.queue), Bank(c.queue)

    def stages(self) -> Sequence[Stage]:
        """Returns the pre-training, where there is one, and the adaptive anatomical contrast."""
        c = self.config
        trained = [*self.student.net.parameters(), *self.student.pixel.parameters()]
        last = Stage("contrast", 0, trained, (0, 0), self.training_step, nesterov=c.nesterov)
        return stages(self, Temperature(c.schedule, 1.0, 1.0, c.periods), last)

    def training_step(self, batch: Batch, progress: float) -> Losses:
        """Computes L_sup + L_unsup + lambda_1 L_anco(tau_t) + lambda_2 L_aaco(tau_t)."""
        c = self.config
        low, high = c.temperature
        tau = Temperature(c.schedule, high, low, c.periods)(progress)
        output = forward_pair(self, batch, progress, read_labeled=c.aaco_weight > 0)
        losses = pseudo_label_terms(output.logits, output.views, c, progress)

        # L_anco, as in ACTION except for its temperature.
        if c.anco_weight:
            losses.terms["anco"], pool = batch_contrast(output, c, tau)
            losses.weights["anco"] = c.anco_weight
            losses.diagnostics["hard"] = hard_share(pool)
        losses.diagnostics["temperature"] = torch.full((), tau, device=batch.image.device)

        # L_aaco, on labeled pixels; the keys are the teacher's embeddings of the same pixels.
        if c.aaco_weight > 0:
            teacher: Any = self.teacher.net
            with torch.no_grad():
                maps = [map_[: output.num_labeled] for map_ in output.views.teacher_maps or ()]
                keys = flatten_pixels(teacher.pixel(maps))[0]
            features, label = output.features[: len(keys)], output.pixel_label[: len(keys)]
            low, high = c.aaco_temperature or c.temperature
            tau = Temperature(c.schedule, high, low, c.periods)(progress)
            for name, term in self.adaptive_contrast(features, label, keys, tau).items():
                losses.terms[name], losses.weights[name] = term, c.aaco_weight
            losses.diagnostics["switched"] = self.centers.switched
        return losses

    def adaptive_contrast(self, features: Tensor, label: Tensor, keys: Tensor, tau: float) -> dict[str, Tensor]:
        """Computes L_aaco of labeled pixels: to keys of their class, and to the center assigned to their class.

        Args:
            features: The student's pixels of the labeled rows ``(m, d)``, with gradient.
            label: Their classes ``(m,)``; IGNORE where unknown.
            keys: The teacher's embeddings of the same pixels ``(m, d)``.
            tau: Temperature, above 0.

        Returns:
            ``aaco_class`` and ``aaco_center``, each exactly 0 where fewer than two classes are labeled.
        """
        c, centers = self.config, self.centers
        pool = pool_pixels(label, len(centers.centers))
        chosen = sample_anchors(pool, c.num_anchors).flatten()  # of every class, hard or not
        classes = torch.arange(len(pool.count), device=label.device).repeat_interleave(c.num_anchors)
        anchor_label = torch.where(pool.present[classes], classes, IGNORE)
        phi, key, key_label = features[chosen], keys[chosen], anchor_label
        centers.update_means(phi, anchor_label)
        weight = c.center_weight if centers.ready else 0.0
        if c.sample_keys and c.keys == "batch":
            return self._sampled_contrast(phi, key, pool.present, tau, weight)
        if c.keys == "queue":
            new = key, key_label
            key = torch.cat([key, self.queue.rows.to(key.dtype)])
            key_label = torch.cat([key_label, self.queue_label.rows])
            self.queue.push(new[0])
            self.queue_label.push(new[1])
        table = centers.centers, centers.assigned
        parts = center_contrast(phi, anchor_label, key, key_label, *table, tau, center_weight=weight, norm=c.norm)
        enough = (pool.present.sum() > 1).to(phi.dtype)
        return {f"aaco_{name}": enough * part for name, part in parts.items()}

    def _sampled_contrast(
        self, phi: Tensor, keys: Tensor, present: Tensor, tau: float, center_weight: float
    ) -> dict[str, Tensor]:
        """Computes L_aaco from all keys of a class and sampled ones of the others; rows are sorted by class."""
        c, k = self.config, len(present)
        rows = torch.arange(len(phi), device=phi.device)
        per_class = rows.reshape(k, -1)
        count = present * c.num_anchors
        odds = (present & ~torch.eye(k, dtype=torch.bool, device=phi.device)).float()
        odds = odds / odds.sum(1, keepdim=True).clamp_min(1)
        negatives = sample_negatives(PixelPool(rows, per_class[:, 0], count, count), odds, c.num_negatives)
        parts = sampled_center_contrast(
            phi,
            per_class,
            per_class,
            negatives,
            self.centers.centers,
            self.centers.assigned,
            present,
            tau,
            keys=keys,
            center_weight=center_weight,
            norm=c.norm,
        )
        return {f"aaco_{name}": part for name, part in parts.items()}

    def after_step(self) -> None:
        """Moves the teacher towards the student, heads included; every few updates assigns classes to centers."""
        self.teacher.update(self.student)
        self.centers.after_step()

    def predict(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of the teacher, or of the student if ``predict_with`` is ``student``."""
        return (self.teacher if self.config.predict_with == "teacher" else self.student)(image)[0]


class Centers(nn.Module):
    """Holds the class centers, the running mean of each class, and the assignment of classes to centers.

    Every ``assign_every`` updates the means are sent to the host, and those sent one period earlier are assigned. So no
    update waits for the device. Means in transit are part of the state.

    Args:
        classes: K.
        config: ``representation``, ``centers_seed``, ``assignment``, ``assign_every`` and ``mean_rate`` are read.
    """

    centers: Tensor
    assigned: Tensor
    means: Tensor
    observed: Tensor
    switched: Tensor

    def __init__(self, classes: int, config: ActionPP.Config) -> None:
        super().__init__()
        self.config = c = config
        generator = torch.Generator().manual_seed(c.centers_seed)
        self.register_buffer("centers", simplex_centers(classes, c.representation, seed=c.centers_seed))
        self.register_buffer("assigned", torch.randperm(classes, generator=generator))
        start = nn.functional.normalize(torch.randn(classes, c.representation, generator=generator), dim=1)
        random = c.first_means == "random"
        self.register_buffer("means", start if random else torch.zeros_like(start))
        self.register_buffer("observed", torch.full((classes,), random))
        self.register_buffer("switched", torch.zeros(()))  # classes that changed their center, in all
        self.updates = 0
        self.ready = c.assignment == "random"  # the center pulls only once an assignment stands
        self.pending: Tensor | None = None  # (classes, 1 + d) on the host: observed, mean
        self._arrived: torch.cuda.Event | None = None
        self._on_host = self.centers.clone()

    @torch.no_grad()
    def update_means(self, features: Tensor, label: Tensor) -> None:
        """Updates the running means with features ``(n, d)`` of labels ``(n,)``; negative labels are left out."""
        means, observed = update_means(self.means, self.observed, features, label, self.config.mean_rate)
        self.means.copy_(means)
        self.observed.copy_(observed)
        self.updates += 1

    @torch.no_grad()
    def after_step(self) -> None:
        """Assigns classes by the means of one period ago, and sends the current means to the host."""
        c = self.config
        if c.assignment == "random" or not self.updates or self.updates % c.assign_every:
            return
        if self.pending is not None:
            if self._arrived is not None:
                self._arrived.synchronize()  # it left a period ago
            observed, means = self.pending[:, 0] > 0, self.pending[:, 1:]
            assigned = assign_centers(self._on_host, means, observed=observed).to(
                self.assigned.device, non_blocking=True
            )
            self.switched += (assigned != self.assigned).sum() if self.ready else 0
            self.assigned.copy_(assigned)
            self.ready = True
        snapshot = torch.cat([self.observed[:, None].to(self.means.dtype), self.means], 1)
        self.pending = torch.empty(snapshot.shape, pin_memory=snapshot.is_cuda).copy_(snapshot, non_blocking=True)
        if snapshot.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def get_extra_state(self) -> dict[str, Any]:
        return {"updates": self.updates, "ready": self.ready, "pending": self.pending}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.updates, self.ready, pending = state["updates"], state["ready"], state["pending"]
        self.pending, self._arrived = (pending.cpu() if pending is not None else None), None
