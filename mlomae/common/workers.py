"""Worker processes of loaders: what they may open, which signals they leave to their parent, how they end."""

import multiprocessing
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any

from mlomae.common.errors import ConfigError, MlomaeError


def worker_options(workers: int) -> dict[str, Any]:
    """Options of a DataLoader with as many workers. Raises ConfigError if they may not open the files that it takes.

    On Linux they are forked: images in memory are then shared, and data sets need not be pickled (Python 3.14 no longer
    forks by itself). OpenCV's threads, where a pipeline has loaded it, do not survive that.
    """
    check_open_files(workers)
    opencv: Any = sys.modules.get("cv2")
    if hasattr(opencv, "setNumThreads"):
        opencv.setNumThreads(0)
    options: dict[str, Any] = {"num_workers": workers, "worker_init_fn": leave_signals_to_parent}
    if workers and sys.platform == "linux":
        options["multiprocessing_context"] = "fork"
    return options


def check_open_files(workers: int) -> None:
    """Raise the number of files that this process may open to what loading with ``workers`` takes.

    Every tensor that a worker sends is an open file. Raises ConfigError if the system does not allow as many.
    """
    with suppress(ImportError):  # Windows has no such limit
        import resource

        needed = 24 + 16 * workers
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if not workers or soft >= needed or soft == resource.RLIM_INFINITY:
            return
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise ConfigError(
                f"{workers} workers that read images take about {needed} open files, and {hard} are allowed; raise the "
                "limit with `ulimit -n 4096`, or set data.num_workers=0"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def leave_signals_to_parent(worker: int) -> None:
    """``worker_init_fn`` of loaders: a signal to all processes of a job must not end the workers of a run that is to
    take its step to the end. SIGTERM from their parent ends them, as torch and multiprocessing rely on."""
    parent = multiprocessing.parent_process()
    if parent is not None and hasattr(signal, "sigwaitinfo"):  # Linux: only there Python learns who sends a signal
        numbers = {signal.SIGTERM, signal.SIGUSR1}
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        threading.Thread(target=_obey, args=(numbers, parent.pid), daemon=True).start()


def _obey(numbers: set[signal.Signals], parent: int | None) -> None:
    while True:
        came = signal.sigwaitinfo(numbers)
        if (came.si_signo, came.si_pid) == (signal.SIGTERM, parent):
            os._exit(0)


def from_worker(error: MlomaeError) -> MlomaeError:
    """The error as it was raised in a loader's worker, which sends it with its traceback, the message last."""
    message = str(error).strip().splitlines()[-1]
    return type(error)(message.removeprefix(f"{type(error).__module__}.{type(error).__name__}: "))
