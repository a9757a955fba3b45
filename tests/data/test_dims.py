import pytest

from anatolab.data import dims_for


@pytest.mark.parametrize(
    ("spacing", "dims"),
    [((10, 1.25, 1.25), 2), ((3.0, 1.0, 1.0), 3), ((3.1, 1.0, 1.0), 2), ((1, 1, 1), 3), ((5, 0.7, 1.8), 2), (None, 2)],
)
def test_thick_slices_are_cut_and_near_cubes_are_patched(spacing, dims):
    assert dims_for(spacing) == dims
