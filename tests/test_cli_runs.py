"""Runs seen from the command line: whom they were trained on, which rules they keep, and what files are safe from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from anatolab.cli import main
from anatolab.cli.predict import label_name
from anatolab.cli.train import split_of
from anatolab.data import open_cohort
from anatolab.training import checkpoint, open_run
from anatolab.types import CaseRef, Cohort, InputError

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ["--split-seed", "0", "--side", "32", "--dims", "2", "--labeled-patients", "2", "--accelerator", "cpu"]
METHOD = ["supervised", "--updates", "2", "--labeled", "2"]
LABELS = {"background": 0, "outer": 1, "inner": 2}


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.5, 8.0, 1.0]) if affine is None else affine), path)


def discs(seed: int, shape: tuple[int, ...] = (30, 28, 4)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*map(np.arange, shape), indexing="ij")
    center = np.array(shape) / 2 + [*rng.uniform(-3, 3, 2), 0]
    radius = np.sqrt(sum((g - c) ** 2 for g, c in zip(grid[:2], center[:2], strict=True)))
    label = (radius < 10).astype(np.uint8) + (radius < 5)
    return (100 * label + rng.normal(100, 8, shape)).astype(np.float32), label.astype(np.uint8)


def patients(root: Path, count: int = 6, test: int = 0, labels: dict[str, int] | None = None, **more: Any) -> Path:
    """Patients in nnU-Net's layout; those of the test have labels, too."""
    for number in range(count + test):
        image, label = discs(number)
        part = "Tr" if number < count else "Ts"
        save(root / f"images{part}" / f"case_{number:02d}_0000.nii.gz", image)
        save(root / f"labels{part}" / f"case_{number:02d}.nii.gz", label)
    about = {"channel_names": {"0": "MR"}, "labels": labels or LABELS, "file_ending": ".nii.gz", **more}
    (root / "dataset.json").write_text(json.dumps(about))
    return root


def run_of(data: Path, out: Path, *more: str, method: Sequence[str] = METHOD) -> Path:
    assert main(["train", "--data", str(data), "--out", str(out), *TRAIN, *more, *method]) == 0
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return patients(tmp_path_factory.mktemp("data") / "d", window=[50, 350])


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(data, tmp_path_factory.mktemp("runs") / "r", "--held-out", "2")


