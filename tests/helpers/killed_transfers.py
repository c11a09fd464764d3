"""Transfers in a forked process that kills itself at a point that is armed beforehand."""

import io
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mlomae.backbones import training

Arm = Callable[[], None]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_iteration(n: int) -> None:
    """Arm the process to die when the gradients of its iteration ``n`` are there and the step is not taken."""
    average = training.mean_over_ranks
    done = iter(range(100))

    def patched(gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if next(done) == n:
            die()
        return average(gradients)

    training.mean_over_ranks = patched


def half_a_checkpoint(iteration: int) -> None:
    """Arm the process to die while it writes that checkpoint."""
    save = torch.save

    def patched(content: dict[str, Any], file: Any) -> None:
        if content["iteration"] != iteration:
            return save(content, file)
        buffer = io.BytesIO()
        save(content, buffer)
        file.write(buffer.getvalue()[: buffer.tell() // 2])
        file.flush()
        return die()

    torch.save = patched


def unrenamed_checkpoint(iteration: int) -> None:
    """Arm the process to die when that checkpoint is written under its temporary name."""
    replace = os.replace

    def patched(source: Any, target: Any) -> None:
        if Path(target).name == f"iter_{iteration}.pth":
            die()
        replace(source, target)

    os.replace = patched


def killed(work: Path, arm: Arm, run: Callable[[], Any]) -> list[str]:
    """Call ``run``, of folder ``work``, in a forked process that ``arm`` makes kill itself; the checkpoints left."""
    child = os.fork()
    if not child:
        try:
            arm()
            run()
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the forked run hangs")
        time.sleep(0.01)
    assert os.WIFSIGNALED(done[1]), "not killed"
    assert os.WTERMSIG(done[1]) == signal.SIGKILL
    return sorted(p.name for p in (work / "checkpoints").iterdir())
