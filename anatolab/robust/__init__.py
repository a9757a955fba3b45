"""Group robustness on frozen features of CLIP: one method per file.

Every method is made from a :class:`anatolab.robust.Start` (projection, text head, scale). Its ``fit(features, y,
groups=None, generator=None, validation=None)`` returns a head with ``logits(h)``. ``sees_in_training`` and
``sees_in_selection`` name the labels that it uses; other labels may be passed and have no effect.
"""

from anatolab.robust._fit import (
    Best,
    FeatureSet,
    Head,
    LinearHead,
    ProjectionHead,
    Sgd,
    Start,
    nearest_negatives,
    predict,
)
from anatolab.robust.adapter import ContrastiveAdapter
from anatolab.robust.afr import Afr
from anatolab.robust.catalog import METHODS, entry_of
from anatolab.robust.cfr import CalibrationSet, Cfr, calibration_set
from anatolab.robust.clip import Clip, load_clip
from anatolab.robust.cnc import Cnc
from anatolab.robust.dfr import Dfr
from anatolab.robust.erm import ErmLinearProbe, ErmProjection
from anatolab.robust.features import extract, features_of, rows_of, start_of, start_of_means
from anatolab.robust.groupdro import GroupDro
from anatolab.robust.heads import Card, load_head, open_clip_state, save_head
from anatolab.robust.jtt import Jtt
from anatolab.robust.wiseft import WiseFt
from anatolab.robust.zero_shot import ZeroShot

__all__ = [
    "METHODS",
    "Afr",
    "Best",
    "CalibrationSet",
    "Card",
    "Cfr",
    "Clip",
    "Cnc",
    "ContrastiveAdapter",
    "Dfr",
    "ErmLinearProbe",
    "ErmProjection",
    "FeatureSet",
    "GroupDro",
    "Head",
    "Jtt",
    "LinearHead",
    "ProjectionHead",
    "Sgd",
    "Start",
    "WiseFt",
    "ZeroShot",
    "calibration_set",
    "entry_of",
    "extract",
    "features_of",
    "load_clip",
    "load_head",
    "nearest_negatives",
    "open_clip_state",
    "predict",
    "rows_of",
    "save_head",
    "start_of",
    "start_of_means",
]
