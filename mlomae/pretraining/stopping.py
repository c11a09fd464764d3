"""Signals that ask a run to stop: SIGTERM and SIGUSR1, which schedulers send before they end or requeue a job.

While a run trains, it takes its step to the end and writes a checkpoint, on all ranks after the same step; before and
after training it ends where it is. Both raise `Stopped`. A second SIGTERM has the effect it has without a run.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from mlomae.common.ranks import process_count

SAME = 1.0  # seconds; launchers pass on a signal that their children have had already
NAMES = ("SIGTERM", "SIGUSR1")  # Windows lacks the second
FOREVER = timedelta(days=7)  # of waits for ranks, which `mlomae.pretraining.watch` looks after


class Stopped(KeyboardInterrupt):
    """A signal has ended the run, which can be resumed; like Ctrl-C no error that a handler of errors should see."""


class StopRequest:
    """``signal``: the name of the first signal that came, None before. ``training``: whether it is waited for."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self.training = False
        self._since = 0.0

    def receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._since = signal.Signals(number).name, now
            if not self.training:
                raise Stopped(f"stopped by {self.signal}; what was written before is intact")
        elif number == signal.SIGTERM and now - self._since > SAME:
            signal.signal(number, _usual.get(number, signal.SIG_DFL))
            os.kill(os.getpid(), number)


_usual: dict[int, Any] = {}  # handlers of signals outside runs
request = StopRequest()  # of the run that is going on in this process


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block `request` takes the signals; not where another program has a handler of its own, nor outside
    the main thread, where there can be none."""
    global request
    request, pid = StopRequest(), os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == pid:  # workers, which are told by their parent, are signalled with it
            request.receive(number, frame)

    taken = []
    for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
        before = signal.getsignal(number)
        if before in (signal.SIG_DFL, signal.default_int_handler):
            try:
                signal.signal(number, handle)
            except ValueError:  # not the main thread
                break
            _usual[number] = before
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, _usual.pop(number))


class Agreement:
    """Whether any rank was asked to stop, which all learn after the same step: the one after that in which it came.

    The ranks' answers travel on the host while the next step is computed, so that no step waits for a device.
    """

    def __init__(self) -> None:
        self._group: Any = dist.new_group(backend="gloo", timeout=FOREVER) if process_count() > 1 else None
        self._asked = torch.zeros((), dtype=torch.int64)
        self._pending: dist.Work | None = None

    def reached(self) -> bool:
        """After each step, on every rank."""
        if self._group is None:
            return request.signal is not None
        before = self._settled()
        if not before:
            self._asked = torch.tensor(int(request.signal is not None))
            self._pending = dist.all_reduce(self._asked, dist.ReduceOp.MAX, self._group, async_op=True)
        return before

    def _settled(self) -> bool:
        if self._pending is not None:
            self._pending.wait()
            self._pending = None
        return bool(self._asked)

    def close(self) -> bool:
        """After the last step; whether one was asked to stop."""
        return request.signal is not None if self._group is None else self._settled()

    def wait(self) -> None:
        """Until all ranks are here."""
        if self._group is not None:
            dist.barrier(self._group)
