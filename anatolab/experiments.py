"""The runs that the book wants and what each costs; ``tools/records.py`` makes and records them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from anatolab import records
from anatolab.types import Size

SIZES = {
    "tiny": Size("tiny", 64, 60, 4, 4, "light_unet", 24),  # live in a notebook on two cores
    "demo": Size("demo", 128, 2_000, 4, 4, "light_unet", 100),  # minutes a run: seeds are affordable
    "full": Size("full", 256, 30_000, 4, 4, "basic_unet", 100),  # the published setting
}
SIZES_3D = {  # the same three for volumes
    "tiny": Size("tiny", 32, 60, 2, 2, "light_unet", 12, depth=24),
    "demo": Size("demo", 64, 1_000, 2, 2, "light_unet", 60, depth=48),
    "full": Size("full", 112, 15_000, 2, 2, "vnet", 60, depth=80),
}


def current_size(dims: int = 2) -> Size:
    """The budget that ``ANATOLAB_SIZE`` names, ``tiny`` where it is not set, for slices or for volumes.

    Example:
        >>> SIZES["demo"].updates, SIZES_3D["full"].image
        (2000, (80, 112, 112))
    """
    name = os.environ.get("ANATOLAB_SIZE") or "tiny"
    if name not in SIZES:
        from anatolab.types import InputError

        raise InputError(f"ANATOLAB_SIZE={name!r} is no size; use one of {', '.join(SIZES)}.")
    return (SIZES if dims == 2 else SIZES_3D)[name]


@dataclass(frozen=True)
class Experiment:
    """A wanted run: which method with how many labeled patients of which cohort, and how much it matters."""

    id: str
    method: str  # a key of anatolab.methods.METHODS
    cohort: str  # a key of COHORTS in tools/cohorts.py
    labeled: int  # patients; 0 = all
    title: str
    seeds: tuple[int, ...] = (0, 1, 2)
    priority: int = 0  # lower is made first
    size: str = "demo"
    overrides: dict[str, Any] = field(default_factory=dict)  # fields of the method's Config
    dims: int = 2  # 2 trains on slices, 3 on patches of volumes
    network: str | None = None  # a key of anatolab.nn.NETWORKS; None: the size's

    @property
    def budget(self) -> Size:
        """The size that this run is made at."""
        size = (SIZES if self.dims == 2 else SIZES_3D)[self.size]
        return replace(size, network=self.network) if self.network else size


METHOD_TITLES = {
    "supervised": "supervised",
    "mean_teacher": "mean teacher",
    "ua_mt": "UA-MT",
    "action": "ACTION",
    "actionpp": "ACTION++",
    "mona": "MONA",
    "arco": "ARCO",
    "morse": "MORSE",
}
Row = tuple[str, str, str, dict[str, Any]]  # of a table: end of the id, method, title, overrides of the Config
# ARCO has a row for each of its samplers; MORSE, which draws nothing from unlabeled patients, has tables of its own.
ROWS: list[Row] = [
    *[(n.replace("_", "-"), n, title, {}) for n, title in METHOD_TITLES.items() if n not in ("arco", "morse")],
    ("arco-ns", "arco", "ARCO, naive draws", {"pixel_sampler": "naive"}),
    ("arco-sg", "arco", "ARCO-SG", {}),
    ("arco-sag", "arco", "ARCO-SAG", {"pixel_sampler": "antithetic"}),
]

# Head widths of the contrastive methods by size; at full they are the published ones.
WIDTHS: dict[str, dict[str, Any]] = {
    "tiny": {"representation": 32, "representation_stride": 2, "num_anchors": 128, "num_negatives": 256, "bank": 512},
    "demo": {"representation": 64, "representation_stride": 2, "bank": 2_048},
    "full": {},
}
# MORSE's experts and point head by size; points keep the share of the image that they have in the released code.
RENDERING: dict[str, dict[str, Any]] = {
    "tiny": {"experts": 16, "fused": 16, "hidden": 16, "gate_stride": 4, "frequencies": 16, "head_width": 32},
    "demo": {"experts": 32, "fused": 32, "hidden": 32, "gate_stride": 4, "frequencies": 16, "head_width": 64},
    "full": {},
}
EMBEDDING = {"tiny": 64, "demo": 128}  # of an image, in the pre-training


def _methods(cohort: str, labeled: int, priority: int, rows: Sequence[Row] = ROWS, **more: Any) -> list[Experiment]:
    """A run of each row, on so many labeled patients of a cohort; 0: on all."""
    start = f"{cohort}-{labeled or 'all'}"
    return [
        Experiment(f"{start}-{end}", method, cohort, labeled, title, priority=priority, overrides=fields, **more)
        for end, method, title, fields in rows
    ]


# What the papers' abstracts speak of, each part taken away or exchanged: id, title, overrides of the Config.
CONSTANT: dict[str, Any] = {
    "schedule": "constant",
    "temperature": (0.5, 0.5),
    "student_temperature": (0.1, 0.1),
    "teacher_temperature": (0.01, 0.01),
}
FOREGROUND: dict[str, Any] = {"symmetric": False, "everywhere": False}
RELEASED: dict[str, Any] = {"anchors": "reliable", "bank_rule": "rank", "measured": "teacher", **FOREGROUND}
ABLATIONS: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "action": [
        ("no-pretraining", "ACTION without pre-training", {"shares": (0.0, 0.0)}),
        ("no-anco", "ACTION without anatomical contrast", {"anco_weight": 0.0}),
        ("no-unsup", "ACTION without the unsupervised term", {"unsup_weight": 0.0}),
        ("no-local", "ACTION without the local stage", {"shares": (0.25, 0.0)}),
        ("sg", "ACTION with ARCO's stratified draws", {"pixel_sampler": "stratified"}),
    ],
    "actionpp": [
        ("constant", "ACTION++ at constant temperature", CONSTANT),
        ("random", "ACTION++ with centers assigned at random", {"assignment": "random"}),
        ("no-centers", "ACTION++ without L_aaco", {"aaco_weight": 0.0}),
        ("ten-dips", "ACTION++ with ten dips of the temperature", {"periods": 10.0}),
    ],
    "mona": [
        ("no-tailness", "MONA without tailness", {"contrast_weight": 0.0}),
        ("no-diversity", "MONA without diversity", {"neighbor_weight": 0.0}),
        ("no-unsup", "MONA without the unsupervised term", {"unsup_weight": 0.0}),
        ("foreground", "MONA with the released consistency", FOREGROUND),
        ("ramp", "MONA with consistency ramped up", {"equivariance_ramp": 0.4}),  # over as many updates as mean teacher
        ("official", "MONA with the released code's banks, anchors and neighbors", RELEASED),
    ],
    "arco": [
        ("no-tailness", "ARCO-SG without tailness", {"contrast_weight": 0.0}),
        ("no-diversity", "ARCO-SG without diversity", {"neighbor_weight": 0.0}),
        ("no-unsup", "ARCO-SG without the unsupervised term", {"unsup_weight": 0.0}),
        ("released", "ARCO with the released sampler of list positions", {"pixel_sampler": "released"}),
        *[(f"grid-{g}", f"ARCO-SG on {g} x {g} cells", {"grid": g}) for g in (1, 2, 8)],
    ],
}
_PARTS = [(f"{name}-{end}", name, title, fields) for name, of in ABLATIONS.items() for end, title, fields in of]

# The parts of MORSE, in the rows of the paper's ablation as it is recalled, and what is open in it.
COMPONENTS: list[tuple[str, str, dict[str, Any]]] = [
    ("pointrend", "+ point head (PointRend)", {"fusion": "concat", "encoding": "none"}),
    ("moe", "+ experts", {"fusion": "dense", "encoding": "none"}),
    ("smoe", "+ stochastic experts", {"encoding": "none"}),
    ("iar", "+ encoded coordinates", {"fusion": "concat"}),
    ("iar-moe", "+ encoded coordinates, experts", {"fusion": "dense"}),
    ("fixed", "MORSE with fixed frequencies", {"encoding": "fixed"}),
    ("renorm", "MORSE with weights rescaled", {"rescale": "renorm"}),
    ("constant", "MORSE without the ramp", {"ramp": "constant"}),
    ("dice", "MORSE with Dice in the loss of its points", {"render_dice": True}),
]
_COMPONENTS = [(f"morse-{part}", "morse", title, fields) for part, title, fields in COMPONENTS]


def _morse(cohort: str, network: str | None, priority: int, dims: int = 2, baseline: bool = True) -> list[Experiment]:
    """MORSE and its backbone alone, on all training patients."""
    suffix, of = (f"-{network.replace('_', '-')}", f", {network}") if network else ("", "")
    named = [("supervised", "backbone alone"), ("morse", "MORSE")][not baseline :]
    rows: list[Row] = [(f"{name}{suffix}", name, f"{title}{of}", {}) for name, title in named]
    return _methods(cohort, 0, priority, rows, dims=dims, network=network)


EXPERIMENTS: tuple[Experiment, ...] = (
    *_methods("acdc", 3, priority=0),
    Experiment("acdc-all-supervised", "supervised", "acdc", 0, "supervised, all 70 patients", priority=1),
    *_methods("acdc", 3, priority=2, rows=_PARTS),
    *_morse("acdc", None, priority=2, baseline=False),
    *_morse("abdomen", None, priority=2),
    *_morse("acdc", "basic_unet", priority=3),
    *_morse("abdomen", "basic_unet", priority=3),
    *_methods("acdc", 7, priority=3),
    *_methods("acdc", 1, priority=4),
    *_methods("abdomen", 3, priority=4, rows=[*ROWS, *(r for r in _PARTS if r[0] in ("mona-foreground", "mona-ramp"))]),
    *_methods("acdc", 0, priority=4, rows=_COMPONENTS),
    *_methods("abdomen", 0, priority=4, rows=[r for r in _COMPONENTS if r[0] == "morse-dice"]),
    *_methods("atrium", 3, priority=5, dims=3),
    *_morse("atrium", None, priority=5, dims=3),
    *_morse("atrium", "segresnet", priority=5, dims=3),
    *_methods("cardiac", 3, priority=6),
    *_methods("abdomen", 7, priority=7),
)  # a cell of a table whose run is not recorded prints "not run"


def by_id(experiment: str) -> Experiment:
    """The wanted run of this id."""
    found = next((e for e in EXPERIMENTS if e.id == experiment), None)
    if found is None:
        raise records.RecordError(f"{experiment!r} is no wanted run; `python tools/records.py list` names them.")
    return found


def method_config(experiment: Experiment) -> Any:
    """The method's ``Config``: its recommended fields, the budget's, then the experiment's own."""
    from anatolab.methods import METHODS

    config = sized(METHODS[experiment.method].Config(), experiment.budget)
    fields = {k: v for k, v in experiment.overrides.items() if hasattr(config, k)}
    of_pretraining = {k: v for k, v in experiment.overrides.items() if k not in fields}
    if of_pretraining:
        fields["pretraining"] = replace(config.pretraining, **of_pretraining)
    return replace(config, **fields)


