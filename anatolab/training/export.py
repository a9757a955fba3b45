"""Exports the weights of a run for sharing: safetensors with a card, a MONAI bundle, ONNX.

An export names no patient and no folder: the card counts patients, and its metrics are means over them. Optimizer,
banks and random states are left out, because they serve only to continue a run. An attack on the weights may still
reveal training patients, so share them only as the license of the data allows.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anatolab import records
from anatolab.files import write_atomically
from anatolab.methods import METHODS
from anatolab.training import exported
from anatolab.training.folder import RunInfo, open_run
from anatolab.types import InputError

BUNDLE = ("configs/metadata.json", "configs/inference.json", "models/model.pt")
ONNX = "models/model.onnx"
METRICS = ("dice", "jaccard", "hd95", "assd", "nsd")
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


class Predictor(nn.Module):
    """The network that a run predicts with, from images in [0, 1] to logits, without the rest of its method.

    Args:
        method: A method of :func:`anatolab.training.open_run`.
    """

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.net = exported.network_of(method)
        self._predict = method.predict

    def forward(self, image: Tensor) -> Tensor:
        """Returns logits ``(b, classes, *s)`` of images ``(b, c, *s)`` in [0, 1]."""
        return self._predict(image)  # type: ignore[operator]


def network(folder: str) -> Predictor:
    """Returns the network of an export; called by the configuration of its MONAI bundle."""
    return Predictor(open_run(folder)[0]).eval()


def card_of(
    method: nn.Module,
    info: RunInfo,
    evaluation: Mapping[str, Any] | None,
    license: str | None,
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the model card, without patient ids and paths.

    Args:
        method: The trained method.
        info: The description of its run.
        evaluation: The content of the file of ``anatolab evaluate --json-file``, if any.
        license: License of the weights.
        earlier: The card of an export that is exported again; it holds what ``info`` lacks there.

    Raises:
        InputError: The evaluation is that of other weights.
    """
    described = {k: v for k, v in records.plain(info).items() if k not in ("split", "data")}
    digest = exported.sha256_of(exported.weights_of(method))
    known = earlier or {"training_patients": len(info.split.train), "labeled_patients": info.split.labeled}
    return {
        "format": exported.FORMAT,
        "info": described,
        "title": METHODS[info.method].title,
        "training_patients": known["training_patients"],
        "labeled_patients": known["labeled_patients"],
        "license": license or known.get("license", "not stated"),
        "weights_sha256": digest,
        "evaluation": known.get("evaluation") if evaluation is None else _evaluated(evaluation, digest),
    }


def _evaluated(evaluation: Mapping[str, Any], digest: str) -> dict[str, Any]:
    if evaluation.get("weights_sha256") != digest:
        raise InputError(
            "evaluation: is not one of these weights; write it with `anatolab evaluate --run RUN --json-file FILE`."
        )
    summary = evaluation["summary"]
    return {
        "on": evaluation["on"],
        "patients": len(evaluation["patients"]),
        "of_them_trained_on": len(evaluation["trained_on"]),
        "unit": evaluation["unit"],
        **{metric: summary[metric] for metric in METRICS},
    }


def write_weights(method: nn.Module, card: Mapping[str, Any], folder: Path, *, overwrite: bool = False) -> None:
    """Writes ``model.safetensors`` with the card in its header, and the card as ``README.md`` for people."""
    from safetensors.torch import save

    content = save(exported.weights_of(method), exported.header(card))
    write_atomically(folder / exported.WEIGHTS, content, overwrite=overwrite)
    write_atomically(folder / "README.md", readme(card), overwrite=overwrite)


