"""ACDC, short-axis cine MR of the heart, in its two common layouts.

Official release (also under ``training/`` and ``testing/``)::

    patient001/Info.cfg                      ED: 1, ES: 12, Group: DCM, Height: 184.0, NbFrame: 30, Weight: 95.0
    patient001/patient001_frame01.nii.gz     the frame that Info.cfg calls ED (or ES)
    patient001/patient001_frame01_gt.nii.gz  its annotation
    patient001/patient001_4d.nii.gz          the whole cine series; not read

SSL4MIS files, intensities already scaled to [0, 1] per volume, no spacing (distances are then in voxels)::

    data/slices/patient099_frame01_slice_1.h5   training slices, numbered from 1: 2-D ``image`` and ``label``
    data/patient002_frame01.h5                  validation and test volumes: 3-D ``image`` and ``label``
    train.list, train_slices.list, val.list, test.list

The SSL4MIS files number the two frames of a patient 01 and 02 without saying which of them is end-diastole, so the
phase of such a case is ``frame01`` or ``frame02``; only the official layout gives ``ED`` and ``ES``.

Reference:
    Bernard et al., Deep learning techniques for automatic MRI cardiac multi-structures segmentation and diagnosis,
    IEEE TMI 2018.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from anatolab.data import checks, pairs
from anatolab.data.arrays import read_h5
from anatolab.data.files import collect, entries, read_list, read_text
from anatolab.data.splits import published_lists, test_part
from anatolab.types import Case, CaseRef, Cohort, InputError

CLASSES = ("background", "RV", "Myo", "LV")
PROVENANCE = {"license": "CC BY-NC-SA 4.0", "source": "ACDC, Bernard et al., IEEE TMI 2018"}

_PATIENT = re.compile(r"patient\d+")
_FRAME = re.compile(r"(patient\d+)_frame(\d+)(_gt)?\.nii(\.gz)?")
_SLICE = re.compile(r"(patient\d+_frame\d+)_slice_(\d+)\.h5")
_VOLUME = re.compile(r"(patient\d+_frame\d+)\.h5")
_CASE = (r"patient\d+_frame\d+", "patient001_frame01")  # a line of the lists below
_LISTS = {"train": "train.list", "validation": "val.list", "test": "test.list"}


# --- official layout ---------------------------------------------------------------------------------------------


def is_official(root: Path) -> bool:
    """Returns whether folders named ``patientNNN`` lie in ``root``, or in its ``training`` or ``testing``."""
    return any(_patient_folders(root))


def read_official(root: Path) -> Cohort:
    """Returns the cohort of an official ACDC folder; images are read only when a case is asked for.

    A ``generated.json`` in ``root`` says that the folder holds a generated cohort in ACDC's layout, and becomes its
    provenance; only without it are the published patient lists attached, and only where all patients of the published
    training list are there.

    Args:
        root: The folder that holds the patient folders, or ``training`` and ``testing`` with them.

    Returns:
        Cases ``ED`` then ``ES`` of each patient; ``provenance["ignored"]`` names the files that are not read;
        ``problems`` says which patient folder lacks ``Info.cfg``, an entry of it, a frame it names, or the annotation
        of a frame where others beside it have one, or has a frame that is neither ED nor ES.

    Raises:
        InputError: ``generated.json`` is no JSON object.
    """
    refs: list[CaseRef] = []
    ignored: list[str] = []
    problems: list[str] = []
    for folders in _patient_folders(root):
        patients = collect(partial(_patient_refs, ignored=ignored), folders, problems)
        group = [ref for patient in patients for ref in patient]
        if any(ref.labeled for ref in group):
            problems += [
                f"{ref.source}: has no annotation beside it ({_gt(ref.source).name}), though other frames in "
                f"{folders[0].parent} do; add it, or keep unannotated patients in a folder of their own."
                for ref in group
                if not ref.labeled
            ]
        refs += group
    folder_of: dict[str, Path] = {}
    for ref in refs:
        if folder_of.setdefault(ref.patient, ref.source.parent) != ref.source.parent and ref.phase == "ED":
            problems.append(
                f"{ref.source.parent}: patient {ref.patient} is also in {folder_of[ref.patient]}; keep one of the two."
            )
    for base in _bases(root):
        named = [path.name for path in entries(base) if _PATIENT.fullmatch(path.name) and path.is_dir()]
        ignored += pairs.left_aside(base, root, [*named, "training", "testing"])
    provenance = {**PROVENANCE, "ignored": tuple(ignored)}
    lists = published_lists("acdc")
    published = lists if set(lists["train"]) <= folder_of.keys() else test_part(refs, _in_testing)
    cohort = Cohort("ACDC", "official", CLASSES, tuple(refs), root, published, provenance, problems=tuple(problems))
    return checks.generated(cohort)


def _patient_folders(root: Path) -> list[list[Path]]:
    """Returns the patient folders per parent folder, in numerical order."""
    groups = []
    for base in _bases(root):
        folders = [path for path in entries(base) if _PATIENT.fullmatch(path.name) and path.is_dir()]
        groups.append(sorted(folders, key=lambda p: (int(p.name[7:]), p.name)))
    return [group for group in groups if group]


def _in_testing(ref: CaseRef) -> bool:
    return ref.source.parents[1].name == "testing"


def _bases(root: Path) -> list[Path]:
    return [base for base in (root, root / "training", root / "testing") if base.is_dir()]


def _patient_refs(folder: Path, ignored: list[str]) -> list[CaseRef]:
    """Returns the ED and ES cases of one patient; all other files are added to ``ignored``."""
    info = _read_info(folder / "Info.cfg")
    phases = {info["ED"]: "ED", info["ES"]: "ES"}
    images: dict[int, Path] = {}
    labels: dict[int, Path] = {}
    for path in entries(folder):
        match = _FRAME.fullmatch(path.name)
        if match is None or match[1] != folder.name:
            if path.name != "Info.cfg" and not path.name.startswith(f"{folder.name}_4d."):
                ignored.append(f"{folder.name}/{path.name}")
            continue
        frame = int(match[2])
        if frame not in phases:
            raise InputError(
                f"{path}: frame {frame} is neither ED ({info['ED']}) nor ES ({info['ES']}) in Info.cfg; "
                "correct Info.cfg, or move the file out of the folder."
            )
        kind = labels if match[3] else images
        if frame in kind:
            raise InputError(f"{path}: exists twice, also as {kind[frame].name}; keep one of the two.")
        kind[frame] = path
    for frame, phase in phases.items():
        if frame not in images:
            raise InputError(
                f"{folder / f'{folder.name}_frame{frame:02d}.nii.gz'}: is missing, though Info.cfg names frame {frame} "
                f"as {phase}; copy it there, or correct Info.cfg."
            )
    return [
        CaseRef(
            folder.name,
            phase,
            images[frame],
            partial(_load_official, folder.name, phase, images[frame], labels.get(frame), {**info, "frame": frame}),
            files=tuple(p for p in (images[frame], labels.get(frame)) if p is not None),
            labeled=frame in labels,
        )
        for frame, phase in phases.items()
    ]


def _load_official(patient: str, phase: str, image: Path, label: Path | None, info: dict[str, Any]) -> Case:
    return replace(pairs.load_case(patient, (image,), label, CLASSES, info=info), phase=phase)


def _read_info(path: Path) -> dict[str, Any]:
    """Reads ``Info.cfg`` as a dictionary: ED, ES and NbFrame int, Height (cm) and Weight (kg) float, Group text."""
    lines = read_text(path).splitlines()
    info: dict[str, Any] = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines) if k.strip()}
    for key, kind in (("ED", int), ("ES", int), ("NbFrame", int), ("Height", float), ("Weight", float)):
        if key in info or key in ("ED", "ES"):
            try:
                info[key] = kind(info[key])
            except (KeyError, ValueError):
                raise InputError(
                    f"{path}: has no number at '{key}:' (it has {info.get(key, 'no such line')!r}); "
                    "add it as in the release, for example 'ED: 1' and 'ES: 12'."
                ) from None
    if info["ED"] == info["ES"]:
        raise InputError(f"{path}: names frame {info['ED']} as both ED and ES; correct it as in the release.")
    return info


def _gt(image: Path) -> Path:
    stem, dot, suffix = image.name.partition(".")
    return image.with_name(f"{stem}_gt{dot}{suffix}")


# --- SSL4MIS layout ----------------------------------------------------------------------------------------------


def is_ssl4mis(root: Path) -> bool:
    """Returns whether ``data`` holds ``patientNNN_frameNN.h5`` volumes, or ``data/slices`` such slices."""
    folders = ((root / "data" / "slices", _SLICE), (root / "data", _VOLUME))
    return any(True for folder, pattern in folders for _ in pairs.matching(folder, pattern, root, []))


def read_ssl4mis(root: Path) -> Cohort:
    """Returns the cohort of an SSL4MIS ACDC folder; a training volume is the stack of its slices in numerical order.

    A case that has slices is read from them, also where a volume file lies beside them: training reads the slices.
    Patients that are on a list but have no files are named in ``provenance["absent"]``, and stay on the published
    lists; asking for their cases is an error then.

    Args:
        root: The folder that holds ``data`` and the lists.

    Returns:
        Cases ``frame01`` and ``frame02`` of each patient, by number, without spacing and affine;
        ``published`` holds the patients of the lists that are there, in list order; ``problems`` says which slices do
        not count from 1 without a gap or differ from ``train_slices.list``, which list is empty or has a line that
        names no case, and where only one of a patient's listed frames is there.
    """
    data = root / "data"
    slices: dict[str, dict[int, Path]] = {}
    ignored: list[str] = []
    for match, path in pairs.matching(data / "slices", _SLICE, root, ignored):
        slices.setdefault(match[1], {})[int(match[2])] = path
    volumes = {match[1]: path for match, path in pairs.matching(data, _VOLUME, root, ignored, ("slices",))}
    ignored += pairs.left_aside(root, root, ["data", *_LISTS.values(), "train_slices.list"])
    problems = _slice_problems(slices, root)
    refs = []
    for name in sorted(slices.keys() | volumes.keys()):
        patient, phase = name.split("_")
        files = tuple(slices[name][n] for n in sorted(slices[name])) if name in slices else (volumes[name],)
        source = files[0].parent / f"{name}_slice_*.h5" if name in slices else files[0]
        refs.append(CaseRef(patient, phase, source, partial(_load_h5, patient, phase, source, files), files))
    published, absent = {}, []
    for part, file in _LISTS.items():
        listed = [root / file] if (root / file).is_file() else []
        for names in collect(lambda path: read_list(path, *_CASE), listed, problems):
            published[part] = tuple(dict.fromkeys(name.split("_")[0] for name in names))
            missing = [name for name in names if name not in slices and name not in volumes]
            gone = {name.split("_")[0] for name in missing} - {ref.patient for ref in refs}
            absent += [patient for patient in published[part] if patient in gone]
            problems += [
                f"{root / file}: names {name}, which has no file in {data}, though the patient's other frame has; "
                "copy it there, or take the patient off the list."
                for name in missing
                if name.split("_")[0] not in gone
            ]
    provenance = {**PROVENANCE, "absent": tuple(absent), "ignored": tuple(ignored)}
    return Cohort("ACDC", "ssl4mis", CLASSES, tuple(refs), root, published, provenance, problems=tuple(problems))


def _load_h5(patient: str, phase: str, source: Path, files: tuple[Path, ...]) -> Case:
    stacked, places = source != files[0], ("data/slices", "data")
    volume, label = pairs.load_slices(files, read_h5, CLASSES, stacked=stacked, places=places)
    return Case(patient, phase, checks.check_image(volume, source)[None], label, None, None, source)


def _slice_problems(slices: dict[str, dict[int, Path]], root: Path) -> list[str]:
    """Lists the volumes with gaps in their slice numbers, or with slices other than in ``train_slices.list``."""
    problems: list[str] = []
    listed: dict[str, set[int]] = {}
    file = root / "train_slices.list"
    if slices and file.is_file():
        for name in read_list(file, r"patient\d+_frame\d+_slice_\d+", "patient001_frame01_slice_1"):
            case, _, number = name.rpartition("_slice_")
            listed.setdefault(case, set()).add(int(number))
    for case, numbers in slices.items():
        numbered = listed.get(case, set(range(1, max(numbers) + 1)))
        numbered |= set(range(1, max(numbered) + 1))
        if lost := sorted(numbered - numbers.keys()):
            problems.append(
                f"{root / 'data' / 'slices' / f'{case}_slice_{lost[0]}.h5'}: is missing ({len(lost)} of "
                f"{len(numbered)} slices of this volume); copy it there, or remove the whole volume and its "
                "lines in the lists."
            )
        if extra := sorted(numbers.keys() - numbered):
            problems.append(
                f"{numbers[extra[0]]}: is no slice of its volume (1 to {max(numbered)} by train_slices.list, or "
                "numbered below 1); remove the file, or correct the list."
            )
    return problems
