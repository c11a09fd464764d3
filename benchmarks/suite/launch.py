"""Where a run is started: a process of this machine, or a job that submitit gives to a cluster.

Both are called the same way and wait for the end, so that the runner knows no difference.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.process import start
from mlomae.common.errors import ConfigError

# (command, log, open files that the process must keep) -> exit status
Launcher = Callable[[list[str], Path, tuple[int, ...]], int]


def local(threads: int | None) -> Launcher:
    """Processes of this machine."""
    return lambda command, log, keep: start(command, log, threads, keep)


class Resumable:
    """A job of submitit. It is told to go on from its checkpoint if it was preempted or ran out of time."""

    def __init__(self, threads: int | None) -> None:
        self.threads = threads

    def __call__(self, command: list[str], log: str) -> int:
        return start(command, Path(log), self.threads)

    def checkpoint(self, command: list[str], log: str) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, command, log)


def cluster(kind: str, folder: Path, parameters: dict[str, Any], threads: int | None) -> Launcher:
    """Jobs of submitit, its own files in ``folder``. ``parameters`` as its ``update_parameters`` takes them.

    Raises ConfigError if submitit is not installed, the cluster not there, or a parameter unknown to it.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("submitit is not installed; pip install 'mlomae[cluster]', or leave --cluster out") from error
    try:
        executor = submitit.AutoExecutor(folder=str(folder), cluster=kind)
        executor.update_parameters(**parameters)
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"--cluster {kind} cannot be used ({reason}); mend 'cluster' of the suite") from error
    one_at_a_time = threading.Lock()  # an executor's own state is not made for threads

    def launch(command: list[str], log: Path, keep: tuple[int, ...]) -> int:
        with one_at_a_time:
            job = executor.submit(Resumable(threads), command, str(log))
        try:
            return int(job.result())
        except Exception as error:  # the job died: killed, out of memory, a node lost
            with log.open("a", encoding="utf-8") as file:
                file.write(f"\nerror: job {job.job_id} of the cluster ended without a status: {str(error)[-2000:]}\n")
            return 1

    return launch
