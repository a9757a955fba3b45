"""Generated anatomy, written in the public layouts: everything runs with no download."""

from anatolab.data.phantoms.cardiac import Drawing, cardiac_cohort, draw_cohort, draw_patient, write_cardiac

__all__ = ["Drawing", "cardiac_cohort", "draw_cohort", "draw_patient", "write_cardiac"]
