"""What can be armed in a process: to die or to fail at its n-th write, and to die after some processor time.

Writes are seen by an audit hook: every rename, link, unlink, mkdir, rmdir and open for writing below a folder, before
it takes place. A hook cannot be removed, so it is for processes that end.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGES = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.symlink")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def on_writes(folder: Path, act: Callable[[int, str, str], None]) -> None:
    """Call ``act(n, event, path)`` before this process writes below ``folder`` for the n-th time, from 1."""
    place, process, count = str(folder), os.getpid(), 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event != "open" and event not in _CHANGES:
            return
        if os.getpid() != process or (event == "open" and not args[2] & _WRITING):
            return
        names = [os.fspath(name) for name in args[:2] if isinstance(name, str | os.PathLike)]
        paths = [os.path.abspath(name) for name in names[: 1 if event == "open" else 2]]
        if any(path.startswith(place) for path in paths):
            count += 1
            act(count, event, paths[-1])

    sys.addaudithook(hook)


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(folder: Path, n: int) -> Callable[[], None]:
    """Arms a process to die before its n-th write below ``folder``."""
    return lambda: on_writes(folder, lambda at, *_: die() if at == n else None)


def die_after(seconds: float) -> Callable[[], None]:
    """Arms a process to be ended by the kernel, wherever it is, after ``seconds`` of processor time.

    The signal is SIGPROF, which nothing catches: like SIGKILL, but at the same moment on a busy machine.
    """

    def arm() -> None:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, max(seconds, 1e-4))

    return arm


def fail_at(folder: Path, code: int, first: int, last: int | None = None) -> Callable[[], None]:
    """Arms a process whose writes below ``folder``, from the ``first`` to the ``last`` one, end in that OSError."""

    def act(n: int, event: str, path: str) -> None:
        if first <= n and (last is None or n <= last):
            raise OSError(code, os.strerror(code), path)

    return lambda: on_writes(folder, act)


def noted(folder: Path, into: Path) -> Callable[[], None]:
    """Arms a process to list its writes below ``folder`` in the file ``into``, which is outside."""

    def arm() -> None:
        file = into.open("w")

        def act(n: int, event: str, path: str) -> None:
            file.write(f"{event} {os.path.relpath(path, folder)}\n")
            file.flush()

        on_writes(folder, act)

    return arm
