"""Settings that all methods of a table share: budget, supervised loss, teacher, augmentation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Self

from anatolab.sampling import PixelSampler
from anatolab.transforms import Augmentation
from anatolab.types import Size


@dataclass(frozen=True)
class SharedConfig:
    """Settings that every method has; in a recommended profile they are the same for all."""

    updates: int = 30_000  # updates of the student, over all stages
    labeled: int = 4  # labeled images per update
    unlabeled: int = 4  # unlabeled images per update; a method without an unsupervised term reads none
    sup_weight: float = 0.5  # weight of cross-entropy, and of Dice, on labeled pixels
    ema_decay: float = 0.99  # m; each update gives the student a weight of 1 - m in the teacher
    ema_warm_up: bool = True  # m is at most 1 - 1/(t + 1) at update t, which forgets the random start
    predict_with: Literal["teacher", "student"] = "teacher"  # the network whose prediction is evaluated
    augmentation: Augmentation = field(default_factory=Augmentation)

    def for_size(self, size: Size) -> Self:
        """Returns these settings with the budget and the widths of a size (see :mod:`anatolab.presets`)."""
        budget = {"updates": size.updates, "labeled": size.labeled, "unlabeled": size.unlabeled}
        return replace(self, **{**budget, **self.widths(size)})

    def widths(self, size: Size) -> dict[str, Any]:
        """Returns the fields of a method that depend on the size, such as the widths of its heads."""
        return {}


@dataclass(frozen=True)
class SemiSupervisedConfig(SharedConfig):
    """Settings of every method with a term on unlabeled images."""

    ramp: float = 0.1  # share of the stage over which the weight of that term rises linearly
    ramp_updates: int = 250  # the ramp takes at least so many updates; a shorter one cost .08 Dice
    labeled_partner: bool = True  # every second unlabeled image is mixed with a labeled one, as in BCP

    def ramp_up(self, progress: float) -> float:
        """Returns the factor on the weight of the unsupervised term, in [0, 1], after a share of the stage.

        Example:
            >>> [SemiSupervisedConfig(updates=1_000).ramp_up(t) for t in (0.0, 0.125, 0.25, 1.0)]
            [0.0, 0.5, 1.0, 1.0]
        """
        share = min(1.0, max(self.ramp, self.ramp_updates / self.updates))
        return min(1.0, progress / share) if share else 1.0


@dataclass(frozen=True)
class PseudoLabelConfig(SemiSupervisedConfig):
    """Settings of the pseudo-label base, on which every recommended semi-supervised method is built."""

    # Form of L_unsup: ours; ReCo's, as released; FixMatch's; Dice of confident pixels alone.
    unsup: Literal["confident", "share_weighted", "cross_entropy", "dice"] = "confident"
    unsup_weight: float = 1.0  # weight of L_unsup
    confidence_threshold: float = 0.9  # least teacher probability of a confident pixel
    strong_labeled: bool = True  # labeled images get strong views, too; not in the released codes


@dataclass(frozen=True)
class PretrainingConfig:
    """Holds the settings of the two distillations; "paper" is ACTION's, "code" its released 2-D script."""

    shares: tuple[float, float] = (0.0, 0.0)  # shares of all updates: global alone, then global and local together
    batch: tuple[int, int] | None = None  # labeled and unlabeled images per update; None: as in the last stage
    bank: int = 36  # n, embeddings of other images to compare with (paper)
    embedding: int = 512  # width of an image's embedding (code)
    student_temperature: tuple[float, float] = (0.1, 0.1)  # tau_s, lowest and highest; ACTION: .1 (paper)
    teacher_temperature: tuple[float, float] = (0.01, 0.01)  # tau_t; ACTION: .01 (paper); MONA and ARCO: .1 (code)
    global_weight: float = 1.0  # k_1, weight of global distillation (paper)
    local_weight: float = 1.0  # k_2, weight of local distillation (paper)
    patch: float = 0.25  # side of a patch as a share of the image's shortest side: 64 of 256 (paper)
    cells: int = 8  # cells along a side of a patch after pooling (code); 4 in 3-D
    linear_heads: bool = False  # no ReLU in projectors and predictors (code); the paper calls them non-linear
    strong: Literal["student", "teacher"] = "student"  # which network gets the strong view (paper); code: teacher


