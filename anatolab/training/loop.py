"""The training loop: one function that reads from top to bottom and survives a power cut."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anatolab.data import Rows, TwoStreamSampler, Volumes, shard
from anatolab.errors import NonFiniteError
from anatolab.files import lock
from anatolab.methods._config import SemiSupervisedConfig
from anatolab.ranges import check_ranges
from anatolab.training import checkpoint
from anatolab.training.fingerprint import check, fingerprint, free, shaping
from anatolab.training.folder import RunInfo, check_out, describe_code, save_run
from anatolab.training.labels import check_annotated
from anatolab.training.settings import Settings, build_optimizer, keep_memory, learning_rate, resolve_precision
from anatolab.training.watch import Log, Validation
from anatolab.types import IGNORE, Batch, InputError, Losses, Method, Split, Stage


@dataclass
class Run:
    """The state of a training, and its log."""

    step: int  # updates so far, over all stages
    finished: bool  # False after Ctrl-C or SIGTERM
    log: list[dict[str, Any]] = field(default_factory=list)
    wall_s: float = 0.0  # seconds in all, also of the processes before an interruption
    cpu_s: float = 0.0  # CPU seconds of these processes
    out: Path | None = None


def train(
    method: nn.Module,
    rows: Rows | Volumes,
    split: Split,
    settings: Settings | None = None,
    *,
    out: Path | str | None = None,
    info: RunInfo | None = None,
    validation: Validation | None = None,
    progress: bool | None = None,
) -> Run:
    """Trains a method through all its stages; with ``out``, continues an earlier, interrupted call.

    On a CPU, a run that was killed at any instant and restarted is bitwise equal to an uninterrupted one. Ctrl-C and
    SIGTERM save and return. Nothing waits for the device between log lines.

    Args:
        method: A module with the protocol :class:`anatolab.types.Method`; trained in place.
        rows: Prepared slices, or volumes that patches are taken from, of at least the training patients.
        split: Labeled patients; labels of all others are never read.
        settings: Optimizer, precision, devices, seed.
        out: Folder for ``last.pt`` and ``log.jsonl``, locked against other processes; None writes nothing. An existing
            run must have the same configuration.
        info: Description of the run, stored in the checkpoint; :func:`anatolab.training.open_run` needs it.
        validation: Held-out patients, evaluated every ``settings.validate_every`` steps; nothing is selected by them.
        progress: Whether to show a progress bar; None: only in a terminal or a live notebook.

    Raises:
        InputError: A setting is out of its range, the split leaves a stage without rows, no labeled row is annotated,
            ``out`` holds a run of another configuration, or another process writes there.
        NonFiniteError: Names the step and its cases.

    Example:
        >>> import numpy as np
        >>> from anatolab.data import Rows
        >>> from anatolab.methods import Supervised
        >>> images, labels = np.zeros((6, 1, 16, 16), np.float32), np.zeros((6, 16, 16), np.uint8)
        >>> rows = Rows.from_arrays(images, labels, patients=list("aabbcc"))
        >>> method = Supervised(torch.nn.Conv2d(1, 2, 1), Supervised.Config(updates=3))
        >>> train(method, rows, Split(train=("a", "b", "c"), labeled=1), progress=False).step
        3
    """
    settings = settings or Settings()
    check_ranges(settings)
    check_ranges(config := getattr(method, "config", None))
    if isinstance(config, SemiSupervisedConfig) and not config.unlabeled:
        raise InputError("unlabeled must be at least 1, as this method learns from unlabeled images; give 1 or more.")
    dims = 3 if any(p.ndim == 5 for p in method.parameters()) else 2
    precision: Any = resolve_precision(settings.precision, settings.accelerator, dims)
    settings = replace(settings.resolved(), precision=precision)
    protocol: Method = method  # type: ignore[assignment]
    stages = list(protocol.stages())
    updates = sum(stage.updates for stage in stages)
    out = Path(out) if out is not None else None
    described = info
    if info is not None:
        described = describe_code(info, shaping(settings), free(settings), rows.sha256, updates)

    # 1. Device, processes and random numbers. Every process draws its own augmentation.
    fabric = _fabric(settings)
    rank, world = fabric.global_rank, fabric.world_size
    fabric.seed_everything(settings.seed + rank, verbose=False)
    method.to(fabric.device)
    if fabric.device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    keep_memory()
    if all(t.ndim < 5 for t in (*method.parameters(), *method.buffers())):  # of 2-D networks only
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.compile:
        for network in method.children():
            network.compile()

    # 2. Rows on the device, and the labeled ones among them.
    feed = Feed(rows, fabric.device)
    labeled = rows.index_of(split.labeled_patients)
    unlabeled = rows.index_of(split.unlabeled_patients) if split.unlabeled_patients else labeled[:0]
    check_annotated(rows, labeled)
    samplers = [_sampler(stage, labeled, unlabeled, settings.seed + number) for number, stage in enumerate(stages)]

    with ExitStack() as held:
        # 3. Resume from the last checkpoint, after comparing it with the request, or start.
        if out is not None and rank == 0:
            held.enter_context(lock(out))
        path = out / checkpoint.LAST if out is not None else None
        due = fingerprint(method, settings, rows, split, world, info)
        saved = checkpoint.newest(out, fabric.device, repair=rank == 0) if out and checkpoint.exists(out) else None
        if out is not None:
            check_out(out, saved)
        if saved is not None and path is not None:
            check(path, saved["fingerprint"], due)
            method.load_state_dict(saved["method"])
        first = saved["stage"] if saved is not None else 0
        run = Run(saved["step"] if saved is not None else 0, False, out=out)
        run.log = saved["log"] if saved is not None else []
        log = Log(run, out / "log.jsonl" if out is not None and rank == 0 else None, settings.logger)
        held.callback(log.close)
        before = saved["seconds"] if saved is not None else (0.0, 0.0)
        started = time.monotonic(), time.process_time()
        stop = held.enter_context(_stop_signals())
        bar = held.enter_context(_bar(stages, run, progress, rank))

        for number, stage in enumerate(stages[first:], first):
            # 4. A stage: its parameters, its optimizer, its rows.
            _only_trainable(method, stage)
            parameters = [p for p in method.parameters() if p.requires_grad]
            optimizer = build_optimizer(parameters, settings, nesterov=stage.nesterov)
            module, wrapped = fabric.setup(_Step(method, stage, precision), optimizer)
            sampler, begin = samplers[number], 0
            if saved is not None and saved["stage"] == number:
                begin = saved["stage_step"]
                if saved["optimizer"] is not None:
                    optimizer.load_state_dict(saved["optimizer"])
                    sampler.load_state_dict(saved["sampler"])
                checkpoint.set_rng_state(saved["rng"][rank])
            guard = _Guard(settings.log_every, fabric.device)
            method.train()

            for step in range(begin, stage.updates):
                # 5. One update, without waiting for the device.
                stage_progress = step / stage.updates
                lr = learning_rate(settings, step, stage.updates)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                index = shard(sampler.sample(), stage.batch[0], rank, world)
                batch = feed(index, stage.batch[0] // world)
                losses: Losses = module(batch, stage_progress)
                total = losses.total
                wrapped.zero_grad()
                fabric.backward(total)
                norm = nn.utils.clip_grad_norm_(parameters, settings.clip, foreach=True)  # type: ignore[arg-type]
                optimizer.found_inf = guard.check(total, norm, index)  # the fused optimizer skips a non-finite update
                wrapped.step()
                protocol.after_step()
                run.step += 1
                bar.update()

                # 6. Every few steps: read the device, check for non-finite values, log, validate, save.
                last = step + 1 == stage.updates
                if (step + 1) % settings.log_every == 0 or last:
                    guard.raise_if_bad(run.step, rows, path)
                    bar.set_postfix(log.line(stage.name, lr, total, losses, norm))
                if validation is not None and _due(settings.validate_every, run.step, updates):
                    if rank == 0:
                        log.validation(stage.name, validation.measure(method, fabric.device, precision))
                    fabric.barrier()
                stopping = _agreed(stop, fabric, due=(step + 1) % settings.log_every == 0 or last)
                if path is not None and ((step + 1) % settings.checkpoint_every == 0 or last or stopping):
                    guard.raise_if_bad(run.step, rows, path)
                    rng = _gathered(checkpoint.rng_state(), world)
                    if rank == 0:
                        payload = {
                            "method": method.state_dict(),
                            "fingerprint": due,
                            "stage": number + 1 if last else number,
                            "stage_step": 0 if last else step + 1,
                            "step": run.step,
                            "optimizer": None if last else optimizer.state_dict(),
                            "sampler": None if last else sampler.state_dict(),
                            "rng": rng,
                            "log": run.log,
                            "seconds": _seconds(before, started),
                        }
                        if described is None:
                            checkpoint.save(payload, path)
                        else:
                            save_run(payload, replace(described, step=run.step), path.parent)
                    fabric.barrier()
                if stopping:
                    run.wall_s, run.cpu_s = _seconds(before, started)
                    return run

        run.finished = True
        run.wall_s, run.cpu_s = _seconds(before, started)
    method.eval()
    return run


class Feed:
    """Provides batches of rows on the device; labels of unlabeled rows are masked here and reach no method.

    Rows of up to ``resident`` bytes are kept on the accelerator, so that a batch is one gather. Patches of volumes are
    cut on the host for each batch.
    """

    def __init__(self, rows: Rows | Volumes, device: torch.device, *, resident: int = 4 << 30) -> None:
        self.rows, self.device = rows, device
        self.resident: tuple[Tensor, Tensor] | None = None
        fixed = isinstance(rows, Rows) and rows.images.nbytes + rows.labels.nbytes <= resident
        if fixed and device.type != "cpu":
            image, label = rows.take(torch.arange(len(rows)))
            self.resident = (image.to(device), label.to(device))

    def __call__(self, index: Tensor, num_labeled: int) -> Batch:
        """Returns the batch of rows ``index`` (b,), of which the first ``num_labeled`` keep their labels."""
        if self.resident is not None:
            where = index.pin_memory().to(self.device, non_blocking=True)
            image, label = (array[where] for array in self.resident)
        else:  # only labels of labeled rows may decide where a patch lies
            image, label = (self._moved(array) for array in self.rows.take(index, num_labeled))
        label[num_labeled:] = IGNORE
        return Batch(image, label, num_labeled, self.rows.view)

    def _moved(self, array: Tensor) -> Tensor:
        return array.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else array


class _Step(nn.Module):
    """One stage of a method as a module, so that Fabric and DDP see a forward call.

    Autocast is applied here instead of by Fabric, which would pass images in bf16 and keep 8 bits of their intensities.
    """

    def __init__(self, method: nn.Module, stage: Stage, precision: str) -> None:
        super().__init__()
        self.method, self.stage, self.mixed = method, stage, precision == "bf16-mixed"

    def forward(self, batch: Batch, progress: float) -> Losses:
        with torch.autocast(batch.image.device.type, torch.bfloat16, enabled=self.mixed):
            return self.stage.step(batch, progress)


class _Guard:
    """Records which recent updates were not finite (on the device) and which rows they used (on the host)."""

    def __init__(self, length: int, device: torch.device) -> None:
        self.bad = torch.zeros(length, device=device)
        self.recent: deque[Tensor] = deque(maxlen=length)
        self.count = 0

    def check(self, total: Tensor, norm: Tensor, index: Tensor) -> Tensor:
        """Returns 1 if the loss or the gradient norm is not finite, else 0; a scalar on the device."""
        bad = (~(torch.isfinite(norm) & torch.isfinite(total.detach()))).float()
        self.bad[self.count % len(self.bad)] = bad
        self.recent.append(index)
        self.count += 1
        return bad

    def raise_if_bad(self, step: int, rows: Rows | Volumes, path: Path | None) -> None:
        bad = self.bad.tolist()
        for age, index in enumerate(reversed(self.recent)):
            if bad[(self.count - 1 - age) % len(bad)]:
                names = ", ".join(dict.fromkeys(rows.names[i] for i in index.tolist()))
                kept = f"the last checkpoint {path} is kept" if path and path.exists() else "nothing was saved"
                raise NonFiniteError(
                    f"step {step - age}: loss or gradient is not finite; the update was skipped and {kept}. "
                    f"Look at these images, or lower the learning rate: {names}."
                )


def _fabric(settings: Settings) -> Any:
    from lightning_fabric import Fabric

    try:
        fabric = Fabric(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy="ddp" if settings.devices * settings.nodes > 1 else "auto",
        )
    except Exception as error:  # each accelerator has exceptions of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"accelerator {settings.accelerator!r} with {settings.devices} devices cannot be used here ({reason}); "
            "choose cpu, or fewer devices."
        ) from error
    fabric.launch()
    return fabric


def _seconds(before: tuple[float, float], started: tuple[float, float]) -> tuple[float, float]:
    """Returns wall and CPU seconds of this process and the ones it resumed."""
    return before[0] + time.monotonic() - started[0], before[1] + time.process_time() - started[1]


def _only_trainable(method: nn.Module, stage: Stage) -> None:
    trainable = stage.trainable.parameters() if isinstance(stage.trainable, nn.Module) else stage.trainable
    wanted = {id(p) for p in trainable}
    for parameter in method.parameters():
        parameter.requires_grad_(id(parameter) in wanted)


def _sampler(stage: Stage, labeled: Tensor, unlabeled: Tensor, seed: int) -> TwoStreamSampler:
    if stage.batch[1] and not len(unlabeled):
        raise InputError(
            f"stage {stage.name!r} needs unlabeled patients, but every training patient is labeled; "
            "lower the budget, or train the supervised baseline."
        )
    return TwoStreamSampler(labeled, unlabeled, *stage.batch, seed=seed)


def _due(every: int, step: int, updates: int) -> bool:
    """Returns whether an action is due after this step: every ``every`` steps and at the end; never if it is 0."""
    return every > 0 and (step % every == 0 or step == updates)


def _agreed(stop: threading.Event, fabric: Any, *, due: bool) -> bool:
    """Returns whether to stop now; several processes agree on it, at log steps only."""
    if fabric.world_size == 1:
        return stop.is_set()
    if not due:
        return False
    return bool(fabric.all_reduce(torch.tensor(float(stop.is_set()), device=fabric.device), reduce_op="sum") > 0)


def _gathered(state: dict[str, Any], world: int) -> list[dict[str, Any]]:
    if world == 1:
        return [state]
    states: list[Any] = [None] * world
    torch.distributed.all_gather_object(states, state)
    return states


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C or SIGTERM into a request to save and stop; a second Ctrl-C interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bar(stages: Sequence[Stage], run: Run, progress: bool | None, rank: int) -> Iterator[Any]:
    from tqdm.auto import tqdm

    if progress is None:
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        live_notebook = getattr(shell, "kernel", None) is not None and not os.environ.get("ANATOLAB_BOOK")
        progress = sys.stderr.isatty() or live_notebook
    total = sum(stage.updates for stage in stages)
    with tqdm(total=total, initial=run.step, disable=not progress or rank > 0, unit="step") as bar:
        yield bar
