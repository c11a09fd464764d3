"""A rank that is killed, stopped or refused ends the others within a minute, with one line, whatever they wait for.

A process group only notices a lost rank when a wait times out, and a time that is long enough for what rank 0 does
alone (reading all images, evaluating) is far too long for that. So its waits have no end, and a thread of every rank
writes every two seconds that it is alive, to the store by which the processes met, and reads what the others wrote.
The thread goes on while its rank works; not in a process that is dead or stopped. Another thread counts the seconds:
the store itself may belong to the rank that is lost.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch.distributed as dist

from mlomae.common.errors import STOPPED, MlomaeError, TrainingError, first_line_of
from mlomae.pretraining.stopping import Stopped

PERIOD = 2.0  # seconds between signs of life
SILENCE = 40.0  # seconds without one after which a rank is lost
BROKEN = 10.0  # the same, when a connection to a rank is broken
GRACE = 4.0  # seconds in which a rank may end by itself, with its own line, where another one has ended
START = timedelta(minutes=10)  # in which all processes have to start


class Sign(NamedTuple):
    """``beat`` grows; ``run``, the number of the run; ``inside`` it or not; of one that failed its line and status."""

    beat: int
    run: int
    inside: bool
    failure: str = ""
    status: int = 0


class Watch:
    """Of this rank on the others. Made on all ranks; raises TrainingError if not all of them start."""

    def __init__(self, rank: int, size: int, host: str, port: int, attempt: str) -> None:
        self.rank, self.size = rank, size
        client = dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=START)
        self._store = dist.PrefixStore(f"mlomae/watch/{attempt}", client)
        self._keys = [str(r) for r in range(size)]
        self._own = Sign(0, 0, False)
        self._signs = {r: self._own for r in range(size) if r != rank}
        self._heard = dict.fromkeys(self._signs, 0.0)
        self._now = 0.0  # seconds that this process has run since: it may have been stopped itself
        self._read = 0.0
        self.silence = SILENCE
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._written = self._own
        self._store.set(str(rank), json.dumps(self._own))
        try:
            self._store.wait(self._keys, START)
        except RuntimeError as error:
            raise TrainingError(
                f"not all of the {size} processes of this run have started within {START}; start all of them, or set "
                "WORLD_SIZE to their number"
            ) from error
        for work in (self._exchange, self._judge):
            threading.Thread(target=work, name="mlomae-watch", daemon=True).start()

    def _sign(self, **changes: object) -> None:
        with self._lock:
            self._own = self._own._replace(**changes)  # type: ignore[arg-type]

    def _exchange(self) -> None:
        while True:
            self._wake.wait(PERIOD)
            self._wake.clear()
            self._sign(beat=self._own.beat + 1)
            own = self._own
            try:
                self._store.set(str(self.rank), json.dumps(own))
                found = self._store.multi_get(self._keys)
            except RuntimeError:  # the process that holds the store is gone
                return
            self._written = own
            for r, text in enumerate(found):
                sign = Sign(*json.loads(text))
                if r != self.rank and sign != self._signs[r]:
                    self._signs[r], self._heard[r] = sign, self._now
            self._read = self._now

    def _judge(self) -> None:
        while True:
            time.sleep(1.0)
            self._now += 1.0
            if self._own.inside and not self._own.failure and (verdict := self.verdict()):
                time.sleep(GRACE)
                if self._own.inside and not self._own.failure:
                    print(f"error: {verdict[0]}", file=sys.stderr, flush=True)
                    self._leave()
                    os._exit(verdict[1])

    def verdict(self) -> tuple[str, int] | None:
        """Why this run cannot go on, and the exit status, if a rank has failed or is lost."""
        silent = []
        for r, sign in self._signs.items():
            if sign.run == self._own.run and sign.failure:
                return f"rank {r} has ended this run: {sign.failure}", sign.status
            if not self._left(sign) and self._now - self._heard[r] > self.silence:
                silent.append(r)
        if not silent:
            return None
        if self.rank != 0 and self._now - self._read > self.silence:
            silent = [0]  # which holds the store; of the others nothing can be known
        ranks = f"rank{'s' * (len(silent) > 1)} {', '.join(map(str, silent))}"
        return f"{ranks} of this run no longer answers; see its log, then go on with --resume", 2

    def _left(self, sign: Sign) -> bool:
        return sign.run > self._own.run or (sign.run == self._own.run and not sign.inside)

    def _leave(self) -> None:
        self._sign(inside=False)
        deadline = time.monotonic() + GRACE  # the process may be about to end; the store may not answer
        while (self._written.inside or self._written.run < self._own.run) and time.monotonic() < deadline:
            self._wake.set()
            time.sleep(0.02)

    def broken(self) -> None:
        """A connection is broken: wait for the line that says why, which ends this process, if there is one."""
        self.silence = BROKEN
        time.sleep(BROKEN + GRACE + 2 * PERIOD)

    @contextmanager
    def run(self) -> Iterator[None]:
        """What fails within the block ends the other ranks, and the reverse."""
        self._sign(run=self._own.run + 1, inside=True, failure="", status=0)
        try:
            yield
        except BaseException as error:
            if isinstance(error, RuntimeError) and _of_connection(error):
                self.broken()
            known = isinstance(error, MlomaeError | KeyboardInterrupt)
            status = STOPPED if isinstance(error, Stopped) else 2 if known else 1
            line = " ".join((str(error) if known else f"{type(error).__name__}: {first_line_of(error)}").split())
            self._sign(failure=line or type(error).__name__, status=status)
            raise
        finally:
            self._leave()
            deadline = time.monotonic() + GRACE + 4 * PERIOD
            if self._own.failure and self.rank == 0:  # it may have the store: the others have to read why
                while not all(map(self._left, self._signs.values())) and time.monotonic() < deadline:
                    time.sleep(0.1)


def _of_connection(error: RuntimeError) -> bool:
    words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)
