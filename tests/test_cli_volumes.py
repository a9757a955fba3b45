"""The commands on volumes: dimensions from the spacing, patches, windows, and label volumes in the image's geometry."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from anatolab.cli import main
from anatolab.data import dims_for, open_cohort
from anatolab.data.phantoms import draw_atrium, write_atrium, write_cardiac

TRAIN = ["--split-seed", "0", "--held-out", "1", "--labeled-patients", "1", "--accelerator", "cpu"]
SMALL = ["--patch", "8", "16", "16", *TRAIN]
AFFINE = np.eye(4)  # oblique, rows upward and columns to the front
AFFINE[:3] = [[0.0, -0.96, 0.28, 40.0], [0.0, 0.28, 0.96, -25.0], [1.1, 0.0, 0.0, 7.0]]


def trained(data: Path, out: Path, *arguments: str) -> Path:
    assert main(["train", "--data", str(data), "--out", str(out), *arguments]) == 0
    return out


@pytest.fixture(scope="module")
def atria(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_atrium(tmp_path_factory.mktemp("data") / "atria", patients=4, seed=0, size=24)


@pytest.fixture(scope="module")
def run(atria: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(atria, tmp_path_factory.mktemp("runs") / "mt", *SMALL, "mean-teacher", "--updates", "3")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Anyone's own oblique NIfTI volumes, in the Decathlon's layout, not in the canonical orientation."""
    root = tmp_path_factory.mktemp("data") / "own"
    for index in range(4):
        one = draw_atrium(7, index, size=24)
        for folder, volume in (("imagesTr", one.image), ("labelsTr", one.label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            image = nib.Nifti1Image(np.ascontiguousarray(volume.transpose(2, 1, 0)), AFFINE)
            image.set_sform(AFFINE, code=1)
            image.set_qform(None, code=0)
            image.header.set_xyzt_units("mm")
            nib.save(image, root / folder / f"heart_{index}.nii.gz")
    said = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "LA"}}
    (root / "dataset.json").write_text(json.dumps(said))
    return root


def test_isotropic_volumes_are_trained_on_patches_with_the_budget_of_volumes(run: Path) -> None:
    described = json.loads((run / "run.json").read_text())
    assert described["patch"] == [8, 16, 16]
    assert described["classes"] == ["background", "LA"]
    assert (described["config"]["labeled"], described["config"]["unlabeled"]) == (2, 2)  # 4 and 4 of slices


