"""Small trees of labeled images in the exact public layouts, written here and by nothing of the package."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(path)


def waterbirds(root: Path) -> Path:
    """Twelve birds; ids count from 1 and are not in the order of the rows."""
    folder = root / "waterbird_complete95_forest2water2"
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for i in range(12):
        name = f"{i % 3 + 1:03d}.Species/Bird_{i:04d}.jpg"
        save(folder / name, i)
        lines.append(f"{12 - i},{name},{i % 2},{i // 4},{i // 2 % 2},/b/bamboo_forest/{i:08d}.jpg")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def celeba(root: Path) -> Path:
    """Twelve faces, the forty attributes in their order: blond is column 9, male is column 20, counted from 0."""
    others = [f"Attribute_{k}" for k in range(40)]
    others[9], others[20] = "Blond_Hair", "Male"
    attributes, partition = ["image_id," + ",".join(others)], ["image_id,partition"]
    for i in range(12):
        name = f"{i + 1:06d}.jpg"
        save(root / "img_align_celeba" / name, i)
        values = ["-1"] * 40
        values[9], values[20] = str(2 * (i % 2) - 1), str(2 * (i // 2 % 2) - 1)
        attributes.append(",".join([name, *values]))
        partition.append(f"{name},{i // 4}")
    (root / "list_attr_celeba.csv").write_text("\n".join(attributes) + "\n")
    (root / "list_eval_partition.csv").write_text("\n".join(partition) + "\n")
    return root


def metashift(root: Path, each: int = 5) -> Path:
    """``each`` images in each of the four folders."""
    base = root / "metashift" / "MetaShift-Cat-Dog-indoor-outdoor"
    places = (
        ("train", "cat", "indoor"),
        ("train", "dog", "outdoor"),
        ("test", "cat", "outdoor"),
        ("test", "dog", "indoor"),
    )
    for part, animal, place in places:
        for i in range(each):
            save(base / part / animal / f"{animal}({place})" / f"{i}.jpg", i)
    return root


def xlsx(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """A sheet as Excel writes it: texts are shared, empty cells are left out."""
    shared: list[str] = []
    lines = []
    for r, row in enumerate(rows, 1):
        cells = ""
        for c, text in enumerate(row):
            if text:
                shared.append(text)
                cells += f'<c r="{"ABCDEF"[c]}{r}" t="s"><v>{len(shared) - 1}</v></c>'
        lines.append(f'<row r="{r}">{cells}</row>')
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "xl/worksheets/sheet1.xml", f"<worksheet {space}><sheetData>{''.join(lines)}</sheetData></worksheet>"
        )
        archive.writestr(
            "xl/sharedStrings.xml", f"<sst {space}>{''.join(f'<si><t>{t}</t></si>' for t in shared)}</sst>"
        )


RACES = ("White", "White, non-Hispanic", "Black or African American", "Asian", "")


def chexpert(root: Path, patients: int = 60) -> Path:
    """Two views a patient; of every fifth patient the race is not known."""
    lines = {"train": ["Path,Sex,Age,No Finding,Pneumonia"], "valid": ["Path,Sex,Age,No Finding,Pneumonia"]}
    demo = [["PATIENT", "GENDER", "PRIMARY_RACE"]]
    for i in range(patients):
        part, patient = "valid" if i % 10 == 9 else "train", f"patient{i:05d}"
        demo.append([patient, "", RACES[i % 5]])
        for view in ("view1_frontal", "view2_lateral"):
            name = f"{part}/{patient}/study1/{view}.jpg"
            save(root / name, i)
            finding = ("1.0", "", "0.0")[i % 3]
            lines[part].append(f"CheXpert-v1.0/{name},{'Male' if i % 2 else 'Female'},60,{finding},")
    for part, text in lines.items():
        (root / f"{part}.csv").write_text("\n".join(text) + "\n")
    xlsx(root / "CHEXPERT DEMO.xlsx", demo)
    return root


def table(root: Path) -> Path:
    lines = ["filename,split,y,a"]
    for i in range(6):
        save(root / f"{i}.png", i)
        lines.append(f"{i}.png,{('train', 'val', 'test')[i // 2]},{i % 2},{(i + i // 2) % 2}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    return root
