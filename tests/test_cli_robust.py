"""``anatolab robust`` as a user types it: on every layout, on a model that lies on disk, and on what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from anatolab.cli import main
from anatolab.data import open_images
from anatolab.data.phantoms import finch_or_duck
from anatolab.metrics import group_accuracy
from anatolab.robust import load_clip, load_head, predict, rows_of
from anatolab.robust.clip import SMALL
from tests.data import image_trees as trees
from tests.scene_files import write_scenes

FEW = ["--method", "zero_shot", "erm", "--seeds", "1"]


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANATOLAB_CACHE", str(tmp_path_factory.getbasetemp() / "features"))


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("birds"), finch_or_duck((400, 80, 80), aligned=0.8, seed=4))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip model with random weights and the whole vocabulary, saved to disk as open_clip saves it."""
    folder = tmp_path_factory.mktemp("model")
    text = {"context_length": 12, "width": 32, "heads": 2, "layers": 1, "mlp_ratio": 2, "vocab_size": 49408}
    config = {**load_clip("scenes-vit").record["model"], "text_cfg": text}
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    about = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    return folder


def folders(root: Path) -> Path:
    for i in range(24):
        trees.save(root / ("train", "val", "test")[i % 3] / ("cat", "dog")[i // 3 % 2] / f"{i}.png", i)
    return root


def table(root: Path) -> Path:
    """Names instead of numbers, and a column ``group``."""
    lines = ["filename,split,y,group"]
    for i in range(24):
        trees.save(root / f"{i}.png", i)
        lines.append(
            f"{i}.png,{('train', 'val', 'test')[i // 8]},{('cat', 'dog')[i % 2]},{('sofa', 'lawn')[i // 2 % 2]}"
        )
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize(
    ("write", "name", "worst"),
    [
        (trees.waterbirds, "Waterbirds", "group"),
        (trees.celeba, "CelebA", "group"),
        (trees.metashift, "MetaShift", "group"),
        (lambda root: trees.chexpert(root, 200), "CheXpert", "group"),
        (table, None, "group"),
        (folders, None, "class"),
    ],
)
def test_compare_reads_every_layout_with_a_model_from_disk(
    write: Callable, name: str | None, worst: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write(tmp_path / "data"), tmp_path / "out"
    assert main(["robust", "compare", "--data", str(data), "--out", str(out), "--model", str(model), *FEW]) == 0
    printed = capsys.readouterr().out
    report = json.loads((out / "table.json").read_text())
    assert name is None or report["name"] == name
    assert report["images"].keys() == {"train", "val", "test"}
    assert [m["name"] for m in report["methods"]] == ["zero_shot", "erm"]
    assert (out / "table.md").read_text() in printed
    assert f"| worst {worst} |" in printed
    assert ("no groups are known" in printed) == (worst == "class")
    assert Image.open(out / "groups.png").size[0] > 400


@pytest.fixture(scope="module")
def compared(birds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All methods on the generated task, with the small model and prompts of groups."""
    out = tmp_path_factory.mktemp("compared") / "out"
    prompts = [f"{bird} on {place}" for bird in ("finch", "duck") for place in ("land", "water")]
    command = ["robust", "compare", "--data", str(birds), "--out", str(out), "--seeds", "1"]
    assert main([*command, "--group-prompt", *prompts, "--method", "all"]) == 0
    return out


def test_one_folder_is_enough(birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["robust", "compare", str(birds), *FEW]) == 0
    assert (tmp_path / f"{birds.name}-compared" / "table.md").is_file()
    assert main(["robust", "compare", str(birds), "--data", str(birds), *FEW]) == 1
    assert main(["robust", "compare", *FEW]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "one folder of images, as FOLDER or as --data, not 2" in first
    assert "not 0" in second


def test_the_table_lists_every_method_with_the_labels_that_it_sees(compared: Path) -> None:
    report = json.loads((compared / "table.json").read_text())
    sees = {m["name"]: (m["sees"]["training"], m["sees"]["selection"]) for m in report["methods"]}
    assert set(sees) == {
        *("zero_shot", "group_prompts", "linear_probe", "erm", "wise_ft", "jtt", "afr", "cnc", "adapter"),
        *("cfr", "groupdro", "dfr", "dfr_train"),
    }
    assert sees["zero_shot"] == sees["group_prompts"] == ([], [])
    assert sees["cfr"] == (["y"], ["y"])
    assert sees["jtt"] == (["y"], ["y", "group"])
    assert sees["groupdro"] == (["y", "group"], ["y", "group"])


def test_scores_are_those_of_the_saved_heads_and_intervals_hold_them(compared: Path, birds: Path) -> None:
    report = json.loads((compared / "table.json").read_text())
    test = open_images(birds).of("test")
    for entry in report["methods"]:
        head, card, clip = load_head(compared / "heads" / entry["name"])
        rows = rows_of(clip, test)
        ours = group_accuracy(predict(head, rows.h).numpy(), test.y, test.group)
        assert entry["scores"]["worst"] == pytest.approx(ours["worst"])
        assert entry["scores"]["mean"] == pytest.approx(ours["mean"])
        low, high = entry["scores"]["intervals"]["worst"]
        assert low <= ours["worst"] <= high
        assert card["classes"] == ["finch", "duck"]


def test_a_head_is_fitted_evaluated_exported_and_explained(
    birds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, state = tmp_path / "head", tmp_path / "whole.safetensors"
    common = ["--data", str(birds)]
    assert main(["robust", "fit", *common, "--out", str(out), "--export", str(state), "--json"]) == 0
    fitted = json.loads(capsys.readouterr().out)
    assert fitted["sees"] == {"training": ["y"], "selection": ["y"]}
    assert main(["robust", "evaluate", "--head", str(out), *common, "--on", "val", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["scores"]
    assert again == fitted["val"]

    head, card, clip = load_head(out)
    assert "load_head" in (out / "README.md").read_text()
    assert card["method"] == "cfr"
    model = open_clip.CLIP(**clip.record["model"])
    model.load_state_dict(load_file(state))
    pixels = clip.preprocess(finch_or_duck((400, 80, 80), aligned=0.8, seed=4).of("test").pixels)
    with torch.no_grad():
        z = F.normalize(model.eval().encode_image(pixels), dim=1)
    torch.testing.assert_close(head.scale * z @ head.text, head.logits(clip.trunk(pixels)), atol=1e-4, rtol=0)

    maps = ["robust", "attribute", "--head", str(out), *common, "--out", str(tmp_path / "maps"), "--images", "3"]
    assert main([*maps, "--masks", str(birds / "masks"), "--json"]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert explained["margin"] == "duck over finch"
    assert all(0 < values["share"] < 1 for values in explained["maps"].values())
    assert (tmp_path / "maps" / "maps.png").stat().st_size > 1000


def test_words_that_the_small_model_does_not_know_give_class_means(tmp_path: Path, capsys) -> None:
    data = table(tmp_path / "data")
    assert main(["robust", "compare", "--data", str(data), "--out", str(tmp_path / "out"), *FEW]) == 0
    printed = capsys.readouterr().out
    assert "| class means | y | none |" in printed
    assert "does not know the names of these classes" in printed


def test_without_groups_what_needs_them_is_left_out_and_named(tmp_path: Path, capsys) -> None:
    data = folders(tmp_path / "data")
    command = ["robust", "compare", "--data", str(data), "--seeds", "1"]
    assert main([*command, "--out", str(tmp_path / "one"), "--method", "dfr"]) == 1
    assert "dfr: needs the group of each image" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "two"), "--method", "all"]) == 0
    printed = capsys.readouterr().out
    assert "left out, because they need groups: GroupDRO, DFR, DFR on training rows" in printed
    assert "selected by the worst class instead of the worst group: JTT" in printed


def test_the_same_features_are_computed_once(birds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ["--cache", str(tmp_path / "cache")]
    command = ["robust", "compare", "--data", str(birds), *FEW, *cache]
    assert main([*command, "--out", str(tmp_path / "one")]) == 0
    monkeypatch.setattr("anatolab.robust.features.features_of", lambda *a, **k: pytest.fail("computed again"))
    assert main([*command, "--out", str(tmp_path / "two")]) == 0
    assert len(list((tmp_path / "cache").iterdir())) == 3


def no_test(root: Path) -> None:
    path = root / "table.csv"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if ",test," not in line) + "\n")


def no_dogs_in_val(root: Path) -> None:
    path = root / "table.csv"
    path.write_text(path.read_text().replace(",val,dog,", ",val,cat,"))


@pytest.mark.parametrize(
    ("harm", "flags", "message"),
    [
        (lambda r: (r / "table.csv").unlink(), [], "no known layout of labeled images"),
        (lambda r: (r / "3.png").unlink(), [], "3.png: is missing (1 of 24 images"),
        (lambda r: (r / "3.png").write_bytes(b"no picture"), [], "3.png: cannot be read as an image"),
        (no_test, [], "has no rows of the split 'test'"),
        (no_dogs_in_val, [], "the split 'val' has no image of class 'dog'"),
        (lambda r: None, ["--class-prompt", "cat"], "--class-prompt: 1 prompts for 2"),
        (lambda r: None, ["--template", "a cat"], "has no {} where the prompt goes"),
        (lambda r: None, ["--method", "magic"], "'magic' is not a method of anatolab.robust"),
        (lambda r: None, ["--seeds", "0"], "--seeds 0: must be at least 1"),
        (lambda r: None, ["--class-prompt", "cat", "dog"], "'cat' is in no caption of the small model"),
        (lambda r: None, ["--model", "ViT-B-32"], "without weights its predictions mean nothing"),
        (lambda r: None, ["--model", "ViT-B-32", "--pretrained", "openai"], "open_clip cannot load this model"),
        (lambda r: None, ["--model", "ViT-B-32", "--pretrained", "DAMAGED"], "open_clip cannot load this model"),
        (lambda r: None, ["--model", "ViT-B-99", "--pretrained", "openai"], "open_clip cannot load this model"),
    ],
)
def test_what_is_wrong_takes_one_sentence(
    harm: Callable, flags: list[str], message: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing is downloaded here
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    data = table(tmp_path / "data")
    harm(data)
    if "DAMAGED" in flags:
        flags = [*flags[:-1], str(tmp_path / "weights.pt")]
        (tmp_path / "weights.pt").write_bytes(b"PK no weights")
    command = ["robust", "compare", "--data", str(data), "--out", str(tmp_path / "out"), "--seeds", "1"]
    assert main([*command, "--method", "erm", *flags]) == 1
    captured = capsys.readouterr().err
    assert message in captured
    assert captured.count("\n") == 1
    assert not (tmp_path / "out" / "table.md").exists()


def test_a_damaged_head_and_a_head_of_other_classes_are_refused(compared: Path, tmp_path: Path, capsys) -> None:
    for harm, message in (
        (lambda f: (f / "head.safetensors").write_bytes(b"0" * 90), "is damaged, or not the file"),
        (lambda f: (f / "head.safetensors").unlink(), "head.safetensors: this file is missing"),
        (lambda f: (f / "card.json").write_text("{}"), "is not the card of a head"),
        (lambda f: (f / "card.json").unlink(), "card.json"),
        (lambda f: _edit(f, "model", "scenes-rn"), "was fitted on other weights"),
    ):
        folder = tmp_path / "head"
        shutil.copytree(compared / "heads" / "erm", folder)
        harm(folder)
        assert main(["robust", "evaluate", "--head", str(folder), "--data", str(tmp_path)]) == 1
        assert message in capsys.readouterr().err
        shutil.rmtree(folder)
    data = table(tmp_path / "data")
    assert main(["robust", "evaluate", "--head", str(compared / "heads" / "erm"), "--data", str(data)]) == 1
    assert "knows the classes finch, duck, but" in capsys.readouterr().err


def _edit(folder: Path, key: str, value: str) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, key: value}))


def test_linear_heads_and_adapters_have_no_place_in_open_clip(birds: Path, tmp_path: Path, capsys) -> None:
    command = ["robust", "fit", "--data", str(birds), "--out", str(tmp_path / "head"), "--method", "linear_probe"]
    assert main([*command, "--export", str(tmp_path / "whole.pt")]) == 1
    assert "has no place in an open_clip model" in capsys.readouterr().err
    assert not (tmp_path / "head").exists()


def test_nothing_is_replaced_unless_it_is_asked_for(compared: Path, birds: Path, capsys) -> None:
    before = (compared / "table.md").read_bytes()
    assert main(["robust", "compare", "--data", str(birds), "--out", str(compared), *FEW]) == 1
    assert "exists and is not replaced" in capsys.readouterr().err
    assert (compared / "table.md").read_bytes() == before


@pytest.mark.parametrize("name", SMALL)
def test_tuning_keeps_the_setting_that_its_rule_likes_best(name: str, birds: Path) -> None:
    from anatolab.robust.catalog import METHODS, selection_score
    from anatolab.robust.comparison import bench, fit

    data = bench(load_clip(name), open_images(birds))
    head, method, sees = fit(data, "dfr", tune=True)
    assert sees["selection"] == ("y", "group")
    scores = []
    for config in METHODS["dfr"].settings:
        other = METHODS["dfr"].make(data.start, config)
        train, val = data.rows["train"], data.rows["val"]
        fitted = other.fit(train.h, train.y, train.groups, torch.Generator().manual_seed(0), val)
        scores.append(selection_score(other, fitted, val))
    assert method.config == METHODS["dfr"].settings[int(np.argmax(scores))]
    assert selection_score(method, head, data.rows["val"]) == max(scores)