def sized(config: Any, size: Size) -> Any:
    """A method's ``Config`` with the budget and the head widths of a size."""
    budget = {"updates": size.updates, "labeled": size.labeled, "unlabeled": size.unlabeled, **WIDTHS[size.name]}
    fields = {k: v for k, v in budget.items() if hasattr(config, k)}
    if hasattr(config, "render_points"):
        fields |= RENDERING[size.name]
        if size.name != "full":
            share = math.prod(size.image) / (96**3 if size.depth else 256**2)
            fields |= {k: round(share * getattr(config, k)) for k in ("points", "render_points")}
    if hasattr(config, "pretraining"):
        own = {"embedding": EMBEDDING[size.name]} if size.name in EMBEDDING else {}
        fields["pretraining"] = replace(config.pretraining, **own, **({"cells": 4} if size.depth else {}))
    if hasattr(config, "neighbor_cells") and size.depth:
        fields["neighbor_cells"] = 4
    return replace(config, **fields)


def config_of(experiment: Experiment) -> dict[str, Any]:
    """Everything that decides the outcome of a run but seed and code, as the record stores it."""
    from anatolab.training import Settings

    left_out = ("seed", "accelerator", "log_every", "checkpoint_every")
    return records.plain(
        {
            "method": experiment.method,
            "profile": "recommended",
            "cohort": experiment.cohort,
            "labeled_patients": experiment.labeled,
            "size": {k: v for k, v in asdict(experiment.budget).items() if k != "depth" or v},
            "settings": {k: v for k, v in asdict(Settings()).items() if k not in left_out},
            "fields": asdict(method_config(experiment)),
        }
    )


def stands(experiment: Experiment, seed: int) -> bool:
    """Whether this run is recorded, by the code and the configuration of today."""
    path = records.path_of(experiment.id, seed)
    if not path.exists():
        return False
    record = records.read(path)
    return record.config == config_of(experiment) and not records.is_stale(record)