def test_evaluate_slides_a_window_of_either_stride(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stride in ([], ["--stride", "4", "6", "6"]):
        assert main(["evaluate", "--run", str(run), *stride, "--accelerator", "cpu"]) == 0
        printed = capsys.readouterr().out
        assert "1 validation patient, 1 volume; distances in mm" in printed
        assert "LA" in printed


def test_nifti_predicted_from_nrrd_lies_where_the_nrrd_lies(atria: Path, run: Path, tmp_path: Path) -> None:
    source = sitk.ReadImage(str(atria / "ATR002" / "lgemri.nrrd"))
    turn = (0.0, -1.0, 0.0, 0.8, 0.0, -0.6, 0.6, 0.0, 0.8)  # oblique, axes swapped
    source.SetDirection(turn)
    source.SetOrigin((11.0, -7.0, 30.0))
    file = tmp_path / "ATR002" / "lgemri.nrrd"
    file.parent.mkdir()
    sitk.WriteImage(source, str(file))
    assert main(["predict", "--run", str(run), "--images", str(file), "--out", str(tmp_path / "out")]) == 0
    written = sitk.ReadImage(str(tmp_path / "out" / "ATR002.nii.gz"))
    assert written.GetSize() == source.GetSize()
    np.testing.assert_allclose(written.GetSpacing(), source.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(written.GetOrigin(), source.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(written.GetDirection(), turn, atol=1e-6)
    corner = tuple(n - 1 for n in source.GetSize())
    world = source.TransformIndexToPhysicalPoint(corner)
    np.testing.assert_allclose(written.TransformIndexToPhysicalPoint(corner), world, atol=1e-4)
    again = nib.load(tmp_path / "out" / "ATR002.nii.gz")
    np.testing.assert_allclose((again.affine @ [*corner, 1])[:3], np.multiply(world, (-1, -1, 1)), atol=1e-4)
    assert again.header.get_xyzt_units()[0] == "mm"
    assert again.get_data_dtype() == np.uint8


def test_predicted_voxels_are_those_of_evaluate(atria: Path, run: Path, tmp_path: Path) -> None:
    from anatolab.inference import predict_volume
    from anatolab.training.folder import open_run

    ref = open_cohort(atria).refs[1]
    assert main(["predict", "--run", str(run), "--images", str(ref.source), "--out", str(tmp_path)]) == 0
    method, info = open_run(run)
    expected = predict_volume(method.predict, ref.load(), info.size, **info.rules)  # type: ignore[arg-type]
    written = np.asarray(nib.load(tmp_path / "ATR002.nii.gz").dataobj)
    np.testing.assert_array_equal(written.transpose(2, 1, 0), expected)


def test_own_nifti_volumes_keep_affine_spacing_orientation_and_codes(own: Path, tmp_path: Path) -> None:
    run = trained(own, tmp_path / "run", *SMALL, "supervised", "--updates", "2")
    assert main(["evaluate", "--run", str(run), "--accelerator", "cpu"]) == 0
    source = own / "imagesTr" / "heart_2.nii.gz"
    assert main(["predict", "--run", str(run), "--images", str(source), "--out", str(tmp_path / "out")]) == 0
    image, label = nib.load(source), nib.load(tmp_path / "out" / "heart_2.nii.gz")
    assert label.shape == image.shape
    np.testing.assert_array_equal(label.affine, image.affine)
    assert label.header.get_zooms() == image.header.get_zooms()
    assert nib.aff2axcodes(label.affine) == nib.aff2axcodes(AFFINE)
    assert (int(label.header["sform_code"]), int(label.header["qform_code"])) == (1, 0)
    one, two = sitk.ReadImage(str(source)), sitk.ReadImage(str(tmp_path / "out" / "heart_2.nii.gz"))
    for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(one, what)() == getattr(two, what)(), what


def test_dims_overrides_the_spacing_both_ways(atria: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slices = trained(
        atria, tmp_path / "2", "--dims", "2", "--side", "32", *TRAIN, "supervised", "--updates", "1", "--labeled", "2"
    )
    assert json.loads((slices / "run.json").read_text())["patch"] is None
    hearts = write_cardiac(tmp_path / "hearts", patients=3, seed=0, size=160)
    assert dims_for(open_cohort(hearts).refs[0].load().spacing) == 2
    volumes = trained(hearts, tmp_path / "3", "--dims", "3", *SMALL, "supervised", "--updates", "1")
    assert json.loads((volumes / "run.json").read_text())["patch"] == [8, 16, 16]
    printed = capsys.readouterr().out
    assert "labeled, slices of 32 x 32\n" in printed
    assert "labeled, patches of 8 x 16 x 16\n" in printed


def test_a_single_slice_is_no_volume(own: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    for file in (*own.glob("imagesTr/*"), *own.glob("labelsTr/*")):
        target = flat / file.relative_to(own)
        target.parent.mkdir(parents=True, exist_ok=True)
        whole = nib.load(file)
        middle = np.asarray(whole.dataobj)[:, :, whole.shape[2] // 2 :][:, :, :1]
        nib.save(nib.Nifti1Image(middle, whole.affine, whole.header), target)
    (flat / "dataset.json").write_text((own / "dataset.json").read_text())
    run = trained(flat, tmp_path / "run", "--side", "32", *TRAIN, "supervised", "--updates", "1")
    assert json.loads((run / "run.json").read_text())["patch"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patch", "8", "16", "20"], "--patch 8 16 20: stem_unet_small needs multiples of 8"),
        (["--patch", "8", "16", "24", "--network", "vnet"], "--patch 8 16 24: vnet needs multiples of 16"),
        (["--side", "48"], "--side: volumes are not resized"),
        (["--dims", "2", "--patch", "8", "16", "16"], "--patch: slices are not cut into patches"),
        (["--dims", "2", "--side", "50"], "--side 50: stem_unet_small needs multiples of 16"),
    ],
)
def test_sizes_that_do_not_fit_are_one_sentence(
    atria: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--data", str(atria), "--out", str(tmp_path / "new"), *arguments, *TRAIN, "supervised"]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"anatolab: {message}")
    assert said.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_stride_is_refused_where_no_window_slides_or_voxels_are_left_out(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--run", str(run), "--stride", "9", "1", "1"]) == 1
    assert "stride: (9, 1, 1) is not between 1 and the patch (8, 16, 16)" in capsys.readouterr().err
    hearts = write_cardiac(tmp_path / "hearts", patients=3, seed=0, size=48)
    slices = trained(hearts, tmp_path / "run", "--dims", "2", "--side", "32", *TRAIN, "supervised", "--updates", "1")
    assert main(["evaluate", "--run", str(slices), "--stride", "1", "1", "1"]) == 1
    assert "--stride: this run was trained on slices" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["action", "actionpp"])
def test_one_command_chains_the_stages_of_a_contrastive_method_on_volumes(
    atria: Path, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--shares", "0.25", "0.25", "--representation", "16", "--num-anchors", "32", "--num-negatives", "64"]
    out = trained(atria, tmp_path / method, *SMALL, "--log-every", "1", method, "--updates", "8", *small)
    stages = [json.loads(line)["stage"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert stages == ["global"] * 2 + ["local"] * 2 + ["contrast"] * 4
    assert main(["evaluate", "--run", str(out), "--accelerator", "cpu"]) == 0
    assert "LA" in capsys.readouterr().out


@pytest.mark.real
def test_action_plus_plus_takes_a_step_of_every_stage_on_real_atria(real_data: Path, tmp_path: Path) -> None:
    small = ["--representation", "16", "--updates", "4", "--labeled", "1", "--unlabeled", "1"]
    arguments = ["--patch", "16", "32", "32", *TRAIN, "actionpp", *small]
    out = trained(real_data / "LA", tmp_path / "la", *arguments)
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["step"] == 4
