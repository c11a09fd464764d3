"""CIFAR-10 and CIFAR-100, from the published Python batches or from class folders of images.

The batches are pickles, which can run code when loaded; a restricted unpickler rebuilds arrays and plain containers
and refuses everything else. Shares of near copies: Barz, Denzler, "Do We Train on Test Data? Purging CIFAR of
Near-Duplicates", Journal of Imaging, 2020.
"""

import codecs
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from mlomae.common.errors import DataError, reason_of
from mlomae.data.images import MemorySource
from mlomae.data.paths import existing_folder, scan_classes, split_folder
from mlomae.data.reader import decode_all
from mlomae.data.registry import Download, Published, check_split, register_dataset

URL = "https://www.cs.toronto.edu/~kriz"


class _Cifar(MemorySource):
    """CIFAR decoded into memory: (N, 3, 32, 32) uint8.

    Args:
        root: contains the folder of the batches, is that folder, or contains image folders ``train/<class>/`` and
            ``test/<class>/``; if both exist the batches are read.
        split: ``train`` or ``test``.
        partial: accept a training set that lacks some batch files.

    Raises DataError if files are missing, damaged or would run code; ConfigError for an unknown split.
    """

    batches: str
    files: ClassVar[Mapping[str, Sequence[str]]]
    label_key: str
    meta: str
    names_key: str
    count: int

    def __init__(self, root: str, split: str = "train", partial: bool = False) -> None:
        check_split(self.name, split)
        base = existing_folder(root, self.name)
        for folder in (base / self.batches, base):
            if any((folder / file).is_file() for files in self.files.values() for file in files):
                self._read_batches(folder.resolve(), split, partial)
                return
        if not (base / "train").is_dir() and not (base / "test").is_dir():
            expected = f"{self.batches}/ with {self.files[split][0]}, or {split}/<class>/*.png"
            raise self.fault(f"nothing to read in {base}", f"expected {expected}")
        classes, listed = scan_classes(split_folder(base, split, self.name))
        images_NCHW, places = decode_all(listed.folder, listed.files), [str(listed.folder)]
        super().__init__(self.name, split, str(base), classes, images_NCHW, listed.labels, places)
        self.left_out = listed.left_out

    def _read_batches(self, folder: Path, split: str, partial: bool) -> None:
        files = [folder / file for file in self.files[split] if (folder / file).is_file()]
        missing = [file for file in self.files[split] if not (folder / file).is_file()]
        if not files or (missing and not partial):
            remedy = "unpack the whole archive" + (", or set partial=True to use the others" if files else "")
            raise self.fault(f"{folder} lacks {', '.join(missing)}", remedy)
        pixels, labels = zip(*(self._arrays(file) for file in files), strict=True)
        images_NCHW = torch.from_numpy(np.concatenate(pixels))
        if not len(images_NCHW):
            raise self.fault(f"the {split} batches in {folder} hold no image")
        names, places = self._class_names(folder / self.meta), [str(file.resolve()) for file in files]
        super().__init__(self.name, split, str(folder), names, images_NCHW, np.concatenate(labels), places)

    def _arrays(self, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Pixels (N, 3, 32, 32) uint8 and labels (N,) int64 of one batch file, checked."""
        batch, key = read_batch(path), self.label_key
        pixels, labels = batch.get("data"), batch.get(key)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
            raise _damaged(path, "`data` is not uint8 of shape (N, 3072)")
        if not isinstance(labels, (list, np.ndarray)) or len(labels) != len(pixels):
            raise _damaged(path, f"`{key}` is missing or not one label per image")
        if not all(isinstance(n, int) and 0 <= n < self.count for n in np.asarray(labels, dtype=object).tolist()):
            raise _damaged(path, f"`{key}` are not integers in 0..{self.count - 1}")
        return pixels.reshape(-1, 3, 32, 32), np.asarray(labels, dtype=np.int64)

    def _class_names(self, path: Path) -> list[str]:
        if not path.is_file():
            return [f"class_{i:02d}" for i in range(self.count)]
        names = read_batch(path).get(self.names_key)
        if not isinstance(names, list) or len(names) != self.count:
            raise _damaged(path, f"`{self.names_key}` is not a list of {self.count} names")
        return [str(_text(name)) for name in names]


@register_dataset(
    "cifar10",
    Published({"train": 50_000, "test": 10_000}, 10, near_copies=0.033),
    Download("cifar-10-batches-py", {f"{URL}/cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}),
)
class Cifar10(_Cifar):
    """CIFAR-10, from ``cifar-10-batches-py`` or class folders."""

    batches = "cifar-10-batches-py"
    files: ClassVar = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    label_key, meta, names_key, count = "labels", "batches.meta", "label_names", 10


@register_dataset(
    "cifar100",
    Published({"train": 50_000, "test": 10_000}, 100, near_copies=0.10),
    Download("cifar-100-python", {f"{URL}/cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"}),
)
class Cifar100(_Cifar):
    """CIFAR-100 with its 100 fine labels, from ``cifar-100-python`` or class folders."""

    batches = "cifar-100-python"
    files: ClassVar = {"train": ["train"], "test": ["test"]}
    label_key, meta, names_key, count = "fine_labels", "meta", "fine_label_names", 100


def read_batch(path: Path) -> dict[str, Any]:
    """The dict pickled in ``path``, keys as str. Raises DataError if it is damaged, not a dict, or would run code."""
    try:
        with path.open("rb") as file:
            content = _RestrictedUnpickler(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise _damaged(path, reason_of(error)) from error
    if not isinstance(content, dict):
        raise _damaged(path, f"it holds {type(content).__name__}, not a dict")
    return {_text(key): value for key, value in content.items()}


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"cannot read CIFAR file {path}: {what}; download it again from the publisher")


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _latin1_bytes(text: str, encoding: str = "latin1") -> bytes:
    """Python 3 writes bytes in pickle protocol 2 as a call of ``_codecs.encode``; only this use of it is allowed."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"codec {encoding!r} is not allowed")
    return codecs.latin_1_encode(text)[0]


_CONTAINERS = (bytes, bytearray, list, dict, tuple, set)
# The functions that numpy names when it pickles an array, found without importing private modules; the modules were
# renamed in numpy 2.0, as `builtins` was in Python 3.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1_bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): np.zeros(1).__reduce__()[0] for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0] for core in ("core", "_core")},
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in _CONTAINERS},
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not an array or a plain container")
        return _ALLOWED[module, name]
