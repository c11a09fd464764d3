"""`mlomae` in a forked process, as a shell would see it: exit status, standard output and error; and the verdicts."""

import contextlib
import multiprocessing.process
import multiprocessing.util
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlomae import cli
from mlomae.common.errors import MlomaeError
from mlomae.common.ownership import LOCK
from tests.stress.harness import write_to

_ERROR = re.compile(r"^(?:mlomae[^:]*: )?error: ")  # argparse puts the name of the program before it


def nothing() -> None:
    pass


@dataclass(frozen=True)
class Ended:
    """``status``: as subprocess has it, negative for a signal. ``cpu``: processor seconds."""

    what: str
    status: int
    out: str
    err: str
    cpu: float

    def well(self) -> "Ended":
        """Itself, if it has ended with status 0 and without a traceback."""
        assert self.status == 0, f"{self.what}: status {self.status}, {self.last}"
        assert "Traceback" not in self.err, f"{self.what}: status 0 and a traceback, {self.last}"
        return self

    def killed(self) -> "Ended":
        """Itself, if a signal that cannot be caught has ended it."""
        assert self.status in (-signal.SIGKILL, -signal.SIGPROF), f"{self.what}: not killed, status {self.status}"
        return self

    def refused(self, *mentioned: str) -> "Ended":
        """Itself, if it has ended with a status of an error, one line that says so, and no traceback.

        ``mentioned``: regular expressions that the line must match.
        """
        assert "Traceback" not in self.err, f"{self.what}: traceback, {self.last}"
        assert self.status > 0, f"{self.what}: status {self.status}, not refused; {self.last}"
        lines = [line for line in self.err.splitlines() if _ERROR.match(line)]
        assert len(lines) == 1, f"{self.what}: {len(lines)} lines begin with error:, {self.last}"
        for text in mentioned:
            assert re.search(text, lines[0]), f"{self.what}: does not say {text!r}: {lines[0]}"
        return self

    def reports(self, *mentioned: str) -> "Ended":
        """Itself, if it is a `data check` that has found a problem, whose line matches ``mentioned``."""
        assert (self.status, self.err.count("Traceback")) == (1, 0), f"{self.what}: status {self.status}, {self.last}"
        lines = [line for line in self.out.splitlines() if line.startswith("problem: ")]
        assert lines, f"{self.what}: no line begins with problem:"
        for text in mentioned:
            assert any(re.search(text, line) for line in lines), f"{self.what}: does not say {text!r}: {lines[0]}"
        return self

    @property
    def last(self) -> str:
        """The last line of standard error."""
        return next((line for line in reversed(self.err.splitlines()) if line.strip()), "nothing on standard error")


class Command:
    """A command that has begun.

    ``arm`` is called in its process first; ``call`` is what is called in the place of `mlomae.cli.main`.
    """

    def __init__(self, *argv: Any, arm: Callable[[], None] = nothing, call: Callable[[], Any] | None = None) -> None:
        arguments = [str(value) for value in argv]
        self.what = f"mlomae {' '.join(arguments[:2])}" if arguments else "call"
        pipes = [os.pipe() for _ in range(2)]  # files would fall under a limit on the size of files
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:
            self._texts = {read: b"" for read, _ in pipes}
            for read, write in pipes:
                os.close(write)
                os.set_blocking(read, False)
            return
        multiprocessing.process._children.clear()  # type: ignore[attr-defined]  # they are its parent's
        status = 1
        try:
            write_to(*(write for _, write in pipes))
            arm()
            status = call() or 0 if call else cli.main(arguments)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            multiprocessing.util._exit_function()
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(status)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def owns(self, work: Path, seconds: float = 60.0) -> None:
        """Wait until the run owns its folder, or has ended: then it answers signals, and its processes have met."""
        deadline = time.monotonic() + seconds
        while not (work / LOCK).exists() and not os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            assert time.monotonic() < deadline, f"{self.what}: does not own its folder after {seconds:.0f} s"
            time.sleep(0.001)

    def wait(self, seconds: float = 100.0) -> Ended:
        """How it has ended; AssertionError if it has not within ``seconds``."""
        deadline = time.monotonic() + seconds
        while not (done := os.wait4(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"{self.what}: not at its end after {seconds:.0f} s")
            self._read()
            time.sleep(0.005)
        self._read()
        texts = [text.decode(errors="replace") for text in self._texts.values()]
        for read in self._texts:
            os.close(read)
        usage = done[2]
        return Ended(self.what, os.waitstatus_to_exitcode(done[1]), *texts, usage.ru_utime + usage.ru_stime)

    def _read(self) -> None:
        """What is in the pipes so far; a worker that outlives the command may hold their other ends."""
        for read in self._texts:
            with contextlib.suppress(BlockingIOError):
                while part := os.read(read, 1 << 16):
                    self._texts[read] += part


def command(*argv: Any, arm: Callable[[], None] = nothing, seconds: float = 100.0) -> Ended:
    """`mlomae ARGV` to its end."""
    return Command(*argv, arm=arm).wait(seconds)


def one_line(error: MlomaeError, *mentioned: str) -> None:
    """One of our errors must be one line that matches ``mentioned``."""
    text = str(error).strip()
    assert len(text.splitlines()) == 1, f"not one line: {text!r}"
    for pattern in mentioned:
        assert re.search(pattern, text), f"does not say {pattern!r}: {text}"


def refused_call(call: Callable[[], Any], *mentioned: str) -> None:
    """``call`` must raise one of our errors, of one line."""
    try:
        result = call()
    except MlomaeError as error:
        one_line(error, *mentioned)
    else:
        raise AssertionError(f"not refused: gave {str(result)[:80]}")
