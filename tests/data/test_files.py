"""The door for files: what is listed, what is verified, what a header may claim, and whose fault an error is."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import image_trees
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import trees
from PIL import Image

from anatolab.data import check_folder, open_cohort, read_celeba, read_chexpert, read_table, read_waterbirds
from anatolab.data.arrays import read_h5, read_npz
from anatolab.data.checks import check_label, map_label, side_pairs
from anatolab.data.chexpert import read_xlsx
from anatolab.data.files import (
    check_budget,
    check_file,
    inside,
    list_images,
    memory_budget,
    read_json,
    read_list,
    unreadable,
    whole,
)
from anatolab.data.formats import read_volume
from anatolab.data.labeled import read_picture
from anatolab.data.nifti import nifti_geometry, read_nifti
from anatolab.types import InputError

VALUES = np.cumsum(np.random.default_rng(0).integers(-2, 3, (32, 24, 12)), 0).astype(np.int16)  # x, y, z
LABEL = (VALUES > 0).astype(np.uint8)


def one_sentence(message: str) -> bool:
    return message.endswith(".") and ". " not in message and ";" in message and "\n" not in message


def nifti(path: Path, values: np.ndarray = VALUES, kind: Any = nib.nifti1.Nifti1Image) -> Path:
    image = kind(values, np.diag([1.0, 1.0, 3.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nib.loadsave.save(image, path)
    return path


def meta(path: Path, compressed: bool = True, values: np.ndarray = VALUES) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(np.ascontiguousarray(values.T)), str(path), compressed)
    return path


def h5(path: Path, **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=VALUES, **options)
        file["label"] = LABEL
    return path


def nrrd(path: Path, values: np.ndarray = VALUES) -> Path:
    trees.save_nrrd(path, values)
    return path


def npz(path: Path) -> Path:
    np.savez_compressed(path, image=VALUES, label=LABEL)
    return path


def png(path: Path) -> Path:
    Image.fromarray((VALUES[..., 0] + 100).clip(0, 255).astype(np.uint8)).save(path)
    return path


# --- compressed streams are read to their end ----------------------------------------------------------------------

STREAMS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], np.ndarray]]] = {
    "image.nii.gz": (nifti, lambda p: read_nifti(p)[0]),
    "label.nii.gz": (lambda p: nifti(p, LABEL), lambda p: read_nifti(p)[0]),
    "image.nrrd": (nrrd, lambda p: read_volume(p)[0]),
    "image.mha": (meta, lambda p: read_volume(p)[0]),
    "gzip.h5": (lambda p: h5(p, compression="gzip"), lambda p: read_h5(p, "image")[0]),
    "fletcher.h5": (lambda p: h5(p, fletcher32=True, chunks=(8, 24, 12)), lambda p: read_h5(p, "image")[0]),
    "image.npz": (npz, lambda p: read_npz(p, "image", "label")[0]),
    "image.png": (png, lambda p: np.asarray(read_picture(p))),
}


@pytest.mark.parametrize("name", STREAMS)
def test_no_flipped_bit_of_a_stream_gives_other_values(name: str, tmp_path: Path) -> None:
    write, read = STREAMS[name]
    path = write(tmp_path / name)
    good, values = path.read_bytes(), read(path)
    header = good.find(b"\n\n") + 12 if name.endswith("nrrd") else len(good) - (len(good) * 3) // 4
    if name.endswith("mha"):
        header = good.find(b"LOCAL") + 6
    rng, refused = np.random.default_rng(1), 0
    for place in rng.integers(header, len(good), 60):
        spoiled = bytearray(good)
        spoiled[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(spoiled)
        try:
            same = np.array_equal(read(path), values)  # where no value depends on the bit
        except InputError as error:
            same = one_sentence(str(error))
            refused += 1
        assert same, place
    assert refused > 20


@pytest.mark.parametrize("name", [name for name in STREAMS if name != "fletcher.h5"])
@pytest.mark.parametrize("lost", [1, 6, 200])
def test_a_stream_that_lacks_its_last_bytes_is_refused(name: str, lost: int, tmp_path: Path) -> None:
    write, read = STREAMS[name]
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(InputError, match="download or copy it again"):
        read(path)


@pytest.mark.parametrize("length", [1, 3, 4, 100, 347])
def test_a_file_that_ends_in_its_header_is_refused(length: int, tmp_path: Path) -> None:
    raw = gzip.decompress(nifti(tmp_path / "a.nii.gz").read_bytes())[:length]
    for name, content in (("a.nii", raw), ("a.nii.gz", gzip.compress(raw))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as NIfTI") as error:
            read_nifti(tmp_path / name)
        assert one_sentence(str(error.value))
        assert nifti_geometry(tmp_path / name)[0] is None


def test_a_wrong_checksum_alone_is_refused(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii.gz")
    raw = bytearray(path.read_bytes())
    raw[-8] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="cannot be read as NIfTI"):
        read_nifti(path)


# --- what a header claims ------------------------------------------------------------------------------------------


def claim_nifti(path: Path, packed: bool) -> None:
    raw = bytearray(gzip.decompress(nifti(path.with_name("whole.nii.gz")).read_bytes()))
    raw[40:56] = struct.pack("<8h", 3, 30000, 30000, 30000, 1, 1, 1, 1)
    path.write_bytes(gzip.compress(bytes(raw)) if packed else bytes(raw))


def claim_h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("image", (2**20, 2**20), np.float64, chunks=(64, 64))[0, 0] = 1


def claim_npz(path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (2**20, 2**20)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", buffer.getvalue() + bytes(64))


def claim_png(path: Path) -> None:
    raw = bytearray(png(path).read_bytes())
    raw[16:24] = struct.pack(">II", 2**30, 2**30)
    raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
    path.write_bytes(raw)


def claim(path: Path, old: bytes, new: bytes) -> None:
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new, 1))


CLAIMS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "plain.nii": (lambda p: claim_nifti(p, False), read_nifti),
    "packed.nii.gz": (lambda p: claim_nifti(p, True), read_nifti),
    "gzip.nrrd": (lambda p: claim(nrrd(p), b"sizes: 32 24 12", b"sizes: 90000 90000 90000"), read_volume),
    "raw.nrrd": (
        lambda p: p.write_bytes(b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 9000 9000 9000\nencoding: raw\n\n\x00"),
        read_volume,
    ),
    "zlib.mha": (lambda p: claim(meta(p), b"DimSize = 32 24 12", b"DimSize = 90000 90000 90000"), read_volume),
    "raw.mha": (lambda p: claim(meta(p, False), b"DimSize = 32 24 12", b"DimSize = 9000 9000 9000"), read_volume),
    "chunked.h5": (claim_h5, lambda p: read_h5(p, "image")),
    "a.npz": (claim_npz, lambda p: read_npz(p, "image")),
    "a.png": (claim_png, read_picture),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_header_that_claims_too_much_is_refused_before_anything_is_allocated(name: str, tmp_path: Path) -> None:
    import tracemalloc

    write, read = CLAIMS[name]
    write(tmp_path / name)
    tracemalloc.start()
    with pytest.raises(InputError) as error:
        read(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6
    assert one_sentence(str(error.value)), error.value


def test_a_volume_larger_than_the_budget_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = nifti(tmp_path / "a.nii.gz", np.zeros((100, 100, 100), np.uint8))  # 5 MB with a float32 copy
    monkeypatch.setenv("ANATOLAB_MEMORY_GB", "0.0051")
    assert read_nifti(path)[0].shape == (100, 100, 100)
    monkeypatch.setenv("ANATOLAB_MEMORY_GB", "0.0049")
    with pytest.raises(InputError, match=r"claims 100x100x100 values, 0\.005 GB .* set ANATOLAB_MEMORY_GB") as error:
        read_nifti(path)
    assert one_sentence(str(error.value))
    monkeypatch.setenv("ANATOLAB_MEMORY_GB", "much")
    with pytest.raises(InputError, match="'much' is not a number of gigabytes"):
        memory_budget()


def test_the_budget_is_half_of_the_memory_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANATOLAB_MEMORY_GB", raising=False)
    assert 0 < memory_budget() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    assert check_budget(Path("a"), (2, 3, 4), 8) == 192
    for sides, words in (((-1, 4), "impossible size -1x4"), ((3, 0, 4), "impossible size 3x0x4")):
        with pytest.raises(InputError, match=words):
            check_budget(Path("a"), sides, 1)


def test_a_stream_that_goes_on_behind_its_values_is_no_image(tmp_path: Path) -> None:
    raw = gzip.decompress(nifti(tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "padded.nii.gz").write_bytes(gzip.compress(raw + bytes(512)))
    assert read_nifti(tmp_path / "padded.nii.gz")[0].shape == (12, 24, 32)
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(raw + bytes(1 << 20)))
    with pytest.raises(InputError, match="holds more values than its header says"):
        read_nifti(tmp_path / "bomb.nii.gz")


# --- values in other files -----------------------------------------------------------------------------------------


def linked(path: Path, secret: Path, kind: str) -> None:
    with h5py.File(path, "w") as file:
        file["label"] = LABEL
        if kind == "external link":
            file["image"] = h5py.ExternalLink(str(secret), "image")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(VALUES.shape, VALUES.dtype)
            layout[:] = h5py.VirtualSource(str(secret), "image", VALUES.shape)
            file.create_virtual_dataset("image", layout)
        else:
            file.create_dataset("image", VALUES.shape, VALUES.dtype, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


@pytest.mark.parametrize("kind", ["external link", "virtual", "external storage"])
def test_hdf5_takes_no_values_from_another_file(kind: str, tmp_path: Path) -> None:
    secret, path = h5(tmp_path / "secret.h5"), tmp_path / "data" / "a.h5"
    path.parent.mkdir()
    linked(path, secret, kind)
    with pytest.raises(InputError, match=r"keeps 'image' in another file \(.*secret\.h5\); write one file"):
        read_h5(path, "image", "label")


@pytest.mark.parametrize("target", ["/far", "/group/image", "/far/image", "image"])
def test_hdf5_follows_no_soft_link_out_of_its_file(target: str, tmp_path: Path) -> None:
    secret, path = h5(tmp_path / "secret.h5"), tmp_path / "data" / "a.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["far"] = h5py.ExternalLink(str(secret), "/image" if target == "/far" else "/")
        file["group/image"] = h5py.SoftLink("/far/image")
        file["image"] = h5py.SoftLink(target)
        file["near/values"] = VALUES
        file["label"] = h5py.SoftLink("near/values")
    with pytest.raises(InputError, match=r"keeps 'image' in another file|'image' is a link that leads to itself"):
        read_h5(path, "image")
    assert np.array_equal(read_h5(path, "label", "near/values")[0], VALUES)


@pytest.mark.parametrize("values", [np.ones(4, complex), np.array([b"1"] * 4), np.ones(4, [("r", "u1")])])
def test_arrays_of_something_else_than_numbers_are_refused(values: np.ndarray, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = values
    with pytest.raises(InputError, match="for 'image' where numbers are expected; write them as numbers"):
        read_h5(tmp_path / "a.h5", "image")
    np.savez(tmp_path / "a.npz", image=values)
    with pytest.raises(InputError, match=r"a\.npz: cannot be read as \.npz"):
        read_npz(tmp_path / "a.npz", "image")


def test_a_volume_of_complex_numbers_is_no_image(tmp_path: Path) -> None:
    image = nib.nifti1.Nifti1Image(np.ones((4, 4, 4), np.complex64), np.eye(4))
    nib.nifti1.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="values of complex64 where one 3-D volume of numbers is expected"):
        read_nifti(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("offset", [4e9, float("nan"), 1e30, -64.0])
def test_values_that_start_anywhere_are_refused_at_once(
    offset: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = bytearray(gzip.decompress(nifti(tmp_path / "a.nii.gz").read_bytes()))
    raw[108:112] = struct.pack("<f", offset)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(raw))
    with pytest.raises(InputError, match="cannot be read as NIfTI") as error:
        read_nifti(tmp_path / "a.nii.gz")
    assert one_sentence(str(error.value))
    assert capfd.readouterr().err == ""  # nibabel says nothing beside it


def test_hdf5_without_values_is_not_all_zero(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("label", (8, 8), np.uint8, chunks=(4, 4))
    with pytest.raises(InputError, match="has a header for 'label' but no values"):
        read_h5(tmp_path / "a.h5", "label")


@pytest.mark.parametrize("place", ["/etc/hostname", "../secret.raw", "sub/../../secret.raw", "LIST", "C:\\secret.raw"])
@pytest.mark.parametrize("ending", [".nrrd", ".mhd"])
def test_detached_values_lie_in_the_folder(place: str, ending: str, tmp_path: Path) -> None:
    (tmp_path / "secret.raw").write_bytes(bytes(8))
    path = tmp_path / "data" / f"a{ending}"
    path.parent.mkdir()
    header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: {}\n"
    if ending == ".mhd":
        header = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = {}\n"
    path.write_text(header.format(place))
    with pytest.raises(InputError, match=r"is not a file inside|in a list of files"):
        read_volume(path)
    path.write_text(header.format("a.raw"))
    with pytest.raises(InputError, match=r"a\.raw: this file is missing"):
        read_volume(path)
    (path.parent / "a.raw").write_bytes(bytes(range(8)))
    assert read_volume(path)[0].ravel().tolist() == list(range(8))


@pytest.mark.parametrize(
    "text", ["../a.png", "/etc/passwd", "a/../../b", "", ".", "C:\\a.png", "..\\a.png", "\\\\host\\a"]
)
def test_paths_out_of_a_folder_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"t\.csv: names .* is not a file inside set"):
        inside(Path("set"), text, Path("t.csv"))


def test_paths_in_tables_lie_in_their_folder(tmp_path: Path) -> None:
    root = image_trees.table(tmp_path / "own")
    image_trees.save(tmp_path / "secret.png")
    text = (root / "table.csv").read_text()
    (root / "table.csv").write_text(text.replace("1.png", "../secret.png"))
    with pytest.raises(InputError, match="is not a file inside"):
        read_table(root)
    (root / "pictures").mkdir()
    (root / "1.png").rename(root / "pictures" / "1.png")
    (root / "table.csv").write_text(text.replace("1.png", "pictures\\1.png"), encoding="utf-8-sig")
    assert read_table(root).files[1] == root / "pictures" / "1.png"
    root = image_trees.waterbirds(tmp_path / "birds")
    table = next(root.rglob("metadata.csv"))
    table.write_text(table.read_text().replace("001.Species/Bird_0000", "../../own/0"))
    with pytest.raises(InputError, match="is not a file inside"):
        read_waterbirds(root)
    root = image_trees.celeba(tmp_path / "faces")
    for path in root.glob("*.csv"):
        path.write_text(path.read_text().replace("000001.jpg", "/etc/passwd"))
    with pytest.raises(InputError, match="is not a file inside"):
        read_celeba(root)
    root = image_trees.chexpert(tmp_path / "chest")
    (root / "train.csv").write_text((root / "train.csv").read_text().replace("/study1/view1", "/../../../view1", 1))
    with pytest.raises(InputError, match="is not a file inside"):
        read_chexpert(root)


@pytest.mark.parametrize(
    "sheet",
    [
        '<worksheet xmlns="{0}"><sheetData><row r="1"><c r="ZZZZZZZ1"><v>1</v></c></row></sheetData></worksheet>',
        '<!DOCTYPE a [<!ENTITY b "x">]><worksheet xmlns="{0}"><sheetData><row r="1"/></sheetData></worksheet>',
    ],
    ids=["column", "entity"],
)
def test_a_spreadsheet_that_expands_is_refused(sheet: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr(
            "xl/worksheets/sheet1.xml", sheet.format("http://schemas.openxmlformats.org/spreadsheetml/2006/main")
        )
    with pytest.raises(InputError, match="cannot be read as an Excel table"):
        read_xlsx(tmp_path / "a.xlsx")


def test_a_spreadsheet_of_gigabytes_is_refused(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as file,
    ):
        for _ in range(600):
            file.write(b" " * (1 << 20))
    with pytest.raises(InputError, match="cannot be read as an Excel table"):
        read_xlsx(tmp_path / "a.xlsx")


# --- files as other systems write them -----------------------------------------------------------------------------


def test_a_folder_lists_the_same_images_for_every_command(tmp_path: Path) -> None:
    for name in ("b_10.nii.gz", "b_9.nii", "c.nrrd", "d.mha", "e.mhd", "notes.txt", "f.raw", ".DS_Store", "._b_9.nii"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["b_9.nii", "b_10.nii.gz", "c.nrrd", "d.mha", "e.mhd"]
    assert list_images(tmp_path / "c.nrrd") == [tmp_path / "c.nrrd"]
    with pytest.raises(InputError, match="this file is missing"):
        list_images(tmp_path / "z.nii")
    with pytest.raises(InputError, match=r"holds no \.nii\.gz, \.nii"):
        list_images(tmp_path / "__MACOSX")


@pytest.mark.parametrize("kind", [nib.nifti1.Nifti1Image, nib.nifti2.Nifti2Image], ids=["NIfTI-1", "NIfTI-2"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", ">f8", "u1"])
def test_nifti_of_both_versions_and_byte_orders(kind: Any, name: str, dtype: str, tmp_path: Path) -> None:
    values = (VALUES - VALUES.min()).astype(dtype)
    header = None if dtype[0] != ">" else kind.header_class(endianness=">")
    image = kind(values, np.diag([-1.0, 2.0, 3.0, 1.0]), header)
    image.header.set_data_dtype(np.dtype(dtype))
    nib.loadsave.save(image, tmp_path / name)
    read, affine, spacing = read_nifti(tmp_path / name)
    np.testing.assert_array_equal(read, values.T)
    np.testing.assert_allclose(affine, np.diag([-1.0, 2.0, 3.0, 1.0]))
    assert spacing == (3.0, 2.0, 1.0)


def test_what_is_compressed_is_told_by_content_and_not_by_name(tmp_path: Path) -> None:
    raw = gzip.decompress(nifti(tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "plain.nii.gz").write_bytes(raw)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(raw))
    for name in ("plain.nii.gz", "packed.nii"):
        np.testing.assert_array_equal(read_nifti(tmp_path / name)[0], VALUES.T)


@pytest.mark.parametrize("trailing", [(1,), (1, 1), (1, 1, 1)])
def test_trailing_axes_of_length_1_are_dropped(trailing: tuple[int, ...], tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii.gz", VALUES.reshape(*VALUES.shape, *trailing))
    np.testing.assert_array_equal(read_nifti(path)[0], VALUES.T)
    channels = np.stack([VALUES, VALUES + 1], -1)
    path = nifti(tmp_path / "b.nii.gz", channels.reshape(*channels.shape, *trailing))
    np.testing.assert_array_equal(read_nifti(path, 4)[0], channels.T)
    path = nifti(tmp_path / "c.nii.gz", channels[:, :, :, None])  # x, y, z, 1, c: NIfTI's vector
    np.testing.assert_array_equal(read_nifti(path, 4)[0], channels.T)
    with pytest.raises(InputError, match="one 3-D volume"):
        read_nifti(path)


def test_metaimage_of_four_axes_of_which_one_is_1(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(np.ascontiguousarray(VALUES.T))]), str(tmp_path / "a.mha"))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mha")[0], VALUES.T)


def test_descriptions_from_windows(tmp_path: Path) -> None:
    root = trees.own(tmp_path)
    path = root / "dataset.json"
    about = json.loads(path.read_text())
    about["training"] = [f".\\imagesTr\\{name}.nii.gz" for name in ("liver_2", "liver_10")]
    about["numTraining"], about["window"] = "2", ["-200", "250"]
    about["labels"] = {"background": "0", "liver": "1", "tumor": 2.0}
    path.write_text(json.dumps(about), encoding="utf-8-sig")
    report = check_folder(root, progress=False)
    assert report.ok, report.problems
    assert (report.classes, report.window) == (("background", "liver", "tumor"), (-200, 250))
    about["numTraining"] = "three"
    path.write_text(json.dumps(about))
    assert "says numTraining 'three', and imagesTr holds 2" in check_folder(root, progress=False).problems[0]


def test_lists_and_info_files_with_a_byte_order_mark(tmp_path: Path) -> None:
    for root in (trees.ssl4mis(tmp_path / "h5"), trees.official(tmp_path / "nii")):
        before = open_cohort(root)
        for path in [*root.rglob("*.list"), *root.rglob("Info.cfg")]:
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
        cohort = open_cohort(root)
        assert (cohort.patients, cohort.published) == (before.patients, before.published)
    assert read_list(next((tmp_path / "h5").glob("val.list")), r"patient\d+_frame\d+", "x")[0] == "patient002_frame01"


def test_keys_are_named_once(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": {"b": 1, "b": 2}}')
    with pytest.raises(InputError, match="names 'b' twice"):
        read_json(tmp_path / "a.json")
    assert [whole(v) for v in ("1e999", None, [1], "1.5", " 4 ", False, float("nan"))] == [None] * 4 + [4, None, None]


@pytest.mark.parametrize("top", [65535, 4095, 300])
@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_pictures_of_more_than_8_bits_keep_their_range(top: int, ending: str, tmp_path: Path) -> None:
    ramp = np.linspace(0, top, 4096).round().astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / f"a{ending}")
    gray = np.asarray(read_picture(tmp_path / f"a{ending}"))[..., 0]
    np.testing.assert_array_equal(gray, np.rint(ramp / top * 255))


def test_float_pictures_are_scaled_and_must_be_finite(tmp_path: Path) -> None:
    values = np.array([[-1.0, 0.0], [1.0, 3.0]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    assert np.asarray(read_picture(tmp_path / "a.tiff"))[..., 0].tolist() == [[0, 64], [128, 255]]
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "b.tiff")
    with pytest.raises(InputError, match="not finite"):
        read_picture(tmp_path / "b.tiff")


# --- labels --------------------------------------------------------------------------------------------------------

ORGAN = ("background", "organ")


@pytest.mark.parametrize(
    "values",
    [
        np.array([0, 255]) * np.float64(np.float32(1 / 255)),
        np.array([0.0, 0.99999994], np.float32),
        np.array([-1e-9, 1.00000012]),
        np.array([0, 1], ">i4"),
        np.array([False, True]),
        np.array([0, 1], np.float16),
    ],
)
def test_labels_off_by_a_rounding_are_whole(values: np.ndarray) -> None:
    label = check_label(values, Path("a.nii"), ORGAN)
    assert (label.tolist(), label.dtype) == ([0, 1], np.uint8)
    assert map_label(values * 820, Path("a.nii"), {0: 0, 820: 1}, ORGAN).tolist() == [0, 1]


@pytest.mark.parametrize("value", [0.999, 1.01, 0.5, np.nan, np.inf, -0.5])
def test_labels_off_by_more_are_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"a\.nii: label .* is not"):
        check_label(np.array([0.0, 1.0, value]), Path("a.nii"), ORGAN)


def test_every_wrong_label_is_listed_with_its_own_count() -> None:
    values = np.repeat([0, 1, 7, 9, 255], [5, 4, 3, 2, 6])
    with pytest.raises(InputError, match=r"label 255 \(6 voxels\), 7 \(3 voxels\), 9 \(2 voxels\) is not one of the 2"):
        check_label(values, Path("a.nii"), ORGAN)
    with pytest.raises(
        InputError, match=r"label 255 \(6 voxels\), 7 \(3 voxels\), 9 \(2 voxels\) is not one of the co"
    ):
        map_label(values, Path("a.nii"), {0: 0, 1: 1}, ORGAN)
    with pytest.raises(
        InputError, match=r"label 0\.25 is not a whole number \(3 voxels\), nor is 0\.5 \(1 voxels\); sa"
    ):
        check_label(np.array([0.25, 0.25, 0.25, 0.5, 1]), Path("a.nii"), ORGAN)
    with pytest.raises(InputError, match=r"9 \(1 voxels\), 92 other values is not"):
        check_label(np.arange(102), Path("a.nii"), ORGAN)


def test_classes_that_differ_by_side_alone() -> None:
    pairs = side_pairs(("background", "Left Atrium", "right atrium", "kidney_left", "kidney_right", "hip-l", "hip-r"))
    assert pairs == (("Left Atrium", "right atrium"), ("kidney_left", "kidney_right"), ("hip-l", "hip-r"))
    assert side_pairs(("background", "RV", "LV", "liver", "left kidney")) == ()


# --- whose fault an error is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, "x"), "too many files are open"),
        (
            OSError("(unable to open file: errno = 24, error message = 'Too many open files')"),
            "too many files are open",
        ),
        (PermissionError(errno.EACCES, "x"), "check links and permissions"),
        (MemoryError(), "not enough memory"),
        (OSError(errno.ENOMEM, "x"), "not enough memory"),
        (OSError(errno.EIO, "x"), "from its disk"),
        (OSError(errno.ESTALE, "x"), "from its disk"),
    ],
)
def test_the_fault_of_the_system_is_not_called_damage(error: Exception, words: str) -> None:
    message = str(unreadable(Path("a.nii"), error, "NIfTI"))
    assert words in message
    assert "download" not in message
    assert one_sentence(message)
    assert "download or copy it again" in str(unreadable(Path("a.nii"), ValueError("x"), "NIfTI"))


READERS: dict[str, Callable[[Path], object]] = {
    "a.nii.gz": lambda p: read_nifti(nifti(p)),
    "a.nrrd": lambda p: read_volume(nrrd(p)),
    "a.mha": lambda p: read_volume(meta(p)),
    "a.h5": lambda p: read_h5(h5(p), "image"),
    "a.npz": lambda p: read_npz(npz(p), "image"),
    "a.png": lambda p: read_picture(png(p)),
}


@pytest.mark.parametrize("name", READERS)
def test_running_out_of_file_descriptors_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    READERS[name](tmp_path / name)  # written, read, all imports made
    real = Path.open

    def none_left(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == name and "wb" not in (*arguments, options.get("mode")):
            raise OSError(errno.EMFILE, "Too many open files", str(self))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", none_left)
    with pytest.raises(InputError, match="too many files are open"):
        check_file(tmp_path / name)
    with pytest.raises(InputError, match="too many files are open"):
        READERS[name](tmp_path / name)


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii").symlink_to(tmp_path / "disk" / "a.nii")
    with pytest.raises(InputError, match=r"this file is missing, a link to .*disk/a\.nii leads nowhere"):
        check_file(tmp_path / "a.nii")
