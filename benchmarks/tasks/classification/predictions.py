"""What a run said about every test image, in a file: so that two methods can be compared on the same images.

The file is NumPy's ``npz`` without pickled objects; reading it runs no code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tasks.classification.per_image import TOP, PerImage
from benchmarks.transfer.arrays import load_arrays, save_arrays
from mlomae.common.errors import DataError

FORMAT = "mlomae classification predictions 1"
_ARRAYS = {"index": ("i", 1), "label": ("i", 1), "top_classes": ("i", 2), "top_log_probs": ("f", 2)}
_TEXTS = ("format", "test_set", "run", "config_hash")


@dataclass(frozen=True, eq=False)
class Predictions:
    """``images`` sorted by index, and what they belong to.

    Attributes:
        class_names: one a class. test_set: fingerprint of the test set, as ``Source.fingerprint`` gives it.
        run: name of the run. config_hash: as `mlomae.records.config_hash` gives it.
    """

    images: PerImage
    class_names: tuple[str, ...]
    test_set: str
    run: str
    config_hash: str


def save_predictions(
    path: str | Path, images: PerImage, *, class_names: Sequence[str], test_set: str, run: str, config_hash: str
) -> None:
    """Write the file, all of it or nothing; one that is already there is replaced.

    Raises DataError if the parts do not fit together (see `read_predictions`).
    """
    path = Path(path)
    arrays: dict[str, Any] = {name: getattr(images, name) for name in _ARRAYS}
    arrays |= {"format": FORMAT, "test_set": test_set, "run": run, "config_hash": config_hash}
    arrays["class_names"] = np.array(list(class_names), dtype=np.str_)
    _check({name: np.asarray(value) for name, value in arrays.items()}, path)
    save_arrays(path, arrays)


def read_predictions(path: str | Path) -> Predictions:
    """Read and check a file of `save_predictions`.

    Raises DataError, one line that names the file, if it is missing, damaged, of another kind or contradicts itself.
    """
    path = Path(path)
    arrays = load_arrays(path)
    _check(arrays, path)
    images = PerImage(*(arrays[name] for name in _ARRAYS))
    texts = {name: str(arrays[name]) for name in _TEXTS[1:]}
    return Predictions(images, tuple(map(str, arrays["class_names"])), **texts)


def _check(arrays: dict[str, Any], path: Path) -> None:
    wrong = _what_is_wrong(arrays)
    if wrong:
        raise DataError(f"'{path}' is not a usable file of predictions: {wrong}; run the benchmark again")


def _what_is_wrong(arrays: dict[str, Any]) -> str | None:
    missing = [name for name in (*_TEXTS, "class_names", *_ARRAYS) if name not in arrays]
    if missing:
        return f"it lacks '{missing[0]}'"
    for name in (*_TEXTS, "class_names"):
        if arrays[name].dtype.kind != "U" or arrays[name].ndim != (name == "class_names"):
            return f"'{name}' is not text"
    if str(arrays["format"]) != FORMAT:
        return f"its format is '{arrays['format']}', not '{FORMAT}'"
    for name, (kind, ndim) in _ARRAYS.items():
        if arrays[name].dtype.kind != kind or arrays[name].ndim != ndim:
            return f"'{name}' has type {arrays[name].dtype} and shape {arrays[name].shape}"
    index, label, top, log_probs = (arrays[name] for name in _ARRAYS)
    n, classes = len(index), len(arrays["class_names"])
    width = min(TOP, classes)
    if not n or len(label) != n or top.shape != (n, width) or log_probs.shape != (n, width):
        return f"its arrays do not hold {n} images and {width} of {classes} classes each"
    if not (np.diff(index) > 0).all():
        return "its images are not sorted, or one is there twice"
    for name, values in (("label", label), ("top_classes", top)):
        if values.min() < 0 or values.max() >= classes:
            return f"'{name}' reaches outside its {classes} classes"
    if np.isnan(log_probs).any() or (log_probs[:, 1:] > log_probs[:, :-1]).any() or (log_probs > 1e-6).any():
        return "its log-probabilities are not sorted numbers up to 0"
    return None