@dataclass(frozen=True)
class ContrastConfig(PseudoLabelConfig):
    """Holds the settings that ACTION, ACTION++, MONA and ARCO share: pre-training, embedding of pixels, sampling.

    The recommended profile has one stage without pre-training, on the base; the papers' stages are in their profiles.
    A comment names the source of a value: "paper", "code" for the released 2-D script, nothing for our own choice.
    """

    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)  # no pre-training by default
    restart_teacher: bool = False  # the student is copied into the teacher before the last stage (code)
    nesterov: bool = False  # Nesterov momentum for SGD in the last stage (code)
    representation: int = 512  # d, width of a pixel's embedding (paper)
    representation_stride: int = 4  # stride of its grid; 1 in the code, which takes 1 GiB for 8 images of 256 x 256
    pixel_head: Literal["linear", "conv"] = "linear"  # one linear map per pixel; conv: 3x3 and 1x1 (code of ACTION)
    pixel_sampler: PixelSampler = "naive"  # sampler of anchors; "stratified" and "antithetic" are ARCO's
    grid: int = 4  # cells along a side of a class's region in an image, for samplers with cells (code)
    num_anchors: int = 256  # anchors per class (paper)
    num_negatives: int = 512  # negatives per class, shared by its anchors (paper); per anchor in the code
    hard_threshold: float = 0.97  # theta_s, delta: a pixel is hard up to this probability of its label (paper)
    weak_threshold: float = 0.7  # theta_w: pseudo-labels of lower confidence are not used (code; not in the paper)
    head_widths: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"representation": 32, "num_anchors": 128, "num_negatives": 256},
        "demo": {"representation": 64},
    }  # by size; at full the fields above, which are the published widths

    def widths(self, size: Size) -> dict[str, Any]:
        """Returns the widths of the heads and of the pre-training's embeddings at a size."""
        embedding = {"tiny": 64, "demo": 128}.get(size.name, self.pretraining.embedding)
        cells = 4 if size.depth else self.pretraining.cells
        pretraining = replace(self.pretraining, embedding=embedding, cells=cells)
        return {"pretraining": pretraining, **self.head_widths.get(size.name, {})}


# Switches off what the shared base adds around a method's own terms: ramp, labeled partners, averaged weights.
WITHOUT_BASE: dict[str, Any] = {
    "ramp": 0.0,
    "ramp_updates": 0,
    "labeled_partner": False,
    "strong_labeled": False,
    "ema_warm_up": False,
    "predict_with": "student",
}

# What the released 2-D scripts of ACTION, ACTION++, MONA and ARCO do instead of the shared base. The paper profiles use
# it, too, since the papers do not say otherwise. Its geometry is what ARCO's paper names: rotation, crop and flip.
RELEASED_BASE: dict[str, Any] = {
    **WITHOUT_BASE,
    "unsup": "share_weighted",
    "confidence_threshold": 0.97,
    "augmentation": Augmentation(rotate=20.0, scale=0.1, translate=0.1, flip=True, quarter_turns=True),
}

# ACTION and ACTION++ do not warp images. MONA and ARCO turn, mirror or rotate them; their crop changes nothing.
UNWARPED = Augmentation(rotate=0.0, scale=0.0, translate=0.0, flip=False, quarter_turns=False)
TURNED = Augmentation(rotate=20.0, scale=0.0, translate=0.0, flip=True, quarter_turns=True)

RELEASED_PRETRAINING = PretrainingConfig(
    shares=(0.0, 0.5), batch=(3, 3), teacher_temperature=(0.1, 0.1), linear_heads=True, strong="teacher"
)  # of MONA and ARCO: one joint stage, 30,000 of 60,000 updates
