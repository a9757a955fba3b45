"""Exported weights predict as the run does, name nobody, and are what MONAI accepts as a bundle."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from anatolab.cli import main
from anatolab.methods import METHODS
from anatolab.training import open_run
from anatolab.training.export import Predictor
from anatolab.training.exported import network_of
from tests.test_cli_runs import complaint, contents, patients, result, run_of

SCHEMA = Path(__file__).parent / "training" / "monai_metadata_schema.json"
BASE = ["base", "--updates", "2", "--labeled", "2", "--unlabeled", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return patients(tmp_path_factory.mktemp("secret-place") / "d", count=5)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = run_of(data, tmp_path_factory.mktemp("secret-place") / "r", "--held-out", "1", method=BASE)
    assert main(["evaluate", "--run", str(run), "--json-file", str(run / "evaluation.json")]) == 0
    return run


@pytest.fixture(scope="module")
def out(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "export"
    assert main(["export", str(run), str(out), "--bundle", "--license", "CC BY 4.0", "--authors", "A. Nobody"]) == 0
    return out


def test_an_export_predicts_as_its_run_to_the_bit(run: Path, out: Path, data: Path, tmp_path: Path) -> None:
    for name, source in (("run", run), ("export", out)):
        command = ["predict", "--run", str(source), "--data", str(data), "--out", str(tmp_path / name)]
        assert main([*command, "--probabilities", "npy"]) == 0
    assert contents(tmp_path / "run") == contents(tmp_path / "export")


def test_an_export_names_neither_patients_nor_folders(run: Path, out: Path) -> None:
    assert set(contents(out)) == {
        "model.safetensors",
        "README.md",
        "configs/metadata.json",
        "configs/inference.json",
        "models/model.pt",
    }
    info = open_run(run)[1]
    names = [*info.split.train, *info.split.validation, "secret-place", str(Path.home()), os.getcwd()]  # noqa: PTH109
    for name, content in contents(out).items():
        assert [n for n in names if n.encode() in content] == [], name
        assert re.search(rb"p-[0-9a-f]{10}", content) is None, name  # nor pseudonyms


def test_the_card_says_what_a_receiver_must_know(run: Path, out: Path) -> None:
    text = (out / "README.md").read_text()
    dice = json.loads((run / "evaluation.json").read_text())["summary"]["dice"]
    assert f"| mean | {dice['mean']:.3f} |" in text
    for part in ("CC BY 4.0", "0 background, 1 outer, 2 inner", "4 patients, 2 of them labeled", "slices of 32 x 32"):
        assert part in text
    assert "Measured on 1 patients (validation), none of whom was trained on. Distances in mm." in text
    method, info = open_run(out)
    original = open_run(run)[1]
    assert info.commit == original.commit
    assert info.field_of_view == original.field_of_view
    assert (info.finished, info.data, info.split.train) == (True, "", ())
    assert all(torch.equal(v, dict(method.student.state_dict())[k]) for k, v in network_of(method).state_dict().items())


def test_exports_of_other_weights_and_of_unfinished_runs_are_refused(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = run_of(data, tmp_path / "other", "--seed", "1", method=BASE)
    said = complaint(capsys, "export", other, tmp_path / "x", "--evaluation", run / "evaluation.json")
    assert "evaluation: is not one of these weights" in said
    assert not (tmp_path / "x").exists()
    assert main(["export", str(other), str(tmp_path / "x")]) == 0
    assert "No evaluation was exported" in (tmp_path / "x" / "README.md").read_text()
    assert "exists and is not replaced" in complaint(capsys, "export", other, tmp_path / "x")
    assert result(capsys, "export", other, tmp_path / "x", "--overwrite", "--json")["labeled_patients"] == 2
    (tmp_path / "x" / "model.safetensors").write_bytes(b"no weights")
    said = complaint(capsys, "predict", "--run", tmp_path / "x", "--data", data, "--out", tmp_path / "p")
    assert "model.safetensors: cannot be read as safetensors" in said
    assert "give --data" in complaint(capsys, "evaluate", "--run", _again(other, tmp_path), "--on", "all")


def test_an_export_of_which_one_byte_was_changed_is_refused(
    out: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (out / "model.safetensors").read_bytes()
    for place in (content.index(b"outer"), len(content) - 1000):  # a class name of the card, a weight
        copy = Path(shutil.copytree(out, tmp_path / str(place)))
        changed = bytearray(content)
        changed[place] ^= 1
        (copy / "model.safetensors").write_bytes(changed)
        said = complaint(capsys, "predict", "--run", copy, "--data", data, "--out", tmp_path / "p")
        assert "model.safetensors: differs from what was exported (its checksum is wrong); download or copy it" in said
    assert not (tmp_path / "p").exists()


def test_an_export_of_an_export_keeps_what_the_card_says(
    run: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = result(capsys, "export", out, tmp_path / "x", "--json")
    assert (card["training_patients"], card["labeled_patients"], card["license"]) == (4, 2, "CC BY 4.0")
    assert (tmp_path / "x" / "README.md").read_text() == (out / "README.md").read_text()
    card = result(capsys, "export", out, tmp_path / "y", "--license", "MIT", "--json")
    assert card["license"] == "MIT"


@pytest.mark.parametrize("rest", ["configs/metadata.json", "models/model.pt", "models/model.onnx"])
def test_no_file_of_other_weights_stays_beside_an_export(
    run: Path, tmp_path: Path, rest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "x" / rest
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    flag = "--onnx" if rest.endswith("onnx") else "--bundle"
    for more in ((), ("--overwrite",)):
        said = complaint(capsys, "export", run, tmp_path / "x", *more)
        assert f"{rest}: belongs to an earlier export; give {flag} and --overwrite to replace it, or" in said
    assert "exists and is not replaced" in complaint(capsys, "export", run, tmp_path / "x", flag)
    assert list(contents(tmp_path / "x")) == [rest]
    if flag == "--bundle":  # the package onnx may be missing
        assert main(["export", str(run), str(tmp_path / "x"), "--overwrite", flag]) == 0
        assert old.read_bytes() != b"old"


def _again(run: Path, folder: Path) -> Path:
    assert main(["export", str(run), str(folder / "again")]) == 0
    return folder / "again"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_is_exported(name: str, tmp_path: Path) -> None:
    from dataclasses import asdict

    from anatolab.training import RunInfo, save_run
    from anatolab.training.export import card_of, write_weights
    from anatolab.training.folder import build
    from anatolab.types import Split

    kind = METHODS[name]
    info = RunInfo(
        name, asdict(kind.Config(updates=1)), "stem_unet_small", 1, ("background", "a"), 32, Split(("p",), 1)
    )
    torch.manual_seed(0)
    method = build(info)
    for parameter in method.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)  # students and teachers differ
    save_run({"method": method.state_dict()}, info, tmp_path / "r")
    method, info = open_run(tmp_path / "r")
    write_weights(method, card_of(method, info, None, "none"), tmp_path / "e")
    image = torch.rand(2, 1, 32, 32)
    again, answers = open_run(tmp_path / "e")[0], []
    for one in (method, again):
        torch.manual_seed(1)
        with torch.no_grad():
            answers.append(one.predict(image))
    assert torch.equal(*answers)


def test_monai_verifies_the_bundle_and_runs_it(
    run: Path, out: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai.bundle import run as run_bundle
    from monai.bundle import verify_metadata, verify_net_in_out

    configs = {name: str(out / "configs" / f"{name}.json") for name in ("metadata", "inference")}
    verify_metadata(meta_file=configs["metadata"], filepath=str(SCHEMA))  # a schema that is there is not fetched
    verify_net_in_out(
        net_id="network_def",
        meta_file=configs["metadata"],
        config_file=configs["inference"],
        device="cpu",
        bundle_root=str(out),
    )
    run_bundle(
        meta_file=configs["metadata"],
        config_file=configs["inference"],
        bundle_root=str(out),
        dataset_dir=str(data / "imagesTr"),
        output_dir=str(tmp_path / "bundle"),
    )
    command = ["predict", "--run", str(run), "--images", str(data / "imagesTr"), "--out", str(tmp_path / "run")]
    assert main(command) == 0
    assert contents(tmp_path / "bundle") == contents(tmp_path / "run")
    state = torch.load(out / "models" / "model.pt", weights_only=True)
    assert Predictor(open_run(run)[0]).load_state_dict(state).missing_keys == []


def test_a_metadata_file_that_lacks_a_key_is_refused_by_the_schema(out: Path, tmp_path: Path) -> None:
    from monai.bundle import verify_metadata

    metadata = json.loads((out / "configs" / "metadata.json").read_text())
    del metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(SCHEMA))


def test_onnx_answers_as_the_network(run: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # torch's about itself are no business of the user's
        assert main(["export", str(run), str(tmp_path / "e"), "--onnx"]) == 0
    path = tmp_path / "e" / "models" / "model.onnx"
    content = path.read_bytes()
    assert not any(
        name.encode() in content for name in ("secret-place", str(Path(__file__).parents[1]), "site-packages")
    )
    image = torch.rand(3, 1, 32, 32)
    with torch.no_grad():
        expected = open_run(run)[0].predict(image)
    (logits,) = runtime.InferenceSession(path).run(None, {"image": image.numpy()})
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


def test_onnx_without_its_packages_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    said = complaint(capsys, "export", run, tmp_path / "e", "--onnx")
    assert "ONNX: the package onnx is missing; install anatolab[export]." in said
    assert not (tmp_path / "e").exists()
