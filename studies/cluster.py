"""Many trainings on many machines: the list of wanted runs as tasks of Ray Core, one task per run.

A task runs where its share of CPUs and GPUs is free. Its record returns to the calling machine. If a worker is lost,
killed or stopped, Ray restarts its task, possibly elsewhere: the run continues from its last checkpoint if the working
folder is on a shared disk, and from its beginning otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from anatolab.errors import InputError

PATIENCE = {  # what the processes of a cluster may take to start and to answer where a machine is busy
    "RAY_raylet_start_wait_time_s": "60",  # also passes where the node has died
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "600",
    "RAY_gcs_server_port_wait_time_s": "600",
    "RAY_gcs_server_request_timeout_seconds": "600",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_health_check_timeout_ms": "60000",
}
STARTS = 5  # attempts to start a cluster of this machine
Run = Callable[..., Any]  # run(experiment, seed, out=...), which continues what lies in ``out``


def run_all(
    todo: Sequence[tuple[Any, int]],
    run: Run,
    *,
    workdir: Path,
    address: str | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
    retries: int = 10,
) -> Iterator[tuple[Any, int, Any]]:
    """Yields experiment, seed and result of each completed run; for a failed run the result is an exception.

    Args:
        todo: Experiments, which have an ``id``, with their seeds, in the order in which they are started.
        run: Trains one of them.
        workdir: Folder of the checkpoints, an absolute path that is the same on all machines.
        address: Address of a running cluster, such as ``auto``; None starts one on this machine.
        cpus: CPUs per run; also its number of threads.
        gpus: GPUs per run; a fraction lets runs share one GPU.
        retries: Number of restarts of a run whose worker was lost.

    Raises:
        InputError: Ray is not installed, or no machine of the cluster has so many CPUs and GPUs.
    """
    for name, value in PATIENCE.items():  # read when ray is imported and when its processes start
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise InputError("--ray: the package ray is missing; install anatolab[cluster].") from error
    folders = os.pathsep.join([str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")])
    names = [name for name in os.environ if name.startswith("ANATOLAB_")]
    variables = {name: os.environ[name] for name in names}
    threads = str(max(1, int(cpus)))
    variables |= {"PYTHONPATH": folders, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    try:
        _start(ray, address, variables)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            raise InputError(f"--ray: no machine has {cpus:g} CPUs and {gpus:g} GPUs for a run; ask for fewer.")
        task: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=retries)(_work)
        waiting = {task.remote(run, e, seed, workdir / e.id / f"seed{seed}"): (e, seed) for e, seed in todo}
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            experiment, seed = waiting.pop(done)
            try:
                yield experiment, seed, ray.get(done)
            except ray.exceptions.RayError as error:
                yield experiment, seed, error
    finally:
        ray.shutdown()


def _start(ray: Any, address: str | None, variables: dict[str, str]) -> None:
    """Joins a cluster, or starts one on this machine.

    Ray's node dies where its agents need over 15 seconds to start, which no setting changes, so that is tried again.
    """
    options = {"runtime_env": {"env_vars": variables}, "log_to_driver": False, "include_dashboard": False}
    for left in range(STARTS - 1, -1, -1):
        try:
            ray.init(address=address, **options)
            return
        except Exception as error:
            ray.shutdown()
            if address is not None or not left or "timed out" not in str(error):
                raise


def _work(run: Run, experiment: Any, seed: int, out: Path) -> Any:
    """Runs one experiment in a worker; a worker that is stopped counts as lost, and Ray restarts the run."""
    try:
        return run(experiment, seed, out=out)
    except KeyboardInterrupt:
        os._exit(1)
