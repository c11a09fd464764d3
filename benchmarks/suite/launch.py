"""Starts runs: as processes of this machine (`mlomae.common.processes`), or through submitit as jobs of a cluster.

Both have the same interface and wait for the run to end. Runs that are compared have one thread each, so that their
processor seconds are comparable.
"""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.suite.jobs import PRETRAIN, Job
from benchmarks.suite.resumable import CANCELLED, Resumable
from mlomae.common.errors import ConfigError, counted
from mlomae.common.installing import install_command
from mlomae.common.registry import check_range
from mlomae.data.streams import check_divisible
from mlomae.pretraining.checks import check_shares

Launcher = Callable[[list[str], Path, dict[str, Any]], int]
"""(command, log, parameters of the job for submitit) -> exit status"""


def create_executor(kind: str, folder: Path, parameters: dict[str, Any]) -> Any:
    """submitit's executor for a job with ``parameters``, whose files go to ``folder``.

    Raises ConfigError if submitit is not installed, there is no such cluster, or submitit does not know a parameter.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(f"submitit is not installed; {install_command('cluster')}, or leave --cluster out") from error
    given = dict(parameters)
    if given.pop("tasks_per_node", 1) != 1:
        raise ConfigError(
            "a job has one task for each node; leave 'tasks_per_node' of 'cluster' out, give gpus_per_node"
        )
    nodes = given.pop("nodes", 1)
    # tasks of this machine stand for nodes
    given |= {"tasks_per_node": nodes} if kind == "local" else {"nodes": nodes, "tasks_per_node": 1}
    if kind == "slurm" and "cpus_per_task" in given:  # since 22.05 srun does not learn it from sbatch, and takes one
        given.setdefault("slurm_srun_args", [f"--cpus-per-task={given['cpus_per_task']}"])
    own = {key: given.pop(key) for key in [*given] if key.endswith("_max_num_timeout")}
    try:
        executor = submitit.AutoExecutor(folder=str(folder), cluster=kind, **own)
        executor.update_parameters(**given)
        check_range("cluster", "[1, inf)", nodes=nodes)
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"--cluster {kind} cannot be used ({reason}); correct 'cluster' of the suite") from error
    return executor


def check_jobs(kind: str, folder: Path, jobs: Iterable[Job]) -> None:
    """Raise ConfigError, before a job waits in a queue, for parameters that submitit does not know and batches that a
    job's processes cannot share."""
    for job in jobs:
        create_executor(kind, folder, job.cluster)
        processes = process_count(job.cluster)
        try:
            if job.task == PRETRAIN:
                check_shares(job.config, processes)
            elif getattr(job.config, "protocol", "") != "knn":  # which votes, image by image
                check_divisible({"data.batch_size": job.config.data.batch_size}, processes)
        except ConfigError as error:
            raise ConfigError(f"{job.label} as a job of {counted(processes, 'process')}: {error}") from error


def processes_per_node(parameters: dict[str, Any]) -> int:
    """One for each GPU."""
    return max(1, parameters.get("gpus_per_node") or 1)


def process_count(parameters: dict[str, Any]) -> int:
    """Processes of a job."""
    return parameters.get("nodes", 1) * processes_per_node(parameters)


def cluster(kind: str, folder: Path, threads: int | None, stop: threading.Event | None = None) -> Launcher:
    """Submitit jobs, whose files go to ``folder``. ``stop`` cancels them. Raises what `create_executor` raises."""
    one_at_a_time = threading.Lock()  # submitit is not thread-safe
    stop = stop or threading.Event()

    def launch(command: list[str], log: Path, parameters: dict[str, Any]) -> int:
        with one_at_a_time:
            executor = create_executor(kind, folder, parameters)
            job = executor.submit(Resumable(threads, processes_per_node(parameters)), command, str(log))
        while not job.done():
            if stop.wait(1.0):
                (job.paths.folder / CANCELLED.format(job.job_id)).touch()
                job.cancel()
                return 1
        try:
            return next((int(status) for status in job.results() if status), 0)
        except Exception as error:  # the job died: killed, out of memory, a node lost
            with log.open("a", encoding="utf-8") as file:
                file.write(f"\nerror: job {job.job_id} of the cluster ended without a status: {str(error)[-2000:]}\n")
            return 1

    return launch