def readme(card: Mapping[str, Any]) -> str:
    """Returns the card as Markdown."""
    info = card["info"]
    organs = ", ".join(info["classes"][1:])
    size = " x ".join(map(str, info["patch"] or (info["side"], info["side"])))
    window = info["window"]
    scaled = (
        f"clipped to {window[0]:g} ... {window[1]:g} and scaled to [0, 1]"
        if window
        else "scaled to [0, 1] a scan and channel"
    )
    view = info["field_of_view"]
    shown = (
        f"a box centered at {view['center']} of the axes, with sides {view['side']} ({view['unit']})"
        if view
        else "the whole scan"
    )
    rows = {
        "method": f"{card['title']} (`{info['method']}`)",
        "classes": ", ".join(f"{k} {name}" for k, name in enumerate(info["classes"])),
        "trained on": f"{card['training_patients']} patients, {card['labeled_patients']} of them labeled; "
        f"{info['step']} of {info['updates']} updates",
        "network": f"`{info['network']}`, {info['in_channels']} channel(s)",
        "input": f"{'patches' if info['patch'] else 'slices'} of {size}, intensities {scaled}",
        "orientation": info["orientation"] or "as the files have it",
        "field of view": shown,
        "largest component alone": "yes" if info["largest_component"] else "no",
        "code": f"anatolab {info['versions'].get('anatolab', '')}, commit {info['commit'] or 'unknown'}",
        "license": card["license"],
    }
    lines = [f"# Segmentation of {organs}", "", "| | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in rows.items())]
    if evaluation := card["evaluation"]:
        trained = evaluation["of_them_trained_on"]
        who = f"{evaluation['patients']} patients ({evaluation['on']})"
        overlap = f"; {trained} of them were trained on" if trained else ", none of whom was trained on"
        lines += ["", f"Measured on {who}{overlap}. Distances in {evaluation['unit']}.", ""]
        lines += ["| | Dice | Jaccard | HD95 | ASSD | NSD |", "| --- | --- | --- | --- | --- | --- |"]
        for name in (*info["classes"][1:], "mean"):
            cells = [evaluation[metric].get(name) for metric in METRICS]
            lines.append(f"| {name} | {' | '.join('-' if c is None else f'{c:.3f}' for c in cells)} |")
    else:
        lines += ["", "No evaluation was exported with these weights."]
    use = "anatolab predict --run THIS_FOLDER --images scan.nii.gz --out predicted"
    return "\n".join([*lines, "", f"```bash\n{use}\n```", "", "For research; this is no medical device.", ""])


def write_bundle(
    method: nn.Module, card: Mapping[str, Any], folder: Path, *, authors: str, overwrite: bool = False
) -> None:
    """Makes the folder of exported weights a MONAI bundle: writes two configurations and ``models/model.pt``.

    Its ``run`` calls ``anatolab predict``.
    """
    metadata, inference, weights = (folder / name for name in BUNDLE)
    for path, content in ((metadata, _metadata(card, authors)), (inference, _inference())):
        write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n", overwrite=overwrite)
    state = {f"net.{k}": v for k, v in exported.weights_of(method).items()}
    write_atomically(weights, lambda file: torch.save(state, file), overwrite=overwrite)


def _metadata(card: Mapping[str, Any], authors: str) -> dict[str, Any]:
    info = card["info"]
    organs = ", ".join(info["classes"][1:])
    shape = info["patch"] or [info["side"], info["side"]]
    tensor = {"type": "image", "modality": "n/a", "spatial_shape": shape, "dtype": "float32", "is_patch_data": True}
    versions = {name: importlib.metadata.version(name) for name in ("anatolab", "nibabel", "safetensors")}
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "exported"},
        **{
            f"{name}_version": importlib.metadata.version(package)
            for name, package in (("monai", "monai"), ("pytorch", "torch"), ("numpy", "numpy"))
        },
        "required_packages_version": versions,
        "name": f"anatolab {info['method']}",
        "task": f"Segmentation of {organs}",
        "description": f"{card['title']}, trained on {card['training_patients']} patients, "
        f"{card['labeled_patients']} of them labeled. See README.md.",
        "authors": authors,
        "copyright": card["license"],
        "intended_use": "Research. This is no medical device.",
        "eval_metrics": {} if card["evaluation"] is None else {"mean_dice": card["evaluation"]["dice"]["mean"]},
        "network_data_format": {
            "inputs": {
                "image": {
                    **tensor,
                    "format": "magnitude",
                    "num_channels": info["in_channels"],
                    "value_range": [0, 1],
                    "channel_def": {str(k): f"channel {k}" for k in range(info["in_channels"])},
                }
            },
            "outputs": {
                "pred": {
                    **tensor,
                    "format": "labels",
                    "num_channels": len(info["classes"]),
                    "value_range": [],
                    "channel_def": {str(k): name for k, name in enumerate(info["classes"])},
                }
            },
        },
    }


def _inference() -> dict[str, Any]:
    command = "['predict', '--run', @bundle_root, '--images', @dataset_dir, '--out', @output_dir, '--overwrite']"
    return {
        "imports": ["$import sys", "$from anatolab.cli import main"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "network_def": {"_target_": "anatolab.training.export.network", "folder": "@bundle_root"},
        "code": f"$main({command})",
        "initialize": [],
        "run": ["$@code and sys.exit(@code)"],
        "finalize": [],
    }


def write_onnx(method: nn.Module, info: RunInfo, path: Path, *, overwrite: bool = False) -> None:
    """Writes the network, from images in [0, 1] to logits, as ONNX with any number of images.

    Args:
        method: The trained method, on the CPU.
        info: Sides and channels of the images.
        path: The file.
        overwrite: Whether a file of that name may be replaced.

    Raises:
        InputError: The packages are missing, or the network has no counterpart in ONNX.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"ONNX: the package {error.name} is missing; install anatolab[export].") from error
    image = torch.rand(2, info.in_channels, *info.size)
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w", encoding="utf-8") as quiet:  # noqa: PTH123
        target = Path(folder) / "model.onnx"
        try:
            with redirect_stdout(quiet), warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore", FutureWarning)  # of torch about itself
                torch.onnx.export(
                    Predictor(method).eval(),
                    (image,),
                    target,
                    dynamo=True,
                    external_data=False,
                    input_names=["image"],
                    output_names=["logits"],
                    dynamic_shapes={"image": {0: torch.export.Dim("images", min=1)}},
                )
        except Exception as error:  # what the exporter raises on operators that ONNX lacks is open-ended
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"ONNX: {info.method} on {info.network} cannot be exported ({reason}).") from error
        write_atomically(path, _without_sources(target), overwrite=overwrite)


def _without_sources(path: Path) -> bytes:
    """Returns an ONNX model without the exporter's stack traces and paths."""
    import onnx

    model = onnx.load(path)
    for item in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.functions):
        del item.metadata_props[:]
        item.doc_string = ""
    for item in (*model.graph.value_info, *model.graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    return model.SerializeToString()
