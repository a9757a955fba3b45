r"""CPS: two differently initialized networks train each other with their pseudo-labels.

Chen, Yuan, Zeng and Wang, *Semi-supervised semantic segmentation with cross pseudo supervision*, CVPR 2021. Two
networks of one architecture, initialized apart, read the same mixed image; each learns the classes that the other one
predicts.

.. math::

    L = \sum_{i=1,2} L_{sup}(F_i) + \lambda\, L(F_i(x), \hat y_{3-i})

In the recommended settings each network has the loss of this library's base, with the pseudo-labels of the other
network's teacher, so an update costs twice that of the base. :meth:`Cps.Config.paper` is the released code with
CutMix: the networks themselves give the pseudo-labels, and every pixel counts. Only the first network is evaluated, as
in that code.

Not reproduced of the code: a shared initialization by a backbone pre-trained on photographs, so that only the heads
differ (here all weights do); three boxes per mask (here one, of half the image); pseudo-labels made in training mode;
a supervised loss without Dice, which all methods of a table share.

Reference:
    github.com/charlesCXK/TorchSemiSeg, exp.voc, CPS+CutMix.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from anatolab.methods._config import WITHOUT_BASE, PseudoLabelConfig
from anatolab.methods._teacher_student import (
    in_evaluation,
    mix_views,
    pseudo_label_terms,
    relabel,
    sample_masks,
    strong_views,
    weak_views,
)
from anatolab.nn import Teacher
from anatolab.transforms import Augmentation
from anatolab.types import Batch, InputError, Losses, Stage


class Cps(nn.Module):
    """Trains ``network`` and a second one with labels, and each with the other's pseudo-labels.

    Args:
        network: From images ``(b, c, *s)`` to logits ``(b, classes, *s)``, in 2-D or 3-D. The second network is a copy
            with new weights, so each module with parameters needs a method ``reset_parameters``, as torch's have.
        config: See :class:`Config`; its recommended settings where None.
    """

    title: ClassVar[str] = "CPS"
    color: ClassVar[str] = "#ff00aa"

    @dataclass(frozen=True)
    class Config(PseudoLabelConfig):
        """Settings of CPS, recommended by default."""

        pseudo_labels_from: Literal["teacher", "student"] = "teacher"  # of the other network; student in the code

        @classmethod
        def paper(cls, **overrides: Any) -> Cps.Config:
            """Returns the released settings with CutMix: cross-entropy of every pixel, on the networks' own labels."""
            printed = {
                "unsup": "cross_entropy",  # (code)
                "unsup_weight": 1.0,  # lambda (code, on VOC with an eighth of the labels; 5 on Cityscapes)
                "confidence_threshold": 0.0,  # every pixel (code)
                "pseudo_labels_from": "student",  # (code)
                "augmentation": Augmentation(flip=True, strong_probability=0.0),  # no intensities; geometry is ours
            }
            return cls(**{**WITHOUT_BASE, **printed, **overrides})

    def __init__(self, network: nn.Module, config: Config | None = None) -> None:
        super().__init__()
        self.config = c = config or self.Config()
        self.student = network
        self.second = reinitialized(network)
        self.teacher = Teacher(self.student, c.ema_decay, warm_up=c.ema_warm_up)
        self.second_teacher = Teacher(self.second, c.ema_decay, warm_up=c.ema_warm_up)

    def stages(self) -> Sequence[Stage]:
        """Returns one stage on labeled and unlabeled rows, for both networks."""
        c = self.config
        trained = [*self.student.parameters(), *self.second.parameters()]
        return [Stage("train", c.updates, trained, (c.labeled, c.unlabeled), self.training_step)]

    def training_step(self, batch: Batch, progress: float) -> Losses:
        """Computes L_sup and L_unsup of both networks on the same mixed images."""
        c, n = self.config, batch.num_labeled
        labelers: list[Callable[[Tensor], Tensor]] = [self.teacher, self.second_teacher]
        if c.pseudo_labels_from == "student":
            labelers = [partial(in_evaluation, network) for network in (self.student, self.second)]
        weak = weak_views(labelers[0], batch, c)
        masks = sample_masks(weak, c)
        of_first = mix_views(weak, *masks)
        of_second = mix_views(relabel(weak, labelers[1](weak.image[n:])), *masks)

        image = strong_views(of_first.image, n, c)
        losses = pseudo_label_terms(self.student(image), of_second, c, progress)
        other = pseudo_label_terms(self.second(image), of_first, c, progress)
        losses.terms |= {f"{name}_second": value for name, value in other.terms.items()}
        losses.weights |= {f"{name}_second": value for name, value in other.weights.items()}
        losses.diagnostics["agree"] = (of_first.pseudo_label == of_second.pseudo_label).float().mean()
        return losses

    def after_step(self) -> None:
        """Moves each teacher towards its student."""
        self.teacher.update(self.student)
        self.second_teacher.update(self.second)

    def predict(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of the first teacher, or of its student where the settings say so."""
        return (self.teacher if self.config.predict_with == "teacher" else self.student)(image)


def reinitialized(network: nn.Module) -> nn.Module:
    """Returns a copy of a network with new weights, sampled from torch's global generator.

    Raises:
        InputError: A module has parameters of its own but no ``reset_parameters``.
    """
    network = copy.deepcopy(network)
    for name, module in network.named_modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
        elif next(module.parameters(recurse=False), None) is not None:
            raise InputError(
                f"module {name!r} ({type(module).__name__}) has parameters but no reset_parameters(), with which CPS "
                "initializes its second network; add that method."
            )
    return network
