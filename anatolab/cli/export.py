"""``anatolab export``: the weights of a run, for sharing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from anatolab.cli.common import Flag, Json, Overwrite, print_json
from anatolab.errors import InputError
from anatolab.files import check_target


def command(arguments: Sequence[str]) -> Any:
    """Returns the function whose parameters are the flags."""
    return export


def export(
    run: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    bundle: Flag = False,
    onnx: Flag = False,
    evaluation: Path | None = None,
    license: str | None = None,
    authors: str = "not stated",
    overwrite: Overwrite = False,
    json: Json = False,
) -> int:
    """Write the weights of a run with a card that names no patient or folder; predict opens it like a run.

    Args:
        run: Folder of a run, the --out of train, or of an export, whose card is kept.
        out: Folder to write: model.safetensors, and README.md, the card.
        bundle: Make it a MONAI bundle, too: configs/metadata.json, configs/inference.json, models/model.pt.
        onnx: Write the network as models/model.onnx, too; needs anatolab[export].
        evaluation: The file that evaluate --json-file wrote for this run, for the metrics of the card; by default
            evaluation.json in the folder of the run, if it exists.
        license: License of the weights, as the license of the data allows.
        authors: Authors of the weights.
        overwrite: Replace files that exist.
        json: Print the card as JSON.
    """
    from anatolab.data.files import read_json
    from anatolab.training import exported, open_run
    from anatolab.training.export import BUNDLE, ONNX, card_of, write_bundle, write_onnx, write_weights

    for flag, asked, files in (
        ("", True, (exported.WEIGHTS, "README.md")),
        ("--bundle", bundle, BUNDLE),
        ("--onnx", onnx, (ONNX,)),
    ):
        for path in (out / file for file in files):
            if not asked and path.exists():
                raise InputError(
                    f"{path}: belongs to an earlier export; give {flag} and --overwrite to replace it, or name another "
                    "folder."
                )
            if asked:
                check_target(path, overwrite=overwrite)
    method, info = open_run(run)
    if not info.finished:
        raise InputError(f"{run}: is not finished, step {info.step} of {info.updates}; continue its training first.")
    evaluation = evaluation or next((p for p in (run / "evaluation.json",) if p.is_file()), None)
    card = card_of(method, info, read_json(evaluation) if evaluation is not None else None, license, exported.card(run))
    license = card["license"]
    if onnx:
        write_onnx(method, info, out / ONNX, overwrite=overwrite)
    write_weights(method, card, out, overwrite=overwrite)
    if bundle:
        write_bundle(method, card, out, authors=authors, overwrite=overwrite)
    if json:
        print_json(card)
    else:
        print(f"{out}: {card['title']}, classes {', '.join(info.classes)}, license {license}")
        if license == "not stated":
            print("note: no license is stated; give --license, as the terms of the training data allow.")
    return 0