def result(capsys: pytest.CaptureFixture[str], *command: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main([str(c) for c in command]) == 0
    return json.loads(capsys.readouterr().out)


def complaint(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    capsys.readouterr()
    assert main([str(c) for c in command]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("anatolab: ")
    assert printed.err.count("\n") == 1
    return printed.err


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the same answer in text and as JSON ----------------------------------------------------------------------------


def test_every_command_answers_in_json(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = result(capsys, "train", "--data", data, "--out", tmp_path / "r", *TRAIN, "--json", *METHOD)
    assert (trained["step"], trained["finished"], trained["method"]) == (2, True, "supervised")
    assert trained["patients"] == {"train": 5, "labeled": 2, "development": 0, "validation": 1, "test": 0}
    measured = result(capsys, "evaluate", "--run", run, "--json")
    assert measured["patients"] == list(open_run(run)[1].split.validation)
    assert measured["cases"].keys() == set(measured["patients"])
    written = result(capsys, "predict", "--run", run, "--images", data / "imagesTr", "--out", tmp_path / "p", "--json")
    assert [Path(w["file"]).name for w in written["written"]] == [f"case_{k:02d}.nii.gz" for k in range(6)]
    assert result(capsys, "check", data, "--json")["patients"] == 6
    assert result(capsys, "cohort", "cardiac", tmp_path / "c", "--patients", "1", "--json")["patients"] == 1


@pytest.mark.parametrize("module", ["anatolab", "anatolab.cli"])
def test_python_runs_the_package_and_its_command_line(module: str) -> None:
    for arguments, code, said in (
        (["--help"], 0, "cohort,check,train,evaluate,predict,robust,embed,export"),
        (["--version"], 0, "."),
        ([], 2, "anatolab: name one of cohort, check, train, evaluate, predict, robust, embed, export."),
        (["trian"], 2, "anatolab: 'trian' is not one of its commands"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, encoding="utf-8"
        )
        assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done


def test_help_needs_no_torch() -> None:
    code = "import sys; from anatolab.cli import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.stdout.splitlines()[-1] == "False"


# --- whom a run was trained on --------------------------------------------------------------------------------------


def cohort(names: str, **published: str) -> Cohort:
    refs = tuple(CaseRef(p, "", Path(p), lambda: None) for p in names)  # type: ignore[arg-type, return-value]
    lists = {part: tuple(listed) for part, listed in published.items()}
    return Cohort("example", "none", ("background", "organ"), refs, Path("example"), lists)


@pytest.mark.parametrize("seed", range(8))
def test_a_seed_never_trains_on_published_held_out_patients(seed: int) -> None:
    both = split_of(cohort("abcdefghij", train="abcdef", validation="gh", test="ij"), 2, seed, None)
    assert sorted(both.train) == list("abcdef")
    assert (both.validation, both.test) == (("g", "h"), ("i", "j"))
    drawn = split_of(cohort("abcdefgh", train="abcdef", test="gh"), 2, seed, 2, development=1)
    assert drawn.test == ("g", "h")
    assert (len(drawn.validation), len(drawn.development), len(drawn.train)) == (2, 1, 3)
    assert {*drawn.train, *drawn.validation, *drawn.development} == set("abcdef")
    free = split_of(cohort("abcdefghij"), 2, seed, None, 3)
    assert (len(free.validation), len(free.test), len(free.train)) == (2, 3, 5)
    assert len({*free.train, *free.validation, *free.test}) == 10


def test_counts_that_cannot_be_are_named_by_their_flags() -> None:
    ten = cohort("abcdefghij")
    for arguments, said in (
        ((0, 0, 1), "--labeled-patients must be a whole number of at least 1, not 0."),
        ((1, 0, -1), "--held-out must be a whole number of at least 0, not -1."),
        ((1, 0, 1, -2), "--held-out-test must be a whole number of at least 0, not -2."),
        ((1, 0, 1, 1, -1), "--development must be a whole number of at least 0, not -1."),
        ((1, None, 1), "--held-out: patients can only be held out with --split-seed; give a seed, such as 0."),
        ((1, None, None, 1), "--held-out-test: patients can only be held out with --split-seed; give a seed, such"),
        ((1, 0, 10), "10 validation patients cannot be held out of 10 annotated ones"),
    ):
        with pytest.raises(InputError) as error:
            split_of(ten, *arguments)  # type: ignore[arg-type]
        assert said in str(error.value)


def test_published_test_patients_are_measured_and_never_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = patients(tmp_path / "d", count=5, test=2)
    run = run_of(source, tmp_path / "r", "--held-out", "1", "--development", "1")
    split = open_run(run)[1].split
    assert set(split.test) == {"case_05", "case_06"}
    assert not set(split.test) & {*split.train, *split.validation, *split.development}
    assert (len(split.train), len(split.validation), len(split.development)) == (3, 1, 1)
    for part, count in (("test", 2), ("validation", 1), ("development", 1)):
        measured = result(capsys, "evaluate", "--run", run, "--on", part, "--json")
        assert (len(measured["patients"]), measured["trained_on"]) == (count, [])


def test_another_folder_is_measured_and_its_patients_of_known_names_are_not_called_held_out(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = patients(tmp_path / "other", count=8)
    measured = result(capsys, "evaluate", "--run", run, "--data", other, "--on", "all", "--json")
    split = open_run(run)[1].split
    assert len(measured["patients"]) == 8
    assert set(measured["trained_on"]) == set(split.train)
    assert main(["evaluate", "--run", str(run), "--data", str(other), "--on", "all"]) == 0
    printed = capsys.readouterr().out
    assert "8 annotated patients, 8 volumes" in printed
    assert "4 of these 8 patients have the names of training patients of the run (2 of them labeled)" in printed
    assert "of those not trained on" in printed
    assert "held-out" in printed.split("so they are not ")[1]


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "inner": 1, "outer": 2},
        {"background": 0, "outer": 1, "inner": 2, "more": 3},
        {"background": 0, "outer": 1},
    ],
)
def test_another_class_table_is_refused(
    run: Path, data: Path, labels: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = patients(tmp_path / "other", count=2, labels=labels)
    for part in ("validation", "all"):
        said = complaint(capsys, "evaluate", "--run", run, "--data", other, "--on", part)
        assert f"its classes are {', '.join(labels)}, and this run was trained on background, outer, inner" in said


# --- which rules it keeps -------------------------------------------------------------------------------------------


def test_evaluation_and_prediction_keep_the_window_of_the_run(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(data, tmp_path / "other"))
    about = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**about, "window": [0, 5_000]}))
    one, two = (result(capsys, "evaluate", "--run", run, "--data", d, "--json") for d in (data, other))
    assert one["summary"] == two["summary"]
    for name, d in (("a", data), ("b", other)):
        assert main(["predict", "--run", str(run), "--data", str(d), "--out", str(tmp_path / name)]) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("codes", ["LPS", "SAR", "PIL"])
def test_a_scan_in_another_orientation_gets_the_same_organs(run: Path, data: Path, codes: str, tmp_path: Path) -> None:
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    scan = nib.load(data / "imagesTr" / "case_00_0000.nii.gz")
    turn = ornt_transform(io_orientation(scan.affine), axcodes2ornt(codes))
    turned = scan.as_reoriented(turn)
    (tmp_path / "in").mkdir()
    nib.save(scan, tmp_path / "in" / "same.nii.gz")
    nib.save(turned, tmp_path / "in" / "turned.nii.gz")
    out = tmp_path / "out"
    assert main(["predict", "--run", str(run), "--images", str(tmp_path / "in"), "--out", str(out)]) == 0
    same, other = nib.load(out / "same.nii.gz"), nib.load(out / "turned.nii.gz")
    np.testing.assert_allclose(other.affine, turned.affine)
    assert nib.aff2axcodes(other.affine) == tuple(codes)
    np.testing.assert_array_equal(np.asarray(other.dataobj), np.asarray(same.as_reoriented(turn).dataobj))


def test_a_run_that_is_not_finished_says_so(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    payload = checkpoint.load(copy / "last.pt")
    info = {**json.loads(payload["info"]), "updates": 500}
    checkpoint.save({**payload, "info": json.dumps(info)}, copy / "last.pt")
    assert main(["evaluate", "--run", str(copy)]) == 0
    assert "note: the run is not finished: step 2 of 500 updates." in capsys.readouterr().out
    image = next(Path(open_run(run)[1].data).glob("imagesTr/*"))
    assert main(["predict", "--run", str(copy), "--images", str(image), "--out", str(tmp_path / "p")]) == 0
    assert "note: the run is not finished: step 2 of 500 updates." in capsys.readouterr().out


def test_a_refused_training_changes_nothing(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    start = ["train", "--data", data, "--out", run, "--held-out", "2", *TRAIN]
    for flags, said in (
        (["--split-seed", "1"], "split"),
        (["--side", "48"], "side"),
        (["--network", "basic_unet"], 'network ("stem_unet_small", now "basic_unet")'),
        (["--field-of-view", "whole"], "field_of_view"),
        (["--largest-component"], "largest_component (false, now true)"),
        (["--lr", "0.5"], "settings.lr"),
        (["--precision", "32-true"] if open_run(run)[1].settings["precision"] != "32-true" else ["--seed", "3"], "set"),
    ):
        assert said in complaint(capsys, *start, *flags, *METHOD), flags
    assert contents(run) == before
    renamed = Path(shutil.copytree(data, tmp_path / "renamed"))
    about = json.loads((renamed / "dataset.json").read_text())
    about["labels"] = {"background": 0, "other": 1, "inner": 2}
    (renamed / "dataset.json").write_text(json.dumps(about))
    start[2] = renamed
    assert "another classes" in complaint(capsys, *start, *METHOD)
    assert contents(run) == before


def test_a_held_out_copy_of_a_training_image_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = patients(tmp_path / "d")
    run_of(folder, tmp_path / "a")
    assert "is a copy of" not in capsys.readouterr().out
    split = open_run(tmp_path / "a")[1].split
    trained, other = (open_cohort(folder).of([part[0]])[0] for part in (split.train, split.validation))
    shutil.copyfile(trained.source, other.source)
    run_of(folder, tmp_path / "b")
    sentence = f"note: {other.name} is held out, and is a copy of {trained.name}, which is trained on."
    assert capsys.readouterr().out.count(sentence) == 1


def test_flips_that_exchange_sides_and_classes_that_nobody_has_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = patients(tmp_path / "d", labels={"background": 0, "left lung": 1, "right lung": 2, "heart": 3})
    run_of(sides, tmp_path / "a", method=[*METHOD, "--flip"])
    printed = capsys.readouterr().out
    assert "note: flips exchange 'left lung' and 'right lung', which differ by side alone; train with" in printed
    assert "note: no labeled patient has 'heart', so it cannot be learned." in printed
    run_of(sides, tmp_path / "b", method=[*METHOD, "--no-flip", "--no-quarter-turns"])
    assert "flips exchange" not in capsys.readouterr().out


def test_mixed_orientations_are_noted(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixed = Path(shutil.copytree(data, tmp_path / "mixed"))
    for part in ("imagesTr/case_03_0000", "labelsTr/case_03"):
        volume = np.asarray(nib.load(mixed / f"{part}.nii.gz").dataobj)
        save(mixed / f"{part}.nii.gz", volume, np.diag([-1.5, -1.5, 8.0, 1.0]))
    run_of(mixed, tmp_path / "r")
    assert "note: the images lie in RAS in 4, LPS in 1; all are brought to RAS" in capsys.readouterr().out


def test_what_headers_leave_open_is_noted_of_every_case(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = Path(shutil.copytree(data, tmp_path / "odd"))
    for number in (3, 4):
        for part in (f"imagesTr/case_{number:02d}_0000", f"labelsTr/case_{number:02d}"):
            volume = nib.load(odd / f"{part}.nii.gz")
            volume.set_qform(np.diag([1.5, 1.5, 8.0, 1.0]) + np.eye(4, k=3) * 50, 1)
            volume.set_sform(volume.affine, 1)
            nib.save(volume, odd / f"{part}.nii.gz")
    run_of(odd, tmp_path / "r", "--held-out", "0", "--split-seed", "0")
    note = "its qform and sform are up to 50 mm apart, and the sform is taken."
    assert f"note: case_03 (2 such): {note}" in capsys.readouterr().out
    measured = result(capsys, "evaluate", "--run", run, "--data", odd, "--on", "all", "--json")
    assert f"case_03_0000.nii.gz (2 such): {note}" in measured["notes"]
    assert measured["unit"] == "mm"


def test_slices_along_another_axis_are_noted(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turned = Path(shutil.copytree(data, tmp_path / "turned"))
    for part in ("imagesTr/case_03_0000", "labelsTr/case_03"):
        volume = np.asarray(nib.load(turned / f"{part}.nii.gz").dataobj)
        save(turned / f"{part}.nii.gz", volume.transpose(2, 0, 1), np.diag([8.0, 1.5, 1.5, 1.0]))
    note = "its slices are stacked along LR, 8 mm apart, and slices are taken along IS; resample it first."
    assert main(["check", str(turned)]) == 0
    assert f"case_03: {note}" in capsys.readouterr().out
    run_of(turned, tmp_path / "r", "--held-out", "0")
    assert f"note: case_03: {note}" in capsys.readouterr().out
    image = turned / "imagesTr" / "case_03_0000.nii.gz"
    assert main(["predict", "--run", str(run), "--images", str(image), "--out", str(tmp_path / "p")]) == 0
    assert f"note: case_03_0000.nii.gz: {note}" in capsys.readouterr().out


def test_patients_of_another_folder_are_measured_by_name_of_all(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = patients(tmp_path / "few", count=1)
    assert "validation patients are not here, first case_" in complaint(capsys, "evaluate", "--run", run, "--data", few)
    assert main(["evaluate", "--run", str(run), "--data", str(few), "--on", "all"]) == 0


def test_data_that_moved_are_asked_for(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Path(shutil.copytree(data, tmp_path / "there"))
    moved = run_of(there, tmp_path / "r")
    there.rename(tmp_path / "elsewhere")
    said = complaint(capsys, "evaluate", "--run", moved)
    assert f"{moved}: the folder {there} that it was trained on is not there; give --data." in said
    assert main(["evaluate", "--run", str(moved), "--data", str(tmp_path / "elsewhere")]) == 0


def test_patients_without_annotation_cannot_be_trained_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = Path(shutil.copytree(data, tmp_path / "bare"))
    shutil.rmtree(bare / "labelsTr")
    assert main(["check", str(bare)]) == 0
    assert "no case is annotated; predict can segment them" in capsys.readouterr().out
    said = complaint(capsys, "train", "--data", bare, "--out", tmp_path / "r", *TRAIN, *METHOD)
    assert f"{bare}: no patient is annotated; add the label maps" in said


def test_one_patient_has_a_mean_and_no_interval(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(data, tmp_path / "r", "--held-out", "1")
    capsys.readouterr()
    assert main(["evaluate", "--run", str(run)]) == 0
    printed = capsys.readouterr()
    assert "1 validation patient, 1 volume; distances in mm" in printed.out
    assert "no interval, which takes at least two patients" in printed.out
    assert "nan" not in printed.out
    assert printed.err == ""  # nothing of nibabel


# --- what never happens to files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("case_000_0000.nii.gz", "case_000.nii.gz"),
        ("case_000.nii.gz", "case_000.nii.gz"),
        ("scan_2019.nii", "scan_2019.nii"),
        ("a_0001.nii", "a_0001.nii"),
        ("a.b.mha", "a.b.nii.gz"),
        ("ID7/lgemri.nrrd", "ID7.nii.gz"),
    ],
)
def test_a_label_is_named_as_its_image_without_the_channel(image: str, label: str) -> None:
    assert label_name(Path(image)) == label


def test_predict_replaces_nothing_that_it_was_not_told_to(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = tmp_path / "scans"
    shutil.copytree(data / "imagesTr", scans)
    shutil.copy(scans / "case_01_0000.nii.gz", scans / "case_00.nii.gz")  # of another patient, under that name
    before = contents(scans)
    image = data / "imagesTr" / "case_00_0000.nii.gz"
    predict = ["predict", "--run", run, "--images"]
    assert "case_00.nii.gz: exists and is not replaced" in complaint(capsys, *predict, image, "--out", scans)
    inside = complaint(capsys, *predict, scans, "--out", scans, "--overwrite")
    assert "two images have the name case_00.nii.gz" in inside
    (scans / "case_00_0000.nii.gz").unlink()
    inside = complaint(capsys, *predict, scans, "--out", scans, "--overwrite")
    assert "would replace the image case_00.nii.gz" in inside
    assert contents(scans) == {name: content for name, content in before.items() if name != "case_00_0000.nii.gz"}
    out = tmp_path / "out"
    for more in ([], ["--overwrite"]):
        assert main([str(c) for c in (*predict, image, "--out", out, *more)]) == 0
    assert "exists and is not replaced" in complaint(capsys, *predict, image, "--out", out)


def test_a_folder_of_patients_in_any_layout_is_predicted(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import h5py

    flat = tmp_path / "flat"
    for number in range(2):  # ACDC as SSL4MIS writes it: no geometry
        image, label = discs(number)
        file = flat / "data" / f"patient{number + 1:03d}_frame01.h5"
        file.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(file, "w") as h5:
            h5["image"], h5["label"] = image.transpose(2, 1, 0), label.transpose(2, 1, 0)
    names = [ref.name for ref in open_cohort(flat).refs]
    written = result(capsys, "predict", "--run", run, "--data", flat, "--out", tmp_path / "p", "--json")["written"]
    assert [Path(w["file"]).name for w in written] == [f"{name}.nii.gz" for name in names]
    assert all("carries no geometry, so its label volume has an identity affine" in w["notes"][-1] for w in written)
    np.testing.assert_array_equal(nib.load(written[0]["file"]).affine, np.eye(4))
    part = result(
        capsys, "predict", "--run", run, "--data", data, "--on", "validation", "--out", tmp_path / "v", "--json"
    )
    assert len(part["written"]) == 2
    neither = complaint(capsys, "predict", "--run", run, "--out", tmp_path / "x")
    assert "--images, --data: give one of the two" in neither
    part_of = complaint(capsys, "predict", "--run", run, "--images", data, "--on", "test", "--out", tmp_path / "x")
    assert "--on: names a part of a folder" in part_of
    nobody = complaint(capsys, "predict", "--run", run, "--data", data, "--on", "test", "--out", tmp_path / "x")
    assert "the run's split has no test patients; give --on all" in nobody


def test_what_a_system_left_in_a_folder_is_no_image(run: Path, data: Path, tmp_path: Path) -> None:
    images = Path(shutil.copytree(data / "imagesTr", tmp_path / "images"))
    (images / "._case_00_0000.nii.gz").write_bytes(b"\0\5\26\7" + b"\0" * 100)
    assert main(["predict", "--run", str(run), "--images", str(images), "--out", str(tmp_path / "p")]) == 0
    assert len(list((tmp_path / "p").glob("*.nii.gz"))) == 6


def test_values_are_written_where_they_can_be_and_known_before_anything_is_measured(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "new" / "folder" / "values.json"
    assert main(["evaluate", "--run", str(run), "--json-file", str(file)]) == 0
    first = json.loads(file.read_text())
    assert first["summary"]["dice"].keys() >= {"outer", "inner", "mean"}
    monkeypatch.setattr("anatolab.inference.evaluate", lambda *a, **k: pytest.fail("measured before"))
    assert "exists and is not replaced" in complaint(capsys, "evaluate", "--run", run, "--json-file", file)
    blocked = file / "below"
    assert "is a file; name another place" in complaint(capsys, "evaluate", "--run", run, "--json-file", blocked)
    assert "is a folder" in complaint(capsys, "evaluate", "--run", run, "--json-file", tmp_path)
    monkeypatch.undo()
    assert main(["evaluate", "--run", str(run), "--json-file", str(file), "--overwrite"]) == 0
    assert json.loads(file.read_text()) == first


# --- one sentence, whatever goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--lr", "-1"], "--lr must be a number above 0 to 1e+06, not -1.0."),
        (["--lr", "nan"], "--lr must be a number above 0 to 1e+06, not nan."),
        (["--devices", "0"], "--devices must be a whole number from 1 to 4096, not 0."),
        (["--nodes", "0"], "--nodes must be a whole number from 1 to 4096, not 0."),
        (["--log-every", "0"], "--log-every must be a whole number from 1"),
        (["--checkpoint-every", "-2"], "--checkpoint-every must be a whole number from 1"),
        (["--seed", "-1"], "--seed must be a whole number from 0"),
        (["--clip", "0"], "--clip must be a number above 0"),
        (["--accelerator", "mps"], "accelerator 'mps' with 1 devices cannot be used here"),
        (["--side", "0"], "--side 0: stem_unet_small needs multiples of 16, from 16 to 4096"),
        (["--side", "100000"], "--side 100000: stem_unet_small needs multiples of 16, from 16 to 4096"),
        (["--labeled-patients", "0"], "--labeled-patients must be a whole number of at least 1, not 0."),
        (["--labeled-patients", "99"], "99"),
        (["--devices", "3"], "2 labeled and 0 unlabeled rows do not divide over 3 processes; choose multiples of 3."),
        (["--held-out", "99"], "99 validation patients cannot be held out of 6 annotated ones"),
        (["--development", "99"], "99 development patients"),
    ],
)
def test_a_flag_out_of_its_range_is_one_sentence_and_nothing_is_written(
    data: Path, flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "run"
    assert said in complaint(capsys, "train", "--data", data, "--out", out, *TRAIN, *flags, *METHOD)
    assert not out.parent.exists()


@pytest.mark.parametrize("value", ["0", "-3", "10000000000"])
def test_no_updates_is_no_training(data: Path, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["train", "--data", data, "--out", tmp_path / "r", *TRAIN, "supervised", "--updates", value]
    assert f"--updates must be a whole number from 1 to 1e+09, not {value}." in complaint(capsys, *start)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(28, "No space left on device", "a.pt"), 1, "a.pt: No space left on device; check the path"),
        (OSError("odd"), 1, "odd; check the path"),
        (MemoryError(), 1, "memory: there is not enough of it"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "memory: there is not enough"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 1, "memory: there is not enough of it"),
        (OverflowError("int too large"), 1, "a number is too large (int too large)"),
        (RecursionError(), 1, "a file is nested too deeply"),
        (KeyboardInterrupt(), 130, "interrupted."),
    ],
)
def test_what_the_machine_refuses_is_one_sentence(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*args: object) -> None:
        raise error

    monkeypatch.setattr("anatolab.data.check_folder", fails)
    assert main(["check", "x"]) == code
    printed = capsys.readouterr().err
    assert printed.startswith(f"anatolab: {said}")
    assert printed.count("\n") == 1


def test_an_error_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("anatolab.data.check_folder", fails)
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["check", "x"])


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_reader_that_goes_away_ends_the_command(data: Path) -> None:
    command = f"{sys.executable} -m anatolab check {data} | true"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert "Traceback" not in done.stderr
