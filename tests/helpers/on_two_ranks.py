"""Two gloo ranks of one thread each: a program under torchrun, or a function in two forked processes."""

import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def on_two_ranks(*program: str, cwd: Path | None = None) -> str:
    """Its standard output; ``program`` is a script or "-m", a module, and arguments."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *program]
    path = os.pathsep.join(map(str, (Path(__file__).parent, ROOT)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def in_two_forks(call: Callable[[int], None], seconds: float = 120.0) -> None:
    """``call(rank)`` in two processes with torchrun's environment, which need not import anything again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [_fork(call, rank, port) for rank in range(2)]
    deadline = time.monotonic() + seconds
    failed = False
    while children and not failed:
        for child in list(children):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                children.remove(child)
                failed |= status != 0
        failed |= time.monotonic() > deadline
        time.sleep(0.01)
    for child in children:  # the other rank waits for one that failed
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if failed:
        pytest.fail("a forked rank failed or hangs; its traceback is in the captured output")


def _fork(call: Callable[[int], None], rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.set_num_threads(1)
        call(rank)
        torch.distributed.barrier()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)  # gloo's threads now and then abort an ordinary exit


def two_processes(*program: str, errors: Path) -> list[subprocess.Popen[str]]:
    """``program``, as for `on_two_ranks`, as two ranks that nothing looks after, as srun starts them; what rank N says
    on standard error goes to ``errors``/rankN."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join(map(str, (Path(__file__).parent, ROOT)))
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = []
    for rank in ("0", "1"):
        own = {"RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        with (errors / f"rank{rank}").open("w") as file:
            command = [sys.executable, *program]
            started.append(subprocess.Popen(command, env={**os.environ, **shared, **own}, text=True, stderr=file))
    return started
