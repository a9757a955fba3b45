"""The list of runs that the book needs; ``studies/trainings.py`` makes and records them.

An id names cohort, side of the view, labeled patients and row: ``acdc96-3-base``. Development patients whose labels are
not read are still used as unlabeled training images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from anatolab import records
from anatolab.methods import METHODS
from anatolab.presets import SIZES, SIZES_3D
from anatolab.types import Size


@dataclass(frozen=True)
class Experiment:
    """A wanted run: method, cohort, number of labeled patients, and priority."""

    id: str
    method: str  # a key of anatolab.methods.METHODS
    cohort: str  # a key of COHORTS in studies/cohorts.py
    labeled: int  # patients; 0 = all
    title: str
    seeds: tuple[int, ...] = (0, 1, 2)
    priority: int = 0  # lower is made first
    size: str = "demo"
    overrides: dict[str, Any] = field(default_factory=dict)  # fields of the method's Config
    dims: int = 2  # 2 trains on slices, 3 on patches of volumes
    network: str | None = None  # a key of anatolab.nn.NETWORKS; None: the size's
    side: int | None = None  # of slices; None: the size's
    updates: int | None = None  # None: the size's
    profile: Literal["recommended", "paper", "official"] = "recommended"
    settings: dict[str, Any] = field(default_factory=dict)  # fields of the loop's Settings
    field_of_view: Literal["auto", "whole"] = "auto"  # from the labeled patients; or the whole plane
    largest_component: bool = True  # of each organ, after prediction
    labeled_by_seed: bool = False  # seed k labels the k-th patients of the list, not always the first ones

    @property
    def budget(self) -> Size:
        """Returns the size of this run."""
        size = (SIZES if self.dims == 2 else SIZES_3D)[self.size]
        changes: dict[str, Any] = {"network": self.network, "side": self.side, "updates": self.updates}
        return replace(size, **{k: v for k, v in changes.items() if v is not None})


Row = tuple[str, str, str, dict[str, Any]]  # of a table: end of the id, method, title, overrides of the Config
# ARCO has a row for each of its samplers; MORSE, which takes nothing from unlabeled patients, has tables of its own.
ROWS: list[Row] = [
    *[(n.replace("_", "-"), n, kind.title, {}) for n, kind in METHODS.items() if n not in ("arco", "morse")],
    ("arco-ns", "arco", "ARCO, naive sampling", {"pixel_sampler": "naive"}),
    ("arco-sg", "arco", "ARCO-SG", {}),
    ("arco-sag", "arco", "ARCO-SAG", {"pixel_sampler": "antithetic"}),
]
_OF = {row[0]: row for row in ROWS}
HEADLINE = ("base", "unimatch")  # rows at 128 beside supervision, named on the development patients
MAIN = ("supervised", "mean-teacher", "base", "unimatch", "bcp", "action", "actionpp", "mona", "arco-sg")
LATER = ("cps", "fixmatch", "ua-mt", "arco-ns", "arco-sag")


def _rows(*ends: str) -> list[Row]:
    """Returns the rows with these endings, of methods that exist."""
    return [_OF[end] for end in ends if end in _OF]


def _methods(start: str, labeled: int, priority: int, rows: Sequence[Row] = ROWS, **more: Any) -> list[Experiment]:
    """Returns a run of each row on ``labeled`` patients of a cohort (0: all); ``start`` is cohort and side."""
    cohort = start.rstrip("0123456789")
    suffix = more.pop("suffix", "")
    return [
        Experiment(
            f"{start}-{labeled or 'all'}-{end}{suffix}",
            method,
            cohort,
            labeled,
            title,
            priority=priority,
            overrides=fields,
            **more,
        )
        for end, method, title, fields in rows
    ]


# Ablations of what the papers' abstracts claim: id, title, overrides of the Config.
CONSTANT: dict[str, Any] = {"schedule": "constant", "temperature": (0.5, 0.5)}
ABLATIONS: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "action": [
        ("pretraining", "ACTION with pre-training", {"shares": (0.25, 0.25)}),
        ("global-only", "ACTION with the global stage alone", {"shares": (0.25, 0.0)}),
        ("weight-1", "ACTION at weight 1 (paper)", {"anco_weight": 1.0}),
        ("sg", "ACTION with ARCO's stratified sampling", {"pixel_sampler": "stratified"}),
    ],
    "actionpp": [
        ("constant", "ACTION++ at constant temperature", CONSTANT),
        ("random", "ACTION++ with centers assigned at random", {"assignment": "random"}),
        ("no-center", "ACTION++ without the pull to the center", {"center_weight": 0.0}),
        ("no-aaco", "ACTION++ without L_aaco", {"aaco_weight": 0.0}),
        ("ten-dips", "ACTION++ with ten dips of the temperature", {"periods": 10.0}),
        ("sg", "ACTION++ with ARCO's stratified sampling", {"pixel_sampler": "stratified"}),
    ],
    "mona": [
        ("no-tailness", "MONA without tailness", {"contrast_weight": 0.0}),
        ("no-diversity", "MONA without diversity", {"neighbor_weight": 0.0}),
        ("no-consistency", "MONA without consistency", {"equivariance_weight": 0.0}),
        ("symmetric", "MONA with symmetric consistency of all pixels", {"symmetric": True, "everywhere": True}),
    ],
    "arco": [
        ("no-tailness", "ARCO-SG without tailness", {"contrast_weight": 0.0}),
        ("no-diversity", "ARCO-SG without diversity", {"neighbor_weight": 0.0}),
        ("released", "ARCO with the released sampler of list positions", {"pixel_sampler": "released"}),
        ("naive", "ARCO with naive sampling", {"pixel_sampler": "naive"}),
        *[(f"grid-{g}", f"ARCO-SG on {g} x {g} cells", {"grid": g}) for g in (1, 2, 8)],
    ],
}
_PARTS: list[Row] = [(f"{m}-{end}", m, title, fields) for m, rows in ABLATIONS.items() for end, title, fields in rows]

# The parts of MORSE, in the rows of the paper's ablation (from memory, unverified), and choices it leaves open.
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
_COMPONENTS: list[Row] = [(f"morse-{part}", "morse", title, fields) for part, title, fields in COMPONENTS]

# The base with one setting changed, at 1,000 updates: end of the id, title, fields of the experiment.
CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("whole", "whole plane", {"field_of_view": "whole"}),
    ("flips", "flips and quarter turns", {"augmentation": {"flip": True, "quarter_turns": True}}),
    ("share", "pseudo-labels weighted by image (ReCo)", {"unsup": "share_weighted", "confidence_threshold": 0.97}),
    ("no-partner", "no labeled partner", {"labeled_partner": False}),
    ("no-mix", "no CutMix", {"augmentation": {"mix": "none"}}),
    ("light-unet", "light U-Net", {"network": "light_unet"}),
    ("basic-unet", "BasicUNet", {"network": "basic_unet"}),
    ("sgd", "SGD .01, polynomial", {"settings": {"optimizer": "sgd"}}),
    ("student", "predicted by the student", {"predict_with": "student"}),
    ("no-component", "every component kept", {"largest_component": False}),
]


# Settings tried on the development patients, three per row at 2,000 updates: end of the id, row, overrides. Rows on the
# shared base are tried at three weights of their own term.
_TRIED: dict[str, tuple[str, tuple[float, ...]]] = {
    "supervised": ("sup_weight", (0.25, 0.5, 1.0)),
    "base": ("unsup_weight", (0.5, 1.0, 2.0)),
    "mean-teacher": ("consistency_weight", (1.0, 10.0, 100.0)),
    "ua-mt": ("consistency_weight", (1.0, 10.0, 100.0)),
    "fixmatch": ("unsup_weight", (0.5, 1.0, 2.0)),
    "unimatch": ("unsup_weight", (0.5, 1.0, 2.0)),
    "bcp": ("unsup_weight", (0.25, 0.5, 1.0)),
    "cps": ("unsup_weight", (0.5, 1.0, 2.0)),
    "action": ("anco_weight", (0.01, 0.1, 1.0)),
    "actionpp": ("aaco_weight", (0.01, 0.1, 1.0)),
    "mona": ("contrast_weight", (0.01, 0.1, 1.0)),
    "arco-sg": ("contrast_weight", (0.01, 0.1, 1.0)),
}
TRIALS: dict[str, list[Row]] = {
    end: [(f"{end}-{weight:g}", _OF[end][1], f"{_OF[end][2]}, {name} {weight:g}", {name: weight}) for weight in weights]
    for end, (name, weights) in _TRIED.items()
}


def _changes() -> list[Experiment]:
    start = Experiment("acdc96-3-base-u1000", "base", "acdc", 3, "base", (0, 1), 6, updates=1_000)
    runs = [start]
    for end, title, changes in CHANGES:
        settings = {k: v for k, v in changes.items() if hasattr(start, k)}
        fields = {k: v for k, v in changes.items() if k not in settings}
        runs.append(replace(start, id=f"{start.id}-{end}", title=title, overrides=fields, **settings))
    return runs


_ALL = {"labeled": 8}  # images per update where every patient is labeled: as many as other rows read
_SUPERVISED_ALL: list[Row] = [("supervised", "supervised", "supervised, all labels", _ALL)]
_SGD = {"optimizer": "sgd"}  # the papers' optimizer
_CONSTANT_LR: list[Row] = [("base-constant-lr", "base", "base, constant learning rate", {})]
_STEADY = {"floor": 1.0}  # the learning rate stays where its warm-up ends
_LONG = {"side": 128, "updates": 6_000}

EXPERIMENTS: tuple[Experiment, ...] = (
    # (a) Three labeled patients: every paper beside the base and the field today, and what all labels reach.
    *_methods("acdc96", 3, 0, _rows(*MAIN)),
    *_methods("acdc96", 0, 1, _SUPERVISED_ALL),
    *_methods("acdc96", 7, 1, _rows("supervised")),
    *[
        run
        for rows in TRIALS.values()
        for run in _methods("acdc-development96", 3, 1, rows, updates=2_000, suffix="-u2000", seeds=(0,))
    ],
    # A learning rate that does not fall, tried on the same patients beside the base as long as in the tables.
    *_methods("acdc-development96", 3, 1, _rows("base"), seeds=(0,)),
    *_methods("acdc-development96", 3, 1, _CONSTANT_LR, updates=2_000, suffix="-u2000", seeds=(0,), settings=_STEADY),
    *_methods("acdc-development96", 3, 1, _CONSTANT_LR, updates=5_000, suffix="-u5000", seeds=(0,), settings=_STEADY),
    *_methods("acdc96", 3, 1, _CONSTANT_LR, settings=_STEADY),
    # BasicUNet, which learns faster per update, as long as in the tables.
    *_methods("acdc-development96", 3, 1, _rows("base"), network="basic_unet", suffix="-basic-unet", seeds=(0,)),
    # (b) The number of labels; with one, each seed labels another patient.
    *_methods("acdc96", 1, 2, _rows("supervised", "base", "unimatch", "actionpp", "arco-sg"), labeled_by_seed=True),
    *_methods("acdc96", 7, 3, _rows("base", "arco-sg")),
    # (c) The headline at 128 x 128.
    *_methods("acdc128", 3, 4, _rows("supervised", *HEADLINE), **_LONG),
    *_methods("acdc128", 0, 4, _SUPERVISED_ALL, **_LONG),
    # (d) Budgets, single changes, and the weight of the contrast where labels are few.
    *[
        run
        for updates in (500, 2_000, 15_000)
        for run in _methods(
            "acdc96", 3, 5, _rows("supervised", "base", "arco-sg"), updates=updates, suffix=f"-u{updates}", seeds=(0, 1)
        )
    ],
    *_changes(),
    *[
        run
        for weight in (0.1, 1.0)
        for run in _methods(
            "acdc96",
            1,
            6,
            [("arco-sg", "arco", f"ARCO-SG, contrast at {weight:g}", {"contrast_weight": weight})],
            suffix=f"-w{weight:g}",
            labeled_by_seed=True,
        )
    ],
    # (e) The parts of each paper's method, where labels are few, and the whole of those that (b) lacks.
    *_methods("acdc96", 1, 7, _rows("action", "mona"), labeled_by_seed=True),
    *_methods("acdc96", 1, 7, _PARTS, labeled_by_seed=True),
    # (f) Real atria in 3-D; (g) generated abdomens with a long tail; MORSE on two networks and two cohorts.
    *_methods("la", 8, 8, _rows("supervised", "base", "arco-sg"), dims=3, seeds=(0, 1)),
    *_methods("la", 0, 8, [("supervised", "supervised", "supervised, all labels", {})], dims=3, seeds=(0, 1)),
    *_methods("abdomen96", 3, 9, _rows("supervised", "base", "actionpp", "arco-sg")),
    *_methods("abdomen96", 0, 9, _SUPERVISED_ALL),
    *_methods("acdc96", 0, 10, [("morse", "morse", "MORSE", _ALL)]),
    *_methods("abdomen96", 0, 10, [("morse", "morse", "MORSE", _ALL)]),
    *[
        run
        for cohort, network in (
            ("acdc96", "basic_unet"),
            ("abdomen96", "basic_unet"),
            ("acdc96", "light_unet"),
        )
        for run in _methods(
            cohort,
            0,
            10,
            [("supervised", "supervised", "backbone alone", _ALL), ("morse", "morse", "MORSE", _ALL)],
            network=network,
            suffix=f"-{network.replace('_', '-')}",
        )
    ],
    # Then, as time allows.
    *_methods("acdc96", 3, 11, _rows(*LATER)),
    *_methods("acdc96", 3, 12, _rows("action", "mona", "arco-sg"), profile="paper", suffix="-paper", settings=_SGD),
    *_methods("acdc96", 0, 13, _COMPONENTS),
)  # a cell of a table whose run is not recorded prints "not run"


def by_id(experiment: str) -> Experiment:
    """Returns the wanted run of this id.

    Raises:
        RecordError: No wanted run has this id.
    """
    wanted = next((e for e in EXPERIMENTS if e.id == experiment), None)
    if wanted is None:
        raise records.RecordError(f"{experiment!r} is not a wanted run; `python studies/trainings.py list` names them.")
    return wanted


def method_config(experiment: Experiment) -> Any:
    """Returns the method's ``Config``: the fields of its profile and of the size, then the experiment's own.

    An override of ``augmentation`` is a dictionary of its fields; one that the Config lacks is the pre-training's. All
    runs of a table have as many updates with labels.
    """
    kind = METHODS[experiment.method].Config
    profile = kind() if experiment.profile == "recommended" else getattr(kind, experiment.profile)()
    config = profile.for_size(experiment.budget)
    fields = dict(experiment.overrides)
    if "augmentation" in fields:
        fields["augmentation"] = replace(config.augmentation, **fields["augmentation"])
    pretraining = {k: fields.pop(k) for k in list(fields) if not hasattr(config, k)}
    if pretraining:
        fields["pretraining"] = replace(config.pretraining, **pretraining)
    config = replace(config, **fields)
    if hasattr(config, "pretraining"):  # the stage that reads no label comes on top
        config = replace(config, updates=round(config.updates / (1 - config.pretraining.shares[0])))
    return config


def config_of(experiment: Experiment) -> dict[str, Any]:
    """Returns everything that determines the result of a run except seed and code, as the record stores it."""
    from anatolab.training import Settings
    from anatolab.training.fingerprint import FREE

    left_out = ("seed", "devices", "nodes", "compile", *FREE)
    settings = Settings(**experiment.settings).resolved()
    return records.plain(
        {
            "method": experiment.method,
            "profile": experiment.profile,
            "cohort": experiment.cohort,
            "labeled_patients": experiment.labeled,
            "labeled_by_seed": experiment.labeled_by_seed,
            "field_of_view": experiment.field_of_view,
            "largest_component": experiment.largest_component,
            "size": {k: v for k, v in asdict(experiment.budget).items() if k != "depth" or v},
            "settings": {k: v for k, v in asdict(settings).items() if k not in left_out},
            "fields": asdict(method_config(experiment)),
        }
    )


def stands(experiment: Experiment, seed: int) -> bool:
    """Returns whether this run is recorded with the current code and configuration."""
    path = records.path_of(experiment.id, seed)
    if not path.exists():
        return False
    record = records.read(path)
    return record.config == config_of(experiment) and not records.is_stale(record)
