"""Checks on the folders and files a user names, with messages that say what to do."""

from __future__ import annotations

import os
from pathlib import Path

from mlomae.errors import DataError


def existing_folder(path: str | os.PathLike[str], what: str) -> Path:
    """``path`` with ``~`` and symlinks resolved. Raises DataError, opening with ``what``, unless it is a folder."""
    folder = Path(path).expanduser()
    if not folder.exists():
        raise DataError(f"{what}: {folder} does not exist; give the folder that holds the data as `root`")
    if not folder.is_dir():
        raise DataError(f"{what}: {folder} is a file, not a folder; give the unpacked folder as `root`")
    return folder.resolve()
