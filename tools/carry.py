"""Carries records over a refactoring: tests that old and new code train to the same bits, and notes it in the record.

    python tools/carry.py acdc-3-action acdc-3-actionpp-random      # these experiments
    python tools/carry.py                                           # all whose code or configuration differs

A record becomes stale when any definition that its method reaches changes, even if the change cannot matter, such as a
new field whose default keeps the behavior. Such a record need not be made again if that is tested. For each one, the
code of the commit that made it (in a separate checkout) and the current code train the recorded configuration for 24
updates over all stages, on the same generated batches and with thresholds so low that every term is active, and predict
the last batch. If all tensors of the two states are bitwise equal, and so is the class of every pixel (logits may be
rounded differently), the record gets the current hash and configuration, and its provenance names the original commit,
the number of updates and the hash of the state. Otherwise nothing is written, and the record must be made again. The
tree must be committed.

The records of `studies/embeddings.py` reach five methods. They are carried if each of the five trains to the same bits,
and nothing else that they reach has changed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from anatolab import experiments, records
from anatolab.staleness import closure_sha256

ROOT = Path(__file__).resolve().parent.parent
UPDATES = 24
# What both checkouts run; it uses only names that a method of any commit has.
TRAIN = """
import dataclasses, hashlib, json, sys, torch
from anatolab import experiments
from anatolab.methods import METHODS
from anatolab.nn import NETWORKS
from anatolab.types import IGNORE, Batch

name, updates, easy = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
wanted = experiments.by_id(name)
config = experiments.method_config(wanted)
easy = {k: v for k, v in easy.items() if hasattr(config, k)}
config = dataclasses.replace(config, updates=updates, **easy)
torch.manual_seed(0)
dims = getattr(wanted, "dims", 2)
size = (experiments.SIZES if dims == 2 else experiments.SIZES_3D)[wanted.size]
network = NETWORKS[getattr(wanted, "network", None) or size.network](1, 4, spatial_dims=dims)
method = METHODS[wanted.method](network, config).train()
generator = torch.Generator().manual_seed(1)
for stage in method.stages():
    parameters = stage.trainable.parameters() if isinstance(stage.trainable, torch.nn.Module) else stage.trainable
    optimizer = torch.optim.SGD(parameters, 0.02, 0.9)
    for update in range(stage.updates):
        coarse = torch.rand(sum(stage.batch), 1, *[4] * dims, generator=generator)
        image = torch.nn.functional.interpolate(coarse, [64] * dims)
        label = (image[:, 0] * 4).long()
        label[stage.batch[0]:] = IGNORE
        losses = stage.step(Batch(image, label, stage.batch[0]), update / stage.updates)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        method.after_step()
state = hashlib.sha256()
for key, value in sorted(method.state_dict().items()):
    state.update(key.encode())
    state.update(value.cpu().numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
method.eval()
with torch.no_grad():
    predicted = hashlib.sha256(method.predict(image).argmax(1).to(torch.uint8).numpy().tobytes()).hexdigest()
terms = {k: float(v) for k, v in losses.terms.items()}
print(json.dumps({"state": state.hexdigest(), "terms": terms, "predicted": predicted}))
"""
TRAININGS = {"arco": "acdc-3-arco-sg"}  # experiments that train like an embedding's, where not acdc-3-<method>
# Settings so low that an untrained teacher is confident on some pixels; each is a field of some method's Config.
EASY = {"weak_threshold": 0.3, "confidence_threshold": 0.3, "equivariance_threshold": 0.3}


def trained(checkout: Path, experiment: str) -> dict[str, object]:
    """Returns state hash, last terms and hash of predicted classes of a short training with the code of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TRAIN, experiment, str(UPDATES), json.dumps(EASY)]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SystemExit(f"{experiment} does not train by the code in {checkout.name}: {done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def checkout_of(commit: str) -> Iterator[Path]:
    """Extracts the files of a commit into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


@cache
def trained_at(commit: str, experiment: str) -> dict[str, object]:
    """Returns :func:`trained` with the code of a commit."""
    with checkout_of(commit) as checkout:
        return trained(checkout, experiment)


def last_commit(record: records.Record) -> str:
    """Returns the commit whose code is known to make this record: that of the run, or the last it was carried to."""
    carried = record.provenance.get("carried", [])
    return str(carried[-1]["to"] if carried else record.provenance["commit"])


@cache
def differs_in_methods_alone(commit: str, module: str, methods: Path) -> bool:
    """Returns whether a commit with these methods put in for its own has today's code in all that a module reaches."""
    hashed = f"from anatolab.staleness import closure_sha256; print(closure_sha256({module!r}))"
    with checkout_of(commit) as checkout:
        shutil.rmtree(checkout / "anatolab" / "methods")
        shutil.copytree(methods, checkout / "anatolab" / "methods")
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        done = subprocess.run([sys.executable, "-c", hashed], cwd=checkout, env=environment, capture_output=True)
    return done.stdout.decode().strip() == closure_sha256(module)


def carry(record: records.Record, today: str, wanted: Sequence[str], config: dict[str, Any]) -> bool:
    """Rewrites a record if these experiments train to equal bits; prints the result and returns it."""
    commit = last_commit(record)
    pairs = {name: (trained_at(commit, name), trained_at(today, name)) for name in wanted}
    differing = [name for name, (before, now) in pairs.items() if before != now]
    verdict = f"DIFFER {[pairs[name] for name in differing]}" if differing else "equal"
    print(f"{record.experiment}/seed{record.seed}: {commit[:7]} and {today[:7]}", verdict, flush=True)
    if differing:
        return False
    states = {name: now["state"] for name, (_, now) in pairs.items()}
    state = states if len(states) > 1 else next(iter(states.values()))
    note = {"from": commit, "to": today, "updates": UPDATES, "state_sha256": state}
    provenance = {**record.provenance, "carried": [*record.provenance.get("carried", []), note]}
    code = records.code_of(record.code["module"])
    records.write(replace(record, config=config, code=code, provenance=provenance))
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("only", nargs="*", metavar="ID")
    only = parser.parse_args().only
    state = records.git_state()
    if state["dirty"]:
        raise SystemExit("the package differs from the last commit; commit first, so that the record can name it.")
    today, failed = state["commit"], 0
    for wanted in [experiments.by_id(name) for name in only] or experiments.EXPERIMENTS:
        for seed in wanted.seeds:
            path = records.path_of(wanted.id, seed)
            if path.exists() and not experiments.stands(wanted, seed):
                record, config = records.read(path), experiments.config_of(wanted)
                gone = {k: v for k, v in record.config["fields"].items() if config["fields"].get(k, v) != v}
                if gone:
                    raise SystemExit(f"{path}: recorded with {gone}, wanted otherwise; this is another run.")
                failed += not carry(record, today, [wanted.id], config)
    for path in [] if only else sorted(records.root().glob("embeddings-*/seed*.json")):
        record = records.read(path)
        if not records.is_stale(record):
            continue
        if not differs_in_methods_alone(last_commit(record), record.code["module"], ROOT / "anatolab" / "methods"):
            print(f"{path.parent.name}: more than methods has changed; python studies/embeddings.py makes it again")
            failed += 1
            continue
        trainings = {name: TRAININGS.get(name, f"acdc-3-{name}") for name in record.config["trainings"]}
        fields = {
            name: records.plain(asdict(experiments.method_config(experiments.by_id(id))))
            | record.config["fields"][name]
            for name, id in trainings.items()
        }
        failed += not carry(record, today, list(trainings.values()), {**record.config, "fields": fields})
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
