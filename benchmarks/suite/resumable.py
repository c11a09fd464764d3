"""What the tasks of a job do, one on each node: a run that is stopped by a signal is queued again and resumes.

Where a job asks for several nodes or GPUs, every task runs torchrun, which starts a process for each GPU; they meet at
the first node. A signal to the tasks becomes SIGTERM for the run, which writes a checkpoint; then the first task queues
the job again. Imported by every task: nothing here needs torch.
"""

import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlomae.common.errors import STOPPED
from mlomae.common.processes import start

ROOT = Path(__file__).parents[2]
CANCELLED = "{}_cancelled"  # beside submitit's files of a job: it is not to be queued again


@dataclass
class Resumable:
    """A submitit job, whose tasks call it. If it was preempted or ran out of time, it is queued again and resumes.

    ``processes``: of each node.
    """

    threads: int | None
    processes: int = 1

    def __call__(self, command: list[str], log: str) -> int:
        import submitit

        task, asked = submitit.JobEnvironment(), threading.Event()
        again = getattr(signal, f"SIG{task.USR_SIG}")  # whose handler, submitit's, queues the job again
        queue_again = signal.getsignal(again)
        for number in (signal.SIGTERM, signal.SIGUSR1, again):
            signal.signal(number, lambda *_: asked.set())
        own = Path(log)
        if task.global_rank:  # appending to one file from several machines loses lines
            own = own.with_stem(f"{own.stem}_node{task.global_rank}")
        status = start(self.across(command, task), own, threads=self.threads, folder=ROOT, asked=asked)
        if not status or not (asked.is_set() or status == STOPPED):
            return status
        if (task.paths.folder / CANCELLED.format(task.job_id)).exists():
            return STOPPED
        if not task.global_rank:
            try:
                queue_again(again, None)  # type: ignore[operator, misc]
            except subprocess.CalledProcessError as error:  # e.g. since the scheduler does so by itself
                with own.open("a", encoding="utf-8") as file:
                    file.write(f"note: the job has not queued itself again: {error}\n")
        sys.exit(0)  # without a result, for which the suite would take it

    def across(self, command: list[str], task: Any) -> list[str]:
        """``command`` on all nodes of the job, as the task of one of them runs it."""
        if task.num_tasks * self.processes == 1:
            return command
        meet = ["--standalone"]
        if task.num_tasks > 1:
            first = task.hostnames[0] if task.num_nodes > 1 else "localhost"
            port = 20_000 + int(task.raw_job_id) % 10_000  # below the ports that systems give to outgoing connections
            meet = ["--nnodes", str(task.num_tasks), "--node-rank", str(task.global_rank)]
            meet += ["--master-addr", first, "--master-port", str(port), "--rdzv-id", task.job_id]
        python, *program = command
        return [python, "-m", "benchmarks.suite.ranks", *meet, "--nproc-per-node", str(self.processes), *program]

    def checkpoint(self, command: list[str], log: str) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, command, log)
