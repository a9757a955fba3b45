"""Every layout goes from the command line through check, train, evaluate and predict."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from test_readers import EVERY

from anatolab.cli import main
from anatolab.data import open_cohort

TRAIN = ["--dims", "2", "--side", "16", "--split-seed", "0", "--held-out", "1", "--labeled-patients", "1"]


@pytest.mark.parametrize("layout", EVERY)
def test_every_layout_is_checked_trained_on_evaluated_and_predicted(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, out = EVERY[layout](tmp_path / "data"), tmp_path / "run", tmp_path / "out"
    assert main(["check", str(data)]) == 0
    said = capsys.readouterr().out
    cohort = open_cohort(data)
    assert f"{len(cohort.patients)} patients" in said
    method = ["--accelerator", "cpu", "supervised", "--updates", "2", "--labeled", "2"]
    assert main(["train", "--data", str(data), "--out", str(run), *TRAIN, *method]) == 0
    assert main(["evaluate", "--run", str(run), "--accelerator", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in cohort.classes[1:])
    ref = cohort.refs[0]
    if ref.source.name.endswith((".nii", ".nii.gz", ".nrrd")):
        images = [str(path) for path in ref.files if "seg" not in path.name and "label" not in str(path.name)]
        images = [i for i in images if not i.endswith(("_gt.nii.gz", "laendo.nrrd")) and "labelsTr" not in i]
        assert main(["predict", "--run", str(run), "--images", *images, "--out", str(out), "--accelerator", "cpu"]) == 0
        (written,) = out.glob("*.nii*")
        assert nib.load(written).shape == ref.load().image.shape[:0:-1]


def test_own_data_go_from_check_to_a_label_volume_that_two_programs_open_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, rng = tmp_path / "data", np.random.default_rng(0)
    oblique = np.eye(4)
    oblique[:3, :3] = np.array([[0.8, 0, -0.6], [0.6, 0, 0.8], [0, -1, 0]]) * [1.5, 1.5, 8]
    oblique[:3, 3] = 12, -40, 7
    for number in range(3):
        label = rng.integers(0, 3, (20, 18, 6)).astype(np.uint8)
        image = (40 * label + rng.normal(0, 5, label.shape)).astype(np.float32)
        for folder, name, volume in (("imagesTr", "_0000", image), ("labelsTr", "", label)):
            (data / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(volume, oblique), data / folder / f"knee_{number}{name}.nii.gz")
    said = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "bone": 1, "cartilage": 2}, "numTraining": 3}
    (data / "dataset.json").write_text(json.dumps({**said, "file_ending": ".nii.gz"}))
    assert main(["check", str(data)]) == 0
    assert "nnU-Net" in capsys.readouterr().out
    run, out = tmp_path / "run", tmp_path / "out"
    method = ["--accelerator", "cpu", "mean-teacher", "--updates", "2", "--labeled", "1", "--unlabeled", "1"]
    assert main(["train", "--data", str(data), "--out", str(run), *TRAIN, *method]) == 0
    image = next(iter(sorted((data / "imagesTr").iterdir())))
    assert main(["predict", "--run", str(run), "--images", str(image), "--out", str(out), "--accelerator", "cpu"]) == 0
    (written,) = out.glob("*.nii*")
    source, found = nib.load(image), nib.load(written)
    np.testing.assert_allclose(found.affine, source.affine)
    assert found.shape == source.shape[:3]
    one, two = sitk.ReadImage(str(image)), sitk.ReadImage(str(written))
    for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(two, geometry)(), getattr(one, geometry)(), atol=1e-5)
    assert set(np.unique(sitk.GetArrayFromImage(two))) <= set(range(3))
