"""Generated anatomy, written in the public layouts: everything runs with no download."""

from anatolab.data.phantoms.atrium import Atrium, atrium_cohort, draw_atrium, write_atrium
from anatolab.data.phantoms.cardiac import Drawing, cardiac_cohort, draw_cohort, draw_patient, write_cardiac

__all__ = [
    "Atrium",
    "Drawing",
    "atrium_cohort",
    "cardiac_cohort",
    "draw_atrium",
    "draw_cohort",
    "draw_patient",
    "write_atrium",
    "write_cardiac",
]
