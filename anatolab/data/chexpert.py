"""CheXpert, chest radiographs: no finding is the class, sex and race the attribute, as SubpopBench defines them.

::

    train.csv, valid.csv           Path,Sex,...,No Finding,...     a blank No Finding is 0
    CHEXPERT DEMO.xlsx             PATIENT, PRIMARY_RACE
    train/patient00001/study1/view1_frontal.jpg

A ``Path`` such as ``CheXpert-v1.0/train/patient00001/...`` is read from its folder ``train`` or ``valid`` on. Which
variant of CheXpert the paper used is not known. The two tables are pooled, rows whose sex or race is not known are left
out and counted, and 15 % test and 10 % validation are drawn anew, in each attribute alike, by a seed; unlike there, all
images of a patient go to one split.

Reference:
    Irvin et al., CheXpert, AAAI 2019; attributes of Yang et al., Change is hard (SubpopBench), ICML 2023.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from anatolab.data.files import check_file, inside, unreadable
from anatolab.data.labeled import LabeledImages, labeled_images, read_csv
from anatolab.types import InputError

CLASSES = ("finding", "no finding")
RACES = ("White", "Black", "other race")
ATTRIBUTES = tuple(f"{sex}, {race}" for sex in ("male", "female") for race in RACES)
PROVENANCE = {"source": "CheXpert, Irvin et al., AAAI 2019", "license": "Stanford University research use agreement"}
DEMO = "CHEXPERT DEMO.xlsx"


def read_chexpert(root: str | Path, seed: int = 42) -> LabeledImages:
    """Reads CheXpert with "no finding" as class and six attributes of sex and race.

    Args:
        root: The folder with the tables, and with ``train`` and ``valid``.
        seed: Seed of the split.

    Returns:
        ``provenance["left_out"]`` counts the images of patients whose sex or race is not known.

    Raises:
        InputError: A table, a column or an image is missing, or a path names no patient.
    """
    root = Path(root)
    race = _races(root / DEMO)
    images: list[tuple[Path, str, int, int]] = []
    left_out = 0
    for name in ("train.csv", "valid.csv"):
        for row in read_csv(root / name, "Path", "Sex", "No Finding"):
            match = re.search(r"(?:^|/)((?:train|valid)/(patient\d+)/.+)", row["Path"].replace("\\", "/"))
            if match is None:
                raise InputError(f"{root / name}: {row['Path']!r} names no patient; restore the published table.")
            if row["Sex"] not in ("Male", "Female") or match[2] not in race:
                left_out += 1
                continue
            y = int(float(row["No Finding"] or 0) == 1)
            images.append(
                (inside(root, match[1], root / name), match[2], y, 3 * (row["Sex"] == "Female") + race[match[2]])
            )
    split = _split([row[1] for row in images], [row[3] for row in images], seed)
    files = [row[0] for row in images]
    values = [(y, a, split[patient]) for _, patient, y, a in images]
    provenance = {**PROVENANCE, "left_out": left_out, "split": f"seed {seed}, by patient"}
    return labeled_images(root / "train.csv", "CheXpert", CLASSES, ATTRIBUTES, files, values, provenance)


def _split(patients: list[str], attributes: list[int], seed: int) -> dict[str, int]:
    """Returns each patient's split: of the patients of an attribute, 15 % test and 10 % validation."""
    of = dict(zip(patients, attributes, strict=True))
    rng, split = np.random.default_rng(seed), {}
    for a in sorted(set(attributes)):
        group = np.array(sorted(p for p, value in of.items() if value == a))
        tests, vals = round(0.15 * len(group)), round(0.10 * len(group))
        for i, patient in enumerate(rng.permutation(group)):
            split[str(patient)] = 2 if i < tests else 1 if i < tests + vals else 0
    return split


def _races(path: Path) -> dict[str, int]:
    """Returns the index of RACES of each patient whose race is known."""
    rows = read_xlsx(path)
    head = rows[0] if rows else []
    if absent := [column for column in ("PATIENT", "PRIMARY_RACE") if column not in head]:
        raise InputError(f"{path}: has no column {absent[0]!r}; download it again.")
    patient, race = head.index("PATIENT"), head.index("PRIMARY_RACE")
    known = {row[patient]: row[race] for row in rows[1:] if len(row) > max(patient, race) and row[race]}
    return {p: 0 if r.startswith("White") else 1 if r.startswith("Black") else 2 for p, r in known.items()}


EXCEL = {"columns": 16384, "bytes": 512 << 20}  # the most columns of a sheet; the most text that is unpacked


def read_xlsx(path: Path) -> list[list[str]]:
    """Reads the first sheet of an Excel file (a zip archive of XML) as rows of text.

    Raises:
        InputError: The file is missing, is not an Excel table, or unpacks to more than such a table holds.
    """
    check_file(path)
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    try:
        with zipfile.ZipFile(path) as archive:
            shared: list[str] = []
            if "xl/sharedStrings.xml" in archive.namelist():
                items = _xml(archive, "xl/sharedStrings.xml").iter(f"{space}si")
                shared = ["".join(t.text or "" for t in item.iter(f"{space}t")) for item in items]
            sheet = _xml(archive, "xl/worksheets/sheet1.xml")
        rows = []
        for row in sheet.iter(f"{space}row"):
            cells: list[str] = []
            for cell in row.iter(f"{space}c"):
                column = 0
                for letter in re.sub(r"\d", "", cell.get("r", ""))[:4].upper():
                    column = 26 * column + ord(letter) - ord("A") + 1
                if column > EXCEL["columns"]:
                    raise ValueError("has a column that no sheet has")
                cells += [""] * (column - 1 - len(cells))
                text = "".join(t.text or "" for t in cell.iter() if t.tag in (f"{space}v", f"{space}t"))
                cells.append(shared[int(text)] if cell.get("t") == "s" else text)
            rows.append(cells)
    except (
        zipfile.BadZipFile,
        KeyError,
        ElementTree.ParseError,
        ValueError,
        IndexError,
        zlib.error,
        EOFError,
    ) as error:
        raise InputError(f"{path}: cannot be read as an Excel table (.xlsx); download it again.") from error
    except (OSError, MemoryError, NotImplementedError, RuntimeError) as error:
        raise unreadable(path, error, "an Excel table (.xlsx)") from error
    return rows


def _xml(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    """Parses a part of an archive; refuses one that expands by its size or by entities."""
    if archive.getinfo(name).file_size > EXCEL["bytes"]:
        raise ValueError(f"{name} unpacks to {archive.getinfo(name).file_size} bytes")
    text = archive.read(name)
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ValueError(f"{name} defines entities, which no sheet does")
    return ElementTree.fromstring(text)
