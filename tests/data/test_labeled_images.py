"""Readers of images with a spurious attribute: class, attribute, group, split of each layout; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import image_trees as trees
import numpy as np
import pytest

from anatolab.data.celeba import read_celeba
from anatolab.data.chexpert import read_chexpert, read_xlsx
from anatolab.data.images import open_images
from anatolab.data.labeled import LabeledImages
from anatolab.data.metashift import read_metashift
from anatolab.data.phantoms.scenes import finch_or_duck
from anatolab.data.table import read_table
from anatolab.data.waterbirds import FOLDER, read_waterbirds
from anatolab.types import InputError
from tests.scene_files import write_scenes

Read = Callable[[Path], LabeledImages]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(("write", "read"), [(trees.waterbirds, read_waterbirds), (trees.celeba, read_celeba)])
def test_class_attribute_and_split_are_those_of_the_rows(write: Callable, read: Read, tmp_path: Path) -> None:
    found, i = read(write(tmp_path)), np.arange(12)
    np.testing.assert_array_equal(found.y, i % 2)
    np.testing.assert_array_equal(found.a, i // 2 % 2)
    np.testing.assert_array_equal(found.split, i // 4)
    np.testing.assert_array_equal(found.group, 2 * (i % 2) + i // 2 % 2)
    assert found.of("val").counts.tolist() == [1, 1, 1, 1]
    assert found.image(3).size == (12, 10)
    assert found.image(3).mode == "RGB"


def test_names_say_which_class_and_attribute_is_which(tmp_path: Path) -> None:
    assert read_waterbirds(trees.waterbirds(tmp_path / "w")).group_names[1] == "landbird, water"
    assert read_celeba(trees.celeba(tmp_path / "c")).group_names[3] == "blond, male"


def test_rows_of_waterbirds_are_not_taken_by_their_ids(tmp_path: Path) -> None:
    found = read_waterbirds(trees.waterbirds(tmp_path) / FOLDER)
    assert found.files[0].name == "Bird_0000.jpg"  # its id is 12


def test_celeba_with_the_table_of_dfr_is_the_same(tmp_path: Path) -> None:
    one = read_celeba(trees.celeba(tmp_path))
    lines = ["img_id,img_filename,y,place,split"]
    lines += [f"{i},{one.files[i].name},{one.y[i]},{one.a[i]},{one.split[i]}" for i in range(12)]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    two = read_celeba(tmp_path)
    np.testing.assert_array_equal(np.stack([one.y, one.a, one.split]), np.stack([two.y, two.a, two.split]))
    assert one.files == two.files


def test_metashift_pools_its_folders_and_every_split_has_its_share(tmp_path: Path) -> None:
    found = read_metashift(trees.metashift(tmp_path, each=20))
    assert np.bincount(found.split).tolist() == [52, 8, 20]
    assert found.counts.tolist() == [20, 20, 20, 20]
    for path, y, a in zip(found.files, found.y, found.a, strict=True):
        assert path.parent.name == f"{('dog', 'cat')[y]}({('outdoor', 'indoor')[a]})"
    again = read_metashift(tmp_path / "metashift")
    np.testing.assert_array_equal(found.split, again.split)
    assert (read_metashift(tmp_path, seed=1).split != found.split).any()


def test_chexpert_takes_a_blank_finding_for_none_and_keeps_a_patient_in_one_split(tmp_path: Path) -> None:
    found = read_chexpert(trees.chexpert(tmp_path))
    number = np.array([int(path.parts[-3][7:]) for path in found.files])
    np.testing.assert_array_equal(found.y, number % 3 == 0)
    race = np.array([0, 0, 1, 2])[number % 5]
    np.testing.assert_array_equal(found.a, 3 * (number % 2 == 0) + race)
    assert found.provenance["left_out"] == 24
    assert len(found) == 96
    for n in set(number):
        assert len(set(found.split[number == n])) == 1
    # Patients by attribute: 12, 6, 6 of each sex; of these 2, 1, 1 for test and 1, 1, 1 for validation; two images.
    assert np.bincount(found.split).tolist() == [2 * (48 - 6 - 8), 2 * 6, 2 * 8]


def test_the_excel_reader_keeps_columns_in_place_where_cells_are_left_out(tmp_path: Path) -> None:
    trees.xlsx(tmp_path / "a.xlsx", [["a", "b", "c"], ["1", "", "3"], ["", "2"]])
    assert read_xlsx(tmp_path / "a.xlsx") == [["a", "b", "c"], ["1", "", "3"], ["", "2"]]


def test_a_table_of_ones_own_images(tmp_path: Path) -> None:
    found = read_table(trees.table(tmp_path / "mine"))
    assert found.name == "mine"
    assert found.classes == ("0", "1")
    assert found.split.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.y.tolist() == [0, 1, 0, 1, 0, 1]
    assert found.a.tolist() == [0, 1, 1, 0, 0, 1]


def test_a_table_may_name_classes_and_groups_or_leave_groups_out(tmp_path: Path) -> None:
    root = trees.table(tmp_path / "pets")
    text = (root / "table.csv").read_text().replace("split,y,a", "split,y,group")
    for old, new in ((",0,0\n", ",cat,sofa\n"), (",0,1\n", ",cat,lawn\n"), (",1,0\n", ",dog,sofa\n")):
        text = text.replace(old, new)
    (root / "table.csv").write_text(text.replace(",1,1\n", ",dog,lawn\n"))
    named = open_images(root)
    assert (named.classes, named.attributes, named.grouped) == (("cat", "dog"), ("lawn", "sofa"), True)
    assert named.y.tolist() == [0, 1, 0, 1, 0, 1]
    assert named.a.tolist() == [1, 0, 0, 1, 1, 0]
    bare = [line.rsplit(",", 1)[0] for line in (root / "table.csv").read_text().splitlines()]
    (root / "table.csv").write_text("\n".join(bare) + "\n")
    ungrouped = open_images(root)
    assert not ungrouped.grouped
    assert ungrouped.group_names == ("cat", "dog")
    assert ungrouped.group.tolist() == ungrouped.y.tolist()
    (root / "table.csv").write_text("\n".join(bare).replace(",cat", ",", 1) + "\n")
    with pytest.raises(InputError, match="has no 'y'; write its number or its name"):
        open_images(root)


def test_folders_of_classes_are_read_and_a_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    for i, split in enumerate(("train", "val", "test")):
        for animal in ("cat", "dog"):
            trees.save(tmp_path / split / animal / "deep" / "0.png", i)
    read = open_images(tmp_path)
    assert (read.classes, read.y.tolist(), read.split.tolist()) == (
        ("cat", "dog"),
        [0, 1, 0, 1, 0, 1],
        [0, 0, 1, 1, 2, 2],
    )
    trees.save(tmp_path / "test" / "bird" / "0.png")
    with pytest.raises(InputError, match="is of class 'bird', of which train has no picture"):
        open_images(tmp_path)


def test_generated_scenes_are_read_back_as_they_were_drawn(tmp_path: Path) -> None:
    drawn = finch_or_duck((12, 8, 8), seed=2)
    found = read_table(write_scenes(tmp_path, drawn))
    assert (found.name, found.classes, found.attributes) == (drawn.name, drawn.classes, drawn.attributes)
    np.testing.assert_array_equal(found.group, drawn.group)
    np.testing.assert_array_equal(found.split, drawn.split)
    np.testing.assert_array_equal(np.stack([found.image(i) for i in range(28)]), drawn.pixels)


def gone(*name: str) -> Callable[[Path], None]:
    return lambda root: root.joinpath(*name).unlink()


W = FOLDER


@pytest.mark.parametrize(
    ("write", "read", "harm", "message"),
    [
        (trees.waterbirds, read_waterbirds, gone(W, "metadata.csv"), "metadata.csv: this file is missing"),
        (
            trees.waterbirds,
            read_waterbirds,
            lambda r: edit(r / W / "metadata.csv", "place,", "ground,"),
            "no column 'place'",
        ),
        (
            trees.waterbirds,
            read_waterbirds,
            gone(W, "001.Species", "Bird_0000.jpg"),
            r"Bird_0000.jpg: is missing \(1 of 12",
        ),
        (
            trees.waterbirds,
            read_waterbirds,
            lambda r: edit(r / W / "metadata.csv", "Bird_0001.jpg,1,0", "Bird_0001.jpg,2,0"),
            "Bird_0001.jpg has y = 2, which is not one of 0 to 1",
        ),
        (
            trees.waterbirds,
            read_waterbirds,
            lambda r: edit(r / W / "metadata.csv", "Bird_0001.jpg,1,0", "Bird_0001.jpg,x,0"),
            "has 'x' in column 'y' where a whole number is expected",
        ),
        (
            trees.waterbirds,
            read_waterbirds,
            lambda r: (r / W / "metadata.csv").write_text("img_filename,y,split,place\n"),
            "lists no image",
        ),
        (
            trees.waterbirds,
            read_waterbirds,
            lambda r: edit(r / W / "metadata.csv", "002.Species/Bird_0001", "001.Species/Bird_0000"),
            "Bird_0000.jpg twice",
        ),
        (
            trees.waterbirds,
            read_waterbirds,
            lambda r: (r / W / "metadata.csv").write_text("img_filename,y,split,place\n001.Species/Bird_0000.jpg,1\n"),
            "line 2 is cut short",
        ),
        (trees.celeba, read_celeba, gone("list_eval_partition.csv"), "list_eval_partition.csv: this file is missing"),
        (
            trees.celeba,
            read_celeba,
            lambda r: edit(r / "list_eval_partition.csv", "000004.jpg,0\n", ""),
            "has no row for 000004.jpg",
        ),
        (
            trees.celeba,
            read_celeba,
            lambda r: edit(r / "list_eval_partition.csv", "000004.jpg,0\n", "000004.jpg,0\n000099.jpg,0\n"),
            "list_attr_celeba.csv: has no row for 000099.jpg",
        ),
        (
            trees.celeba,
            read_celeba,
            lambda r: edit(
                r / "list_attr_celeba.csv",
                "000001.jpg,-1,-1,-1,-1,-1,-1,-1,-1,-1,-1",
                "000001.jpg,-1,-1,-1,-1,-1,-1,-1,-1,-1,0",
            ),
            "an attribute other than -1 and 1",
        ),
        (
            trees.metashift,
            read_metashift,
            lambda r: [p.unlink() for p in r.rglob("cat(outdoor)/*")],
            r"no image of cat\(outdoor\)",
        ),
        (trees.chexpert, read_chexpert, gone("CHEXPERT DEMO.xlsx"), "CHEXPERT DEMO.xlsx: this file is missing"),
        (
            trees.chexpert,
            read_chexpert,
            lambda r: (r / "CHEXPERT DEMO.xlsx").write_bytes(b"PK no archive"),
            "cannot be read as an Excel table",
        ),
        (
            trees.chexpert,
            read_chexpert,
            lambda r: trees.xlsx(r / "CHEXPERT DEMO.xlsx", [["PATIENT", "RACE"]]),
            "no column 'PRIMARY_RACE'",
        ),
        (trees.chexpert, read_chexpert, lambda r: edit(r / "valid.csv", "patient00009", "p9"), "names no patient"),
        (trees.table, read_table, gone("table.csv"), "table.csv: this file is missing"),
        (trees.table, read_table, lambda r: edit(r / "table.csv", "1.png,train", "1.png,dev"), "1.png has split 'dev'"),
        (trees.table, read_table, lambda r: edit(r / "table.csv", "train", "test"), "no row of the training split"),
        (trees.table, read_table, lambda r: edit(r / "table.csv", "1.png,train,1", "1.png,train,-1"), "y = -1"),
        (
            trees.table,
            read_table,
            lambda r: edit(r / "table.csv", "1.png,train,1", f"1.png,train,{10**20}"),
            "up to 1000",
        ),
        (
            trees.table,
            read_table,
            lambda r: edit(r / "table.csv", "1.png,train", "1,1.png,train"),
            "has more fields than",
        ),
        (trees.table, read_table, lambda r: edit(r / "table.csv", "split,y,a", "split,y,y"), "column 'y' twice"),
        (
            trees.table,
            read_table,
            lambda r: (r / "table.json").write_text('{"classes": "cat, dog"}'),
            "'classes' is not a list of names",
        ),
    ],
)
def test_what_is_wrong_is_said_with_file_and_remedy(
    write: Callable, read: Read, harm: Callable, message: str, tmp_path: Path
) -> None:
    root = write(tmp_path)
    harm(root)
    with pytest.raises(InputError, match=message) as caught:
        read(root)
    assert str(tmp_path) in str(caught.value)
    assert ";" in str(caught.value)  # what is wrong; the remedy


def test_an_image_that_is_none_is_said_when_it_is_asked_for(tmp_path: Path) -> None:
    found = read_table(trees.table(tmp_path))
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"3\.png: cannot be read as an image"):
        found.image(3)
