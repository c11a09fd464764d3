"""`sources.json`, which says of each figure which files it was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlomae.common.errors import DataError

SOURCES = "sources.json"


def read_sources(path: Path) -> dict[str, list[str]]:
    """{figure: files}, nothing if there is no file; DataError, one line, for one that is damaged."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"'{path}' is not valid JSON ({error}); remove it and run again") from error
    if not isinstance(found, dict) or not all(_is_entry(k, v) for k, v in found.items()):
        raise DataError(f"'{path}' does not map figures to lists of records; remove it and run again")
    return found


def _is_entry(figure: str, files: Any) -> bool:
    return Path(figure).name == figure and isinstance(files, list) and all(isinstance(file, str) for file in files)
