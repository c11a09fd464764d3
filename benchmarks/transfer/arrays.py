"""Files of arrays: NumPy's ``npz`` without pickled objects, so that reading one runs no code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np


def save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write the file, all of it or nothing; one that is already there is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:  # given a name, numpy would append .npz
            np.savez_compressed(file, **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
