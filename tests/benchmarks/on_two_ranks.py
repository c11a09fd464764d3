"""A program under torchrun, on two gloo ranks of one thread each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def on_two_ranks(*program: str, folders: tuple[Path, ...] = (), cwd: Path | None = None) -> str:
    """Its standard output; ``program`` is a script or "-m", a module, and arguments; ``folders`` are on its path."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *program]
    path = os.pathsep.join(map(str, (*folders, Path(__file__).parent, ROOT)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
