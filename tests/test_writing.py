"""A label volume carries the geometry of its image, and nothing else of the patient."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anatolab.types import Case, InputError
from anatolab.writing import ITKSNAP, SLICER, write_label_names, write_map, write_nifti, write_probabilities

AFFINE = np.array([[0.0, -1.5, 0.0, 20.0], [1.5, 0.0, 0.2, -7.0], [0.0, 0.0, 8.0, 3.0], [0.0, 0.0, 0.0, 1.0]])
NAMES = (b"DOE^JANE", b"MRN 4711", b"jane_doe", b"PatientName", b"1961-02-03", b"scanner 7")


def source(path: Path, kind: type = nib.Nifti1Image) -> Case:
    """A scan whose header says more than geometry."""
    volume = np.arange(4 * 3 * 2, dtype=np.int16).reshape(4, 3, 2)
    image = kind(volume, AFFINE)
    image.set_sform(AFFINE, code=2)
    image.set_qform(AFFINE, code=1, strip_shears=True)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"], image.header["aux_file"] = b"DOE^JANE 1961-02-03", b"jane_doe.dcm"
    image.header["intent_name"] = b"MRN 4711"
    if kind is nib.Nifti1Image:
        image.header["db_name"] = b"scanner 7"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"PatientName: DOE^JANE"))
    nib.save(image, path)
    array = np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0)[None]
    return Case("a", "", array, None, (8.0, 1.5, 1.5), AFFINE, path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_geometry_is_kept_and_names_are_not(tmp_path: Path, kind: type, ending: str) -> None:
    case = source(tmp_path / f"DOE^JANE{ending}", kind)
    label = (case.image[0] % 3).astype(np.uint8)
    path = tmp_path / "out" / f"label{ending}"
    write_nifti(label, case, path)
    written, scan = nib.load(path), nib.load(case.source)
    np.testing.assert_array_equal(np.asarray(written.dataobj).transpose(2, 1, 0), label)
    np.testing.assert_array_equal(written.affine, scan.affine)
    assert written.get_data_dtype() == np.uint8
    assert written.header.get_zooms() == scan.header.get_zooms()
    assert written.header.get_xyzt_units()[0] == "mm"
    for get in ("get_qform", "get_sform"):
        (one, code), (two, other) = (getattr(image, get)(coded=True) for image in (written, scan))
        np.testing.assert_array_equal(one, two)
        assert code == other
    content = path.read_bytes()
    plain = gzip.decompress(content) if ending == ".nii.gz" else content
    assert [name for name in NAMES if name in plain or name in content] == []
    assert len(written.header.extensions) == 0
    again = tmp_path / "again" / f"label{ending}"
    write_nifti(label, case, again)
    assert again.read_bytes() == content  # no date, no name of the file


def test_a_case_without_geometry_gets_the_identity(tmp_path: Path) -> None:
    case = replace(source(tmp_path / "a.nii"), affine=None, source=tmp_path / "a.h5")
    write_nifti(np.zeros((2, 3, 4), np.uint8), case, tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "label.nii.gz").affine, np.eye(4))


def test_a_header_that_was_not_believed_is_not_copied(tmp_path: Path) -> None:
    case = replace(source(tmp_path / "a.nii"), affine=np.diag([2.0, 2.0, 2.0, 1.0]))
    write_nifti(np.zeros((2, 3, 4), np.uint8), case, tmp_path / "label.nii.gz")
    written = nib.load(tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(written.affine, case.affine)
    assert written.header.get_zooms() == (2.0, 2.0, 2.0)


def test_a_label_is_not_written_over_a_file_or_of_another_shape(tmp_path: Path) -> None:
    case = source(tmp_path / "a.nii")
    before = case.source.read_bytes()
    with pytest.raises(InputError, match=r"a.nii: exists and is not replaced; give --overwrite"):
        write_nifti(np.zeros((2, 3, 4), np.uint8), case, case.source)
    assert case.source.read_bytes() == before
    with pytest.raises(InputError, match=r"b.nii: the label has shape \(4, 3, 2\) and .*a.nii \(2, 3, 4\)\."):
        write_nifti(np.zeros((4, 3, 2), np.uint8), case, tmp_path / "b.nii")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii"]
    other = tmp_path / "c.nii"
    for value in (1, 2):
        write_nifti(np.full((2, 3, 4), value, np.uint8), case, other, overwrite=True)
    assert np.asarray(nib.load(other).dataobj).max() == 2


# --- probabilities, maps, names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_probabilities_come_back_with_their_scale_and_geometry(tmp_path: Path, ending: str, kind: type) -> None:
    case = source(tmp_path / f"a{ending}", kind)
    stored = np.random.default_rng(0).integers(0, 65_536, (3, 2, 3, 4)).astype(np.uint16)
    write_probabilities(iter(stored), 3, case, tmp_path / f"p{ending}")
    image = nib.load(tmp_path / f"p{ending}")
    assert (image.shape, image.get_data_dtype()) == ((4, 3, 2, 3), np.uint16)
    np.testing.assert_allclose(image.get_fdata(), stored.T / 65_535, atol=1e-7)
    np.testing.assert_array_equal(image.affine, nib.load(case.source).affine)
    write_probabilities([stored[1]], 1, case, tmp_path / f"one{ending}")
    one = nib.load(tmp_path / f"one{ending}")
    np.testing.assert_allclose(one.get_fdata(), stored[1].T / 65_535, atol=1e-7)
    assert not any(name in (tmp_path / "p.nii").read_bytes() for name in NAMES if ending == ".nii")


def test_maps_are_numbers_in_the_geometry_of_the_image(tmp_path: Path) -> None:
    case = source(tmp_path / "a.nii")
    values = np.random.default_rng(0).random((2, 3, 4), np.float32)
    write_map(values, case, tmp_path / "m.nii.gz")
    image = nib.load(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(image.get_fdata().T, values)
    np.testing.assert_array_equal(image.affine, nib.load(case.source).affine)
    with pytest.raises(InputError, match=r"m2.nii: the map has shape \(4, 3, 2\)"):
        write_map(values.T, case, tmp_path / "m2.nii")


def test_names_of_classes_as_itk_snap_and_slicer_read_them(tmp_path: Path) -> None:
    classes, colors = ("background", "left kidney", 'the "LV"'), ("#808080", "#2b7fd0", "#d0445f")
    write_label_names(classes, colors, tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []
    write_label_names(classes, colors, tmp_path)
    snap = [line for line in (tmp_path / ITKSNAP).read_text().splitlines() if not line.startswith("#")]
    row = r'\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s+([01])\s+([01])\s+"([^"]*)"'  # ITK-SNAP's own scanf, in words
    parsed = [re.fullmatch(row, line).groups() for line in snap]  # type: ignore[union-attr]
    assert parsed[0] == ("0", "128", "128", "128", "0", "0", "0", "background")
    assert parsed[1] == ("1", "43", "127", "208", "1", "1", "1", "left kidney")
    assert parsed[2][-1] == "the 'LV'"
    table = [line.split() for line in (tmp_path / SLICER).read_text().splitlines() if not line.startswith("#")]
    assert table[0] == ["0", "background", "128", "128", "128", "0"]
    assert table[1] == ["1", "left_kidney", "43", "127", "208", "255"]
    write_label_names(classes, colors, tmp_path)  # the same again
    for check in (True, False):
        with pytest.raises(InputError, match="exists and is not replaced"):
            write_label_names(classes[:2], colors[:2], tmp_path, check=check)
    write_label_names(classes[:2], colors[:2], tmp_path, overwrite=True)
    assert "LV" not in (tmp_path / SLICER).read_text()
