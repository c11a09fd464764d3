"""Worker processes of loaders: what they may open, which signals they leave to their parent, how they end."""

import atexit
import multiprocessing.util  # which registers what it does at exit, before this module does
import signal
from contextlib import suppress

from mlomae.common.errors import ConfigError, MlomaeError


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
    take its step to the end. They end when it does."""
    for name in ("SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):  # Windows lacks the second
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@atexit.register
def end_workers() -> None:
    """End the workers that are still alive, where a traceback or a notebook holds on to a loader.

    multiprocessing would ask them with a signal that they ignore, and wait for ever.
    """
    left = [child for child in multiprocessing.active_children() if child.daemon]
    if left and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise
    for child in left:
        child.kill()


def from_worker(error: MlomaeError) -> MlomaeError:
    """The error as it was raised in a loader's worker, which sends it with its traceback, the message last."""
    message = str(error).strip().splitlines()[-1]
    return type(error)(message.removeprefix(f"{type(error).__module__}.{type(error).__name__}: "))
