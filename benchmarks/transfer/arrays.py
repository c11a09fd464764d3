"""Files of arrays: NumPy's ``npz`` without pickled objects, so that reading one runs no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlomae.atomic import replacing


def save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write the file, all of it or nothing; one that is already there is replaced."""
    with replacing(path) as temporary, temporary.open("wb") as file:  # given a name, numpy would append .npz
        np.savez_compressed(file, **arrays)
