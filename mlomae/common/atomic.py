"""Atomic writes: a file or folder is complete or it is not there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlomae.common.errors import ConfigError, DataError


@contextmanager
def replacing(path: Path, alone: bool = False) -> Iterator[Path]:
    """A temporary path next to ``path`` to write to; renamed to ``path`` at the end, removed if anything fails.

    It ends in ``.tmp``, unlike finished files: writers that infer the format from the suffix must be told the format.
    ``alone``: no other process writes ``path``, so what a killed one has left is written over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp" if alone else f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
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


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8, with LF line endings on every system."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
