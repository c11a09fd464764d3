"""Finds a data set in the folders and files that a user names, with messages that say what to do."""

import functools
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from mlomae.common.errors import DataError
from mlomae.data.reader import is_hidden, is_image


def existing_folder(path: str | os.PathLike[str], what: str) -> Path:
    """``path`` with ``~`` and symlinks resolved. Raises DataError, beginning with ``what``, unless it is a folder."""
    folder = Path(path).expanduser()
    if not folder.exists():
        raise DataError(f"{what}: {folder} does not exist; give the folder that holds the data as `root`")
    if not folder.is_dir():
        raise DataError(f"{what}: {folder} is a file, not a folder; give the unpacked folder as `root`")
    return folder.resolve()


def data_folder(root: str | os.PathLike[str], what: str, inner: Sequence[str], markers: Sequence[str]) -> Path:
    """The folder of a data set, resolved: ``root`` or one of its folders ``inner``, whichever holds one of ``markers``.

    If none has a marker: the first of ``inner`` that exists, else ``root``; the caller reports what is missing there.
    Raises DataError as ``existing_folder``.
    """
    base = existing_folder(root, what)
    folders = [base, *(base / name for name in inner if (base / name).is_dir())]
    for folder in folders:
        if any((folder / marker).exists() for marker in markers):
            return folder.resolve()
    return folders[min(1, len(folders) - 1)].resolve()


def existing_file(path: Path, what: str, remedy: str) -> Path:
    """``path``. Raises DataError, which begins with ``what``, unless it is a file."""
    if not path.is_file():
        raise DataError(f"{what}: {path} is missing; {remedy}")
    return path


def inner_folder(path: Path, what: str, remedy: str) -> Path:
    """``path``, resolved. Raises DataError, which begins with ``what``, unless it is a folder."""
    if not path.is_dir():
        raise DataError(f"{what}: {path} is missing; {remedy}")
    return path.resolve()


def split_folder(root: Path, split: str, what: str) -> Path:
    """``root/split``, resolved. Raises DataError listing the folders that exist if it is not one of them."""
    folder = root / split
    if not split or not folder.is_dir():
        have = ", ".join(sorted(e.name for e in root.iterdir() if e.is_dir())) or "none"
        raise DataError(f"{what}: no folder {split!r} in {root}; set `split` to one that exists ({have})")
    return folder.resolve()


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in ``folder``, sorted, without hidden ones."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_hidden(entry.name))


@dataclass(frozen=True)
class LabelledFiles:
    """``files`` (N) relative to ``folder``, which is resolved, and their labels (N)."""

    folder: Path
    files: Sequence[str]
    labels: ArrayLike


def scan_classes(folder: Path) -> tuple[list[str], LabelledFiles]:
    """Class folders of ``folder``, sorted, and their image files, sorted within a class.

    Raises DataError if there is no class folder, or one holds no image.
    """
    classes = subfolders(folder)
    if not classes:
        raise DataError(f"{folder} has no class folders; expected {folder}{os.sep}<class>{os.sep}*.jpg")
    found = {name: sorted(_image_files(folder / name)) for name in classes}
    if empty := [name for name in classes if not found[name]]:
        raise DataError(f"class folder {folder / empty[0]} holds no image; fill it or delete it")
    files = [os.path.join(name, file) for name in classes for file in found[name]]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(found[name]) for name in classes])
    return classes, LabelledFiles(folder, files, labels)


def _image_files(folder: Path) -> Iterator[str]:
    """Image files below ``folder``, relative to it; follows each symlinked folder once, so that loops end."""
    seen: set[str] = set()
    for here, below, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = [name for name in below if not is_hidden(name)]
        yield from (os.path.relpath(os.path.join(here, file), folder) for file in files if is_image(file))


def missing_files(folder: Path, files: Iterable[str]) -> list[str]:
    """Those of ``files`` (relative to ``folder``) that do not exist, in order; lists each folder once.

    A dangling symlink counts as a file: checking each file would take minutes on a network disk.
    """

    @functools.cache
    def names(inner: str) -> frozenset[str]:
        try:
            return frozenset(os.listdir(folder / inner))
        except OSError:
            return frozenset()

    return [file for file in files if os.path.basename(file) not in names(os.path.dirname(file))]


def match_spelling(folder: Path, files: Sequence[str]) -> list[str]:
    """``files`` as ``folder`` spells them: one that is missing there becomes the one that differs only in backslashes
    or in the Unicode form of accents, as other systems write them, if that exists."""
    missing = set(missing_files(folder, files))

    def spelling(file: str) -> str:
        plain = file.replace("\\", "/")
        forms = [plain, *(unicodedata.normalize(form, plain) for form in ("NFC", "NFD"))]
        return next((form for form in forms if (folder / form).is_file()), file)

    return [spelling(file) if file in missing else file for file in files]
