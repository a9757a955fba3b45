"""``anatolab robust``: group-robust heads on frozen features of CLIP, on your own images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from anatolab.cli.common import Accelerator, Flag, Json, Overwrite, device_of, one_of_these, print_json
from anatolab.errors import InputError
from anatolab.files import check_target, write_atomically

if TYPE_CHECKING:
    from anatolab.robust.comparison import Bench

Split = Literal["train", "val", "test"]


@dataclass
class Model:
    """The frozen model and its prompts."""

    model: str = "scenes-vit"
    """Name of an open_clip model, a folder that holds one, or scenes-vit or scenes-rn of the package."""
    pretrained: str | None = None
    """Tag (such as openai) or file with the weights of a named model."""
    class_prompt: tuple[str, ...] = ()
    """A prompt for each class, in their order; by default the names of the classes."""
    group_prompt: tuple[str, ...] = ()
    """A prompt for each group, class by class; adds zero-shot with group prompts to a comparison."""
    template: tuple[str, ...] = ()
    """Sentences with {} in place of the prompt; by default four plain ones."""
    cache: Path | None = None
    """Folder of the feature caches; by default ANATOLAB_CACHE, or ~/.cache/anatolab."""
    accelerator: Accelerator = "auto"
    """Where features are computed; heads are fitted on the CPU."""


@dataclass
class Fit:
    """Fit one method and save its head."""

    data: Path
    """Folder of images, laid out as Waterbirds, CelebA, MetaShift or CheXpert, as train/CLASS, or with a table.csv."""
    out: Path
    """Folder for the head, its card and its README."""
    model: Model
    method: str = "cfr"
    """A method of anatolab.robust."""
    seed: int = 0
    """Seed of all random draws."""
    tune: Flag = False
    """Fit the method's three settings, and keep the best by its selection rule on validation."""
    no_groups: Flag = False
    """Use no group labels in training and selection."""
    export: Path | None = None
    """Write the whole model with the new projection as a state dict of open_clip (.safetensors, or .pt)."""
    overwrite: Overwrite = False
    json: Json = False

    def run(self) -> int:
        """Fits the method, measures it on validation, and writes the head."""
        from anatolab.robust.comparison import fit, measure, pick_methods
        from anatolab.robust.heads import TENSORS

        check_target(self.out / TENSORS, overwrite=self.overwrite)
        if self.export is not None:
            check_target(self.export, overwrite=self.overwrite)
        images, make = _opened(self.data, self.model)
        rules, notes = pick_methods([self.method], images.grouped and not self.no_groups)
        data = make(("train", "val"))
        head, method, sees = fit(data, self.method, select=rules[self.method], seed=self.seed, tune=self.tune)
        scores = measure([head], data.rows["val"], images)
        card = _card(data, self.model, self.method, sees, asdict(method.config), {"val": scores}, self.seed)
        if self.export is not None:
            _export(head, data, self.export, self.overwrite)
        _save(self.out, head, card, self.overwrite)
        result = {"out": self.out, "export": self.export, "method": self.method, "sees": sees, "val": scores}
        if self.json:
            print_json({**result, "notes": notes})
            return 0
        _print_notes(notes)
        print(f"{self.out}: {card.title}, labels in training {_labels(sees['training'])}, ", end="")
        print(f"in selection {_labels(sees['selection'])}")
        print(f"on validation, which selection may have used: {_sentence(scores)}")
        return 0


@dataclass
class Evaluate:
    """Measure a saved head on a split of a folder of images."""

    head: Path
    """Folder of the head, the --out of fit, or one of heads/ below the --out of compare."""
    data: Path
    """Folder of images."""
    on: Split = "test"
    """Which split."""
    cache: Path | None = None
    """Folder of the feature caches."""
    accelerator: Accelerator = "auto"
    """Where features are computed."""
    json: Json = False

    def run(self) -> int:
        """Evaluates the head and prints its accuracies."""
        from anatolab.data import open_images
        from anatolab.robust.comparison import check_splits, measure
        from anatolab.robust.heads import load_head

        head, card, clip = load_head(self.head)
        images = open_images(self.data)
        if tuple(card["classes"]) != images.classes:
            raise InputError(
                f"{self.head}: knows the classes {', '.join(card['classes'])}, but {self.data} has "
                f"{', '.join(images.classes)}; name them alike in the same order, or fit a head on these images."
            )
        check_splits(images, (self.on,))
        rows = _rows(clip, images, (self.on,), self.cache, self.accelerator)[self.on]
        scores = measure([head], rows, images)
        if self.json:
            print_json({"head": self.head, "data": self.data, "on": self.on, "scores": scores})
            return 0
        print(f"{card['title']}, {one_of_these(len(rows.y), f'{self.on} image')}: {_sentence(scores)}")
        for name, value in scores["per_group"].items():
            print(f"  {name:32}{value:.3f}  of {scores['counts'][name]}")
        if not images.grouped:
            print("no groups are known, so that only mean accuracy and accuracy per class can be measured")
        return 0


