"""Generated anatomy, written in the public layouts, so that everything runs without a download."""

from anatolab.data.phantoms.abdomen import Abdomen, draw_abdomen, write_abdomen
from anatolab.data.phantoms.atrium import Atrium, draw_atrium, write_atrium
from anatolab.data.phantoms.cardiac import Drawing, draw_cohort, draw_patient, write_cardiac
from anatolab.data.phantoms.cohorts import abdomen_cohort, atrium_cohort, cardiac_cohort
from anatolab.data.phantoms.scenes import (
    Counterfactuals,
    Scenes,
    counterfactual_scenes,
    finch_or_duck,
    pretraining_scenes,
    recombined_scenes,
)

KINDS = {  # of ``anatolab cohort``: the writer, and the pattern of a file that exists once per patient
    "cardiac": (write_cardiac, "patient*/Info.cfg"),
    "abdomen": (write_abdomen, "label/*.nii.gz"),
    "atrium": (write_atrium, "ATR*/laendo.nrrd"),
}

__all__ = [
    "KINDS",
    "Abdomen",
    "Atrium",
    "Counterfactuals",
    "Drawing",
    "Scenes",
    "abdomen_cohort",
    "atrium_cohort",
    "cardiac_cohort",
    "counterfactual_scenes",
    "draw_abdomen",
    "draw_atrium",
    "draw_cohort",
    "draw_patient",
    "finch_or_duck",
    "pretraining_scenes",
    "recombined_scenes",
    "write_abdomen",
    "write_atrium",
    "write_cardiac",
]
