"""Checks on the folders and files a user names, with messages that say what to do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mlomae.common.errors import DataError


def existing_folder(path: str | os.PathLike[str], what: str) -> Path:
    """``path`` with ``~`` and symlinks resolved. Raises DataError, opening with ``what``, unless it is a folder."""
    folder = Path(path).expanduser()
    if not folder.exists():
        raise DataError(f"{what}: {folder} does not exist; give the folder that holds the data as `root`")
    if not folder.is_dir():
        raise DataError(f"{what}: {folder} is a file, not a folder; give the unpacked folder as `root`")
    return folder.resolve()


def data_folder(root: str | os.PathLike[str], what: str, inner: Sequence[str], markers: Sequence[str]) -> Path:
    """Where a set lies, resolved: ``root`` or one of its folders ``inner``, whichever holds one of ``markers``.

    Without a marker the first existing inner folder, else ``root``: what is missing there is for the reader to say.
    Raises DataError as ``existing_folder``.
    """
    base = existing_folder(root, what)
    folders = [base, *(base / name for name in inner if (base / name).is_dir())]
    for folder in folders:
        if any((folder / marker).exists() for marker in markers):
            return folder.resolve()
    return folders[min(1, len(folders) - 1)].resolve()


def existing_file(path: Path, what: str, remedy: str) -> Path:
    """``path``. Raises DataError, opening with ``what``, unless it is a file."""
    if not path.is_file():
        raise DataError(f"{what}: {path} is missing; {remedy}")
    return path


def first_names(names: Iterable[object], most: int = 3) -> str:
    """The first names and how many more there are, e.g. ``a, b, c and 4 more``."""
    found = [str(name) for name in names]
    return ", ".join(found[:most]) + (f" and {len(found) - most:,} more" if len(found) > most else "")


def missing_files(folder: Path, files: Iterable[str]) -> list[str]:
    """Those of ``files`` (relative to ``folder``) that are not there, in order; lists each folder once.

    A dangling symlink counts as there: one look a file would take minutes on a network disk.
    """
    listed: dict[str, frozenset[str]] = {}
    missing = []
    for file in files:
        inner, name = os.path.split(file)
        if inner not in listed:
            try:
                listed[inner] = frozenset(os.listdir(folder / inner))
            except OSError:
                listed[inner] = frozenset()
        if name not in listed[inner]:
            missing.append(file)
    return missing


def split_folder(root: Path, split: str, what: str) -> Path:
    """``root/split``, resolved. Raises DataError listing the folders that exist if it is not one of them."""
    folder = root / split
    if not split or not folder.is_dir():
        have = ", ".join(sorted(e.name for e in root.iterdir() if e.is_dir())) or "none"
        raise DataError(f"{what}: no folder {split!r} in {root}; set `split` to one that exists ({have})")
    return folder.resolve()
