"""Runs of a comparison, each in a process of its own with one thread, so that processor seconds compare."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def start(command: list[str], log: Path) -> int:
    """The exit status of a process with one thread, its output appended to ``log``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a") as file:
        return subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode


def last_line(log: Path) -> str:
    """What a process said last, "" if nothing."""
    return " ".join(log.read_text(errors="replace").strip().splitlines()[-1:])
