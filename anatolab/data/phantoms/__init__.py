"""Generated anatomy, written in the public layouts: everything runs with no download."""

from anatolab.data.phantoms.abdomen import Abdomen, draw_abdomen, write_abdomen
from anatolab.data.phantoms.atrium import Atrium, draw_atrium, write_atrium
from anatolab.data.phantoms.cardiac import Drawing, draw_cohort, draw_patient, write_cardiac
from anatolab.data.phantoms.cohorts import abdomen_cohort, atrium_cohort, cardiac_cohort

KINDS = {  # of ``anatolab cohort``: what writes one, and the files that are there once a patient
    "cardiac": (write_cardiac, "patient*/Info.cfg"),
    "abdomen": (write_abdomen, "label/*.nii.gz"),
    "atrium": (write_atrium, "ATR*/laendo.nrrd"),
}

__all__ = [
    "KINDS",
    "Abdomen",
    "Atrium",
    "Drawing",
    "abdomen_cohort",
    "atrium_cohort",
    "cardiac_cohort",
    "draw_abdomen",
    "draw_atrium",
    "draw_cohort",
    "draw_patient",
    "write_abdomen",
    "write_atrium",
    "write_cardiac",
]