@dataclass
class Attribute:
    """Show which pixels raise the margin between two classes, and compare them with masks if there are any."""

    head: Path
    """Folder of the head."""
    data: Path
    """Folder of images."""
    out: Path
    """Folder for maps.png and maps.json."""
    masks: Path | None = None
    """Folder of masks of the object, each a picture with the name of its image and the ending .png, not 0 inside."""
    classes: tuple[str, str] | None = None
    """Two classes; the margin of the second over the first is explained. By default the first two."""
    images: int = 8
    """Number of images of the test split."""
    steps: int = 64
    """Steps of integrated gradients."""
    overwrite: Overwrite = False
    json: Json = False

    def run(self) -> int:
        """Computes the maps, measures them and draws them."""
        from anatolab.cli.robust_attribution import attribute

        return attribute(self)


@dataclass
class Compare:
    """Fit every method, and write one table, one picture and all heads."""

    model: Model
    folder: tyro.conf.Positional[Path | None] = None
    """Folder of images, as for fit; or give it as --data."""
    data: Path | None = None
    """Folder of images, as for fit."""
    out: Path | None = None
    """Folder for table.md, table.json, groups.png and heads; by default FOLDER-compared, here."""
    method: tuple[str, ...] = ("all",)
    """Methods of anatolab.robust, or all."""
    seeds: int = 3
    """Fits of each method."""
    tune: Flag = False
    """Let each method choose among three settings by its selection rule on validation, with the first seed."""
    no_groups: Flag = False
    """Use no group labels in training and selection; accuracy is still reported per group."""
    overwrite: Overwrite = False
    json: Json = False

    def run(self) -> int:
        """Fits and measures every method, and writes the results."""
        import json as text

        from anatolab.cli.robust_report import as_markdown, draw_groups
        from anatolab.records import plain
        from anatolab.robust.comparison import compare, pick_methods

        if self.seeds < 1:
            raise InputError(f"--seeds {self.seeds}: must be at least 1.")
        folders = [folder for folder in (self.folder, self.data) if folder is not None]
        if len(folders) != 1:
            raise InputError(f"robust compare takes one folder of images, as FOLDER or as --data, not {len(folders)}.")
        (folder,) = folders
        out = Path(f"{folder.resolve().name}-compared") if self.out is None else self.out
        files = {name: out / name for name in ("table.md", "table.json", "groups.png")}
        for file in files.values():
            check_target(file, overwrite=self.overwrite)
        images, make = _opened(folder, self.model)
        pick_methods(self.method, images.grouped and not self.no_groups)
        data = make(("train", "val", "test"))
        results, notes = compare(
            data,
            self.method,
            seeds=self.seeds,
            tune=self.tune,
            no_groups=self.no_groups,
            progress=(lambda title: None) if self.json else (lambda title: print(f"fitting {title}", flush=True)),
        )
        if not results:
            raise InputError(f"{folder}: no method could be fitted: {' '.join(notes)}")
        for result in results:
            card = _card(data, self.model, result.name, result.sees, result.settings, {"test": result.scores}, 0)
            _save(out / "heads" / result.name, result.head, card, self.overwrite)
        about = {
            "data": folder,
            "name": images.name,
            "model": self.model.model,
            "pretrained": self.model.pretrained,
            "text": data.text,
            "seeds": self.seeds,
            "tuned": self.tune,
            "images": {split: len(rows.y) for split, rows in data.rows.items()},
            "training_counts": dict(zip(images.group_names, images.of("train").counts.tolist(), strict=True)),
            "notes": notes,
        }
        kept = ("name", "title", "sees", "settings", "scores", "seconds")
        report = {**about, "methods": [{k: getattr(result, k) for k in kept} for result in results]}
        table = as_markdown(about, results)
        write_atomically(files["table.json"], text.dumps(plain(report), indent=1) + "\n", overwrite=self.overwrite)
        write_atomically(files["table.md"], table, overwrite=self.overwrite)
        write_atomically(files["groups.png"], draw_groups(results), overwrite=self.overwrite)
        if self.json:
            print_json(report)
        else:
            print(table)
            print(f"written: {', '.join(str(file) for file in files.values())}, heads in {out / 'heads'}")
        return 0


