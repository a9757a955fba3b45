"""``anatolab predict`` with several runs, flips, probabilities, uncertainty, and what stands beside label volumes."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anatolab.cli import main
from anatolab.training import open_run
from tests.test_cli_runs import METHOD, complaint, contents, patients, result, run_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return patients(tmp_path_factory.mktemp("data") / "d", count=4)


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds and one with flips and quarter turns."""
    root = tmp_path_factory.mktemp("runs")
    plain = [run_of(data, root / f"seed{seed}", "--seed", str(seed), "--held-out", "1") for seed in (0, 1)]
    flips = run_of(data, root / "flips", method=[*METHOD, "--flip", "--quarter-turns"])
    return [*plain, flips]


def test_a_file_that_is_no_image_is_named_as_such(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = complaint(capsys, "predict", "--run", runs[0], "--images", runs[0] / "run.json", "--out", tmp_path / "p")
    assert "run.json: is no image; name .nii.gz, .nii, .nrrd, .mha, .mhd, .png, .jpg, .jpeg, .tif, .tiff, .bmp" in said
    said = complaint(capsys, "predict", "--run", runs[0], "--images", tmp_path / "no.nii.gz", "--out", tmp_path / "p")
    assert "no.nii.gz: there is no such file or folder; check the path" in said
    said = complaint(
        capsys, "predict", "--run", runs[0], "--run", runs[0], "--images", tmp_path, "--out", tmp_path / "p"
    )
    assert f"{runs[0]}: is given twice; name each run once" in said


def volume(path: Path) -> np.ndarray:
    return nib.load(path).get_fdata()


def _check_largest(probability: np.ndarray, label: np.ndarray) -> None:
    """The label's probability is the largest, up to the rounding to 16 bits, which makes ties."""
    chosen = np.take_along_axis(probability, label[..., None].astype(int), 3)[..., 0]
    assert (probability.max(3) - chosen).max() < 1.01 / 65_535
    assert (probability.argmax(3) == label).mean() > 0.999


def test_an_ensemble_writes_the_mean_and_where_its_runs_disagree(
    data: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = data / "imagesTr" / "case_00_0000.nii.gz"
    each = []
    for number, run in enumerate(runs[:2]):
        out = tmp_path / str(number)
        assert (
            main(["predict", "--run", str(run), "--images", str(image), "--out", str(out), "--probabilities", "4d"])
            == 0
        )
        each.append(volume(out / "probabilities" / "case_00.nii.gz"))
        _check_largest(each[-1], volume(out / "case_00.nii.gz"))
    start = ["predict", "--run", runs[0], "--run", runs[1], "--images", image, "--out", tmp_path / "both"]
    written = result(capsys, *start, "--probabilities", "4d", "--uncertainty", "--json")
    assert written["run"] == [str(run) for run in runs[:2]]
    assert set(written["written"][0]["more"]) == {"entropy", "mutual_information", "probabilities"}
    mean = volume(tmp_path / "both" / "probabilities" / "case_00.nii.gz")
    np.testing.assert_allclose(mean, (each[0] + each[1]) / 2, atol=2e-5)
    _check_largest(mean, volume(tmp_path / "both" / "case_00.nii.gz"))
    entropy = volume(tmp_path / "both" / "entropy" / "case_00.nii.gz")
    np.testing.assert_allclose(entropy, -(mean * np.log(mean.clip(1e-9))).sum(3), atol=1e-3)
    assert entropy.min() >= 0
    assert entropy.max() <= math.log(3) + 1e-6
    mutual = volume(tmp_path / "both" / "mutual_information" / "case_00.nii.gz")
    assert mutual.min() >= 0
    assert 0 < mutual.max() <= entropy.max()


def test_probabilities_a_class_and_as_an_array(data: Path, runs: list[Path], tmp_path: Path) -> None:
    start = ["predict", "--run", str(runs[0]), "--data", str(data), "--on", "validation"]
    for form in ("4d", "class", "npy"):
        assert main([*start, "--out", str(tmp_path / form), "--probabilities", form]) == 0
    (patient,) = open_run(runs[0])[1].split.validation
    whole = volume(tmp_path / "4d" / "probabilities" / f"{patient}.nii.gz")
    for number, name in enumerate(("background", "outer", "inner")):
        one = volume(tmp_path / "class" / "probabilities" / f"{number}_{name}" / f"{patient}.nii.gz")
        np.testing.assert_array_equal(one, whole[..., number])
    array = np.load(tmp_path / "npy" / "probabilities" / f"{patient}.npy")
    assert (array.dtype, array.shape) == (np.float16, whole.T.shape)
    np.testing.assert_allclose(array, whole.T, atol=3e-4)
    assert len({(tmp_path / form / f"{patient}.nii.gz").read_bytes() for form in ("4d", "class", "npy")}) == 1
    assert list(tmp_path.rglob(".probabilities*")) == []


def test_flips_and_turns_are_averaged_where_the_run_was_trained_under_them(
    data: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "in" / "a.nii.gz"
    image.parent.mkdir()
    scan = nib.load(data / "imagesTr" / "case_00_0000.nii.gz")
    square = nib.Nifti1Image(np.asarray(scan.dataobj)[1:29], scan.affine)
    nib.save(square, image)
    flipped = nib.Nifti1Image(np.asarray(square.dataobj)[::-1], scan.affine)  # mirrored anatomy in the same geometry
    nib.save(flipped, image.parent / "b.nii.gz")
    start = ["predict", "--run", runs[2], "--images", image.parent, "--probabilities", "4d"]
    for name, flags in (("plain", []), ("mean", ["--average"])):
        assert main([str(c) for c in (*start, "--out", tmp_path / name, *flags)]) == 0
    one, two = (volume(tmp_path / "mean" / "probabilities" / f"{name}.nii.gz") for name in "ab")
    _, info = open_run(runs[2])
    if info.field_of_view is None or info.field_of_view["center"][1] == 0.5:
        np.testing.assert_allclose(one, two[::-1], atol=1e-3)
    plain = volume(tmp_path / "plain" / "probabilities" / "a.nii.gz")
    assert np.abs(one - plain).max() > 1e-3
    said = complaint(capsys, "predict", "--run", runs[0], "--images", image, "--out", tmp_path / "x", "--average")
    assert f"--average: {runs[0]} was trained without flips and quarter turns; leave it out." in said
    assert not (tmp_path / "x").exists()


def test_names_of_classes_stand_beside_the_labels_once(
    data: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = sorted((data / "imagesTr").iterdir()), tmp_path / "p"
    for image in images[:2]:  # twice into one folder
        assert main(["predict", "--run", str(runs[0]), "--images", str(image), "--out", str(out), "--label-names"]) == 0
    assert '1 43 127 208 1 1 1 "outer"' in (out / "labels_itksnap.txt").read_text()
    assert "2 inner 185 138 0 255" in (out / "labels_slicer.ctbl").read_text()
    (out / "labels_itksnap.txt").write_text("of another run\n")
    said = complaint(capsys, "predict", "--run", runs[0], "--images", images[2], "--out", out, "--label-names")
    assert "labels_itksnap.txt: exists and is not replaced" in said
    assert not (out / "case_02.nii.gz").exists()


def test_the_component_rule_is_the_runs_or_that_of_the_flags(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every, largest = run_of(data, tmp_path / "a"), run_of(data, tmp_path / "b", "--largest-component")
    out = tmp_path / "out"
    for name, run, flags in (
        ("a", every, []),
        ("a-largest", every, ["--largest-component"]),
        ("b", largest, []),
        ("b-every", largest, ["--no-largest-component"]),
    ):
        assert main(["predict", "--run", str(run), "--data", str(data), "--out", str(out / name), *flags]) == 0
    assert contents(out / "a") == contents(out / "b-every")
    assert contents(out / "b") == contents(out / "a-largest")
    assert contents(out / "a") != contents(out / "b")
    both = ["predict", "--run", every, "--run", largest, "--data", data, "--out", out / "both"]
    assert "give --largest-component or --no-largest-component" in complaint(capsys, *both)
    assert "give one of the two" in complaint(capsys, *both, "--largest-component", "--no-largest-component")
    assert main([str(c) for c in (*both, "--largest-component")]) == 0


def test_runs_that_do_not_fit_are_refused(
    data: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(data, tmp_path / "other"))
    about = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**about, "labels": {"background": 0, "outer": 1, "core": 2}}))
    renamed = run_of(other, tmp_path / "renamed")
    start = ["predict", "--run", runs[0], "--run", renamed, "--data", data, "--out", tmp_path / "out"]
    said = complaint(capsys, *start)
    assert f"{renamed}: its classes (background, outer, core) are not those of {runs[0]}" in said
    assert not (tmp_path / "out").exists()
    assert "--window" in complaint(
        capsys, "predict", "--run", runs[0], "--data", data, "--out", "x", "--window", "gaussian"
    )


def test_a_mac_computes_on_its_gpu_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from anatolab.cli.common import device_of
    from anatolab.types import InputError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for there, auto in ((True, "mps"), (False, "cpu")):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=there: there)
        assert (device_of("auto"), device_of("cpu")) == (auto, "cpu")
        if there:
            assert device_of("mps") == "mps"
        else:
            with pytest.raises(InputError, match="--accelerator mps: torch sees no such device here"):
                device_of("mps")
