"""Anyone's own data, in the layout of the Medical Segmentation Decathlon or of nnU-Net (raw)::

    dataset.json                        classes, channels, and what else the data set says
    imagesTr/case_01.nii.gz             an image; with several channels 4-D, or case_01_0000.nii.gz, case_01_0001.nii.gz
    labelsTr/case_01.nii.gz             its annotation
    imagesTs/case_02.nii.gz             an image without annotation, or with one in labelsTs

The smallest ``dataset.json``, in the Decathlon's keys and in nnU-Net's::

    {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"}}
    {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}

Images may be PNG, JPEG, TIFF (one page per slice) or BMP, gray or color (three channels), if ``file_ending`` says so or
``imagesTr`` holds no volume. They may also be folders, each with the DICOM series of a case. Labels are pictures or
volumes of class numbers.

The patient's id is that of the case. Patients without annotation belong in ``imagesTs`` and are used as unlabeled
training patients. The optional key ``"window": [-200, 250]`` clips intensities of all channels to this range, as is
usual for CT; without it each volume and channel is scaled from its minimum to its maximum. Voxels of nnU-Net's
``ignore`` label are unknown. The value 255 is an error unless it is declared as a class or as ``ignore``.

Reference:
    Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 2022. Isensee et al., nnU-Net, Nature
    Methods 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from anatolab.data import checks, pairs
from anatolab.data.files import ENDINGS, PICTURES, ending, entries, inside, is_image, read_json, stem, whole
from anatolab.data.pictures import is_picture
from anatolab.types import UNKNOWN, Case, Cohort, InputError, check_classes


def is_decathlon(root: Path) -> bool:
    """Returns whether ``dataset.json`` or ``imagesTr`` lies in ``root``."""
    return (root / "dataset.json").exists() or (root / "imagesTr").is_dir()


def read_decathlon(root: Path) -> Cohort:
    """Returns the cohort of a Decathlon or nnU-Net folder.

    Args:
        root: The folder with ``dataset.json``.

    Returns:
        A case per patient. The images of ``imagesTs`` that have labels are the published test list; all others are the
        training list then.

    Raises:
        InputError: ``dataset.json`` is missing, is no JSON, or describes classes or channels that cannot be read.
    """
    file = root / "dataset.json"
    if not file.is_file():
        raise InputError(
            f'{file}: is missing; write one such as {{"modality": {{"0": "CT"}}, '
            '"labels": {"0": "background", "1": "liver"}}.'
        )
    about = read_json(file)
    classes, codes = _classes(about, file)
    named = _channels(about, file)
    window = _window(about, file)
    listed = {key: _listed(about, key, file) for key in ("training", "test")}
    ignored: list[str] = []
    problems: list[str] = []

    declared = str(about.get("file_ending", "")).lower()  # of nnU-Net; pictures may lie beside volumes as previews
    volumes = any(is_image(path) for path in entries(root / "imagesTr"))
    also = is_picture if declared in PICTURES or (not declared and not volumes) else (lambda path: False)

    def scan(folder: str) -> dict[str, Path]:
        files = pairs.scan([root / folder], r".+", root, ignored, problems, also)
        return {name: path for name, (_, path) in files.items()}

    labels, more = scan("labelsTr"), scan("labelsTs")
    problems += [f"{more[k]}: is in labelsTr too; take it out of one of the two folders." for k in labels if k in more]
    labels |= more
    train, bare = scan("imagesTr"), scan("imagesTs")
    # "case_0000" is a channel of "case", unless labels or dataset.json know it as a case of its own, and not "case".
    known, names = {*labels, *listed["training"], *listed["test"]}, [*train, *bare]
    plain = not known.isdisjoint(names) and known.isdisjoint(name.rpartition("_")[0] for name in names)
    ignored += pairs.left_aside(root, root, ("imagesTr", "imagesTs", "labelsTr", "labelsTs"))

    def cases(files: dict[str, Path]) -> dict[str, tuple[Path, ...]]:
        if plain:
            return {name: (path,) for name, path in files.items()}
        return pairs.by_channel(list(files.values()), len(named), problems)

    images, extra = cases(train), cases(bare)
    count = len(images)
    problems += [
        f"{extra[name][0]}: case {name} is in imagesTr too; take it out of one of the two folders."
        for name in images
        if extra.get(name)
    ]
    images |= extra
    problems += _against(about, file, listed["training"], images, count)
    labels = {name: path for name, path in labels.items() if images.get(name) != ()}  # channels were reported
    images = {name: files for name, files in images.items() if files}
    if not images and not problems:
        kinds = ", ".join((*ENDINGS, *PICTURES))
        problems.append(f"{root / 'imagesTr'}: holds no {kinds} image and no folder of DICOM; copy the images there.")

    def due(patient: str) -> Path | None:
        path = images[patient][0]
        return root / "labelsTr" / f"{patient}{ending(path)}" if path.parent.name == "imagesTr" else None

    def load(patient: str, paths: tuple[Path, ...], label: Path | None) -> partial[Case]:
        return partial(pairs.load_case, patient, paths, label, classes, codes=codes, window=window, channels=len(named))

    refs = pairs.refs_of(images, labels, load, due, problems)
    test = tuple(name for name in extra if name in labels)
    published = {"train": tuple(name for name in images if name not in test), "test": test} if test else {}
    provenance = {
        "license": str(about.get("licence") or about.get("license") or "not stated in dataset.json"),
        "source": str(about.get("reference") or about.get("description") or "not stated in dataset.json"),
        "absent": tuple(name for name in listed["test"] if name not in images),
        "ignored": tuple(ignored),
    }
    if window is None and any(name.upper().startswith("CT") for name in named):
        note = 'CT is scaled from its least to its greatest value; add "window": [low, high] in HU to dataset.json.'
        provenance["notes"] = (note,)
    name = str(about.get("name") or root.resolve().name)
    layout = "nnU-Net" if "channel_names" in about else "Decathlon"
    return checks.generated(Cohort(name, layout, classes, refs, root, published, provenance, window, tuple(problems)))


def _classes(about: Mapping[str, Any], file: Path) -> tuple[tuple[str, ...], dict[int, int] | None]:
    """Returns class names in the order of their numbers, and the codes if one of them means unknown."""
    labels = about.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise InputError(f'{file}: has no table "labels"; add it, for example {{"0": "background", "1": "liver"}}.')
    names: dict[int, str] = {}
    for key, value in labels.items():  # the Decathlon says {"1": "liver"}, nnU-Net {"liver": 1}
        number, name = (int(key), value) if key.isdecimal() and isinstance(value, str) else (whole(value), key)
        if number is None or number in names:
            raise InputError(
                f'{file}: its "labels" give {key!r} no class number of its own; '
                "write one whole number per class, and the parts of a region as classes."
            )
        names[number] = name
    names = {number: " ".join(name.split()) for number, name in names.items()}
    unknown = [number for number, name in names.items() if name == "ignore" and number]
    classes = [number for number in sorted(names) if number not in unknown]
    if classes != list(range(len(classes))) or not 2 <= len(classes) <= UNKNOWN:
        raise InputError(
            f'{file}: its "labels" number the classes {", ".join(map(str, sorted(names)))}; '
            "number them from 0 (background) without a gap, at least two."
        )
    check_classes([names[number] for number in classes], f'{file}: its "labels"')
    codes = {k: k for k in classes} | dict.fromkeys(unknown, UNKNOWN) if unknown else None
    return tuple(names[number] for number in classes), codes


def _channels(about: Mapping[str, Any], file: Path) -> tuple[str, ...]:
    """Returns the names of the channels, in order."""
    named = about.get("channel_names", about.get("modality"))
    if not isinstance(named, dict) or not named or set(named) != set(map(str, range(len(named)))):
        raise InputError(
            f'{file}: has no table of channels numbered from 0; add one, for example "channel_names": {{"0": "CT"}}.'
        )
    return tuple(str(named[str(k)]) for k in range(len(named)))


def _window(about: Mapping[str, Any], file: Path) -> tuple[float, float] | None:
    window = about.get("window")
    if window is None:
        return None
    try:
        low, high = (float(value) for value in window if isinstance(window, list))
    except (TypeError, ValueError):
        low = high = 0.0
    if not -1e9 < low < high < 1e9:
        raise InputError(f'{file}: its "window" is {window!r}; give two numbers, low and high, such as [-200, 250].')
    return low, high


def _listed(about: Mapping[str, Any], key: str, file: Path) -> list[str]:
    """Returns the cases that ``training`` or ``test`` names, each as a path or as ``{"image": path, ...}``."""
    entries = about.get(key, [])
    if isinstance(entries, list):
        paths = [str(entry.get("image", "") if isinstance(entry, dict) else entry) for entry in entries]
        if all(paths):
            names = [stem(inside(file.parent, path, file)) for path in paths]
            if len(set(names)) < len(names):
                twice = next(name for i, name in enumerate(names) if name in names[:i])
                raise InputError(f"{file}: lists {twice} twice under {key!r}; remove one of the two entries.")
            return names
    raise InputError(
        f'{file}: its {key!r} is not a list of images; write {{"image": "./imagesTr/a.nii.gz"}} per case, or '
        "remove the key."
    )


def _against(
    about: Mapping[str, Any], file: Path, listed: Sequence[str], images: Mapping[str, Any], train: int
) -> list[str]:
    """Lists the differences between the folder and its ``dataset.json``."""
    problems = [
        f"{file}: lists {name} under 'training', which has no image here; copy it there, or take it off the list."
        for name in listed
        if name not in images
    ]
    count = about.get("numTraining", train)
    if not problems and whole(count) != train:
        problems.append(
            f"{file}: says numTraining {count!r}, and imagesTr holds {train} cases; "
            "copy what is missing, or correct the number."
        )
    return problems
