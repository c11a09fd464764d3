"""Atomic writes: a file or folder is complete or it is not there.

What is being written has a hidden name, ``.NAME.TAG-PID.tmp`` or ``.NAME.TAG-PID.*.partial``, where TAG tells computers
and containers apart: `remove_leftovers` finds what killed processes have left.
"""

import functools
import os
import platform
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlomae.common.errors import ConfigError, DataError

LEFT_BEHIND = 86_400.0
"""Seconds after which the file of a process that cannot be looked for, on another computer, counts as left behind."""

_HIDDEN = re.compile(r"\..+?\.(?:(?P<tag>[0-9a-f]{8})-)?(?P<pid>\d+)(?:\.\w+)?\.(?:tmp|partial)")


@functools.cache
def _tag() -> str:
    """Eight digits that are the same for all processes that see each other, and hardly elsewhere."""
    space = ""
    with suppress(OSError):  # containers on a computer may share its name
        space = str(os.stat("/proc/self/ns/pid").st_ino) + Path("/proc/sys/kernel/random/boot_id").read_text()
    return f"{zlib.crc32((platform.node() + space).encode()):08x}"


def hidden_name(name: str) -> str:
    """How the name begins under which this process writes what becomes ``name``."""
    return f".{name}.{_tag()}-{os.getpid()}"


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove what killed processes were writing into ``folder``, all of it or what was to become ``name``.

    What another computer's processes write is left alone for a day, and so is what version 0.2 wrote, without a tag.
    """
    with suppress(OSError):  # another process may be doing the same, and it is no run's task
        for entry in list(os.scandir(folder)):
            found = _HIDDEN.fullmatch(entry.name)
            if found is None or not entry.name.startswith(f".{name}." if name else "."):
                continue
            if found["tag"] == _tag() and os.name == "posix":
                left = not _lives(int(found["pid"]))
            else:
                left = time.time() - entry.stat(follow_symlinks=False).st_mtime > LEFT_BEHIND
            if left and entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif left:
                Path(entry.path).unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user
        return True
    return True


@contextmanager
def replacing(path: Path, alone: bool = False, new: bool = False) -> Iterator[Path]:
    """A temporary path next to ``path`` to write to; renamed to ``path`` at the end, removed if anything fails.

    It ends in ``.tmp``, unlike finished files: writers that infer the format from the suffix must be told the format.
    ``alone``: no other process writes ``path``, so what a killed one has left is written over. ``new``: nothing is
    replaced; FileExistsError for all but the first of several processes that write ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp" if alone else f"{hidden_name(path.name)}.tmp")
    try:
        yield temporary
        _sync(temporary)
        if new:
            _link(temporary, path)
        else:
            os.replace(temporary, path)
        with suppress(OSError):  # not every file system can
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder of the same name in a hidden one next to ``path``; moved to ``path`` at the end, removed if
    anything fails.

    Raises ConfigError if ``path`` exists, DataError if it cannot be written.
    """
    place = Path(path).expanduser().absolute()
    if place.exists() or place.is_symlink():
        raise ConfigError(f"{place} exists; name a new folder or remove this one")
    outer = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place.parent, place.name)
        outer = Path(tempfile.mkdtemp(prefix=f"{hidden_name(place.name)}.", suffix=".partial", dir=place.parent))
        inner = outer / place.name  # what mkdtemp makes only its owner can read: a folder inside it becomes ``path``
        inner.mkdir()
        yield inner
        os.replace(inner, place)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{place} cannot be written ({reason}); free space or name another folder") from error
    finally:
        if outer is not None:
            shutil.rmtree(outer, ignore_errors=True)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk: after a power failure the file is whole or not there."""
    if os.name == "posix":  # Windows has no such call for folders, nor for files that are open for reading alone
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _link(temporary: Path, path: Path) -> None:
    """Give the file a second name, which no other file may have: renaming would replace it."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with open(path, "xb") as file:
            file.write(temporary.read_bytes())


def write_text(path: Path, text: str, new: bool = False) -> None:
    """Write a text file as `replacing` does, in UTF-8, with LF line endings on every system."""
    with replacing(path, new=new) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
