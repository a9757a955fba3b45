"""The commands as a user types them: train, be interrupted, evaluate, predict into the geometry of the input."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anatolab.cli import main
from anatolab.data import open_cohort
from anatolab.data.phantoms import KINDS, write_cardiac
from anatolab.nn import NETWORKS

TRAIN = ["--split-seed", "0", "--held-out", "2", "--side", "32", "--labeled-patients", "1", "--accelerator", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cardiac(tmp_path_factory.mktemp("data") / "hearts", patients=6, seed=0)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "mt"
    assert main(["train", "--data", str(data), "--out", str(out), *TRAIN, "mean-teacher", "--updates", "3"]) == 0
    return out


def test_training_describes_the_run_and_the_same_command_finds_it_finished(
    data: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = json.loads((run / "run.json").read_text())
    assert described["method"] == "mean_teacher"
    assert described["classes"] == ["background", "RV", "Myo", "LV"]
    assert len(described["split"]["train"]) == 4
    assert len(described["split"]["validation"]) == 2
    assert main(["train", "--data", str(data), "--out", str(run), *TRAIN, "mean-teacher", "--updates", "3"]) == 0
    assert "finished at step 3" in capsys.readouterr().out


def test_train_offers_every_network_and_trains_the_one_that_is_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "--network {" + ",".join(NETWORKS) + "}" in "".join(capsys.readouterr().out.split("\n"))
    command = ["train", "--data", str(data), "--out", str(tmp_path), *TRAIN, "--network", "segresnet"]
    assert main([*command, "supervised", "--updates", "1"]) == 0
    assert json.loads((tmp_path / "run.json").read_text())["network"] == "segresnet"


def test_evaluate_prints_a_table_and_writes_every_case(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "values.json"
    assert main(["evaluate", "--run", str(run), "--json-file", str(target), "--accelerator", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "2 validation patients, 4 volumes; distances in mm" in printed
    assert "95 % interval" in printed
    values = json.loads(target.read_text())
    assert len(values["cases"]) == 4
    row = next(line.split() for line in printed.splitlines() if line.startswith("LV"))
    assert float(row[1]) == pytest.approx(values["summary"]["dice"]["LV"], abs=6e-4)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_predict_keeps_affine_spacing_orientation_and_codes(run: Path, tmp_path: Path, flips: tuple[int, ...]) -> None:
    affine = np.diag([1.5 * flips[0], 1.4 * flips[1], 8.0 * flips[2], 1.0])
    affine[:3, 3] = (-20.0, 35.0, 7.0)
    affine[0, 1] = 0.2  # oblique
    volume = np.random.default_rng(0).integers(0, 900, (40, 52, 4)).astype(np.int16)
    image = nib.Nifti1Image(volume, affine)
    image.set_sform(affine, code=1)
    image.set_qform(None, code=0)
    source = tmp_path / "Größe.nii.gz"
    nib.save(image, source)
    out = tmp_path / "out"
    assert main(["predict", "--run", str(run), "--images", str(source), "--out", str(out), "--accelerator", "cpu"]) == 0
    predicted = nib.load(out / source.name)
    assert predicted.shape == volume.shape
    assert predicted.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(predicted.affine, nib.load(source).affine)
    assert nib.aff2axcodes(predicted.affine) == nib.aff2axcodes(affine)
    assert predicted.header.get_zooms() == nib.load(source).header.get_zooms()
    assert (int(predicted.header["sform_code"]), int(predicted.header["qform_code"])) == (1, 0)
    assert set(np.unique(np.asarray(predicted.dataobj))) <= {0, 1, 2, 3}


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.4, 8.0, 1.0])), path)


@pytest.fixture(scope="module")
def two_channels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a folder in nnU-Net's layout with two channels and a window."""
    root, rng = tmp_path_factory.mktemp("two"), np.random.default_rng(0)
    for number in range(4):
        for channel in (0, 1):
            image = rng.integers(-500, 500, (20, 24, 3)).astype(np.int16)
            save(root / "data" / "imagesTr" / f"case{number}_000{channel}.nii.gz", image)
        save(root / "data" / "labelsTr" / f"case{number}.nii.gz", rng.integers(0, 2, (20, 24, 3)).astype(np.uint8))
    about = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "organ": 1}, "window": [-100, 300]}
    (root / "data" / "dataset.json").write_text(json.dumps(about))
    command = ["train", "--data", str(root / "data"), "--out", str(root / "run"), *TRAIN]
    assert main([*command, "supervised", "--updates", "2"]) == 0
    return root


