"""Starts runs: as processes of this machine (`mlomae.common.processes`), or through submitit as jobs of a cluster.

Both have the same interface and wait for the run to end. Runs that are compared have one thread each, so that their
processor seconds are comparable.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.suite.file import ROOT
from mlomae.common.errors import ConfigError
from mlomae.common.installing import install_command
from mlomae.common.processes import start

Launcher = Callable[[list[str], Path], int]
"""(command, log) -> exit status"""


@dataclass
class Resumable:
    """A submitit job. If it was preempted or ran out of time, it is submitted again and resumes."""

    threads: int | None

    def __call__(self, command: list[str], log: str) -> int:
        return start(command, Path(log), threads=self.threads, folder=ROOT)

    def checkpoint(self, command: list[str], log: str) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, command, log)


def cluster(
    kind: str, folder: Path, parameters: dict[str, Any], threads: int | None, stop: threading.Event | None = None
) -> Launcher:
    """Submitit jobs, whose files go to ``folder``; ``parameters`` for its ``update_parameters``. ``stop`` cancels them.

    Raises ConfigError if submitit is not installed, there is no such cluster, or submitit does not know a parameter.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(f"submitit is not installed; {install_command('cluster')}, or leave --cluster out") from error
    try:
        executor = submitit.AutoExecutor(folder=str(folder), cluster=kind)
        executor.update_parameters(**parameters)
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"--cluster {kind} cannot be used ({reason}); correct 'cluster' of the suite") from error
    one_at_a_time = threading.Lock()  # executors are not thread-safe

    def launch(command: list[str], log: Path) -> int:
        with one_at_a_time:
            job = executor.submit(Resumable(threads), command, str(log))
        while stop is not None and not job.done():
            if stop.wait(1.0):
                job.cancel()
                return 1
        try:
            return int(job.result())
        except Exception as error:  # the job died: killed, out of memory, a node lost
            with log.open("a", encoding="utf-8") as file:
                file.write(f"\nerror: job {job.job_id} of the cluster ended without a status: {str(error)[-2000:]}\n")
            return 1

    return launch
