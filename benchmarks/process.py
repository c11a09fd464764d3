"""Runs of a comparison, each in a process of its own with one thread, so that processor seconds compare."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def start(command: list[str], log: Path, threads: int | None = 1, keep: tuple[int, ...] = ()) -> int:
    """The exit status of a process with ``threads`` threads (None: as many as it likes), output appended to ``log``.

    ``keep``: open files that the process holds on to, a lock for one, so that they outlive this process if need be.
    """
    environment = dict(os.environ) if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with log.open("a") as file:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, pass_fds=keep, check=False
        )
    return done.returncode


def last_lines(log: Path, count: int = 1) -> list[str]:
    """What a process said last, nothing if it said nothing."""
    return log.read_text(errors="replace").strip().splitlines()[-count:] if log.is_file() else []


def last_line(log: Path) -> str:
    return " ".join(last_lines(log))
