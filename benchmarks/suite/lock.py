"""A run's folder belongs to one process at a time, and to it until it has ended, whoever started it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(folder: Path) -> Iterator[int | None]:
    """The open lock file, to be handed on to the process that runs there; None if another has it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file
    finally:
        os.close(file)  # the lock is free when the last process that has the file closes it


def is_held(folder: Path) -> bool:
    if not (folder / ".lock").is_file():
        return False
    with held(folder) as file:
        return file is None
