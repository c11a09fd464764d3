"""Worker processes of loaders."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from mlomae.common.workers import leave_signals_to_parent

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="workers are as torch makes them")


def work(started: Any) -> None:
    leave_signals_to_parent(0)
    started.set()
    time.sleep(600)


@pytest.fixture
def worker() -> Any:
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=work, args=(started,), daemon=True)
    process.start()
    started.wait()
    yield process
    process.kill()


def test_workers_end_for_their_parent_alone(worker: Any) -> None:
    for name in ("TERM", "USR1"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    os.kill(worker.pid, signal.SIGUSR1)
    worker.join(0.3)
    assert worker.is_alive()
    worker.terminate()
    worker.join(5)
    assert worker.exitcode == 0


HELD = """
import sys
import torch
from mlomae.backbones.batches import ImageLoader

if __name__ == "__main__":
    sys.held = iter(ImageLoader(torch.zeros(9, 1), num_workers=1))
    next(sys.held)
"""


def test_a_program_ends_that_holds_a_loader_with_workers() -> None:
    """As a notebook or a traceback does."""
    subprocess.run([sys.executable, "-c", HELD], check=True, timeout=60)
