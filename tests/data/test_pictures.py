"""Pictures and DICOM as people have them, from the folder to the label beside the image."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from anatolab.cli import main
from anatolab.data import open_cohort
from anatolab.data.dicom import read_dicom
from anatolab.data.pictures import read_picture
from anatolab.types import InputError
from tests.test_cli_runs import complaint, discs, patients, run_of


def write(
    root: Path, ending: str, color: bool = False, count: int = 4, unlabeled: int = 1, labels: str = ".png"
) -> Path:
    """2-D patients in nnU-Net's layout, as pictures."""
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / folder).mkdir(parents=True)
    for number in range(count + unlabeled):
        image, label = discs(number, (40, 36, 1))
        gray = np.clip(image[..., 0].T / 2, 0, 255).astype(np.uint8)
        pixels = np.stack([gray, 255 - gray, gray // 2], -1) if color else gray
        part = "Tr" if number < count else "Ts"
        Image.fromarray(pixels).save(root / f"images{part}" / f"cell_{number}_0000{ending}")
        if part == "Tr":
            Image.fromarray(label[..., 0].T).save(root / "labelsTr" / f"cell_{number}.png")
    names = {str(k): name for k, name in enumerate("RGB"[: 3 if color else 1])}
    about = {"channel_names": names, "labels": {"background": 0, "outer": 1, "inner": 2}, "file_ending": ending}
    (root / "dataset.json").write_text(json.dumps(about))
    return root


@pytest.mark.parametrize(
    ("ending", "color"), [(".png", False), (".png", True), (".jpg", True), (".tif", False), (".bmp", True)]
)
def test_pictures_are_cases_of_one_slice(tmp_path: Path, ending: str, color: bool) -> None:
    cohort = open_cohort(write(tmp_path / "d", ending, color))
    assert [ref.patient for ref in cohort.refs] == [f"cell_{k}" for k in range(5)]
    assert [ref.labeled for ref in cohort.refs] == [True] * 4 + [False]
    case = cohort.refs[0].load()
    assert case.image.shape == (3 if color else 1, 1, 36, 40)
    assert case.label is not None
    np.testing.assert_array_equal(case.label[0], discs(0, (40, 36, 1))[1][..., 0].T)
    if ending != ".jpg":
        pixels = np.asarray(Image.open(case.source))
        np.testing.assert_array_equal(case.image[:, 0], np.moveaxis(pixels, -1, 0) if color else pixels[None])


def test_a_color_run_is_trained_evaluated_and_predicts_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "d", ".png", color=True)
    run = run_of(data, tmp_path / "r", "--held-out", "1")
    assert main(["evaluate", "--run", str(run)]) == 0
    assert "distances in voxels" in capsys.readouterr().out
    out = tmp_path / "out"
    assert main(["predict", "--run", str(run), "--images", str(data / "imagesTs"), "--out", str(out)]) == 0
    assert "geometry" not in capsys.readouterr().out  # a picture has none, and its label is one
    label = np.asarray(Image.open(out / "cell_4.png"))
    assert (label.shape, label.dtype) == ((36, 40), np.uint8)
    assert set(np.unique(label)) <= {0, 1, 2}
    said = complaint(capsys, "predict", "--run", run, "--images", data / "labelsTr", "--out", tmp_path / "x")
    assert "cell_0.png: holds 1 channel, and 3 are expected; give color pictures, or name 1 in the dataset.json" in said


def test_class_numbers_in_a_jpeg_are_refused_even_where_they_are_classes(tmp_path: Path) -> None:
    data = write(tmp_path / "d", ".jpg", color=False)
    for label in (data / "labelsTr").iterdir():
        Image.new("L", Image.open(label).size).save(label.with_suffix(".jpg"))  # background, as in no other class
        label.unlink()
    with pytest.raises(InputError, match=r"cell_0.jpg: is a JPEG, which does not keep class numbers; save .* as PNG"):
        open_cohort(data).refs[0].load()


def test_pages_are_slices_palettes_are_numbers_and_what_is_odd_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pages = rng.integers(0, 60_000, (3, 8, 9)).astype(np.uint16)
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif"), pages[None])
    classes = rng.integers(0, 3, (8, 9)).astype(np.uint8)
    palette = Image.fromarray(classes, "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "p.png")[0, 0], classes)
    clear = np.full((4, 4, 4), 255, np.uint8)
    Image.fromarray(clear).save(tmp_path / "opaque.png")
    assert read_picture(tmp_path / "opaque.png").shape == (3, 1, 4, 4)
    clear[0, 0, 3] = 0
    Image.fromarray(clear).save(tmp_path / "t.png")
    with pytest.raises(InputError, match=r"t.png: has transparent pixels"):
        read_picture(tmp_path / "t.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "p.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"cut.png: cannot be read as a picture"):
        read_picture(tmp_path / "cut.png")


def test_a_preview_beside_volumes_is_no_case(tmp_path: Path) -> None:
    root = patients(tmp_path / "d", count=3)
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(root / "imagesTr" / "preview.png")
    assert len(open_cohort(root).refs) == 3


# --- DICOM ----------------------------------------------------------------------------------------------------------

TURN = (0.0, 1.0, 0.0, 0.8, 0.0, -0.6)  # rows to the back, columns oblique


def series(
    folder: Path,
    volume: np.ndarray,
    uid: str = "1.2.3",
    skip: int | None = None,
    turn: tuple[float, ...] = TURN,
    shift: float = 0.0,
) -> np.ndarray:
    """Writes (z, y, x) as a DICOM series with a name in it; returns the affine in LPS."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(TURN[:3], TURN[3:])
    spacing, origin = (1.5, 1.25, 8.0), np.array([11.0, -7.0, 30.0])
    for z, plane in enumerate(volume):
        if z == skip:
            continue
        image = sitk.GetImageFromArray(plane.astype(np.int16))
        image.SetSpacing(spacing[:2])
        place = origin + z * spacing[2] * normal + z * shift * np.array(TURN[:3])
        tags = {
            "0008|0060": "CT",
            "0010|0010": "DOE^JANE",
            "0020|000e": uid,
            "0020|000d": "1.2",
            "0020|0032": "\\".join(f"{v:.6f}" for v in place),
            "0020|0037": "\\".join(map(str, turn)),
            "0020|0013": str(z + 1),
            "0018|0050": "8",
            "0028|1052": "-1024",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{uid}-{99 - z:03d}.dcm"))  # names run against the positions
        writer.Execute(image)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([TURN[:3], TURN[3:], normal], 1) * spacing
    affine[:3, 3] = origin
    return affine


def test_a_series_keeps_its_geometry_and_its_hounsfield_units(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 500, (5, 7, 6))
    lps = series(tmp_path / "s", volume)
    values, affine, spacing = read_dicom(tmp_path / "s")
    np.testing.assert_array_equal(values, volume)
    np.testing.assert_allclose(affine, np.diag([-1, -1, 1, 1]) @ lps, atol=1e-5)
    np.testing.assert_allclose(spacing, (8.0, 1.25, 1.5), atol=1e-5)


def test_a_series_with_a_gap_or_of_two_is_refused(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 500, (6, 7, 6))
    series(tmp_path / "gap", volume, skip=3)
    with pytest.raises(InputError, match=r"gap: its slices lie 8 to 16 mm apart"):
        read_dicom(tmp_path / "gap")
    series(tmp_path / "two", volume)
    series(tmp_path / "two", volume, uid="1.2.4")
    with pytest.raises(InputError, match=r"two: holds 2 DICOM series; copy the one you mean"):
        read_dicom(tmp_path / "two")


@pytest.mark.parametrize("left", [b"", b"\0" * 128 + b"DICM and nothing more"])
def test_a_damaged_slice_is_named_even_the_outermost(tmp_path: Path, left: bytes) -> None:
    series(tmp_path / "s", np.random.default_rng(0).integers(0, 500, (6, 7, 6)))
    (tmp_path / "s" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")  # the index of a disc
    assert read_dicom(tmp_path / "s")[0].shape == (6, 7, 6)
    (tmp_path / "s" / "1.2.3-099.dcm").write_bytes(left)
    with pytest.raises(InputError, match=r"1.2.3-099.dcm: is not a readable slice of the series"):
        read_dicom(tmp_path / "s")


@pytest.mark.parametrize(
    ("turn", "shift", "message"),
    [((0.0, 1.0, 0.0, 1.0, 0.0, 0.0), 0.0, "several orientations"), (TURN, 1.5, "are shifted against each other")],
)
def test_slices_that_make_no_box_are_refused(
    tmp_path: Path, turn: tuple[float, ...], shift: float, message: str
) -> None:
    volume = np.random.default_rng(0).integers(0, 500, (4, 7, 6))
    series(tmp_path / "s", volume, shift=shift)
    series(tmp_path / "s", volume[:1], turn=turn, shift=shift)
    with pytest.raises(InputError, match=message):
        read_dicom(tmp_path / "s")


def test_volumes_beside_folders_of_dicom_are_predicted_too_and_annotations_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = patients(tmp_path / "d", count=4)
    run = run_of(data, tmp_path / "r")
    mixed = tmp_path / "mixed"
    series(mixed / "scan", discs(7)[0].T)
    (mixed / "case.nii.gz").write_bytes((data / "imagesTr" / "case_00_0000.nii.gz").read_bytes())
    series(tmp_path / "both", discs(7)[0].T)
    (tmp_path / "both" / "case_2.nii.gz").write_bytes((mixed / "case.nii.gz").read_bytes())
    command = ["predict", "--run", str(run), "--out", str(tmp_path / "out"), "--images"]
    assert main([*command, str(mixed), str(tmp_path / "both")]) == 0
    names = ["both.nii.gz", "case.nii.gz", "case_2.nii.gz", "scan.nii.gz"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    said = complaint(capsys, *command, data / "labelsTr")
    assert "case_00.nii.gz: holds only 3 values, like an annotation; name images alone" in said
    assert "give this folder with --data" in complaint(capsys, *command, data)


def test_color_and_gray_are_told_apart_in_a_sentence_that_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(write(tmp_path / "gray", ".png"), tmp_path / "r")
    color = write(tmp_path / "color", ".png", color=True)
    said = complaint(capsys, "predict", "--run", run, "--images", color / "imagesTr", "--out", tmp_path / "p")
    assert "holds 3 channels (color), and 1 is expected; give gray pictures, or " in said


def test_a_run_predicts_dicom_and_trains_on_it_without_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = patients(tmp_path / "d", count=4)
    lps = np.eye(4)
    for number in (7, 8):
        image, _ = discs(number)
        lps = series(data / "imagesTs" / f"scan_{number}", image.T)
    cohort = open_cohort(data)
    assert [ref.patient for ref in cohort.refs if not ref.labeled] == ["scan_7", "scan_8"]
    run = run_of(data, tmp_path / "r", method=["mean-teacher", "--updates", "1", "--labeled", "2", "--unlabeled", "2"])
    out = tmp_path / "out"
    assert main(["predict", "--run", str(run), "--images", str(data / "imagesTs"), "--out", str(out)]) == 0
    label = nib.load(out / "scan_7.nii.gz")
    assert label.shape == (30, 28, 4)
    np.testing.assert_allclose(label.affine, np.diag([-1, -1, 1, 1]) @ lps, atol=1e-4)
    assert b"DOE" not in (out / "scan_7.nii.gz").read_bytes()
    folder = data / "imagesTs" / "scan_7"
    said = complaint(capsys, "predict", "--run", run, "--images", folder, "--out", folder)
    assert "scan_7: holds a DICOM series, which label volumes do not belong to; give another folder." in said
    one = next(folder.iterdir())
    said = complaint(capsys, "predict", "--run", run, "--images", one, "--out", tmp_path / "x")
    assert "is one file of a DICOM series; name the folder of the series" in said


# --- maps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", ["2", "3"])
def test_embed_writes_one_page_that_needs_no_network(
    tmp_path: Path, dims: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = patients(tmp_path / "d", count=4)
    run = run_of(data, tmp_path / "r", "--held-out", "2")
    out = tmp_path / "map.html"
    command = ["embed", str(run), "--out", str(out), "--dims", dims, "--per-class", "20"]
    capsys.readouterr()
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert f"tsne, {dims}-D, of 60 pixels of 2 validation patients" in printed
    text = out.read_text(encoding="utf-8")
    assert "<script src=" not in text
    assert "How far to believe it" in text
    traces = text.rpartition("Plotly.newPlot")[2].partition('"template"')[0]  # the theme names every kind of trace
    assert ("scatter3d" in traces) == (dims == "3")
    for name in ("trustworthiness", "class_hit_elsewhere", "patient_hit"):
        assert name in text
        assert name in printed
    assert "exists and is not replaced" in complaint(capsys, *command)
    capsys.readouterr()
    assert main([*command, "--overwrite", "--on", "all"]) == 0
    assert " pixels of 4 annotated patients, 2 of whom the run was trained on" in capsys.readouterr().out
