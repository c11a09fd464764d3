"""CIFAR-10 and CIFAR-100, from the published Python batches or from class folders of images.

The batches are pickles, which can run code when loaded; a restricted unpickler rebuilds arrays and plain containers
and refuses everything else.
"""

from __future__ import annotations

import codecs
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlomae.common.errors import ConfigError, DataError, reason_of
from mlomae.data.formats.folder import decode_all, scan
from mlomae.data.memory import MemorySource
from mlomae.data.paths import existing_folder, split_folder
from mlomae.data.sources import Source, register_source


@dataclass(frozen=True)
class _Layout:
    folder: str
    files: dict[str, tuple[str, ...]]
    label_key: str
    meta: str
    names_key: str
    classes: int


_LAYOUTS = {
    "cifar10": _Layout(
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        *("labels", "batches.meta", "label_names", 10),
    ),
    "cifar100": _Layout(
        "cifar-100-python",
        {"train": ("train",), "test": ("test",)},
        *("fine_labels", "meta", "fine_label_names", 100),
    ),
}


def _latin1_bytes(text: str, encoding: str = "latin1") -> bytes:
    """What Python 3 writes for bytes in pickle protocol 2 is a call of ``_codecs.encode``; only this use is allowed."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"codec {encoding!r} is not allowed")
    return codecs.latin_1_encode(text)[0]


def _allowed(module: str, name: str) -> Any:
    if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
        return getattr(np, name)
    core = module.removeprefix("numpy._core.").removeprefix("numpy.core.")  # numpy renamed it in 2.0
    if core != module and (core, name) in {("multiarray", "_reconstruct"), ("numeric", "_frombuffer")}:
        # The functions numpy itself names when it pickles an array, without importing a private module of either name.
        return np.zeros(1).__reduce__()[0] if name == "_reconstruct" else np.zeros(1).__reduce_ex__(5)[0]
    if module in ("builtins", "__builtin__") and name in {"bytes", "bytearray", "list", "dict", "tuple", "set"}:
        return getattr(__import__("builtins"), name)
    if (module, name) == ("_codecs", "encode"):
        return _latin1_bytes
    return None


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _allowed(module, name)
        if found is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not an array or a plain container")
        return found


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def read_batch(path: Path) -> dict[str, Any]:
    """The dict pickled in ``path``, keys as str. Raises DataError if it is damaged, not a dict, or would run code."""
    try:
        with path.open("rb") as file:
            content = _RestrictedUnpickler(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        said = f"cannot read CIFAR batch {path}: {reason_of(error)}"
        raise DataError(f"{said}; download it again from the publisher") from error
    if not isinstance(content, dict):
        raise DataError(
            f"cannot read CIFAR batch {path}: it holds {type(content).__name__}, not a dict; download it again"
        )
    return {_text(key): value for key, value in content.items()}


def _arrays(path: Path, layout: _Layout) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (N, 3, 32, 32) uint8 and labels (N,) int64 of one batch file, checked."""
    batch = read_batch(path)
    pixels, labels = batch.get("data"), batch.get(layout.label_key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072:
        raise DataError(f"CIFAR batch {path}: `data` is not uint8 of shape (N, 3072); download it again")
    if not isinstance(labels, (list, np.ndarray)) or len(labels) != len(pixels):
        raise DataError(
            f"CIFAR batch {path}: `{layout.label_key}` is missing or not one label an image; download it again"
        )
    try:
        labels_N = np.asarray(labels).astype(np.int64, casting="same_kind")
    except (TypeError, ValueError):
        raise DataError(f"CIFAR batch {path}: `{layout.label_key}` are not integers; download it again") from None
    if len(labels_N) and not (labels_N.min() >= 0 and labels_N.max() < layout.classes):
        raise DataError(f"CIFAR batch {path}: labels outside 0..{layout.classes - 1}; download it again")
    return pixels.reshape(-1, 3, 32, 32), labels_N


def _class_names(folder: Path, layout: _Layout) -> list[str]:
    if not (folder / layout.meta).is_file():
        return [f"class_{i:02d}" for i in range(layout.classes)]
    names = read_batch(folder / layout.meta).get(layout.names_key)
    if not isinstance(names, list) or len(names) != layout.classes:
        wrong = f"`{layout.names_key}` is not a list of {layout.classes} names"
        raise DataError(f"CIFAR meta file {folder / layout.meta}: {wrong}; download it again")
    return [str(_text(name)) for name in names]


def _from_batches(name: str, folder: Path, split: str, partial: bool) -> MemorySource:
    layout = _LAYOUTS[name]
    wanted = layout.files[split]
    files = [folder / file for file in wanted if (folder / file).is_file()]
    missing = [file for file in wanted if not (folder / file).is_file()]
    if not files or (missing and not partial):
        remedy = "unpack the whole archive" + (", or set partial=True to use the others" if files else "")
        raise DataError(f"{name} {split}: {folder} lacks {', '.join(missing)}; {remedy}")
    pixels, labels = zip(*(_arrays(file, layout) for file in files), strict=True)
    images_NCHW = torch.from_numpy(np.concatenate(pixels))
    if not len(images_NCHW):
        raise DataError(f"{name} {split}: the batches in {folder} hold no image; download them again")
    names = _class_names(folder, layout)
    locations = [str(file.resolve()) for file in files]
    return MemorySource(name, split, str(folder), names, images_NCHW, np.concatenate(labels), locations)


def _from_folders(name: str, root: Path, split: str) -> MemorySource:
    folder = split_folder(root, split, name)
    classes, files, labels = scan(folder)
    return MemorySource(name, split, str(root), classes, decode_all(folder, files), labels, [str(folder)])


def _cifar(name: str, root: str, split: str, partial: bool) -> MemorySource:
    if split not in ("train", "test"):
        raise ConfigError(f"{name}: unknown split {split!r}; valid splits: train, test")
    base, layout = existing_folder(root, name), _LAYOUTS[name]
    for folder in (base / layout.folder, base):
        if any((folder / file).is_file() for files in layout.files.values() for file in files):
            return _from_batches(name, folder.resolve(), split, partial)
    if (base / "train").is_dir() or (base / "test").is_dir():
        return _from_folders(name, base, split)
    expected = f"{layout.folder}/ with {layout.files[split][0]}, or {split}/<class>/*.png"
    raise DataError(f"{name}: nothing to read in {base}; expected {expected}")


@register_source("cifar10")
def cifar10(root: str, split: str = "train", partial: bool = False) -> Source:
    """CIFAR-10 decoded into memory: (N, 3, 32, 32) uint8.

    Args:
        root: holds ``cifar-10-batches-py``, or is that folder, or holds image folders ``train/<class>/`` and
            ``test/<class>/``; the batches are preferred where both exist.
        split: ``train`` or ``test``.
        partial: accept a training set of which some batch files are absent.

    Raises DataError if files are missing, damaged or would run code; ConfigError for an unknown split.
    """
    return _cifar("cifar10", root, split, partial)


@register_source("cifar100")
def cifar100(root: str, split: str = "train", partial: bool = False) -> Source:
    """CIFAR-100 with its 100 fine labels, from ``cifar-100-python`` or class folders; otherwise as ``cifar10``."""
    return _cifar("cifar100", root, split, partial)
