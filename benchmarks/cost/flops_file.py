"""The file that `benchmarks.cost.flops` writes, for readers that need no torch: {config hash: its operations}."""

import json
from pathlib import Path

from mlomae.common.errors import DataError

Entry = dict[str, int]
KEYS = ("lower_step", "upper", "total", "batch")


def read_flops(path: Path) -> dict[str, Entry]:
    """Hash of a configuration -> entry; empty without a file. Raises DataError for another content."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        valid = all(sorted(e) == sorted(KEYS) and all(type(v) is int for v in e.values()) for e in found.values())
    except (ValueError, AttributeError, TypeError):
        valid = False
    if not valid:
        raise DataError(f"'{path}' does not hold what `make flops` writes; remove it and run that again")
    return dict(found)
