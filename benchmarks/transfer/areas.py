"""Pixels of every test image and class of a segmentation, in a file: so that two methods can be compared by image.

The file is NumPy's ``npz`` without pickled objects; reading it runs no code, and needs neither torch nor mmseg.

Shape legend: N images, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.transfer.arrays import load_arrays, save_arrays
from mlomae.common.errors import DataError

FORMAT = "mlomae segmentation areas 1"
_COUNTS = ("intersect", "predicted", "true")
_TEXTS = ("format", "test_set", "config_hash")


@dataclass(frozen=True)
class Areas:
    """Pixels of each image and class, (N, C) int64, ``index`` (N,): right ones, and all of prediction and truth."""

    index: NDArray[np.int64]
    intersect: NDArray[np.int64]
    predicted: NDArray[np.int64]
    true: NDArray[np.int64]

    @property
    def union(self) -> NDArray[np.int64]:
        return self.predicted + self.true - self.intersect


@dataclass(frozen=True)
class SavedAreas:
    """``areas`` sorted by index, and what they belong to, as in `benchmarks.tasks.classification.predictions`.

    ``run`` is None in files of before it was written.
    """

    areas: Areas
    class_names: tuple[str, ...]
    test_set: str
    run: str | None
    config_hash: str


def class_ious(areas: Areas) -> NDArray[np.float64]:
    """IoU of each class in percent, (C,); NaN for one that is neither predicted nor there."""
    return ious(areas.intersect.sum(axis=0), areas.union.sum(axis=0))


def ious(intersect: NDArray[Any], union: NDArray[Any]) -> NDArray[np.float64]:
    """IoUs in percent from sums of pixels, any shape; NaN where there is no pixel."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100.0 * intersect / union


def save_areas(
    path: Path, areas: Areas, *, class_names: tuple[str, ...], test_set: str, run: str, config_hash: str
) -> None:
    """Write the file, all of it or nothing; one that is already there is replaced."""
    arrays: dict[str, Any] = {name: getattr(areas, name) for name in ("index", *_COUNTS)}
    arrays |= {"format": FORMAT, "test_set": test_set, "run": run, "config_hash": config_hash}
    save_arrays(path, {**arrays, "class_names": list(class_names)})


def read_areas(path: Path) -> SavedAreas:
    """Read and check a file of `save_areas`.

    Raises DataError, one line that names the file, if it is missing, damaged, of another kind or contradicts itself.
    """
    arrays = load_arrays(path)
    if wrong := _what_is_wrong(arrays):
        raise DataError(f"'{path}' is not a usable file of areas: {wrong}; run the benchmark again")
    run = str(arrays["run"]) if "run" in arrays else None
    names = tuple(map(str, arrays["class_names"]))
    areas = Areas(*(arrays[name] for name in ("index", *_COUNTS)))
    return SavedAreas(areas, names, str(arrays["test_set"]), run, str(arrays["config_hash"]))


def _what_is_wrong(arrays: dict[str, NDArray[Any]]) -> str | None:
    missing = [name for name in (*_TEXTS, "class_names", "index", *_COUNTS) if name not in arrays]
    if missing:
        return f"it lacks '{missing[0]}'"
    for name in (*_TEXTS, "class_names", *(["run"] if "run" in arrays else [])):
        if arrays[name].dtype.kind != "U" or arrays[name].ndim != (name == "class_names"):
            return f"'{name}' is not text"
    if str(arrays["format"]) != FORMAT:
        return f"its format is '{arrays['format']}', not '{FORMAT}'"
    index, shape = arrays["index"], (len(arrays["index"]) if arrays["index"].ndim else 0, len(arrays["class_names"]))
    for name in ("index", *_COUNTS):
        wanted = shape[:1] if name == "index" else shape
        if arrays[name].dtype.kind != "i" or arrays[name].shape != wanted or not len(index):
            return f"'{name}' has type {arrays[name].dtype} and shape {arrays[name].shape}, not int64 and {wanted}"
    if not (np.diff(index) > 0).all():
        return "its images are not sorted, or one is there twice"
    intersect, predicted, true = (arrays[name] for name in _COUNTS)
    if intersect.min() < 0 or (intersect > np.minimum(predicted, true)).any():
        return "more pixels are right than there are"
    return None
