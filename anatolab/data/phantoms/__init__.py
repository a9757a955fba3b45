"""Generated anatomy, written in the public layouts: everything runs with no download."""

from anatolab.data.phantoms.abdomen import Abdomen, abdomen_cohort, draw_abdomen, write_abdomen
from anatolab.data.phantoms.cardiac import Drawing, cardiac_cohort, draw_cohort, draw_patient, write_cardiac

WRITERS = {"cardiac": write_cardiac, "abdomen": write_abdomen}  # the kinds of ``anatolab cohort``

__all__ = [
    "WRITERS",
    "Abdomen",
    "Drawing",
    "abdomen_cohort",
    "cardiac_cohort",
    "draw_abdomen",
    "draw_cohort",
    "draw_patient",
    "write_abdomen",
    "write_cardiac",
]
