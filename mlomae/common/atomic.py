"""Atomic writes: a file or folder is complete or it is not there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlomae.common.errors import ConfigError, DataError


@contextmanager
def replacing(path: Path, alone: bool = False, new: bool = False) -> Iterator[Path]:
    """A temporary path next to ``path`` to write to; renamed to ``path`` at the end, removed if anything fails.

    It ends in ``.tmp``, unlike finished files: writers that infer the format from the suffix must be told the format.
    ``alone``: no other process writes ``path``, so what a killed one has left is written over. ``new``: nothing is
    replaced; FileExistsError for all but the first of several processes that write ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp" if alone else f".{path.name}.{os.getpid()}.tmp")
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
        outer = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".partial", dir=place.parent))
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
