"""Runs as processes of this machine: starting them, the end of their log, and one display of how far they all are."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mlomae.common.console import PERCENT, Stage, on_terminal, stage

POLL = 0.5  # seconds between two looks into the logs
_DONE = re.compile(rb"^(\d+)/(\d+)  ", re.MULTILINE)  # how the lines of a training begin that is not on a terminal
LINES = 8  # of a failed run's log that are shown
_TAIL = 4000  # bytes of a log in which its last line of training is looked for


def command_line(*words: str) -> list[str]:
    """`mlomae` with these words, by this interpreter."""
    return [sys.executable, "-m", "mlomae.cli", *words]


def start(
    command: list[str],
    log: Path,
    threads: int | None = 1,
    stop: threading.Event | None = None,
    folder: Path | None = None,
    asked: threading.Event | None = None,
) -> int:
    """The exit status of a process with ``threads`` threads (None: its default), output appended to ``log``.

    ``stop``: ends the process within five seconds once it is set, as does whatever is raised here. ``folder``: where
    the process runs, by default where this one does. ``asked``: once it is set, the process gets SIGTERM, and all the
    time that it takes to end; signals of users, which a scheduler may send to all processes of a job, it ignores.
    """
    environment = dict(os.environ) if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    shield = None if asked is None else _ignore_signals_of_users
    told = False
    with log.open("a") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT, preexec_fn=shield
        )
        try:
            while stop is None or not stop.is_set():
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(timeout=0.2)
                if asked is not None and asked.is_set() and not told:
                    process.terminate()
                    told = True
        finally:
            # Ctrl-C in a terminal has reached the process, too; other signals have not
            for end, patience in ((lambda: None, 0.5), (process.terminate, 3.5), (process.kill, None)):
                end()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
    return process.returncode


def _ignore_signals_of_users() -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def last_lines(log: Path, count: int = 1) -> list[str]:
    """The last lines that a process wrote, none if it wrote nothing."""
    return log.read_text(errors="replace").strip().splitlines()[-count:] if log.is_file() else []


def end_of(log: Path) -> str:
    """The last `LINES` of a log, indented, for the message that its run has failed."""
    return "\n".join(f"    {line}" for line in last_lines(log, LINES))


class Progress:
    """On a terminal, a bar for the work of all runs, from which the time left follows, and one for each that goes on.

    How far a run is, is read from its log: a training says ``DONE/ALL`` now and then. Elsewhere nothing is shown.

    Args:
        label: of the bar. work: of all runs, in any unit, such as processor seconds, as far as it is known ahead; runs
            that are expected later (`expect`) add to it once they are more.
    """

    def __init__(self, label: str = "", work: float = 0.0) -> None:
        self.label, self.done = label, 0.0
        self._ahead, self._expected = work, 0.0
        self._running: dict[Path, tuple[float, int, Stage]] = {}  # log -> work, its size before, bar
        self._stack, self._ended, self._lock = ExitStack(), threading.Event(), threading.Lock()

    def __enter__(self) -> "Progress":
        self._bar = self._stack.enter_context(stage(self.label, PERCENT))
        if on_terminal():
            watch = threading.Thread(target=self._watch, daemon=True)
            watch.start()
            self._stack.callback(watch.join)
            self._stack.callback(self._ended.set)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def expect(self, work: float, done: bool = False) -> None:
        """A run of this ``work`` is to come, or was ``done`` before."""
        with self._lock:
            self._expected += work
            self.done += work if done else 0.0

    @contextmanager
    def run(self, label: str, work: float, log: Path) -> Iterator[None]:
        """A run, while it goes on; its ``work`` is done at the end, whatever came of it."""
        with stage(f"  {label}", PERCENT) as bar:
            with self._lock:
                self._running[log] = work, log.stat().st_size if log.is_file() else 0, bar
            try:
                yield
            finally:
                with self._lock:
                    del self._running[log]
                    self.done += work

    def _watch(self) -> None:
        while not self._ended.wait(POLL):
            with self._lock:
                done = self.done
                for log, (own, before, bar) in self._running.items():
                    share = trained_share(log, before)
                    bar.advance(round(100 * share))
                    done += own * share
                work = max(self._ahead, self._expected)
                self._bar.advance(round(100 * done / work) if work else 0)


def trained_share(log: Path, after: int = 0) -> float:
    """How much of its training a run has done, in [0, 1], by the last such line after the first ``after`` bytes."""
    try:
        with log.open("rb") as file:
            file.seek(max(after, log.stat().st_size - _TAIL))
            found = _DONE.findall(file.read())
    except OSError:
        return 0.0
    return min(1.0, int(found[-1][0]) / max(1, int(found[-1][1]))) if found else 0.0
