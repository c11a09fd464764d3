"""Files of predictions for every test image, so that two runs can be compared on the same images.

A file is a NumPy ``npz`` without pickled objects: reading one runs no code, and needs neither torch nor mmseg.
"""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlomae.common.atomic import replacing
from mlomae.common.errors import DataError, reason_of

T = TypeVar("T")
Arrays = dict[str, NDArray[Any]]
Identity = dict[str, Any]
_TEXTS = ("format", "test_set", "config_hash", "run")


@dataclass(frozen=True)
class PredictionFormat(Generic[T]):
    """One kind of file, with arrays that have a row for each image, sorted by "index".

    Attributes:
        format: its name and version. images: builds the object that is saved and read, from ``arrays``.
        arrays: name -> (kind of its type, number of dimensions).
        problem: what is wrong with arrays of these types, given the number of classes; None if nothing is.
        optional: texts that older files lack.
    """

    format: str
    images: Callable[..., T]
    arrays: Mapping[str, tuple[str, int]]
    problem: Callable[[Arrays, int], str | None]
    optional: tuple[str, ...] = ()

    def save(
        self, path: str | Path, images: T, *, class_names: Sequence[str], test_set: str, run: str, config_hash: str
    ) -> None:
        """Write the file, all of it or nothing; one that is already there is replaced.

        Raises DataError if the parts do not fit together, as `read`.
        """
        texts = {"format": self.format, "test_set": test_set, "run": run, "config_hash": config_hash}
        arrays: dict[str, Any] = {name: np.asarray(text) for name, text in texts.items()}
        arrays |= {name: getattr(images, name) for name in self.arrays}
        arrays["class_names"] = np.array(list(class_names), dtype=np.str_)
        self._check(arrays, Path(path))
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:  # given a name, numpy would append .npz
            np.savez_compressed(file, **arrays)

    def read(self, path: str | Path) -> tuple[T, Identity]:
        """Read and check a file of `save`: the images, and the fields of a `TestedRun` that identify the run.

        Raises DataError, one line that names the file, if it is missing, damaged, of another kind or contradicts
        itself.
        """
        arrays = _load(Path(path))
        self._check(arrays, Path(path))
        identity: Identity = {name: str(arrays[name]) if name in arrays else None for name in _TEXTS[1:]}
        identity |= {"file": Path(path).name, "class_names": tuple(map(str, arrays["class_names"]))}
        return self.images(*(arrays[name] for name in self.arrays)), identity

    def _check(self, arrays: Arrays, path: Path) -> None:
        if wrong := self._what_is_wrong(arrays):
            raise DataError(f"'{path}' is not a usable file of predictions: {wrong}; run the benchmark again")

    def _what_is_wrong(self, arrays: Arrays) -> str | None:
        texts = [name for name in (*_TEXTS, "class_names") if name in arrays or name not in self.optional]
        if missing := [name for name in (*texts, *self.arrays) if name not in arrays]:
            return f"it lacks '{missing[0]}'"
        for name in texts:
            if arrays[name].dtype.kind != "U" or arrays[name].ndim != (name == "class_names"):
                return f"'{name}' is not text"
        if str(arrays["format"]) != self.format:
            return f"its format is '{arrays['format']}', not '{self.format}'"
        for name, (kind, ndim) in self.arrays.items():
            if arrays[name].dtype.kind != kind or arrays[name].ndim != ndim:
                return f"'{name}' has type {arrays[name].dtype} and shape {arrays[name].shape}"
        wrong = self.problem(arrays, len(arrays["class_names"]))
        if wrong is None and not (np.diff(arrays["index"]) > 0).all():
            return "its images are not sorted, or one is there twice"
        return wrong


def _load(path: Path) -> Arrays:
    if not path.is_file():
        raise DataError(f"predictions file '{path}' does not exist; run the benchmark first or name another file")
    if not zipfile.is_zipfile(path):  # numpy would suggest to load it with pickle
        raise DataError(f"cannot read predictions file '{path}' (it is no npz file); run the benchmark again")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # a damaged zip can raise anything
        raise DataError(
            f"cannot read predictions file '{path}' ({reason_of(error)}); run the benchmark again"
        ) from error