def command(arguments: Sequence[str]) -> Any:
    """Returns the function whose sub-commands are the four actions."""
    kinds: Any = None
    for kind in (Fit, Evaluate, Attribute, Compare):
        option: Any = Annotated[kind, tyro.conf.subcommand(kind.__name__.lower(), description=kind.__doc__)]
        kinds = option if kinds is None else kinds | option

    def robust(action: Any) -> int:
        """Fit, evaluate, explain and compare heads on frozen features, on your own images.

        Args:
            action: What to do.
        """
        return int(action.run())

    robust.__annotations__["action"] = kinds
    return robust


def _opened(path: Path, model: Model) -> tuple[Any, Callable[[Sequence[str]], Bench]]:
    """Opens a folder of images and loads the model; returns the images and a function that extracts features."""
    from anatolab.data import open_images
    from anatolab.robust import load_clip
    from anatolab.robust.clip import TEMPLATES
    from anatolab.robust.comparison import bench, check_splits

    images = open_images(path)
    if wrong := [t for t in model.template if "{}" not in t]:
        raise InputError(f"--template {wrong[0]!r}: has no {{}} where the prompt goes; put it in.")
    clip = load_clip(model.model, model.pretrained)

    def make(splits: Sequence[str]) -> Bench:
        check_splits(images, splits)
        _rows(clip, images, splits, model.cache, model.accelerator)  # into the cache, on the device
        return bench(
            clip,
            images,
            prompts=model.class_prompt or None,
            group_prompts=model.group_prompt or None,
            templates=model.template or TEMPLATES,
            splits=splits,
            cache=model.cache,
        )

    return images, make


def _rows(clip: Any, images: Any, splits: Sequence[str], cache: Path | None, accelerator: str) -> dict[str, Any]:
    from anatolab.robust import rows_of

    clip.model.to(device_of(accelerator))
    try:
        return {split: rows_of(clip, images.of(split), groups=images.grouped, cache=cache) for split in splits}
    finally:
        clip.model.to("cpu")


def _card(data: Bench, model: Model, name: str, sees: Any, settings: Any, scores: Any, seed: int) -> Any:
    from anatolab.robust.catalog import METHODS
    from anatolab.robust.heads import Card

    place = Path(model.model)
    return Card(
        method=name,
        title=data.names.get(name) or (METHODS[name].title if name in METHODS else "zero-shot, group prompts"),
        model=str(place.resolve()) if place.is_dir() else model.model,
        pretrained=str(Path(model.pretrained).resolve())
        if model.pretrained and Path(model.pretrained).is_file()
        else model.pretrained,
        model_sha256=data.clip.sha256,
        classes=data.images.classes,
        attributes=data.images.attributes,
        text=data.text,
        sees=sees,
        settings=settings,
        scores=scores,
        seed=seed,
    )


def _save(folder: Path, head: Any, card: Any, overwrite: bool) -> None:
    from anatolab.robust.heads import save_head

    save_head(folder, head, card, overwrite=overwrite)


def _export(head: Any, data: Bench, path: Path, overwrite: bool) -> None:
    """Writes the state dict of the whole model."""
    from anatolab.robust.heads import open_clip_state

    state = open_clip_state(head, data.clip)
    if path.suffix == ".safetensors":
        from safetensors.torch import save

        write_atomically(path, save(state), overwrite=overwrite)
        return
    import torch

    write_atomically(path, lambda file: torch.save(state, file), overwrite=overwrite)


def _labels(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _sentence(scores: dict[str, Any]) -> str:
    low, high = scores["intervals"]["worst"]
    first, last = scores["intervals"]["mean"]
    return (
        f"worst {scores['unit']} {scores['worst']:.3f} ({low:.3f} to {high:.3f}), "
        f"mean {scores['mean']:.3f} ({first:.3f} to {last:.3f})"
    )


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {note}")
