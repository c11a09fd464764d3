"""``python -m killed_runs CONFIG WORK_DIR``: one run killed at several points, each leg a process of its own.

The legs are forked from this process, which has imported everything and run nothing, so that a leg costs a second.
Prints one line per leg: its name and the checkpoints in the folder after it was killed.
"""

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mlomae.cli import main
from mlomae.common import checkpoint
from mlomae.multilevel.step import OuterStep
from mlomae.pretraining.trainer import Trainer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, condition: Callable[..., bool]) -> None:
    """Patch ``owner.name``: die instead of calling it once ``condition`` of its arguments holds."""
    original = getattr(owner, name)

    def patched(*args: Any, **kwargs: Any) -> Any:
        if condition(*args):
            die()
        return original(*args, **kwargs)

    setattr(owner, name, patched)


def nth(n: int) -> Callable[..., bool]:
    """True at the n-th call."""
    calls = iter(range(1, n + 1))
    return lambda *args: next(calls) == n


def half_a_checkpoint(iteration: int) -> None:
    save = torch.save

    def patched(content: dict, file: Any) -> None:
        if content["iteration"] != iteration:
            return save(content, file)
        buffer = io.BytesIO()
        save(content, buffer)
        file.write(buffer.getvalue()[: buffer.tell() // 2])
        file.flush()
        return die()

    torch.save = patched


LEGS: dict[str, Callable[[], None]] = {
    "between the steps on omega and phi of iteration 3": lambda: before(OuterStep, "_phi_step", nth(4)),
    "half of checkpoint 4 written": lambda: half_a_checkpoint(4),
    "checkpoint 6 synced, not renamed": lambda: before(os, "replace", lambda a, b: Path(b).name == "iter_6.pth"),
    "checkpoint 6 renamed, old ones not pruned": lambda: before(checkpoint, "prune", nth(2)),
    "checkpoint 8 due, losses drained": lambda: before(Trainer, "_drain", lambda self, i: i == 8),
}


def run(config: str, work_dir: str) -> None:
    for name, arm in LEGS.items():
        sys.stdout.flush()
        child = os.fork()
        if not child:
            arm()
            main(["pretrain", config, "--work-dir", work_dir, "--resume"])
            os._exit(1)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(f"leg '{name}' was not killed")
        left = sorted(p.name for p in (Path(work_dir) / "checkpoints").iterdir())
        print("LEG", name, "->", " ".join(left))


if __name__ == "__main__":
    run(*sys.argv[1:])
