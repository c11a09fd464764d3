"""Files of arrays: NumPy's ``npz`` without pickled objects, so that reading one runs no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlomae.common.atomic import replacing
from mlomae.common.errors import DataError, reason_of


def save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write the file, all of it or nothing; one that is already there is replaced."""
    with replacing(path) as temporary, temporary.open("wb") as file:  # given a name, numpy would append .npz
        np.savez_compressed(file, **arrays)


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """What `save_arrays` wrote. Raises DataError, one line that names the file, if it is missing or damaged."""
    if not path.is_file():
        raise DataError(f"predictions file '{path}' does not exist; run the benchmark first or name another file")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # a damaged zip can raise anything
        raise DataError(
            f"cannot read predictions file '{path}' ({reason_of(error)}); run the benchmark again"
        ) from error
