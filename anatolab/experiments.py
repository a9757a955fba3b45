"""The runs that the book wants and what each costs; ``tools/records.py`` makes and records them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from anatolab import records
from anatolab.methods import METHODS
from anatolab.presets import SIZES, SIZES_3D
from anatolab.types import Size


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


Row = tuple[str, str, str, dict[str, Any]]  # of a table: end of the id, method, title, overrides of the Config
# ARCO has a row for each of its samplers; MORSE, which draws nothing from unlabeled patients, has tables of its own.
ROWS: list[Row] = [
    *[(n.replace("_", "-"), n, kind.title, {}) for n, kind in METHODS.items() if n not in ("arco", "morse")],
    ("arco-ns", "arco", "ARCO, naive draws", {"pixel_sampler": "naive"}),
    ("arco-sg", "arco", "ARCO-SG", {}),
    ("arco-sag", "arco", "ARCO-SAG", {"pixel_sampler": "antithetic"}),
]


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
    config = METHODS[experiment.method].Config().for_size(experiment.budget)
    fields = {k: v for k, v in experiment.overrides.items() if hasattr(config, k)}
    of_pretraining = {k: v for k, v in experiment.overrides.items() if k not in fields}
    if of_pretraining:
        fields["pretraining"] = replace(config.pretraining, **of_pretraining)
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
