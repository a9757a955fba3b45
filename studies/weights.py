"""Pre-trains the two small CLIP models on generated captioned scenes, and writes weights and record into the package.

    python studies/weights.py scenes-vit     # some minutes on one core
    python studies/weights.py scenes-rn

Weights are float16 safetensors, with the token rows that the captions use; the record beside them (JSON) holds model,
recipe, seed, sha256 of the file, the losses of the first steps, which a test replays, the last loss and the time. On
the validation rows of finch or duck, with the float16 weights: DFR must reach .80 in the worst group, so that the
features hold the object, and zero-shot must stay at .6 or below, so that the cue is taken. The files are written in
either case; where a gate is missed, the exit status is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor, nn

from anatolab import records
from anatolab.data.phantoms.scenes import VERSION, caption_words, finch_or_duck, pretraining_scenes
from anatolab.metrics import group_accuracy
from anatolab.robust.clip import WEIGHTS, Clip, small_tokenizer

REPLAYED = 50  # first losses that the record keeps
TEXT = {"context_length": 12, "width": 32, "heads": 2, "layers": 1, "mlp_ratio": 2}
MODELS: dict[str, dict[str, Any]] = {
    "scenes-vit": {
        "embed_dim": 48,
        "vision_cfg": {
            "image_size": 32,
            "patch_size": 8,
            "width": 64,
            "head_width": 16,
            "layers": 3,
            "mlp_ratio": 2,
        },
    },
    "scenes-rn": {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "patch_size": None},
    },
}
RECIPE: dict[str, Any] = {
    "rows": 12_000,
    "rho": 0.9,
    "batch": 128,
    "epochs": 36,
    "lr": 2e-3,  # peak of one cycle
    "betas": [0.9, 0.98],
    "weight_decay": 0.1,  # of matrices
    "scenes": VERSION,
}
# At the ViT's rho of .9 and 18 epochs the ResNet learns the objects too well to be misled (zero-shot .91 in the worst
# group on validation). With a stronger cue and fewer epochs it is misled altogether, and misses the gate of DFR closely
# (.78). It is there for the code path of ResNets; what the book shows of CFR is the ViT's.
CHANGED: dict[str, dict[str, Any]] = {"scenes-vit": {}, "scenes-rn": {"rho": 0.97, "epochs": 8}}
NORMALIZE = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}


def start(name: str, seed: int, **overrides: Any) -> tuple[nn.Module, dict[str, Any]]:
    """Returns a model with random weights, and the record that describes it; ``overrides`` change the recipe."""
    from open_clip import CLIP, SimpleTokenizer

    tokens = SimpleTokenizer(context_length=TEXT["context_length"])(list(caption_words())).unique().tolist()
    model = {**MODELS[name], "text_cfg": {**TEXT, "vocab_size": len(tokens)}}
    torch.manual_seed(seed)
    return CLIP(**model), {
        "model": model,
        "recipe": {**RECIPE, **CHANGED[name], **overrides},
        "seed": seed,
        "tokens": tokens,
        **NORMALIZE,
    }


def losses(model: Any, record: dict[str, Any]) -> Iterator[float]:
    """Trains the model, step by step; gives the loss of each."""
    from open_clip import ClipLoss

    recipe, seed = record["recipe"], record["seed"]
    scenes = pretraining_scenes(recipe["rows"], recipe["rho"], seed)
    clip = Clip("", model, small_tokenizer(record), "", tuple(record["mean"]), tuple(record["std"]))
    text = clip.tokenize(list(scenes.captions))
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": recipe["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, recipe["lr"], tuple(recipe["betas"]))
    steps = recipe["rows"] // recipe["batch"]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe["lr"], recipe["epochs"] * steps)
    generator, loss_fn = torch.Generator().manual_seed(seed), ClipLoss()
    model.train()
    for _ in range(recipe["epochs"]):
        order = torch.randperm(recipe["rows"], generator=generator)
        for rows in order[: steps * recipe["batch"]].view(steps, -1):
            image, caption, scale = model(clip.preprocess(scenes.images[rows.numpy()]), text[rows])
            loss: Tensor = loss_fn(image, caption, scale)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(0, np.log(100))
            yield loss.item()


def gates(clip: Clip) -> dict[str, float]:
    """Measures worst-group validation accuracy of zero-shot and of DFR, which is fitted on half of these rows."""
    from sklearn.linear_model import LogisticRegression

    val = finch_or_duck().of("val")
    assert val.pixels is not None
    model: Any = clip.model
    with torch.no_grad():
        z = model.encode_image(clip.preprocess(val.pixels), normalize=True)
    zero_shot = (z @ clip.text_head(val.classes)).argmax(1).numpy()
    fit = np.arange(len(val)) % 2 == 0
    least = np.bincount(val.group[fit]).min()
    rows = np.concatenate([np.flatnonzero(fit & (val.group == g))[:least] for g in range(4)])
    head = LogisticRegression(max_iter=2000).fit(z[rows].numpy(), val.y[rows])
    by_group = group_accuracy(head.predict(z[~fit].numpy()), val.y[~fit], val.group[~fit])
    plain = group_accuracy(zero_shot, val.y, val.group)
    return {"zero_shot_worst": plain["worst"], "zero_shot_mean": plain["mean"], "dfr_worst": by_group["worst"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(MODELS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=WEIGHTS, help="where the two files go")
    parser.add_argument("--rho", type=float, help="another difficulty; give it another folder")
    parser.add_argument("--epochs", type=int, help="in place of the recipe's")
    args = parser.parse_args()

    from safetensors.torch import save_file

    torch.set_num_threads(1)
    overrides = {key: value for key in ("rho", "epochs") if (value := getattr(args, key)) is not None}
    model, record = start(args.name, args.seed, **overrides)
    begin, history = time.perf_counter(), []
    for loss in losses(model, record):
        history.append(loss)
        if len(history) % 500 == 0:
            seconds = time.perf_counter() - begin
            print(f"step {len(history)}: {np.mean(history[-100:]):.3f}, {seconds:.0f} s", flush=True)
    model.eval()
    half = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in half.items()})
    args.folder.mkdir(parents=True, exist_ok=True)
    file = args.folder / f"{args.name}.safetensors"
    save_file({k: v.contiguous() for k, v in half.items()}, file)
    file.chmod(0o644)
    clip = Clip(args.name, model, small_tokenizer(record), "", tuple(record["mean"]), tuple(record["std"]))
    reached = gates(clip)
    passed = reached["dfr_worst"] >= 0.8 and reached["zero_shot_worst"] <= 0.6
    record |= {
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "losses": [round(v, 5) for v in history[:REPLAYED]],
        "final_loss": round(float(np.mean(history[-100:])), 4),
        "seconds": round(time.perf_counter() - begin),
        "versions": {"torch": torch.__version__.split("+")[0]},
        "gates": {k: round(v, 4) for k, v in reached.items()},
        "passed": passed,
    }
    record["seal"] = records.seal(record)
    (args.folder / f"{args.name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record["gates"]), f"{file.stat().st_size / 1e6:.2f} MB", "passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