def test_predict_takes_channels_in_nnunet_naming_or_in_one_4d_file(
    two_channels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from anatolab.data import open_cohort
    from anatolab.inference import predict_volume
    from anatolab.training.folder import open_run

    source, run = two_channels / "data" / "imagesTr", two_channels / "run"
    assert main(["predict", "--run", str(run), "--images", str(source), "--out", str(tmp_path / "a")]) == 0
    assert sorted(path.name for path in (tmp_path / "a").glob("*.nii.gz")) == [f"case{k}.nii.gz" for k in range(4)]
    method, info = open_run(run)
    assert info.window == (-100, 300)
    ref = open_cohort(two_channels / "data").refs[2]
    expected = predict_volume(method.predict, ref.load(), info.size, **info.rules)  # type: ignore[arg-type]
    written = nib.load(tmp_path / "a" / "case2.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj).transpose(2, 1, 0), expected)
    np.testing.assert_array_equal(written.affine, nib.load(ref.source).affine)
    channels = [np.asarray(nib.load(source / f"case2_000{k}.nii.gz").dataobj) for k in (0, 1)]
    save(tmp_path / "case2.nii.gz", np.stack(channels, -1))
    whole = ["predict", "--run", str(run), "--images", str(tmp_path / "case2.nii.gz")]
    assert main([*whole, "--out", str(tmp_path / "b")]) == 0
    again = nib.load(tmp_path / "b" / "case2.nii.gz")
    assert again.shape == (20, 24, 3)
    np.testing.assert_array_equal(np.asarray(again.dataobj), np.asarray(written.dataobj))
    lone = source / "case2_0001.nii.gz"
    command = ("predict", "--run", run, "--images", lone, "--out", tmp_path / "c")
    assert "case2_0000.nii.gz: this channel is missing, as 2 are expected" in complaint(capsys, *command)
    assert not (tmp_path / "c").exists()
    assert "would replace the image case2.nii.gz" in complaint(capsys, *whole, "--out", tmp_path)


def test_predicted_voxels_are_those_of_evaluate(data: Path, run: Path, tmp_path: Path) -> None:
    from anatolab.data import open_cohort
    from anatolab.inference import predict_volume
    from anatolab.training.folder import open_run

    ref = open_cohort(data).refs[0]
    assert main(["predict", "--run", str(run), "--images", str(ref.source), "--out", str(tmp_path)]) == 0
    method, info = open_run(run)
    expected = predict_volume(method.predict, ref.load(), info.size, **info.rules)  # type: ignore[arg-type]
    written = np.asarray(nib.load(tmp_path / ref.source.name).dataobj)
    np.testing.assert_array_equal(written.transpose(2, 1, 0), expected)


def complaint(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    assert main([str(c) for c in command]) == 1
    text = capsys.readouterr().err
    assert text.startswith("anatolab: ")
    assert text.count("\n") == 1
    return text


def test_wrong_input_ends_with_one_sentence(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    train = ["train", "--out", new, *TRAIN, "--data"]
    assert "there is no such folder" in complaint(capsys, *train, tmp_path / "none", "supervised")
    with pytest.raises(SystemExit) as helped:
        main([*map(str, train), str(tmp_path / "none"), "supervised", "--help"])
    assert helped.value.code == 0
    assert "give a seed" in complaint(capsys, "train", "--out", new, "--data", data, "--held-out", "2", "supervised")
    assert not new.exists()
    assert "so it is not a run" in complaint(capsys, "evaluate", "--run", tmp_path)
    assert "its split has no test patients" in complaint(capsys, "evaluate", "--run", run, "--on", "test")
    assert "holds no .nii" in complaint(capsys, "predict", "--run", run, "--images", tmp_path, "--out", new)
    text = tmp_path / "text.nii.gz"
    text.write_text("not an image")
    assert "text.nii.gz" in complaint(capsys, "predict", "--run", run, "--images", text, "--out", new)
    source = next(data.glob("patient001/*_frame*.nii.gz"))
    assert "would replace" in complaint(capsys, "predict", "--run", run, "--images", source, "--out", source.parent)
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "last.pt").write_bytes(b"x")
    assert "not a readable checkpoint" in complaint(capsys, "evaluate", "--run", broken)
    shutil.copy(run / "last.pt", broken / "last.pt")
    (broken / "run.json").write_text("{}")
    assert "run.json: says another" in complaint(capsys, "evaluate", "--run", broken)


def test_an_unknown_size_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ANATOLAB_SIZE", "huge")
    assert "ANATOLAB_SIZE must be one of tiny, demo, full, not 'huge'" in complaint(capsys, "evaluate", "--run", "x")


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_cohort_is_written_and_the_readers_recognize_it(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / kind
    assert main(["cohort", kind, str(out), "--patients", "2", "--seed", "5"]) == 0
    printed = capsys.readouterr().out
    assert f"{out}: 2 generated patients, {kind}, seed 5" in printed
    assert f"anatolab train --data {out}" in printed
    cohort = open_cohort(out)
    assert len(cohort.patients) == 2
    assert (cohort.provenance["seed"], cohort.provenance["generated"]) == (5, True)
    assert [p.name for p in out.parent.iterdir()] == [kind]  # nothing is left beside it
    assert KINDS[kind][1].count("*") == 1
    assert len(list(out.glob(KINDS[kind][1]))) == 2  # what the progress bar counts


def test_a_cohort_says_as_json_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["cohort", "cardiac", str(tmp_path / "empty"), "--patients", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["patients"], said["seed"], said["layout"]) == ("cardiac", 1, 0, "official")
    assert said["folder"] in said["next"]


def test_a_cohort_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    for out in (tmp_path, tmp_path / "mine.txt"):
        assert main(["cohort", "cardiac", str(out), "--patients", "1"]) == 1
        said = capsys.readouterr().err
        assert said == f"anatolab: {out}: exists and is not an empty folder; name a new one, or remove it.\n"
    assert main(["cohort", "cardiac", str(tmp_path / "new"), "--patients", "0"]) == 1
    assert "--patients 0: a cohort has 1 to 10000 patients" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_cohort_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures.wait", interrupted)
    assert main(["cohort", "cardiac", str(tmp_path / "new"), "--patients", "40"]) == 130
    assert list(tmp_path.iterdir()) == []
