"""Files in which published data sets list images and labels: MATLAB arrays and numbered lines of text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlomae.common.errors import DataError, reason_of
from mlomae.data.paths import existing_file


def read_mat(path: Path, what: str, variable: str, remedy: str) -> NDArray[Any]:
    """A variable of the MATLAB file at ``path``, without axes of length one, as an array of at least one axis.

    Reading such a file runs no code. Raises DataError, opening with ``what``, if the file is missing or damaged, or
    lacks the variable.
    """
    from scipy.io import loadmat

    existing_file(path, what, remedy)
    try:
        content = loadmat(path, squeeze_me=True)
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{what}: cannot read {path} ({reason_of(error)}); {remedy}") from error
    if variable not in content:
        raise DataError(f"{what}: {path} holds no variable '{variable}'; {remedy}")
    return np.atleast_1d(content[variable])


def integers(values: Any, path: Path, what: str, remedy: str) -> NDArray[np.int64]:
    """``values`` as (N,) int64. Raises DataError, opening with ``what``, if they are not whole numbers."""
    try:
        array = np.asarray(values).astype(np.float64)
        if array.ndim == 1 and np.array_equal(array, array.round()):
            return array.astype(np.int64)
    except (TypeError, ValueError):
        pass
    raise DataError(f"{what}: {path} holds something else than whole numbers; {remedy}")


def read_numbered(path: Path, what: str, remedy: str) -> dict[int, str]:
    """Lines ``<number> <rest>`` of a text file, by number.

    Raises DataError, opening with ``what``, if the file is missing, or naming a line that is not one or repeats a
    number.
    """
    existing_file(path, what, remedy)
    table: dict[int, str] = {}
    for line_number, line in enumerate(path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(), 1):
        if not line.strip():
            continue
        number, _, rest = line.strip().partition(" ")
        if not number.isdecimal() or not rest.strip() or int(number) in table:
            raise DataError(f"{what}: {path}, line {line_number}: expected a new number and a value; {remedy}")
        table[int(number)] = rest.strip()
    return table
