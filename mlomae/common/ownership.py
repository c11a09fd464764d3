"""A folder has one owner at a time: a lock that the system drops when the process dies, however it dies."""

import datetime
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mlomae.common.atomic import remove_leftovers, write_text
from mlomae.common.errors import ConfigError

LOCK = ".lock"
_ATTEMPTS = 5


class InUse(ConfigError):
    """Another process owns the folder."""


@contextmanager
def owned(place: Path, lock: Path | None = None, patience: float = 1.0) -> Iterator[None]:
    """Own ``place`` within the block; it may be read all the while. What killed processes were writing there is
    removed.

    ``lock``: the file to lock, by default one in the folder ``place``. A file beside it says who the owner is. Both are
    gone after the block; those of a killed process are taken over. Raises InUse, which names the owner, if another one
    has not let go after ``patience`` seconds: it may have begun this instant, and not yet have written who it is.
    """
    lock = lock or place / LOCK
    made = [folder for folder in (lock.parent, *lock.parent.parents) if not folder.exists()]
    held = FileLock(lock)
    try:
        for _ in range(_ATTEMPTS):  # another process may remove the folders that it has made, between the two lines
            with suppress(FileNotFoundError):
                lock.parent.mkdir(parents=True, exist_ok=True)
                held.acquire(timeout=patience)
                break
        else:
            raise InUse(f"'{place}' is removed by other processes again and again; choose another folder")
    except Timeout as error:
        owner = owner_of(lock) or "another process"
        raise InUse(f"'{place}' is in use by {owner}; wait until it has ended, or choose another folder") from error
    try:
        started = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        if place == lock.parent:
            for folder in (place, *(entry for entry in place.iterdir() if entry.is_dir() and not entry.is_symlink())):
                remove_leftovers(folder)
        else:  # a file, or a folder that is replaced as a whole
            remove_leftovers(place.parent, place.name)
        remove_leftovers(lock.parent, _about(lock).name)
        write_text(_about(lock), f"process {os.getpid()} on {platform.node()}, started {started}")
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file
            _about(lock).unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
        held.release()
        with suppress(OSError):  # it holds a run
            for folder in made:
                folder.rmdir()


def owner_of(lock: Path) -> str | None:
    """Process, host and time of start of the owner of a lock, None if it is free."""
    if not lock.is_file():
        return None
    try:
        with FileLock(lock).acquire(timeout=0):
            return None
    except Timeout:
        with suppress(OSError):
            return _about(lock).read_text(encoding="utf-8").strip() or "another process"
    return "another process"


def _about(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.owner")
